"""A graph as the rules see it: who makes and reads each tensor, its type and shape, and the values of small constants.

Types and shapes are inferred anew: what a file says of its inner tensors may be older than its nodes. Weights are neither copied nor sent
through the inference, only their types and shapes; `parts` reads them one piece at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

UNDEFINED, FLOAT, UINT8, INT8, INT32, INT64, BOOL, FLOAT16, DOUBLE, BFLOAT16 = 0, 1, 2, 3, 6, 7, 9, 10, 11, 16
"""`onnx.TensorProto.DataType`, as far as the rules name them."""
FLOATS = (FLOAT, FLOAT16, DOUBLE, BFLOAT16)
DEFAULT = ("", "ai.onnx")
SMALL = 65536
"""Values of a constant up to which it is read as an array."""
MOVES = ("Transpose", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Cast")
"""Operators that hand their first input on with other shape or type."""

Shape = tuple["int | str", ...]


class View:
    """`model`, indexed. `nodes` are those of the main graph, in order."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.model = model
        self.nodes = list(graph.node)
        self.opset = next((entry.version for entry in model.opset_import if entry.domain in DEFAULT), 0)
        self.constants: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.maker: dict[str, onnx.NodeProto] = {}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        self.inputs = [value for value in graph.input if value.name not in self.constants]
        self.outputs = list(graph.output)
        self._built = set(self.constants)
        """Tensors that depend on constants alone."""
        self._values: dict[str, NDArray[Any] | None] = {}
        for node in self.nodes:
            for name in dict.fromkeys(filter(None, node.input)):
                self.readers.setdefault(name, []).append(node)
            for name in filter(None, node.output):
                self.maker[name] = node
            if node.op_type == "Constant":
                value = _constant(node)
                if value is not None:
                    self.constants[node.output[0]] = value
            if node.op_type == "Constant" or (node.input and all(name in self._built for name in node.input if name)):
                self._built.update(node.output)
        self._infos = _infer(model, self.constants)

    def type(self, name: str) -> int:
        """Element type of a tensor, UNDEFINED when it cannot be known."""
        return self._infos[name][0] if name in self._infos else UNDEFINED

    def shape(self, name: str) -> Shape | None:
        """Sizes of a tensor, a text for each that changes at run time; None when the rank is not known."""
        return self._infos[name][1] if name in self._infos else None

    def built(self, name: str) -> bool:
        """Whether a tensor depends on constants alone."""
        return name in self._built

    def value(self, name: str) -> NDArray[Any] | None:
        """A constant's values, also behind Cast and Identity; None for a large one and for what is not constant."""
        if name not in self._values:
            self._values[name] = self._read(name)
        return self._values[name]

    def _read(self, name: str) -> NDArray[Any] | None:
        from onnx import helper, numpy_helper

        if name in self.constants:
            tensor = self.constants[name]
            return np.asarray(numpy_helper.to_array(tensor)) if math.prod(tensor.dims) <= SMALL and not tensor.external_data else None
        node = self.maker.get(name)
        if node is None or node.op_type not in ("Cast", "Identity") or not self.built(name):
            return None
        value = self.value(node.input[0])
        if value is None or node.op_type == "Identity":
            return value
        with np.errstate(over="ignore"):
            return value.astype(helper.tensor_dtype_to_np_dtype(attribute(node, "to")))

    def reads(self, node: onnx.NodeProto, index: int) -> str:
        """Name of an input, "" when it is left out."""
        return node.input[index] if index < len(node.input) else ""

    def made_by(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, when it is one of `operators`."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type in operators else None

    def origin(self, name: str) -> tuple[str, list[onnx.NodeProto]]:
        """The tensor that `name` is a moved copy of, and the nodes in between, the last one first."""
        moved = []
        while (node := self.made_by(name, *MOVES)) is not None:
            moved.append(node)
            name = node.input[0]
        return name, moved

    def quantized(self, name: str) -> onnx.NodeProto | None:
        """The DequantizeLinear that makes a tensor, moved or not."""
        return self.made_by(self.origin(name)[0], "DequantizeLinear")

    def before(self, dequantize: onnx.NodeProto) -> str:
        """The tensor that a DequantizeLinear stands for: what its QuantizeLinear reads, or its own INT8 input."""
        quantize = self.made_by(dequantize.input[0], "QuantizeLinear")
        return str((dequantize if quantize is None else quantize).input[0])


def label(node: onnx.NodeProto) -> str:
    """How a person finds a node: its name, or what it makes."""
    return str(node.name or f"{node.op_type} of {next(iter(node.output), 'nothing')}")


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Value of an attribute as Python has it, bytes as text."""
    from onnx import helper

    for entry in node.attribute:
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            return value.decode() if isinstance(value, bytes) else value
    return default


def parts(tensor: onnx.TensorProto, size: int = 1 << 20) -> Iterator[NDArray[Any]]:
    """Values of a float constant, at most `size` at a time."""
    from onnx import helper, numpy_helper

    if tensor.external_data:
        return
    if raw := tensor.raw_data:
        values = np.frombuffer(raw, helper.tensor_dtype_to_np_dtype(tensor.data_type))
    else:
        values = np.asarray(numpy_helper.to_array(tensor)).ravel()
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    from onnx import numpy_helper

    found: onnx.TensorProto | None = None
    for entry in node.attribute:
        if entry.name == "value":
            found = entry.t
        elif entry.name in ("value_float", "value_floats"):
            found = numpy_helper.from_array(np.array(attribute(node, entry.name), np.float32))
        elif entry.name in ("value_int", "value_ints"):
            found = numpy_helper.from_array(np.array(attribute(node, entry.name), np.int64))
    return found


def _infer(model: onnx.ModelProto, constants: dict[str, onnx.TensorProto]) -> dict[str, tuple[int, Shape | None]]:
    """Type and shape of every tensor, from a copy of the graph that holds no large constant."""
    import onnx
    from onnx import helper, shape_inference

    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph, names = light.graph, {tensor.name for tensor in model.graph.initializer}
    graph.name = "types"
    graph.node.extend(model.graph.node)
    graph.input.extend(value for value in model.graph.input if value.name not in names)
    # without types: what the nodes make decides, not what the file says
    graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in model.graph.output)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= 1024 and not tensor.external_data:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    try:
        graph = shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception:  # C++ exceptions of several kinds, for a graph that is broken or uses unknown operators; other rules name those
        graph.value_info.extend(model.graph.value_info)
    found: dict[str, tuple[int, Shape | None]] = {}
    for value in (*graph.value_info, *graph.output, *graph.input):
        kind = value.type.tensor_type
        if value.type.HasField("tensor_type"):
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim)
            found[value.name] = (kind.elem_type, shape if kind.HasField("shape") else None)
    return found | {name: (tensor.data_type, tuple(tensor.dims)) for name, tensor in constants.items()}
