"""The three graphs: parity with torch, opset, names, single-node norms, no trace of the machine they were made on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from sage_edge.compile import export
from sage_edge.compile.engine_form import engine_form
from sage_edge.compile.facts import CONSTANT, operators, weights_bytes
from sage_edge.runtime import ort
from sage_edge.runtime.errors import CompileError

GRAPHS = ("visual", "audio", "fusion")
onnxruntime = ort.load()


@pytest.fixture(scope="session")
def graphs(bundle_path: Path) -> dict[str, Path]:
    return {name: bundle_path / "onnx" / f"{name}.fp32.onnx" for name in GRAPHS}


def inputs_of(model, graph: str, n: int) -> dict[str, torch.Tensor]:
    p, g = model.preset, torch.Generator().manual_seed(7)
    if graph == "visual":
        return {"faces": torch.randn((n, 3, 40, 40), generator=g)}
    if graph == "audio":
        return {"samples": 0.2 * torch.randn((n, p.samples), generator=g)}
    masks = (torch.rand((2, n, p.window), generator=g) < 0.7).float()
    with torch.no_grad():
        audio = model.audio(0.2 * torch.randn((n, p.samples), generator=g))
    return {"visual": torch.rand((n, p.window, p.visual_dim), generator=g), "audio": audio, "visual_mask": masks[0], "audio_mask": masks[1]}


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("n", [1, 5])
def test_the_graph_computes_what_the_module_computes(model, graphs, graph: str, n: int) -> None:
    feed = inputs_of(model, graph, n)
    session = onnxruntime.InferenceSession(graphs[graph], providers=["CPUExecutionProvider"])
    got = session.run(None, {name: value.numpy() for name, value in feed.items()})
    with torch.no_grad():
        want = getattr(model, graph)(*feed.values())
    want = [want] if isinstance(want, torch.Tensor) else [value for value in want if value is not None]
    for output, a, b in zip(session.get_outputs(), got, want, strict=True):
        difference = np.abs(a - b.numpy()).max() / (1 if output.name == "estimates" else np.abs(b.numpy()).max())
        assert difference <= 1e-5, f"{output.name} differs by {difference:.2g}"


def test_a_fully_masked_window_stays_finite(model, graphs) -> None:
    feed = {name: value.numpy() for name, value in inputs_of(model, "fusion", 1).items()}
    feed["visual_mask"][:], feed["audio_mask"][:] = 0, 0
    session = onnxruntime.InferenceSession(graphs["fusion"], providers=["CPUExecutionProvider"])
    estimates, temporal, modality = session.run(["estimates", "temporal", "modality"], feed)
    assert np.isfinite(estimates).all()
    assert np.abs(estimates).max() <= 1
    assert (temporal == 0).all()
    assert np.allclose(modality.sum(2), 1)


def test_names_and_shapes_are_the_contract(model, graphs) -> None:
    p = model.preset
    shapes = {}
    for path in graphs.values():
        graph = onnx.load(path).graph
        for value in [*graph.input, *graph.output]:
            shapes[graph.output[0].name, value.name] = [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
    w, v, a = p.window, p.visual_dim, p.audio_dim
    assert shapes == {
        ("visual", "faces"): ["n", 3, 40, 40],
        ("visual", "visual"): ["n", v],
        ("audio", "samples"): ["n", p.samples],
        ("audio", "audio"): ["n", w, a],
        ("estimates", "visual"): ["n", w, v],
        ("estimates", "audio"): ["n", w, a],
        ("estimates", "visual_mask"): ["n", w],
        ("estimates", "audio_mask"): ["n", w],
        ("estimates", "estimates"): ["n", w, 2],
        ("estimates", "temporal"): ["n", w],
        ("estimates", "modality"): ["n", w, 2],
    }


def test_opset_and_metadata(model, graphs) -> None:
    for name, path in graphs.items():
        file = onnx.load(path)
        assert [(entry.domain, entry.version) for entry in file.opset_import] == [("", 20)]
        props = {prop.key: prop.value for prop in file.metadata_props}
        assert props["graph"] == name
        assert props["preset"] == "tiny"
        assert (props["window"], props["rate_hz"], props["samples"]) == (str(model.preset.window), "30", str(model.preset.samples))
        assert props["colour"] == "rgb"
        assert json.loads(props["mean"]) == list(model.preset.mean)
        assert json.loads(props["std"]) == list(model.preset.std)
        assert json.loads(props["trained_on"])["synthetic"] is True
        assert props["revision"]


def test_norms_and_gelu_are_one_node_each(model, graphs) -> None:
    for name, path in graphs.items():
        counts = operators(onnx.load(path))
        modules = Counter(type(part) for part in getattr(model, name).modules())
        assert counts["LayerNormalization"] == modules[nn.LayerNorm], name
        assert counts["InstanceNormalization"] == modules[nn.GroupNorm], name
        assert not set(counts) & {"Erf", "Sqrt", "ReduceL2", "Pow", "Identity", "If", "Loop"}, name
    assert operators(onnx.load(graphs["visual"]))["BatchNormalization"] == 0
    # conv stack (7), positional convolution, one per transformer layer; one per refinement layer, the head and a gate of each modality
    assert operators(onnx.load(graphs["audio"]))["Gelu"] == 8 + model.preset.wavlm_layers
    assert operators(onnx.load(graphs["fusion"]))["Gelu"] == model.preset.fusion_layers + 3


def test_weights_keep_the_names_of_the_model(model, graphs) -> None:
    for name in ("audio", "fusion"):
        module = getattr(engine_form(model.folded()), name)
        wanted = {key: value.numpy() for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}
        found = {t.name: numpy_helper.to_array(t) for t in onnx.load(graphs[name]).graph.initializer if not t.name.startswith(CONSTANT)}
        assert set(found) == set(wanted)
        for key, value in found.items():
            assert sorted(value.ravel()) == sorted(wanted[key].ravel()), key
        assert weights_bytes(onnx.load(graphs[name])) == sum(value.nbytes for value in wanted.values())


def test_the_position_bias_is_a_table_and_no_matrix(model, graphs) -> None:
    tables = {"audio": "wavlm.encoder.layers.0.attention.rel_attn_embed.weight", "fusion": "core.refine.layers.0.distance.weight"}
    for name, table in tables.items():
        file = onnx.load(graphs[name])
        sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in file.graph.initializer}
        assert any(node.op_type == "Gather" and node.input[0] == table for node in file.graph.node)
        length = model.preset.tokens() if name == "audio" else model.preset.window
        assert max(size for key, size in sizes.items() if key.startswith(CONSTANT)) < 2 * length


def test_files_hold_no_path_and_no_stack_trace(graphs) -> None:
    for path in graphs.values():
        content = path.read_bytes()
        for trace in (b"site-packages", b".py", b"stack_trace", str(Path(export.__file__).resolve().parents[1]).encode()):
            assert trace not in content, f"{path.name} holds {trace!r}"


@pytest.mark.slow
def test_exporting_twice_gives_the_same_bytes_and_leaves_the_model(model, graphs, checkpoint_path, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    meta = json.loads((checkpoint_path / "checkpoint.json").read_text())
    again = export.export(model, meta, tmp_path)
    for name in GRAPHS:
        assert again[name].read_bytes() == graphs[name].read_bytes(), name
    after = model.state_dict()
    assert list(after) == list(before), "weight norms are still there"
    assert all(torch.equal(value, after[name]) for name, value in before.items())


class _Drifting(nn.Module):
    """Gives something else at every call, so a graph of one call is wrong at the next."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(4, 4), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.linear(x) + self.calls


class _Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(("module", "says"), [(_Drifting(), "differs from torch by"), (_Branching(), "torch cannot export")])
def test_a_graph_that_is_not_the_module_is_refused(tmp_path: Path, module: nn.Module, says: str) -> None:
    with pytest.raises(CompileError, match=says) as caught:
        export.export_graph(module, lambda n: {"x": torch.ones(n, 4)}, ("y",), tmp_path / "drift.onnx", {})
    assert "\n" not in str(caught.value)
