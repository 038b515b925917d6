"""Clocks and the GPU's load from files as a Jetson has them; jetson_clocks holds them for a while and lets go again."""

from __future__ import annotations

from pathlib import Path

import pytest
from board_files import Tools, put

from sage_edge.jetson.clocks import Clock, fastest_clocks, gpu_load, read_clocks
from sage_edge.runtime.errors import BoardError

CPU, GPU = "devices/system/cpu/cpufreq", "class/devfreq/17000000.gpu"


def orin(root: Path) -> Path:
    """/sys of an Orin with two clusters; the second one is number 10, after which names do not sort."""
    for policy, cores in (("policy10", "10 11"), ("policy4", "4 5 6 7")):
        speeds = {"scaling_cur_freq": 1190400, "scaling_min_freq": 729600, "scaling_max_freq": 1344000, "cpuinfo_max_freq": 1728000}
        put(root, {f"{CPU}/{policy}/related_cpus": cores, **{f"{CPU}/{policy}/{name}": value for name, value in speeds.items()}})
    put(root, {f"{GPU}/{name}_freq": value for name, value in {"cur": 612000000, "min": 306000000, "max": 918000000}.items()})
    put(root, {f"{GPU}/available_frequencies": "306000000 612000000 918000000 1020000000", f"{GPU}/device/load": 351})
    put(root, {"class/devfreq/15340000.vic/cur_freq": 115200000})
    return root


def test_clocks_are_found_by_name_and_in_mhz(tmp_path: Path) -> None:
    clocks = read_clocks(orin(tmp_path))
    assert clocks == [
        Clock("cpu4", 1190.4, 729.6, 1344.0, 1728.0),
        Clock("cpu10", 1190.4, 729.6, 1344.0, 1728.0),
        Clock("17000000.gpu", 612.0, 306.0, 918.0, 1020.0),
    ]
    assert not clocks[0].held
    assert gpu_load(tmp_path) == 0.351


def test_a_gpu_without_load_and_a_clock_that_cannot_be_read(tmp_path: Path) -> None:
    put(tmp_path, {f"class/devfreq/gpu-gpc-0/{name}_freq": 1575000000 for name in ("cur", "min", "max")})  # Thor
    put(tmp_path, {f"{CPU}/policy0/scaling_cur_freq": "<unknown>"})
    assert read_clocks(tmp_path) == [Clock("gpu-gpc-0", 1575.0, 1575.0, 1575.0, 1575.0)]
    assert gpu_load(tmp_path) is None
    assert read_clocks(tmp_path / "nowhere") == []


FILES = f'cpu="{{root}}/{CPU}/policy4 {{root}}/{CPU}/policy10"; gpu="{{root}}/{GPU}"'
HOLD = 'for p in $cpu; do cat $p/scaling_max_freq > $p/scaling_min_freq; done; cat "$gpu/max_freq" > "$gpu/min_freq"'
RESTORE = 'for p in $cpu; do echo 729600 > $p/scaling_min_freq; done; echo 306000000 > "$gpu/min_freq"'


def jetson_clocks(tools: Tools, root: Path, *, store: str = 'echo kept > "$2"', hold: str = HOLD, restore: str = RESTORE) -> None:
    tools.add("jetson_clocks", f'{FILES.format(root=root)}\ncase "$1" in --store) {store};; --restore) cat "$2"; {restore};; "") {hold};; esac')


def test_clocks_are_held_and_let_go_whatever_happens(tmp_path: Path, tools: Tools) -> None:
    root = orin(tmp_path / "sys")
    jetson_clocks(tools, root)
    before = read_clocks(root)

    def work() -> None:
        with fastest_clocks(root) as clocks:
            assert len(clocks) == 3
            assert all(clock.held for clock in clocks)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert read_clocks(root) == before
    assert [call.split()[1:2] for call in tools.calls] == [["--store"], [], ["--restore"]]
    kept = Path(tools.calls[0].split()[2])
    assert not kept.exists()
    assert tools.calls[2] == f"jetson_clocks --restore {kept}"


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ({"store": "echo 'Error: Run this script(/usr/bin/jetson_clocks) as a root user'; exit 1"}, r"--store says 'Error: Run this script"),
        ({"store": ":"}, "kept nothing"),
        ({"hold": ":"}, r"does not hold cpu4, cpu10, 17000000\.gpu"),
        ({"restore": ":"}, r"did not bring back 17000000\.gpu, cpu10, cpu4"),
    ],
)
def test_what_does_not_work_is_seen(tmp_path: Path, tools: Tools, steps: dict[str, str], why: str) -> None:
    root = orin(tmp_path / "sys")
    jetson_clocks(tools, root, **steps)
    with pytest.raises(BoardError, match=why), fastest_clocks(root):
        pass
    if "restore" not in steps:
        assert not any(clock.held for clock in read_clocks(root))


def test_without_the_tool(tmp_path: Path, tools: Tools) -> None:
    with pytest.raises(BoardError, match=r"no jetson_clocks here; sudo apt install nvidia-l4t-tools"), fastest_clocks(orin(tmp_path / "sys")):
        pass
