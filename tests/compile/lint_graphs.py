"""For every rule of the linter a minuscule graph that breaks it and a twin that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

F32, F16, F64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
I8, I32, I64, U8 = TensorProto.INT8, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8
DTYPE = {F32: np.float32, F16: np.float16, I8: np.int8, U8: np.uint8, I32: np.int32, F64: np.float64, I64: np.int64}


class Build:
    """A graph, node by node."""

    def __init__(self, opset: int = 20) -> None:
        self.opset, self.nodes, self.constants = opset, [], []
        self.inputs, self.outputs, self.domains = [], [], [("", opset)]

    def input(self, name: str, kind: int = F32, shape: tuple[int | str, ...] = ("n", 4, 8, 8)) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def const(self, name: str, values: Any, kind: int = F32) -> str:
        with np.errstate(over="ignore"):
            self.constants.append(numpy_helper.from_array(np.asarray(values, DTYPE[kind]), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str | list[str] = "", domain: str = "", **attributes: Any) -> str:
        outputs = [output or f"{operator}_{len(self.nodes)}"] if isinstance(output, str) else output
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=f"/{outputs[0]}", domain=domain, **attributes))
        return outputs[0]

    def pair(
        self, tensor: str, scale: Any = 0.05, kind: int = F32, axis: int | None = None, zero: Any = 0, eight: int = I8, other: Any = None
    ) -> str:
        """Q and DQ around a tensor; `other` is the DQ's own scale."""
        name = f"{tensor}_{len(self.nodes)}"
        scales = [self.const(f"{name}_scale", scale, kind)]
        scales.append(scales[0] if other is None else self.const(f"{name}_other", other, kind))
        zeros = self.const(f"{name}_zero", np.broadcast_to(np.asarray(zero), np.shape(scale)), eight)
        along = {} if axis is None else {"axis": axis}
        quantized = self.node("QuantizeLinear", [tensor, scales[0], zeros], **along)
        return self.node("DequantizeLinear", [quantized, scales[1], zeros], **along)

    def model(self, output: str, kind: int = F32) -> onnx.ModelProto:
        self.outputs.insert(0, helper.make_tensor_value_info(output, kind, None))
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid(*each) for each in self.domains], ir_version=10)


def weights(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """`broken` breaks the rule and no other, `clean` breaks none."""

    rule: str
    broken: Callable[[], onnx.ModelProto]
    clean: Callable[[], onnx.ModelProto]
    target: str = "trt10.3"


def unary(operator: str, opset: int = 20, kind: int = F32, **attributes: Any) -> onnx.ModelProto:
    g = Build(opset)
    return g.model(g.node(operator, [g.input("x", kind)], **attributes), kind)


def conv(
    kind: int = F32,
    x: dict[str, Any] | None = None,
    w: dict[str, Any] | None = None,
    shape: tuple[int, ...] = (4, 4, 3, 3),
    size: tuple[int | str, ...] = ("n", 4, 8, 8),
    opset: int = 20,
    operator: str = "Conv",
    **attributes: Any,
) -> onnx.ModelProto:
    """A convolution between Q/DQ pairs; `x` and `w` are options of its pairs, None for what stays in float."""
    g = Build(opset)
    data, weight = g.input("x", kind, size), g.const("w", weights(*shape), kind)
    if x is not None:
        data = g.pair(data, kind=x.pop("kind", kind), **x)
    if w is not None:
        weight = g.pair(weight, kind=w.pop("kind", kind), **w)
    return g.model(g.node(operator, [data, weight], **attributes), kind)


def channels(count: int = 4, axis: int = 0, **more: Any) -> dict[str, Any]:
    return {"scale": np.full(count, 0.02), "axis": axis, **more}


def good(kind: int = F32) -> onnx.ModelProto:
    return conv(kind, {}, channels())


def domain(name: str) -> onnx.ModelProto:
    g = Build()
    g.domains.append((name, 1)) if name else None
    return g.model(g.node("FastGelu" if name else "Gelu", [g.input("x")], domain=name))


def integer(operator: str) -> onnx.ModelProto:
    g = Build()
    a, b = g.input("a", I8, ("n", 4)), g.const("b", np.ones((4, 4)), I8)
    if operator == "MatMulInteger":
        return g.model(g.node(operator, [a, b]), I32)
    return g.model(g.node("MatMul", [g.input("x", F32, ("n", 4)), g.const("w", weights(4, 4))]))


def axes(constant: bool) -> onnx.ModelProto:
    g = Build()
    x = g.input("x")
    return g.model(g.node("ReduceMax", [x, g.const("axes", [1], I64) if constant else g.input("axes", I32, (1,))]))


def axes_pad(constant: bool) -> onnx.ModelProto:
    g = Build()
    x, pads, value = g.input("x"), g.const("pads", [1, 1], I64), g.const("value", 0)
    return g.model(g.node("Pad", [x, pads, value, g.const("axes", [1], I64) if constant else g.input("axes", I32, (1,))]))


def norm(outputs: int, kind: int = F32, **attributes: Any) -> onnx.ModelProto:
    g = Build()
    x, scale = g.input("x", kind), g.const("s", np.ones(8), kind)
    return g.model(g.node("LayerNormalization", [x, scale], ["y", "mean", "inverse"][:outputs], **attributes), kind)


def loop() -> onnx.ModelProto:
    g = Build()
    branches = [
        helper.make_graph([helper.make_node(operator, ["x"], [operator])], operator, [], [helper.make_tensor_value_info(operator, F32, None)])
        for operator in ("Relu", "Tanh")
    ]
    g.input("x")
    return g.model(g.node("If", [g.input("flag", TensorProto.BOOL, ())], then_branch=branches[0], else_branch=branches[1]))


def cast(kind: int, through: bool = True) -> onnx.ModelProto:
    """float32 -> kind -> float32."""
    g = Build()
    x = g.input("x")
    if through:
        x = g.node("Cast", [g.node("Cast", [x], to=kind)], to=F32)
    return g.model(g.node("Relu", [x]))


def image(first: bool) -> onnx.ModelProto:
    """uint8 pixels that are cast, at once or behind a Transpose."""
    g = Build()
    x = g.input("x", U8, ("n", 8, 8, 3))
    order = ("Cast", "Transpose") if first else ("Transpose", "Cast")
    for operator in order:
        x = g.node(operator, [x], **({"to": F32} if operator == "Cast" else {"perm": [0, 3, 1, 2]}))
    return g.model(x)


def double(kind: int) -> onnx.ModelProto:
    g = Build()
    return g.model(g.node("Mul", [g.input("x", kind), g.const("c", 2.5, kind)]), kind)


def index(kind: int) -> onnx.ModelProto:
    g = Build()
    return g.model(g.node("Gather", [g.const("table", weights(8, 4)), g.input("i", kind, ("n",))]))


def mixed(operator: str, casts: bool) -> onnx.ModelProto:
    g = Build()
    x, c = g.input("x", F16), g.const("c", 2.0, F32)
    if casts:
        c = g.node("Cast", [c], to=F16)
    return g.model(g.node(operator, [x, c]), F16)


def declared(kind: int) -> onnx.ModelProto:
    g = Build()
    return g.model(g.node("Relu", [g.input("x", F16)]), kind)


def sized(*shape: int | str) -> onnx.ModelProto:
    g = Build()
    return g.model(g.node("Relu", [g.input("x", F32, shape)]))


def no_zero_point(given: bool) -> onnx.ModelProto:
    g = Build()
    x, scale, zero = g.input("x"), g.const("s", 0.05), [g.const("z", 0, I8)] if given else []
    return g.model(g.node("DequantizeLinear", [g.node("QuantizeLinear", [x, scale, *zero]), scale, *zero]))


def bias(quantized: bool) -> onnx.ModelProto:
    g = Build()
    x, w = g.pair(g.input("x")), g.pair(g.const("w", weights(4, 4, 3, 3)), **channels())
    b = g.const("b", np.ones(4), I32 if quantized else F32)
    if quantized:
        b = g.node("DequantizeLinear", [b, g.const("b_scale", 0.001)])
    return g.model(g.node("Conv", [x, w, b]))


def dynamic_scale(constant: bool) -> onnx.ModelProto:
    g = Build()
    x, zero = g.input("x"), g.const("z", 0, I8)
    scale = g.const("s", 0.05) if constant else g.node("ReduceMax", [g.node("Abs", [x])], keepdims=0)
    return g.model(g.node("DequantizeLinear", [g.node("QuantizeLinear", [x, scale, zero]), scale, zero]))


def typed_scale(scale: int) -> onnx.ModelProto:
    """float32 data behind a scale that makes it float16, or a Cast before."""
    g = Build()
    x = g.input("x", F32)
    if scale == F16:
        return g.model(g.pair(g.node("Cast", [x], to=F16), kind=F16), F16)
    return g.model(g.pair(x, kind=F16), F16)


def half_pair(opset: int) -> onnx.ModelProto:
    g = Build(opset)
    return g.model(g.node("Cast", [g.pair(g.input("x", F16), kind=F16)], to=F32))


def zero_points(count: int) -> onnx.ModelProto:
    g = Build()
    w, scale, zero = g.const("w", weights(4, 4, 3, 3)), g.const("s", np.full(4, 0.02)), g.const("z", np.zeros(count), I8)
    w = g.node("DequantizeLinear", [g.node("QuantizeLinear", [w, scale, zero], axis=0), scale, zero], axis=0)
    return g.model(g.node("Conv", [g.pair(g.input("x")), w]))


def product(operator: str, axis: int, **attributes: Any) -> onnx.ModelProto:
    g = Build()
    x, w = g.pair(g.input("x", F32, ("n", 4))), g.pair(g.const("w", weights(4, 4)), **channels(axis=axis))
    return g.model(g.node(operator, [x, w], **attributes))


def int8_reader(dequantized: bool) -> onnx.ModelProto:
    g = Build()
    scale, zero = g.const("s", 0.05), g.const("z", 0, I8)
    quantized = g.node("QuantizeLinear", [g.input("x"), scale, zero])
    if dequantized:
        return g.model(g.node("MaxPool", [g.node("DequantizeLinear", [quantized, scale, zero])], kernel_shape=[2, 2]))
    return g.model(g.node("DequantizeLinear", [g.node("MaxPool", [quantized], kernel_shape=[2, 2]), scale, zero]))


def stored(eight: bool) -> onnx.ModelProto:
    g = Build()
    x, scale, zero = g.pair(g.input("x")), g.const("s", np.full(4, 0.02)), g.const("z", np.zeros(4), I8)
    w = g.const("w", weights(4, 4, 3, 3) * 40, I8 if eight else F32)
    w = w if eight else g.node("QuantizeLinear", [w, scale, zero], axis=0)
    return g.model(g.node("Conv", [x, g.node("DequantizeLinear", [w, scale, zero], axis=0)]))


def twice(second: float) -> onnx.ModelProto:
    g = Build()
    x, w = g.input("x"), g.pair(g.const("w", weights(4, 4, 3, 3)), **channels())
    return g.model(g.node("Concat", [g.node("Conv", [g.pair(x, 0.05), w]), g.node("Conv", [g.pair(x, second), w])], axis=1))


def weight_norm(folded: bool) -> onnx.ModelProto:
    g = Build()
    w = g.const("v", weights(4, 4, 3, 3))
    if not folded:
        w = g.node("Mul", [g.node("Div", [w, g.node("ReduceL2", [w])]), g.const("gain", 2.0)])
    return g.model(g.node("Conv", [g.input("x"), w]))


def cast_weight(stored: bool) -> onnx.ModelProto:
    g = Build()
    w = g.const("w", weights(4, 4, 3, 3), F16 if stored else F32)
    return g.model(g.node("Conv", [g.input("x", F16), w if stored else g.node("Cast", [w], to=F16)]), F16)


def scalar(*shape: int) -> onnx.ModelProto:
    g = Build()
    return g.model(g.node("Mul", [g.input("x"), g.pair(g.const("c", np.full(shape, 2.0)))]))


def moved(by_hand: bool) -> onnx.ModelProto:
    g = Build()
    x, w = g.pair(g.input("x", F32, ("n", 4))), g.pair(g.const("w", weights(4, 4)))
    return g.model(g.node("MatMul", [x, g.node("Transpose", [w])]) if by_hand else g.node("Gemm", [x, w], transB=1))


def residual(conv_side: bool, skip: bool) -> onnx.ModelProto:
    """Conv + skip -> Relu, with Q/DQ on either input of the Add."""
    g = Build()
    x = g.pair(g.input("x"))
    y = g.node("Conv", [x, g.pair(g.const("w", weights(4, 4, 3, 3)), **channels())], pads=[1, 1, 1, 1])
    other = g.node("Relu", [g.input("skip")])
    return g.model(g.node("Relu", [g.node("Add", [g.pair(y) if conv_side else y, g.pair(other) if skip else other])]))


def batch_norm(folded: bool) -> onnx.ModelProto:
    g = Build()
    y = g.node("Conv", [g.pair(g.input("x")), g.pair(g.const("w", weights(4, 4, 3, 3)), **channels())])
    if not folded:
        y = g.node("BatchNormalization", [y, *(g.const(name, np.ones(4)) for name in ("scale", "shift", "mean", "variance"))])
    return g.model(g.node("Relu", [y]))


def before(operator: str, quantized: bool) -> onnx.ModelProto:
    g = Build()
    x = g.input("x")
    return g.model(g.node(operator, [g.pair(x) if quantized else x]))


def constant(values: Any, kind: int) -> onnx.ModelProto:
    g = Build()
    return g.model(g.node("Add", [g.input("x", kind, ("n", 2)), g.const("c", values, kind)]), kind)


def mask(value: float) -> onnx.ModelProto:
    g = Build()
    return g.model(g.node("Where", [g.input("keep", TensorProto.BOOL), g.input("x"), g.const("c", value)]))


def cast_constant(value: float) -> onnx.ModelProto:
    g = Build()
    return g.model(g.node("Add", [g.input("x", F16), g.node("Cast", [g.const("c", value)], to=F16)]), F16)


def variance(kind: int, power: bool = False) -> onnx.ModelProto:
    g = Build()
    x = g.node("Cast", [g.input("x", F16)], to=kind)
    square = g.node("Pow", [x, g.const("two", 2.0, kind)]) if power else g.node("Mul", [x, x])
    return g.model(g.node("ReduceMean", [square]), kind)


def late_cast(early: bool) -> onnx.ModelProto:
    """The squares of a float16 tensor, summed in float32; cast before they are squared, or after."""
    g = Build()
    x = g.input("x", F16)
    x = g.node("Cast", [x], to=F32) if early else x
    square = g.node("Mul", [x, x])
    return g.model(g.node("ReduceSum", [square if early else g.node("Cast", [square], to=F32)]))


def instance_norm(kind: int) -> onnx.ModelProto:
    g = Build()
    x, s, b = g.input("x", kind), g.const("s", np.ones(4), kind), g.const("b", np.zeros(4), kind)
    return g.model(g.node("InstanceNormalization", [x, s, b]), kind)


def root(epsilon: float) -> onnx.ModelProto:
    g = Build()
    return g.model(g.node("Sqrt", [g.node("Add", [g.input("x", F16), g.const("e", epsilon, F16)])]), F16)


def divide(epsilon: float, kind: int = F16) -> onnx.ModelProto:
    g = Build()
    x = g.input("x", kind)
    return g.model(g.node("Div", [x, g.node("Clip", [g.input("norm", kind), g.const("e", epsilon, kind)])]), kind)


def attention(head: int = 64, tokens: int = 100, int8: bool = False, soft: bool = False, scaled: bool = False, bias: bool = True) -> onnx.ModelProto:
    g = Build()
    q = g.input("q", F32, ("n", 2, tokens, head))
    k, v = g.input("k", F32, ("n", 2, head, tokens)), g.input("v", F32, ("n", 2, tokens, head))
    q = q if scaled else g.node("Mul", [q, g.const("scale", 0.125)])
    scores = g.node("MatMul", [g.pair(q), g.pair(k)] if int8 else [q, k])
    if scaled:
        scores = g.node("Mul", [scores, g.const("scale", 0.125)])
    if bias:
        scores = g.node("Add", [g.const("bias", weights(tokens, tokens)), scores])
    weight = g.node("Softmax", [scores], axis=-1)
    return g.model(g.node("MatMul", [g.pair(weight), g.pair(v)] if soft else [weight, v]))


def pool(rank: int, **attributes: Any) -> onnx.ModelProto:
    g = Build()
    x = g.input("x", F32, ("n", 4, 8, 8)[:rank])
    return g.model(g.node("MaxPool", [x], kernel_shape=[2] * (rank - 2), **attributes))


def transposed(axis: int) -> onnx.ModelProto:
    return conv(x={}, w=channels(axis=axis), operator="ConvTranspose")


GROUPED = {"shape": (6, 3, 3, 3), "size": ("n", 6, 8, 8), "group": 2}
WIDE = {"shape": (8, 4, 3, 3), "size": ("n", 8, 8, 8), "group": 2}

CASES = [
    Case("opset", lambda: unary("Relu", 21), lambda: unary("Relu", 20)),
    Case("opset", lambda: unary("Relu", 8), lambda: unary("Relu", 9), "trt11.4"),
    Case("opset", lambda: unary("Relu", 23), lambda: unary("Relu", 22), "trt10.13"),
    Case("domain", lambda: domain("com.microsoft"), lambda: domain("")),
    Case("integer-operator", lambda: integer("MatMulInteger"), lambda: integer("")),
    Case("operator", lambda: unary("Det"), lambda: unary("Gelu")),
    Case("operator", lambda: unary("BitwiseNot", kind=I32), lambda: unary("Neg", kind=I32), "trt11.4"),
    Case("constant-input", lambda: axes(False), lambda: axes(True)),
    Case("constant-input", lambda: axes_pad(False), lambda: axes_pad(True)),
    Case("first-output", lambda: norm(3), lambda: norm(1)),
    Case(
        "attribute", lambda: unary("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), lambda: unary("MaxPool", kernel_shape=[2, 2], dilations=[1, 1])
    ),
    Case("pool-rank", lambda: pool(3), lambda: pool(4)),
    Case("subgraph", loop, lambda: unary("Relu")),
    Case("type", lambda: cast(TensorProto.UINT16), lambda: cast(I32)),
    Case("type", lambda: index(TensorProto.UINT16), lambda: index(I32)),
    Case("uint8-tensor", lambda: image(False), lambda: image(True)),
    Case("double", lambda: double(F64), lambda: double(F32)),
    Case("int64", lambda: index(I64), lambda: index(I32)),
    Case("mixed-types", lambda: mixed("Add", False), lambda: mixed("Add", True)),
    Case("mixed-types", lambda: mixed("Pow", False), lambda: mixed("Pow", True)),
    Case("declared-type", lambda: declared(F32), lambda: declared(F16)),
    Case("dynamic-axis", lambda: sized("n", "samples"), lambda: sized("n", 100)),
    Case("uint8-quantization", lambda: conv(x={"eight": U8}, w=channels()), good),
    Case("uint8-quantization", lambda: no_zero_point(False), lambda: no_zero_point(True), "trt11.4"),
    Case("quantized-type", lambda: bias(True), lambda: bias(False), "trt11.4"),
    Case("zero-point", lambda: conv(x={"zero": 3}, w=channels()), good),
    Case("scale-constant", lambda: dynamic_scale(False), lambda: dynamic_scale(True)),
    Case("scale-value", lambda: conv(x={"scale": 0.0}, w=channels()), good),
    Case("scale-value", lambda: conv(x={}, w=channels() | {"scale": [0.1, 0.1, float("nan"), 0.1]}), good, "trt11.4"),
    Case("scale-value", lambda: conv(F16, x={"scale": 1e-9}, w=channels()), lambda: good(F16)),
    Case("scale-type", lambda: typed_scale(F32), lambda: typed_scale(F16)),
    Case("scale-type", lambda: half_pair(18), lambda: half_pair(19)),
    Case("scale-pair", lambda: conv(x={"other": 0.06}, w=channels()), lambda: conv(x={"other": 0.05}, w=channels())),
    Case("scale-size", lambda: conv(x={}, w=channels(3)), good),
    Case("scale-size", lambda: zero_points(1), lambda: zero_points(4)),
    Case("per-tensor", lambda: conv(x=channels(4, 1), w=channels()), good),
    Case("per-channel-axis", lambda: conv(x={}, w=channels(axis=1)), good),
    Case(
        "per-channel-axis",
        lambda: conv(x={}, w=channels(), operator="ConvTranspose"),
        lambda: conv(x={}, w=channels(axis=1), operator="ConvTranspose"),
    ),
    Case("per-channel-axis", lambda: product("MatMul", 0), lambda: product("MatMul", -1)),
    Case("per-channel-axis", lambda: product("Gemm", 1, transB=1), lambda: product("Gemm", 0, transB=1)),
    Case("int8-reader", lambda: int8_reader(False), lambda: int8_reader(True)),
    Case("int8-weights", lambda: stored(True), lambda: stored(False)),
    Case("equal-scales", lambda: twice(0.06), lambda: twice(0.05)),
    Case("constant-weights", lambda: weight_norm(False), lambda: weight_norm(True)),
    Case("constant-weights", lambda: cast_weight(False), lambda: cast_weight(True)),
    Case("axis-range", lambda: scalar(), lambda: scalar(1)),
    Case("half-quantized", lambda: conv(w=channels()), lambda: conv()),
    Case("half-quantized", lambda: conv(x={}), good),
    Case("apart", lambda: moved(True), lambda: moved(False)),
    Case("conv1d", lambda: conv(x={}, w=channels(), shape=(4, 4, 3), size=("n", 4, 8)), lambda: conv(shape=(4, 4, 3), size=("n", 4, 8))),
    Case("int8-groups", lambda: conv(x={}, w=channels(6), **GROUPED), lambda: conv(**GROUPED)),
    Case("int8-grouped", lambda: conv(x={}, w=channels(8), **WIDE), lambda: conv(**WIDE)),
    Case("residual-both", lambda: residual(True, True), lambda: residual(False, True)),
    Case("residual-skip", lambda: residual(False, False), lambda: residual(False, True)),
    Case("float-operator", lambda: before("Softmax", True), lambda: before("Softmax", False)),
    Case("batch-norm", lambda: batch_norm(False), lambda: batch_norm(True)),
    Case("orin-dequantize", lambda: good(F16), good, "trt10.16"),
    Case("nan", lambda: constant([np.nan, 1.0], F32), lambda: constant([0.0, 1.0], F32)),
    Case("infinity", lambda: mask(-np.inf), lambda: mask(-1e4)),
    Case("half-range", lambda: constant([1e5, 1.0], F16), lambda: constant([6e4, 1.0], F16)),
    Case("half-range", lambda: cast_constant(1e5), lambda: cast_constant(1e4)),
    Case("half-norm", lambda: variance(F16), lambda: variance(F32)),
    Case("half-norm", lambda: variance(F16, True), lambda: variance(F32, True)),
    Case("half-norm", lambda: late_cast(False), lambda: late_cast(True)),
    Case("half-norm", lambda: unary("LpNormalization", kind=F16), lambda: unary("LpNormalization", kind=F32)),
    Case("half-norm", lambda: unary("ReduceL2", kind=F16), lambda: unary("ReduceL2", kind=F32)),
    Case("half-norm", lambda: norm(1, F16, stash_type=F16), lambda: norm(1, F16)),
    Case("half-instance-norm", lambda: instance_norm(F16), lambda: instance_norm(F32)),
    Case("half-epsilon", lambda: root(1e-12), lambda: root(1e-5)),
    Case("half-epsilon", lambda: divide(1e-12), lambda: divide(1e-12, F32)),
    Case("half-scale", lambda: conv(F16, x={"scale": 1e-6}, w=channels()), lambda: good(F16)),
    Case("attention-head", lambda: attention(12), lambda: attention(24)),
    Case("attention-int8", lambda: attention(40, int8=True, soft=True), lambda: attention(32, int8=True, soft=True)),
    Case("attention-int8", lambda: attention(64, 520, int8=True, soft=True), lambda: attention(64, 520)),
    Case("attention-int8", lambda: attention(64, int8=True), lambda: attention(64, int8=True, soft=True)),
    Case("attention-scale", lambda: attention(scaled=True), lambda: attention(bias=False)),
]
