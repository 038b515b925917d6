"""The picture of a search: every group is in it, the same search gives the same bytes, and nothing else than SVG and PNG is asked for."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from sage_edge.compile.search_plot import figure, plot
from sage_edge.runtime.errors import UsageError

pytest.importorskip("matplotlib")


def example(groups: int = 46, timed: bool = True) -> dict:
    """A search over as many groups as `base` has, with a gain below zero and a graph that one group makes exact."""

    def quality(drop: float, decibels: float | None) -> dict:
        return {"sqnr_db": dict.fromkeys(("visual", "audio", "fusion"), decibels), "drop": {"valence": drop, "arousal": drop / 2}}

    rows = [
        {
            "group": f"{graph}.part.{i}",
            "graph": graph,
            "left_float": quality(0.02, None if i == 3 else 10 + 20 / (i + 1)),
            "alone_int8": quality(0.02 / (i + 1), 40.0),
            "gain_alone": {"ms": 3.0 - i / 5, "faster": 1.0} if timed else None,
            "gain_company": {"ms": 4.0 - i / 10, "faster": 1.0} if timed else None,
            "gain_ms": max(4.0 - i / 10, 0.0),
        }
        for i in range(groups)
        for graph in [("visual", "audio", "fusion")[i % 3]]
    ]
    times = {"visual": 50.0, "audio": 800.0, "fusion": 30.0}
    return {
        "precision": "int8-cpu",
        "max_drop": 0.005,
        "float_groups": [row["group"] for row in rows[:5]],
        "rows": rows,
        "all_int8": quality(0.03, 10.0),
        "chosen": {"quality": quality(0.001, 30.0), "hop_ms": {name: ms / 2 for name, ms in times.items()}},
        "float_hop_ms": times if timed else {},
        "windows": 24,
        "videos": {"a": 500},
        "threads": 2,
        "machine": {"cpu": "a cpu"},
    }


@pytest.mark.parametrize("timed", [True, False])
def test_every_group_is_named_once_and_has_a_bar_in_each_panel(timed: bool) -> None:
    search = example(timed=timed)
    panels = figure(search).axes
    assert len(panels) == 2 + timed
    assert [label.get_text() for label in panels[0].get_yticklabels()] == [row["group"] for row in search["rows"]]
    for panel in panels:
        bars = [patch for patch in panel.patches if patch.get_height() < 1]
        assert len(bars) == len(search["rows"])
        low, high = panel.get_xlim()
        assert all(low <= bar.get_x() + bar.get_width() <= high for bar in bars)


def test_labels_do_not_overlap_with_as_many_groups_as_base_has() -> None:
    drawn = figure(example())
    drawn.draw_without_rendering()
    boxes = [label.get_window_extent() for label in drawn.axes[0].get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


@pytest.mark.filterwarnings("error")
def test_a_few_groups_far_below_what_is_allowed_leave_the_panels_their_room(tmp_path: Path) -> None:
    plot({**example(2), "max_drop": 2.0}, tmp_path / "a.svg")


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_same_search_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        plot(example(6), tmp_path / (name + suffix))
    first, second = ((tmp_path / (name + suffix)).read_bytes() for name in ("a", "b"))
    assert first == second
    assert first.startswith(b"<?xml" if suffix == ".svg" else b"\x89PNG")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.txt"):
        plot(example(3), tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())
