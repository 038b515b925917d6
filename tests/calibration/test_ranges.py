"""Ranges of a tiny graph against NumPy, for each method; streaming; the file."""

from __future__ import annotations

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

from sage_edge.calibration import ranges
from sage_edge.calibration.ranges import METHODS, Ranges, collect
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
        bin_width = 2 * np.abs(value).max() / ranges.PERCENTILE_BINS * 1.001
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


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_clips_does_not_matter(graph: Path, method: str) -> None:
    feeds = normal(3, feeds=3) + normal(4, feeds=3, scale=1e-6)
    quiet_first = collect(graph, lambda: feeds[::-1], ["x", "y"], method)
    assert quiet_first == collect(graph, lambda: feeds, ["x", "y"], method)


@pytest.mark.parametrize("method", METHODS)
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


def test_nothing_is_written_beside_the_graph(graph: Path) -> None:
    collect(graph, lambda: normal(0, 1), ["y"], "percentile")
    assert [path.name for path in graph.parent.iterdir()] == ["tiny.onnx"]


def test_refusals(graph: Path) -> None:
    with pytest.raises(UsageError, match="one of minmax, entropy, percentile"):
        collect(graph, lambda: normal(0), ["x"], "mean")
    with pytest.raises(CompileError, match="no calibration data"):
        collect(graph, lambda: [], ["x"], "minmax")
    with pytest.raises(CompileError, match="'nowhere' is not in the graph"):
        collect(graph, lambda: normal(0), ["x", "nowhere"], "minmax")
    bad = normal(0, 1)
    bad[0]["x"][0, 0] = np.inf
    with pytest.raises(CompileError, match="spans"):
        collect(graph, lambda: bad, ["y"], "percentile")


def test_a_graph_that_cannot_be_read_is_one_line(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "half.onnx").write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    with pytest.raises(CompileError, match=r"cannot calibrate half\.onnx") as caught:
        collect(tmp_path / "half.onnx", lambda: normal(0), ["x"], "minmax")
    assert "\n" not in str(caught.value)


def test_the_file_reads_back_and_can_be_compared_by_line(tmp_path: Path) -> None:
    a = Ranges("entropy", "ab" * 32, 24, {"visual": {"faces": (-2.5, 2.25), "layer1/relu": (0.0, 0.1)}, "audio": {}, "fusion": {"v": (0.0, 1.0)}})
    b = Ranges(a.method, a.set_sha256, a.clips, {**a.graphs, "visual": {**a.graphs["visual"], "faces": (-2.5, 2.5)}})
    a.save(tmp_path / "a.json")
    b.save(tmp_path / "b.json")
    assert Ranges.load(tmp_path / "a.json") == a
    assert json.loads((tmp_path / "a.json").read_text())["graphs"]["visual"]["layer1/relu"] == [0, 0.1]
    done = subprocess.run(["diff", str(tmp_path / "a.json"), str(tmp_path / "b.json")], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[1:] == ['<   "faces": [-2.5, 2.25],', "---", '>   "faces": [-2.5, 2.5],']
    for text in ("", "[]", '{"method": "minmax"}', '{"method":"m","set_sha256":"","clips":1,"graphs":{"visual":{"x":[1]}}}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(CompileError, match="is no ranges file"):
            Ranges.load(tmp_path / "bad.json")
