"""A SAGE model as three ONNX graphs, each checked against torch where it is made.

    visual  faces [n, 3, H, H] float32                            -> visual [n, d_V]
    audio   samples [n, S] float32                                -> audio [n, W, d_A]
    fusion  visual [n, W, d_V], audio [n, W, d_A], visual_mask [n, W], audio_mask [n, W], all float32
                                        -> estimates [n, W, 2], temporal [n, W], modality [n, W, 2] (modality models only)

Opset 20; n is dynamic, everything else is static. What is exported is a copy of the model with its weight norms folded, in the form that
engines take best (`engine_form.py`); batch norms are folded. Every node and tensor is named after the module it comes from
(`layers.0.attention/...`), so that groups of nodes and files of ranges can be read; what is neither weight nor activation starts with `constant/`.
"""

from __future__ import annotations

import ast
import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxscript
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sage_edge.runtime import ort
from sage_edge.runtime.errors import CompileError

from .engine_form import engine_form
from .facts import CONSTANT, WEIGHTED, properties

OPSET = 20
PARITY = 1e-5
"""Greatest difference to torch, relative to the tensor's greatest magnitude (absolute for estimates, whose range is 1).

Of the fusion torch computes in float64, so that its own rounding is not taken for the graph's: the softmax over time multiplies rounding by the
size of its logits (22 in a new `base`, where torch in float32 is off by up to 6e-6 itself)."""
_SCOPES = "pkg.torch.onnx.name_scopes"

if TYPE_CHECKING:
    from sage_edge.training.model import SAGE

Inputs = Callable[[int], dict[str, Tensor]]


class _Named(nn.Module):
    """`module` with its outputs as a tuple of tensors, None left out, as ONNX has it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.inner = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        out = self.inner(*inputs)
        return (out,) if isinstance(out, Tensor) else tuple(value for value in out if value is not None)


def export_graph(
    module: nn.Module, inputs: Inputs, outputs: tuple[str, ...], path: Path, properties: Mapping[str, str], original: nn.Module | None = None
) -> float:
    """Write `module` to `path` and return its greatest difference to torch over batches of 1 and 3 (see `PARITY`).

    `inputs(n)` gives n examples: input name -> float32 tensor [n, ...], in the order of the module's arguments. `original` is what the graph is
    compared with, where `module` is another form or precision of it. Raises CompileError when torch cannot export the module, or when ONNX Runtime
    disagrees with torch by more than `PARITY`.
    """
    plain = _Named(module)
    example = inputs(2)
    batch = torch.export.Dim("n", min=1)
    # One dynamic axis per positional argument of *inputs.
    shapes = (tuple({0: batch} for _ in example),)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                plain, tuple(example.values()), dynamo=True, opset_version=OPSET, input_names=list(example), output_names=list(outputs),
                dynamic_shapes=shapes, verbose=False, optimize=False,
            )  # fmt: skip
            assert program is not None
            # A position bias is looked up in its trained table at run time: folding the lookup would put longer rows of copies in its place.
            onnxscript.optimizer.optimize_ir(program.model, should_fold=lambda node: False if node.op_type == "Gather" else None)
    except Exception as error:  # torch's exporter raises errors of a dozen unrelated types
        first = "".join(str(error).strip().splitlines()[:1])
        raise CompileError(f"torch cannot export the {path.stem} graph: {type(error).__name__}: {first}") from error
    model = program.model_proto
    _rename(model, {name.removeprefix("inner."): value.numpy() for name, value in plain.state_dict().items()})
    for key, value in properties.items():
        model.metadata_props.add(key=key, value=value)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    compared = plain if original is None else _Named(original)
    return max(_parity(compared, path, inputs(n), outputs) for n in (1, 3))


def export(model: SAGE, meta: Mapping[str, Any], out: Path, pattern: str = "{graph}.onnx", done: Callable[[str], object] = str) -> dict[str, Path]:
    """Write the three graphs of a SAGE `model` into the folder `out`, called by `pattern`; graph name -> path.

    `meta` is the checkpoint's description; it goes into each file's metadata. `done` is called with each graph's name. Raises CompileError
    as `export_graph` does.
    """
    exported, originals, preset = engine_form(model.folded()), dict(model.folded().named_children()), model.preset
    window, size, samples = preset.window, preset.input_size, preset.samples
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def fusion_inputs(n: int) -> dict[str, Tensor]:
        masks = (torch.rand((2, n, window), generator=generator) < 0.8).float()
        with torch.no_grad():
            visual = model.visual(noise(8, 3, size, size))[torch.randint(0, 8, (n, window), generator=generator)]
            audio = model.audio(0.1 * noise(n, samples))
        return {"visual": visual, "audio": audio, "visual_mask": masks[0], "audio_mask": masks[1]}

    originals["fusion"].double()
    model.eval()
    with torch.no_grad():
        weighs = model.fusion(*fusion_inputs(1).values()).modality is not None
    outputs = ("estimates", "temporal", "modality") if weighs else ("estimates", "temporal")
    plan: dict[str, tuple[nn.Module, Inputs, tuple[str, ...]]] = {
        "visual": (exported.visual, lambda n: {"faces": noise(n, 3, size, size)}, ("visual",)),
        "audio": (exported.audio, lambda n: {"samples": 0.1 * noise(n, samples)}, ("audio",)),
        "fusion": (exported.fusion, fusion_inputs, outputs),
    }
    props = properties(preset, meta)
    paths = {}
    for name, (module, inputs, names) in plan.items():
        paths[name] = out / pattern.format(graph=name)
        export_graph(module, inputs, names, paths[name], {**props, "graph": name}, originals[name])
        done(name)
    return paths


def _rename(model: onnx.ModelProto, weights: Mapping[str, NDArray[Any]]) -> None:
    """Names that say where a node or tensor belongs; exporter metadata (which holds paths of this machine) is dropped."""
    graph = model.graph
    fixed = {value.name for value in [*graph.input, *graph.output]}
    scopes = {node.name: _scope(node) for node in graph.node}
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    # Equal weights have become one tensor in the exporter's optimizer (the zeros of a new model, say); each module gets its own again.
    own: dict[str, dict[str, None]] = {name: {} for name in initializers}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in initializers:
                node.input[place] = _weight_name(node, place, scopes[node.name], initializers[name], weights)
                own[name].setdefault(node.input[place])
    for old, tensor in initializers.items():
        for name in list(own[old])[1:]:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = name
        tensor.name = next(iter(own[old]), old)
    new = {tensor.name: tensor.name for tensor in graph.initializer}
    if len(new) < len(graph.initializer):
        names = [tensor.name for tensor in graph.initializer]
        raise CompileError(f"two weights of the exported graph would be called {next(n for n in names if names.count(n) > 1)!r}; rename a module")
    for node in graph.node:
        for name in node.output:
            if name and name not in fixed:
                new[name] = f"{scopes[node.name]}/{name}".lstrip("/")
    if len(set(new.values())) != len(new) or fixed & set(new.values()):
        clash = sorted(v for v in new.values() if list(new.values()).count(v) > 1 or v in fixed)[0]
        raise CompileError(f"two tensors of the exported graph would be called {clash!r}; give the modules that share it names of their own")
    for node in graph.node:
        node.name = f"{scopes[node.name]}/{node.name.removeprefix('node_')}".lstrip("/")
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
        del node.metadata_props[:]
        node.doc_string = ""
    for value in graph.value_info:
        value.name = new.get(value.name, value.name)
    for value in [*graph.initializer, *graph.value_info, *graph.input, *graph.output]:
        del value.metadata_props[:]
    del model.metadata_props[:], graph.metadata_props[:]
    # The initializers are listed a second time as typed values; ONNX wants them once.
    kept = [value for value in graph.value_info if value.name not in initializers]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _weight_name(node: onnx.NodeProto, place: int, scope: str, tensor: onnx.TensorProto, weights: Mapping[str, NDArray[Any]]) -> str:
    """Name in the model of the weight that is input number `place` of `node`, or its old name below `constant/`."""
    known, kind = tensor.name.removeprefix("inner."), "bias" if place == 2 or node.op_type == "Add" else "weight"
    mine = f"{scope}.{kind}".lstrip(".")
    if mine == known or (node.op_type in WEIGHTED and place > 0):
        # Transposed by the exporter, or folded with a batch norm: a weight all the same.
        return mine
    if mine in weights and np.array_equal(onnx.numpy_helper.to_array(tensor).ravel(), weights[mine].ravel()):
        # Shared with an equal one, or reshaped by the exporter.
        return mine
    return known if known in weights else CONSTANT + known


def _scope(node: onnx.NodeProto) -> str:
    """Dotted name of the module that `node` was traced from, empty at the top."""
    scopes = next((prop.value for prop in node.metadata_props if prop.key == _SCOPES), "[]")
    modules = [scope for scope in ast.literal_eval(scopes)[:-1] if scope and scope != "inner"]
    return str(modules[-1]).removeprefix("inner.") if modules else ""


def _parity(module: nn.Module, path: Path, inputs: dict[str, Tensor], outputs: tuple[str, ...]) -> float:
    onnxruntime = ort.load()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    got = session.run(list(outputs), {name: value.numpy() for name, value in inputs.items()})
    dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
    with torch.no_grad():
        want = [value.numpy() for value in module(*(value.to(dtype) for value in inputs.values()))]
    worst = 0.0
    for name, a, b in zip(outputs, got, want, strict=True):
        difference = _difference(a, b, absolute=name == "estimates")
        if not difference <= PARITY:
            raise CompileError(
                f"graph {path.stem}, output {name}: ONNX Runtime differs from torch by {difference:.2g}, more than {PARITY:g}; "
                "check the pair of versions with `pip list | grep -E 'torch|onnx'`"
            )
        worst = max(worst, difference)
    return worst


def _difference(a: NDArray[Any], b: NDArray[Any], absolute: bool) -> float:
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    return float(np.max(np.abs(a - b)) / (1.0 if absolute else max(float(np.max(np.abs(b))), 1e-12)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter reports packages that it could use and does not need; errors still come as exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
