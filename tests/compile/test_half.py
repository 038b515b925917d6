"""FP16 written into a graph: one type per node, casts where types meet and nowhere else, float32 where FP16 would overflow or vanish."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sage_edge.compile import half
from sage_edge.runtime import ort


def graph(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], outputs: list[str], size: int = 8) -> onnx.ModelProto:
    """A float32 model with input x [n, 4, `size`]; nodes get the names of their outputs."""
    for node in nodes:
        node.name = node.output[0]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", ["n", 4, size]), *((o, None) for o in outputs))]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], initializers), opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def halved(model: onnx.ModelProto, ranges: dict[str, tuple[float, float]] | None = None) -> onnx.ModelProto:
    half.halve(model, half.delicate(model, ranges or {}))
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    ort.load().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])  # binds every type parameter of every node
    return model


def types(model: onnx.ModelProto) -> dict[str, int]:
    values = {v.name: v.type.tensor_type.elem_type for v in [*model.graph.value_info, *model.graph.input, *model.graph.output]}
    return values | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def test_inputs_and_outputs_stay_float32_and_all_between_is_fp16() -> None:
    nodes = [helper.make_node("Mul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "w"], ["y"])]
    model = halved(graph(nodes, {"w": np.ones((1, 4, 1), np.float32)}, ["y", "a"]))
    kinds = types(model)
    assert {kinds[name] for name in ("x", "y", "a")} == {TensorProto.FLOAT}
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert [(node.input[0], node.output[0]) for node in casts] == [("x", "x/half"), ("a/half", "a"), ("y/half", "y")]
    assert {kinds[name] for node in model.graph.node if node.op_type != "Cast" for name in [*node.input, *node.output]} == {TensorProto.FLOAT16}


def test_a_tensor_is_cast_once_for_all_who_read_it_in_the_other_type() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("InstanceNormalization", ["a", "w", "b"], ["n1"]),
        helper.make_node("InstanceNormalization", ["a", "w", "b"], ["n2"]),
        helper.make_node("InstanceNormalization", ["n2", "w", "b"], ["n3"]),
        helper.make_node("Add", ["n1", "n3"], ["s"]),
        helper.make_node("Mul", ["s", "n1"], ["y"]),
    ]
    constants = {"w": np.ones(4, np.float32), "b": np.zeros(4, np.float32)}
    model = halved(graph(nodes, constants, ["y"]))
    assert Counter(node.input[0] for node in model.graph.node if node.op_type == "Cast") == dict.fromkeys(("x", "a", "n1", "n3", "y/half"), 1)
    kinds = types(model)
    assert kinds["n2"] == kinds["w"] == TensorProto.FLOAT, "float32 nodes in a row need no casts between them"


def test_a_constant_that_both_types_read_is_there_in_both() -> None:
    nodes = [
        helper.make_node("InstanceNormalization", ["x", "w", "w"], ["a"]),
        helper.make_node("Reshape", ["w", "shape"], ["b"]),
        helper.make_node("Mul", ["a", "b"], ["y"]),
    ]
    model = halved(graph(nodes, {"w": np.full(4, 1 / 3, np.float32), "shape": np.array([1, 4, 1])}, ["y"]))
    kinds = types(model)
    assert (kinds["w"], kinds["w/half"], kinds["shape"]) == (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64)
    assert sum(node.op_type == "Cast" for node in model.graph.node) == 2, "constants are stored, not cast"


@pytest.mark.parametrize(
    ("node", "constant", "size"),
    [
        (helper.make_node("ReduceSum", ["x", "c"], ["y"]), np.array([2]), 4096),  # ones: FP16 stops counting at 2048
        (helper.make_node("Mul", ["x", "c"], ["y"]), np.full((1, 4, 1), 1e5, np.float32), 8),
        (helper.make_node("Div", ["x", "c"], ["y"]), np.array(1e-9, np.float32), 8),
    ],
    ids=["a long sum", "a constant that overflows", "an epsilon that vanishes"],
)
def test_what_fp16_cannot_hold_stays_float32(node: onnx.NodeProto, constant: np.ndarray, size: int) -> None:
    model = graph([node], {"c": constant}, ["y"], size)
    x = np.ones((2, 4, size), np.float32)
    want = ReferenceEvaluator(model).run(None, {"x": x})[0]
    single = half.delicate(model, {})
    assert single == {"y"}
    got = ReferenceEvaluator(halved(model)).run(None, {"x": x})[0]
    np.testing.assert_array_equal(got, want)


def test_nodes_at_a_tensor_of_wide_range_stay_float32() -> None:
    nodes = [helper.make_node("Mul", ["x", "c"], ["a"]), helper.make_node("Mul", ["a", "a"], ["b"]), helper.make_node("Relu", ["b"], ["y"])]
    model = graph(nodes, {"c": np.array(100, np.float32)}, ["y"])
    assert half.delicate(model, {"a": (-100.0, 100.0)}) == set()
    assert half.delicate(model, {"b": (0.0, 40000.0)}) == {"b", "y"}
    assert half.delicate(model, {"b": (-40000.0, 0.0)}) == {"b", "y"}


def test_short_sums_and_infinite_masks_are_fine_in_fp16() -> None:
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["a"]), helper.make_node("Add", ["a", "mask"], ["y"])]
    model = graph(nodes, {"axes": np.array([2]), "mask": np.array([[[-np.inf], [0], [-1e4], [1]]], np.float32)}, ["y"], 300)
    assert half.delicate(model, {}) == set()
    got = ReferenceEvaluator(halved(model)).run(None, {"x": np.ones((1, 4, 300), np.float32)})[0]
    np.testing.assert_array_equal(got.ravel(), [-np.inf, 300, np.float16(-9700), 301])


def test_widening_undoes_halving_but_for_what_was_rounded() -> None:
    nodes = [
        helper.make_node("InstanceNormalization", ["x", "w", "b"], ["n"]),
        helper.make_node("Mul", ["n", "c"], ["y"]),
        helper.make_node("Add", ["y", "c"], ["z"]),
        helper.make_node("Cast", ["z"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["back"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["back", "y"], ["p"]),
        helper.make_node("InstanceNormalization", ["p", "w", "b"], ["o"]),
    ]
    constants = {"w": np.ones(4, np.float32), "b": np.zeros(4, np.float32), "c": np.full((1, 4, 1), 1 / 3, np.float32)}
    plain, operators = graph(nodes, constants, ["y", "o"]), [node.op_type for node in nodes]
    model = halved(graph(nodes, constants, ["y", "o"]))
    half.widen(model)
    onnx.checker.check_model(model, full_check=True)
    assert TensorProto.FLOAT16 not in types(onnx.shape_inference.infer_shapes(model, strict_mode=True)).values()
    assert [node.op_type for node in model.graph.node] == operators, "casts to and from integers are the graph's own"
    x = np.random.default_rng(0).normal(size=(2, 4, 8)).astype(np.float32)
    for constant in plain.graph.initializer:
        constant.CopyFrom(numpy_helper.from_array(np.float32(np.float16(constants[constant.name])), constant.name))
    for a, b in zip(*(ReferenceEvaluator(each).run(None, {"x": x}) for each in (plain, model)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
