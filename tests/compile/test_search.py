"""The search over precisions: what was spoiled comes first, every mix is measured, time decides, and the file tells it all again."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.calibration import clips, mixes
from sage_edge.calibration.evaluation import Variant, overlap, score, validation
from sage_edge.calibration.feeds import calibrate
from sage_edge.calibration.mixes import Bench, Gain, Quality
from sage_edge.calibration.offline import Offline
from sage_edge.calibration.ranges import GraphRanges, Ranges
from sage_edge.calibration.sensitivity import Row, Table
from sage_edge.cli.main import main
from sage_edge.compile import quantize_cpu, quantize_trt, search
from sage_edge.compile.calibrated import EMITTERS, calibrate_graphs, face_info
from sage_edge.compile.groups import groups
from sage_edge.compile.search import WORTH, Mix, choose
from sage_edge.runtime.errors import DataError, UsageError
from sage_edge.runtime.progress import Progress
from sage_edge.training.data.store import Store

GRAPHS = ("visual", "audio", "fusion")
SOME = ("visual.layer2", "audio.projection", "audio.attention.0", "fusion.head")


@pytest.fixture(scope="module", autouse=True)
def short_timings() -> Iterator[None]:
    """No test asserts a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixes, "_ROUNDS", (3, 3))
        patch.setattr(mixes, "_LEAST_S", 1e-6)
        yield


@pytest.fixture(scope="module")
def graphs(bundle_path: Path) -> dict[str, Path]:
    return {name: bundle_path / "onnx" / f"{name}.fp32.onnx" for name in GRAPHS}


@pytest.fixture(scope="module")
def ranges(graphs, model, store_path: Path) -> Ranges:
    """Of every group."""
    return calibrate_graphs(graphs, model.preset, Store.open(store_path), "minmax", 4, dict.fromkeys(EMITTERS, ()), False)[1]


@pytest.fixture(scope="module")
def found(graphs, ranges, model, store_path: Path) -> search.Search:
    tried = {"visual.stem", "visual.layer1", "audio.conv_stack", *groups(onnx.load(graphs["fusion"]))}
    return search.search(graphs, ranges.graphs, Store.open(store_path), model.preset, 0.02, candidates=tried, windows=2, progress=False)


@pytest.fixture
def bench(graphs, ranges, model, store_path: Path, tmp_path: Path) -> Iterator[Bench]:
    p = model.preset
    names = {graph: list(groups(onnx.load(path))) for graph, path in graphs.items()}
    trials = mixes.stretches(validation(Store.open(store_path)), p.window, p.window, 2)
    with Bench(graphs, names, ranges.graphs, quantize_cpu.emit, face_info(p), trials, p.window, 15, tmp_path) as opened:
        yield opened


def spoil(graph: Path, ranges: GraphRanges, group: str, factor: float) -> GraphRanges:
    """Ranges of the tensors that `group` alone needs, times `factor`."""
    model = onnx.load(graph)
    own = {*quantize_cpu.tensors(model, ())} - {*quantize_cpu.tensors(model, (group,))}
    assert own
    return {name: (low * factor, high * factor) if name in own else (low, high) for name, (low, high) in ranges.items()}


@pytest.mark.parametrize(("group", "factor"), [(group, (1 / 20, 20)[i // 2]) for i, group in enumerate(SOME)])
def test_a_group_whose_ranges_were_spoiled_comes_first(graphs, ranges, model, store_path: Path, group: str, factor: float) -> None:
    graph = group.split(".")[0]
    spoiled = {**ranges.graphs, graph: spoil(graphs[graph], ranges.graphs[graph], group, factor)}
    found = search.search(graphs, spoiled, Store.open(store_path), model.preset, 2.0, candidates=SOME, windows=2, progress=False)
    first, second = found.table.rows[:2]
    assert first.group == group, f"{second.group} is behind by {second.harm / first.harm:.2g}"
    whole = found.table.all_int8.sqnr_db[graph]
    left = {row.group: row.left_float.sqnr_db[graph] for row in found.table.rows if row.graph == graph}
    gained = {name: math.inf if value is None else value - whole for name, value in left.items()}
    assert max(gained, key=lambda name: gained[name]) == group, "leaving it float brings back most of the signal"


def test_what_is_kept_changes_no_figure(bench: Bench, graphs, ranges, model, tmp_path: Path) -> None:
    """After many mixes, CCC is that of a plain evaluation of freshly emitted graphs."""
    left = {"visual.layer1", "audio.conv_stack", "fusion.tcn_visual"}
    for mix in ((), left, bench.every - {"visual.stem"}, {"fusion.head"}):
        bench.quality(mix)
    quality = bench.quality(left)
    paths = {}
    for graph, path in graphs.items():
        paths[graph, "mix"] = tmp_path / f"fresh.{graph}.onnx"
        onnx.save(quantize_cpu.emit(path, ranges.graphs[graph], left), paths[graph, "mix"])
    with Offline(paths, face_info(model.preset)) as offline:
        fresh = overlap(offline, bench.trials, {"mix": Variant.all("mix")}, model.preset.window, progress=False)["mix"]
    assert quality.ccc == pytest.approx(score(fresh, bench.trials), abs=1e-6)


def test_with_everything_in_float_nothing_differs(bench: Bench) -> None:
    quality = bench.quality(bench.every)
    assert quality.estimates_error == quality.worst_drop == 0
    assert set(quality.sqnr_db.values()) == {None}
    assert bench.hop_ms(bench.every) == bench.float_ms


def test_an_encoder_that_did_not_change_is_not_run_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    for name in ("faces", "sound"):
        method = getattr(Offline, name)
        monkeypatch.setattr(Offline, name, lambda self, *args, _of=method, _name=name: (ran.append(_name), _of(self, *args))[1])
    bench.quality(())
    assert {*ran} == {"faces", "sound"}
    for mix, runs in (({"fusion.head"}, set()), ({"audio.projection"}, {"sound"}), ({"visual.stem"}, {"faces"})):
        ran.clear()
        bench.quality(mix)
        assert {*ran} == runs
        assert ran.count("sound") in (0, bench.windows)


def test_few_emitted_graphs_lie_about_and_none_is_emitted_twice_for_its_time(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emitted: list[str] = []
    write = Bench._write
    monkeypatch.setattr(bench._offline, "_write", lambda part: (emitted.append(" ".join(part)), write(bench, part))[1])
    for group in bench.groups["audio"][:3]:
        bench.quality({group})
        bench.quality(bench.every - {group})
        bench.gains("audio", group)
        assert sum(path.name.startswith("audio") for path in tmp_path.iterdir()) <= 3
    assert len(emitted) == len({*emitted})
    assert sum(name.startswith("audio") for name in emitted) == 7


def test_every_group_has_a_row_and_the_file_tells_it_all_again(found: search.Search, graphs) -> None:
    every = {group for path in graphs.values() for group in groups(onnx.load(path))}
    assert {row.group for row in found.table.rows} == {"visual.stem", "visual.layer1", "audio.conv_stack"} | {g for g in every if "fusion" in g}
    assert every - {row.group for row in found.table.rows} <= {*found.chosen.float_groups}, "what was not tried stays float"
    assert [row.harm for row in found.table.rows] == sorted((row.harm for row in found.table.rows), reverse=True)
    text = json.dumps(found.to_dict(), allow_nan=False)
    read = json.loads(text)
    assert set(read["float_groups"]) <= every
    assert read["windows"] == 2
    assert {"machine", "versions", "threads", "float_hop_ms", "max_drop", "store_digest", "videos"} <= set(read)

    rows = tuple(_row(raw) for raw in read["rows"])
    steps = {tuple(raw["float_groups"]): raw for raw in read["steps"]}

    def recorded(float_groups: Collection[str], why: str) -> Mix:
        raw = steps[tuple(sorted({*float_groups, *every} - ({row.group for row in rows} - set(float_groups))))]
        return Mix(why, tuple(raw["float_groups"]), Quality(**raw["quality"]), raw["hop_ms"])

    again, tried = choose(Table(rows, Quality(**read["all_int8"]), read["float_hop_ms"]), recorded, read["max_drop"])
    assert list(again.float_groups) == read["float_groups"]
    assert [mix.why for mix in tried] == [raw["why"] for raw in read["steps"]]


def _row(raw: dict) -> Row:
    qualities = (Quality(**raw[name]) for name in ("left_float", "alone_int8"))
    return Row(raw["group"], raw["graph"], *qualities, *(Gain(**raw[name]) for name in ("gain_alone", "gain_company")))


def test_the_mix_keeps_the_ccc_it_promises_on_the_measured_windows(found: search.Search) -> None:
    assert found.chosen.quality.worst_drop <= found.max_drop
    assert found.chosen in found.steps
    lines = search.report(found.to_dict())
    assert lines[1].startswith(found.table.rows[0].group)
    assert any("2 windows of 2 videos" in line for line in lines)


def test_int8_trt_is_searched_on_its_float32_twin_without_times(graphs, model, store_path: Path) -> None:
    store, some = Store.open(store_path), ("visual.layer2", "fusion.head", "audio.conv_stack")
    tensors = {name: quantize_trt.tensors(onnx.load(path), ()) for name, path in graphs.items()}
    chosen = clips.pick(store, 2, length=model.preset.window)
    ranges = calibrate(graphs, store, chosen, tensors, face_info(model.preset), "minmax", progress=False).graphs
    twin = functools.partial(quantize_trt.emit, half=False)
    found = search.search(
        graphs, ranges, store, model.preset, 0.5, candidates=some, emit=twin, precision="int8-trt", windows=1, timed=False, progress=False
    )
    assert {row.group for row in found.table.rows} == {*some}
    assert all(row.harm > 0 for row in found.table.rows)
    assert found.table.float_ms == found.chosen.hop_ms == {}
    assert not {*some} & {*found.chosen.float_groups}, "nothing is left float for the time"
    assert "not timed" in search.report(json.loads(json.dumps(found.to_dict())))[1]


# worlds of known costs, for the search itself


def quality(drop: float, error: float) -> Quality:
    return Quality({}, error, {}, {"valence": drop, "arousal": drop / 2})


def world(costs: dict[str, tuple[float, float, float]], joint_ms: float = 0.0):
    """group -> (CCC it costs, ms it saves, share of rounds in which it was faster); `joint_ms` more where a graph is in INT8 altogether."""
    float_ms = {"visual": 10.0, "audio": 50.0, "fusion": 5.0}
    rows = [
        Row(name, name.split(".")[0], quality(0, 0), quality(drop, drop**2), Gain(-1.0, 0.0), Gain(ms, faster))
        for name, (drop, ms, faster) in sorted(costs.items())
    ]

    def measure(float_groups: Collection[str], why: str) -> Mix:
        inside = set(costs) - set(float_groups)
        ms = {graph: whole - sum(costs[name][1] for name in inside if name.startswith(graph)) for graph, whole in float_ms.items()}
        for graph in ms:
            if {name for name in costs if name.startswith(graph)} <= inside:
                ms[graph] -= joint_ms
        return Mix(why, tuple(sorted(float_groups)), quality(sum(costs[name][0] for name in inside), 0.0), ms)

    return Table(tuple(rows), quality(0, 0), float_ms), measure


def test_what_costs_the_ccc_stays_float_and_nothing_else_does() -> None:
    table, measure = world({"audio.a": (0.03, 5, 1), "audio.b": (0.001, 5, 1), "visual.a": (0.001, 2, 1), "fusion.a": (0.0, 1, 1)})
    chosen, steps = choose(table, measure, 0.005)
    assert chosen.float_groups == ("audio.a",)
    assert len(steps) == 2


def test_what_saves_no_time_stays_float_however_harmless() -> None:
    table, measure = world({"audio.a": (0.0, 5, 1), "audio.b": (0.0, -1, 0), "visual.a": (0.0, 0.001, 0.6)})
    assert choose(table, measure, 1.0)[0].float_groups == ("audio.b", "visual.a")


def test_a_graph_that_gains_only_together_goes_to_8_bits_together() -> None:
    costs = {"visual.a": (0.0, 0.0, 0.5), "visual.b": (0.0, 0.0, 0.5), "audio.a": (0.0, 5.0, 1.0)}
    assert choose(*world(costs, joint_ms=4.0), 1.0)[0].float_groups == ()
    assert choose(*world(costs, joint_ms=10 * WORTH * 0.9), 1.0)[0].float_groups == ("visual.a", "visual.b")


def test_a_group_that_was_given_up_in_vain_comes_back() -> None:
    """The first to go is the one of most harm per millisecond; the second alone is enough."""
    table, measure = world({"visual.a": (0.004, 0.1, 1), "audio.a": (0.01, 5, 1), "fusion.a": (0.0, 1, 1)})
    chosen, steps = choose(table, measure, 0.005)
    assert chosen.float_groups == ("audio.a",)
    assert [step.float_groups for step in steps] == [(), ("visual.a",), ("audio.a", "visual.a"), ("audio.a",)]


def test_a_graph_that_is_slower_in_its_mix_stays_float() -> None:
    table, measure = world({"audio.a": (0.0, 5, 1), "visual.a": (0.0, 2, 1)})

    def slow(float_groups: Collection[str], why: str) -> Mix:
        mix = measure(float_groups, why)
        return dataclasses.replace(mix, hop_ms={**mix.hop_ms, "visual": 10.0 if "visual.a" in float_groups else 11.0})

    assert choose(table, slow, 1.0)[0].float_groups == ("visual.a",)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-0.01, 0.1), st.floats(-1, 3), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=8),
    st.sampled_from([0.0, 0.005, 0.1]),
)
def test_the_end_is_measured_allowed_and_never_slower_than_float(drawn, max_drop: float) -> None:
    costs = {f"{GRAPHS[i % 3]}.{i}": (max(drop, 0.0), ms, faster) for i, (drop, ms, faster) in enumerate(drawn)}
    table, measure = world(costs)
    chosen, steps = choose(table, measure, max_drop)
    assert chosen in steps
    assert chosen.quality.worst_drop <= max_drop
    assert chosen.total_ms <= sum(table.float_ms.values()) + 1e-9
    assert choose(table, measure, max_drop)[0] == chosen


# refusals


@pytest.mark.parametrize("drop", [-0.001, float("nan"), float("inf")])
def test_a_drop_that_even_float_cannot_keep_is_refused_before_any_work(drop: float, graphs, model, store_path: Path) -> None:
    with pytest.raises(UsageError, match="--max-drop is"):
        search.search({}, {}, Store.open(store_path), model.preset, drop)


def test_unknown_groups_and_a_store_without_validation_are_refused(graphs, ranges, model, store_path: Path) -> None:
    store = Store.open(store_path)
    with pytest.raises(UsageError, match=r"no group 'audio\.ear'"):
        search.search(graphs, ranges.graphs, store, model.preset, candidates=["audio.ear"])
    only_train = dataclasses.replace(store, entries=tuple(entry for entry in store.entries if entry["split"] == "train"))
    with pytest.raises(DataError, match="no 'val' trials"):
        search.search(graphs, ranges.graphs, only_train, model.preset)


def test_an_interrupt_leaves_nothing(graphs, ranges, model, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupted(self: Progress, n: int = 1, note: str | None = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search.search(graphs, ranges.graphs, Store.open(store_path), model.preset, candidates=["fusion.head"], windows=1, progress=False)
    assert not list(tmp_path.iterdir())


def command(checkpoint: Path, store: Path, out: Path) -> list[str]:
    return ["calibrate", str(checkpoint), "--data", str(store), "--out", str(out), "--method", "minmax", "--clips", "2"]


def test_the_verb_refuses_before_it_begins(checkpoint_path: Path, store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verb = command(checkpoint_path, store_path, tmp_path / "ranges.json")
    for options, says in ((["--max-drop", "0.1"], "give --search"), (["--search", "--max-drop", "-1"], "give 0 or more")):
        assert main([*verb, *options]) == 2
        assert says in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
    (tmp_path / "ranges.svg").touch()
    assert main([*verb, "--search"]) == 2
    assert "ranges.svg exists already" in capsys.readouterr().err


@pytest.mark.slow
def test_the_verb_writes_ranges_and_a_picture_beside_them(
    checkpoint_path: Path, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "search", functools.partial(search.search, candidates=["fusion.head", "visual.stem"]))
    assert main([*command(checkpoint_path, store_path, tmp_path / "ranges.json"), "--search", "--max-drop", "0.1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ranges.json", "ranges.svg"]
    kept = Ranges.load(tmp_path / "ranges.json")
    assert kept.search == said["search"]
    assert kept.search["max_drop"] == 0.1
