"""What a ranges file brings besides ranges goes into the bundle: the mix of a search, and factors of equalised channels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from sage_edge.calibration import equalise, mixes
from sage_edge.calibration.ranges import Ranges
from sage_edge.cli.main import main
from sage_edge.compile import compile_bundle, search
from sage_edge.compile.calibrated import EMITTERS, apply_equalised, calibrate_graphs
from sage_edge.compile.groups import groups
from sage_edge.runtime import Bundle
from sage_edge.runtime.bundle import GRAPHS, SEARCH, SEARCH_PLOT
from sage_edge.training.data.store import Store


@pytest.fixture(scope="module")
def graphs(bundle_path: Path) -> dict[str, Path]:
    return {name: Bundle.open(bundle_path).graph(name, "fp32") for name in GRAPHS}


@pytest.mark.slow
@pytest.mark.nightly
def test_the_mix_of_a_search_and_equalised_channels_are_compiled(
    graphs, bundle_path: Path, model, store_path: Path, checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.open(store_path)
    uneven = Ranges("minmax", "0" * 64, 1, {}, equalised={"fusion": factors(graphs["fusion"])})
    equal = {name: tmp_path / f"{name}.onnx" for name in GRAPHS}
    for name, path in graphs.items():
        equal[name].write_bytes(path.read_bytes())
    apply_equalised(equal, uneven)
    _, ranges = calibrate_graphs(equal, model.preset, store, "minmax", 4, dict.fromkeys(EMITTERS, ()), False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixes, "_ROUNDS", (1, 1))
        patch.setattr(mixes, "_LEAST_S", 1e-6)
        found = search.search(equal, ranges.graphs, store, model.preset, 0.5, candidates=["visual.layer1"], windows=1, progress=False)
    ranges = dataclasses.replace(ranges, search=found.to_dict(), equalised=uneven.equalised)
    out = compile_bundle(checkpoint_path, store, tmp_path / "mixed.sage", ranges=ranges, max_drop=0.25, progress=False)
    bundle = Bundle.open(out)
    every = {group for name in GRAPHS for group in groups(onnx.load(bundle.graph(name, "fp32")))}
    assert set(ranges.search["float_groups"]) >= every - {"visual.layer1"}
    for name in GRAPHS:
        props = {prop.key: prop.value for prop in onnx.load(bundle.graph(name, "int8-cpu")).metadata_props}
        assert props["float_groups"].split(",") == sorted(ranges.search["float_groups"])
    assert onnx.load(bundle.graph("fusion", "fp32")).graph == onnx.load(equal["fusion"]).graph
    nameless = {**ranges.search, "videos": sorted(ranges.search["videos"].values())}
    assert json.loads((out / SEARCH).read_text()) == json.loads(json.dumps(nameless)), "all of it, but for the names of videos"
    assert "<svg" in (out / SEARCH_PLOT).read_text()
    plain = Bundle.open(bundle_path).manifest.ccc["overlap"]["fp32"]
    assert bundle.manifest.ccc["overlap"]["fp32"].mean == pytest.approx(plain.mean, abs=1e-5), "equalised channels change nothing in float"
    assert main(["inspect", str(out)]) == 0
    assert f"1 windows, {len(found.steps)} mixes tried; float: " in capsys.readouterr().out


def factors(graph: Path) -> dict[str, list[int]]:
    """Uneven powers of two for every place of a graph."""
    rng, model = np.random.default_rng(0), onnx.load(graph)
    widths = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if tensor.dims}
    makers = {node.name: node for node in model.graph.node}
    return {place.tensor: rng.integers(-2, 3, widths[makers[place.maker].input[1]]).tolist() for place in equalise.candidates(model)}


@pytest.mark.slow
@pytest.mark.nightly
def test_calibrate_equalises_and_says_where(checkpoint_path: Path, store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ranges.json"
    assert main(["calibrate", str(checkpoint_path), "--data", str(store_path), "--out", str(file), "--equalise", "--clips", "4"]) == 0
    said, ranges = capsys.readouterr().out, Ranges.load(file)
    assert ("equalised: " in said) == bool(ranges.equalised)
    assert all(places and any(any(row) for row in places.values()) for places in ranges.equalised.values())
