"""Ranges of a tiny graph against NumPy, for each method; streaming; the file."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sage_edge.calibration import observe, ranges
from sage_edge.calibration.clips import Clip, ClipSet
from sage_edge.calibration.ranges import AUTO, METHODS, Ranges, collect, find
from sage_edge.runtime.errors import CompileError, UsageError


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x [n, 1000] -> doubled = 2 x -> positive = relu(doubled) -> y = positive - 1; `zero` never leaves zero."""
    numbers = {"two": 2.0, "one": 1.0, "nil": 0.0}
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("Relu", ["doubled"], ["positive"]),
        helper.make_node("Sub", ["positive", "one"], ["y"]),
        helper.make_node("Mul", ["x", "nil"], ["zero"]),
        helper.make_node("Add", ["zero", "y"], ["out"]),
    ]
    x, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1000]) for name in ("x", "out"))
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in numbers.items()]
    model = helper.make_model(helper.make_graph(nodes, "tiny", [x], [out], constants), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    onnx.save(model, path)
    return path


def normal(seed: int, feeds: int = 8, scale: float = 1.0) -> list[dict[str, NDArray]]:
    rng = np.random.default_rng(seed)
    return [{"x": (scale * rng.normal(size=(20, 1000))).astype(np.float32)} for _ in range(feeds)]


def values(feeds: list[dict[str, NDArray]]) -> dict[str, NDArray]:
    x = np.concatenate([feed["x"] for feed in feeds]).ravel()
    return {"x": x, "doubled": 2 * x, "positive": np.maximum(2 * x, 0), "y": np.maximum(2 * x, 0) - 1}


def test_minmax_is_the_extremes(graph: Path) -> None:
    feeds = normal(0)
    found = collect(graph, lambda: feeds, ["x", "doubled", "positive", "y", "zero"], "minmax")
    for name, value in values(feeds).items():
        assert found[name] == pytest.approx((value.min(), value.max()))
    assert found["zero"] == (0, 0)


def test_percentile_leaves_out_as_many_values_as_it_says(graph: Path) -> None:
    feeds = normal(1, feeds=40)
    found = collect(graph, lambda: feeds, ["x", "positive"], "percentile")
    for name in ("x", "positive"):
        value, (low, high) = values(feeds)[name], found[name]
        bin_width = 2 * np.abs(value).max() / observe.BINS * 1.001
        beyond = (1 - ranges.PERCENTILE / 100) / 2 * value.size  # 4 of 800 000 on each side
        assert np.sum(value > high + bin_width) <= beyond <= np.sum(value > high - bin_width) + 1
        assert np.sum(value < low - bin_width) <= beyond <= np.sum(value < low + bin_width) + 1
    assert found["positive"][0] == 0
    assert found["x"][1] < values(feeds)["x"].max()


def entropy_threshold(value: NDArray, bins: int, levels: int) -> float:
    """The span, of those that are a whole number of bins, whose quantized histogram is nearest to the clipped one (S7310), by the definition."""
    span = np.abs(value).max() * 1.0001
    counts, edges = np.histogram(value, bins, (-span, span))
    best, least = span, np.inf
    middle = bins // 2
    for half in range(levels // 2, middle + 1):
        start, end = middle - half, min(middle + half + 1, bins)
        inner = counts[start:end].astype(np.int64)
        clipped = inner.copy()
        clipped[0] += counts[:start].sum()
        clipped[-1] += counts[end:].sum()
        per = len(inner) // levels
        spread = np.zeros(len(inner), np.int64)
        sums = [inner[i * per : (i + 1) * per].sum() for i in range(levels)]
        sums[-1] += inner[levels * per :].sum()
        for i, total in enumerate(sums):
            nonzero = np.count_nonzero(clipped[i * per : (i + 1) * per])
            if nonzero:
                spread[i * per : (i + 1) * per] = total / nonzero
        p, q = _smooth(clipped), _smooth(spread)
        if p is None or q is None:
            continue
        p, q = p / p.sum(), q / q.sum()
        distance = float(np.sum(p * np.log(p / q)))
        if distance < least:
            best, least = float(edges[end]), distance
    return best


def _smooth(counts: NDArray) -> NDArray | None:
    zero, some = counts == 0, counts != 0
    if not some.any():
        return None
    take = 1e-4 * zero.sum() / some.sum()
    return None if take >= 1 else counts + 1e-4 * zero - take * some


def test_entropy_is_the_span_of_least_divergence(graph: Path) -> None:
    feeds = normal(2, feeds=4)
    feeds[0]["x"][0, 0] = 40.0  # an outlier that min-max would keep
    found = collect(graph, lambda: feeds, ["x"], "entropy")["x"]
    x = values(feeds)["x"]
    width = 2 * 40.004 / ranges.ENTROPY_BINS
    assert found[1] == pytest.approx(entropy_threshold(x, ranges.ENTROPY_BINS, ranges.ENTROPY_LEVELS), abs=1.5 * width)
    assert found[1] < 10 < collect(graph, lambda: feeds, ["x"], "minmax")["x"][1]


@pytest.mark.parametrize("method", [*METHODS, AUTO])
def test_the_order_of_the_clips_does_not_matter(graph: Path, method: str) -> None:
    feeds = normal(3, feeds=3) + normal(4, feeds=3, scale=1e-6)
    quiet_first = collect(graph, lambda: feeds[::-1], ["x", "y"], method)
    assert quiet_first == collect(graph, lambda: feeds, ["x", "y"], method)


@pytest.mark.parametrize("method", ["minmax", "percentile", AUTO])
def test_memory_stays_flat_and_stdout_clean(graph: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    """32 feeds of 4 MB, each of which makes three tensors as large: kept, they would be 400 MB."""
    rss = []
    big = np.random.default_rng(0).normal(size=(1000, 1000)).astype(np.float32)

    def feeds() -> Iterator[dict[str, NDArray]]:
        for _ in range(32):
            rss.append(psutil.Process().memory_info().rss)
            yield {"x": big}

    collect(graph, feeds, ["x", "doubled", "positive", "y"], method)
    growth = max(rss[8:]) - rss[8]
    assert growth < 60e6, f"grew by {growth / 1e6:.0f} MB"
    assert capsys.readouterr().out == ""


def test_a_histogram_is_as_large_after_many_feeds_as_after_one(graph: Path) -> None:
    """Also where the first feed is next to silent, and where the loudest value comes last."""
    feeds = normal(0, feeds=1, scale=1e-6) + normal(1, feeds=30) + normal(2, feeds=1, scale=100)
    spans = observe.spans(graph, lambda: feeds, ["x", "y"])
    found = observe.histograms(graph, lambda: feeds, spans)
    for name in ("x", "y"):
        counts, edges = found[name].counts, found[name].edges
        assert counts.shape == (observe.BINS,)
        assert counts.sum() == values(feeds)[name].size
        expected, _ = np.histogram(values(feeds)[name].astype(np.float64), edges)
        assert np.abs(np.cumsum(counts) - np.cumsum(expected)).max() <= 2, "but for values on an edge"
    assert observe.Histogram(0.0, 3.0).counts.sum() == 0


def test_zeros_behind_a_relu_are_counted_on_its_side(graph: Path) -> None:
    feeds = normal(5, feeds=2)
    found = observe.histograms(graph, lambda: feeds, observe.spans(graph, lambda: feeds, ["positive"]))["positive"]
    assert found.counts[: observe.BINS // 2].sum() == 0
    assert found.counts[observe.BINS // 2] >= (values(feeds)["positive"] == 0).sum()


def test_the_span_of_each_channel(graph: Path) -> None:
    feeds = normal(6, feeds=3)
    found = observe.channel_spans(graph, lambda: feeds, {"x": -1, "positive": -1, "y": -2})
    x = np.concatenate([feed["x"] for feed in feeds])
    assert np.array_equal(found["x"], [x.min(0), x.max(0)])
    assert np.array_equal(found["positive"][1], np.maximum(2 * x, 0).max(0))
    assert found["y"][0].shape == (20,)


@pytest.mark.parametrize("method", ["minmax", AUTO])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_names_the_graph_the_tensor_and_the_feed(graph: Path, method: str, bad: float) -> None:
    """ReduceMax and ReduceMin of ONNX Runtime skip NaN: a span alone would not show it."""
    feeds, now = normal(0, 4), [0]

    def walk() -> Iterator[dict[str, NDArray]]:
        for now[0], feed in enumerate(feeds):
            yield feed

    feeds[2]["x"][7, 500] = bad
    with pytest.raises(CompileError, match=r"^tiny: its input 'x' is not finite in feed 2; "):
        collect(graph, walk, ["y"], method, lambda: f"feed {now[0]}")
    model = onnx.load(graph)
    model.graph.initializer[0].CopyFrom(helper.make_tensor("two", TensorProto.FLOAT, [], [bad]))
    onnx.save(model, graph.parent / "broken.onnx")
    try:
        with pytest.raises(CompileError, match=r"^broken: tensor 'doubled' is not finite in feed 0; "):
            collect(graph.parent / "broken.onnx", lambda: iter(normal(0, 2)), ["x", "y", "doubled"], method, lambda: "feed 0")
    finally:
        (graph.parent / "broken.onnx").unlink()


def test_nan_in_a_few_places_is_seen_too(tmp_path: Path) -> None:
    """The root of the negative values; least and greatest are finite to ONNX Runtime, and ReLU makes zeros of the rest."""
    x, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1000]) for name in ("x", "out"))
    nodes = [helper.make_node("Sqrt", ["x"], ["root"]), helper.make_node("Relu", ["root"], ["out"])]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [out]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "root.onnx")
    feeds = [{"x": np.abs(feed["x"])} for feed in normal(0, 3)]
    assert collect(tmp_path / "root.onnx", lambda: feeds, ["root"], "percentile")["root"][1] > 1
    feeds[1]["x"][3, 7] = -1
    with pytest.raises(CompileError, match=r"^root: tensor 'root' is not finite in a feed; the model overflows"):
        collect(tmp_path / "root.onnx", lambda: feeds, ["root"], "percentile")


@pytest.mark.parametrize("method", [*METHODS, AUTO])
def test_a_constant_tensor_is_told_as_it_is(graph: Path, method: str) -> None:
    feeds = [{"x": np.full((2, 1000), -0.25, np.float32)}] * 3
    found = find(graph, lambda: feeds, ["x", "positive", "y", "zero"], method)
    assert {name: each[:2] for name, each in found.items()} == {"x": (-0.25, -0.25), "positive": (0, 0), "y": (-1, -1), "zero": (0, 0)}


def test_nothing_is_written_beside_the_graph(graph: Path) -> None:
    collect(graph, lambda: normal(0, 1), ["y"], "percentile")
    assert [path.name for path in graph.parent.iterdir()] == ["tiny.onnx"]


def test_refusals(graph: Path) -> None:
    with pytest.raises(UsageError, match="one of minmax, entropy, percentile, mse, auto"):
        collect(graph, lambda: normal(0), ["x"], "mean")
    with pytest.raises(CompileError, match="no calibration data"):
        collect(graph, lambda: [], ["x"], "minmax")
    with pytest.raises(CompileError, match="'nowhere' is not in the graph"):
        collect(graph, lambda: normal(0), ["x", "nowhere"], "minmax")


def test_a_graph_that_cannot_be_read_is_one_line(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "half.onnx").write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    with pytest.raises(CompileError, match=r"cannot calibrate half\.onnx") as caught:
        collect(tmp_path / "half.onnx", lambda: normal(0), ["x"], "minmax")
    assert "\n" not in str(caught.value)


CLIPS = ClipSet("train", 300, "cd" * 32, (Clip("anna", 299, "person"), Clip("anna", 850, "silence"), Clip("björn", 40, "no-face")))


def test_the_file_reads_back_and_can_be_compared_by_line(tmp_path: Path) -> None:
    graphs = {"visual": {"faces": (-2.5, 2.25), "layer1/relu": (0.0, 0.1)}, "audio": {}, "fusion": {"v": (0.0, 1.0)}}
    rows = [{"group": "a", "ccc": 0.5}, {"group": "b", "ccc": 0.25}]
    found = {"max_drop": 0.002, "precision": "int8-cpu", "float_groups": ["a", "b"], "rows": rows, "none": []}
    a = Ranges("auto", CLIPS.sha256, 3, graphs, {"visual": {"faces": "mse", "layer1/relu": "minmax"}, "fusion": {"v": "entropy"}}, CLIPS, found)
    a = dataclasses.replace(a, equalised={"fusion": {"norm": [0, -1, 3], "relu": [1, 0]}})
    b = dataclasses.replace(a, graphs={**a.graphs, "visual": {**a.graphs["visual"], "faces": (-2.5, 2.5)}})
    c = dataclasses.replace(a, search={**found, "rows": [*found["rows"][:1], {"group": "b", "ccc": 0.125}]})
    for name, ranges_file in {"a": a, "b": b, "c": c}.items():
        ranges_file.save(tmp_path / f"{name}.json")
    assert Ranges.load(tmp_path / "a.json") == a
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["graphs"]["visual"]["layer1/relu"] == [0, 0.1, "minmax"]
    assert content["set"]["clips"][1] == {"trial": "anna", "newest": 850, "why": "silence"}
    assert content["search"] == found
    for name, lines in {
        "b": ['<   "faces": [-2.5, 2.25, "mse"],', "---", '>   "faces": [-2.5, 2.5, "mse"],'],
        "c": ['<   {"ccc": 0.25, "group": "b"}', "---", '>   {"ccc": 0.125, "group": "b"}'],
    }.items():
        done = subprocess.run(["diff", str(tmp_path / "a.json"), str(tmp_path / f"{name}.json")], capture_output=True, text=True, check=False)
        assert done.stdout.splitlines()[1:] == lines


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    text = '{"method": "entropy", "set_sha256": "ab", "clips": 24, "graphs": {\n "visual": {\n  "faces": [-2.5, 2.25]\n }\n}}\n'
    (tmp_path / "old.json").write_text(text)
    old = Ranges.load(tmp_path / "old.json")
    assert old == Ranges("entropy", "ab", 24, {"visual": {"faces": (-2.5, 2.25)}})
    assert old.method_of("visual", "faces") == "entropy"
    old.save(tmp_path / "new.json")
    assert Ranges.load(tmp_path / "new.json") == old


def test_a_file_that_is_none_or_was_tampered_with_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    ranges_of_nothing = '{"method":"m","set_sha256":"","clips":1,"graphs":{}'
    for text in (
        "",
        "[]",
        '{"method": "minmax"}',
        '{"method":"m","set_sha256":"","clips":1,"graphs":{"visual":{"x":[1]}}}',
        ranges_of_nothing + ',"search":[]}',
        ranges_of_nothing + ',"search":{"rows":[]}}',
        ranges_of_nothing + ',"search":{"float_groups":[1]}}',
        ranges_of_nothing + ',"search":{"precision":"int8-cpu","float_groups":[1]}}',
        ranges_of_nothing + ',"set":{"clips":[]}}',
        '{"method":"m","set_sha256":"","clips":Infinity,"graphs":{}}',
        '{"method":"m","set_sha256":"","clips":1,"graphs":{"visual":{"x":[0,1e999]}}}',
        '{"method":' + "[" * 100_000,
    ):
        bad.write_text(text)
        with pytest.raises(CompileError, match="is no ranges file"):
            Ranges.load(bad)
    Ranges("minmax", CLIPS.sha256, 3, {}, {}, CLIPS).save(bad)
    bad.write_text(bad.read_text().replace("850", "851"))
    with pytest.raises(CompileError, match="its clips have the hash"):
        Ranges.load(bad)
