"""The linter: every rule has a source and graphs that break it alone, and what we emit breaks none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from lint_graphs import CASES, F16, F32, Build, Case, conv, good, unary

from sage_edge.compile import quantize_trt
from sage_edge.compile.groups import groups as groups_of
from sage_edge.compile.lint import RULES, TARGETS, lint
from sage_edge.compile.lint_rules.targets import SINCE
from sage_edge.compile.lint_rules.view import View
from sage_edge.runtime import ort
from sage_edge.runtime.errors import CompileError, UsageError

GRAPHS = ("visual", "audio", "fusion")


def name(case: Case) -> str:
    return case.rule


@pytest.mark.parametrize("case", CASES, ids=name)
def test_a_graph_that_breaks_a_rule_is_caught_by_that_rule_alone(case: Case) -> None:
    found = lint(case.broken(), case.target)
    assert {finding.rule for finding in found} == {case.rule}, "\n".join(map(str, found))
    assert all(finding.node and finding.fact and finding.fix and finding.source for finding in found)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_its_twin_breaks_none_and_is_valid_onnx(case: Case) -> None:
    clean = case.clean()
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(clean, strict_mode=True), full_check=True)
    assert lint(clean, case.target) == []


def test_every_rule_has_a_source_and_a_graph_that_breaks_it() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert {case.rule for case in CASES} == {rule.id for rule in RULES}
    for rule in RULES:
        assert rule.says, rule.id
        assert rule.source, rule.id


@pytest.mark.parametrize("operator", SINCE)
def test_an_operator_is_refused_until_the_release_that_brought_it(operator: str) -> None:
    g = Build(23)
    model = g.model(g.node(operator, [g.input("x")]))
    for target in TARGETS.values():
        refused = "operator" in {finding.rule for finding in lint(model, target.name)}
        assert refused == (target.version < SINCE[operator])


def test_axes_of_pad_may_change_from_10_4_on() -> None:
    case = next(case for case in CASES if case.rule == "constant-input" and "Pad" in {node.op_type for node in case.broken().graph.node})
    assert lint(case.broken(), "trt10.3")
    assert lint(case.broken(), "trt10.13") == []


def test_weights_stored_as_int8_are_fine_from_11_on() -> None:
    broken = next(case for case in CASES if case.rule == "int8-weights").broken()
    assert [bool(lint(broken, target)) for target in TARGETS] == [True, True, True, False]


def test_what_the_file_says_of_inner_types_does_not_count() -> None:
    model = unary("Relu", kind=F16)
    model.graph.node.append(onnx.helper.make_node("Exp", [model.graph.output[0].name], ["y"]))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(model.graph.output[0].name, F32, None))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", F16, None))
    assert View(model).type(model.graph.node[0].output[0]) == F16
    assert lint(model, "trt10.3") == []


def test_large_constants_are_looked_through_too() -> None:
    model = conv(shape=(64, 32, 9, 9), size=("n", 32, 16, 16))
    values = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    assert values.size > 1 << 16
    values[-1, -1, -1, -1] = float("nan")
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, "w"))
    assert [(finding.rule, finding.node) for finding in lint(model, "trt10.3")] == [("nan", "w")]


def test_errors_come_first() -> None:
    g = Build()
    x, w = g.input("x", F32, ("n", "width")), g.const("w", [[1.0]])
    g.node("Det", [x], "d")
    found = lint(g.model(g.node("MatMul", [x, g.pair(w)])), "trt10.3")
    assert [finding.severity for finding in found] == ["error", "warning", "warning"]


def test_a_file_is_linted_like_its_model(tmp_path: Path) -> None:
    for case in CASES[::5]:
        onnx.save(case.broken(), tmp_path / "g.onnx")
        assert lint(tmp_path / "g.onnx", case.target) == lint(case.broken(), case.target)


@pytest.mark.parametrize(("target", "near"), [("trt10.2", "trt10.3"), ("10.16", "trt10.16"), ("TRT11", "trt11.4")])
def test_an_unknown_target_names_the_nearest(target: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"{target!r}; did you mean {near!r}"):
        lint(good(), target)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0a"])
def test_what_is_no_graph_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.onnx").write_bytes(content)
    with pytest.raises(CompileError, match=r"g\.onnx .*; give the \.onnx"):
        lint(tmp_path / "g.onnx", "trt10.3")


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("target", TARGETS)
def test_float_graphs_pass_and_graphs_for_the_cpu_do_not(bundle_path: Path, graph: str, target: str) -> None:
    assert [finding for finding in lint(bundle_path / "onnx" / f"{graph}.fp32.onnx", target) if finding.severity == "error"] == []
    assert "uint8-quantization" in {finding.rule for finding in lint(bundle_path / "onnx" / f"{graph}.int8-cpu.onnx", target)}


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("left", ["default", "nothing", "everything"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_what_int8_trt_emits_passes_on_every_target(bundle_path: Path, graph: str, left: str, half: bool) -> None:
    path = bundle_path / "onnx" / f"{graph}.fp32.onnx"
    source = onnx.load(path)
    groups = {"default": quantize_trt.FLOAT, "nothing": (), "everything": tuple(groups_of(source))}[left]
    emitted = quantize_trt.emit(path, dict.fromkeys(quantize_trt.tensors(source, groups), (-4.0, 4.0)), groups, half)
    for target in TARGETS:
        found = lint(emitted, target)
        assert [finding for finding in found if finding.severity == "error"] == []
        noted = half and target == "trt10.16" and any(node.op_type == "DequantizeLinear" for node in emitted.graph.node)
        assert ("orin-dequantize" in {finding.rule for finding in found}) == noted


def test_what_is_spoilt_in_an_int8_trt_graph_is_found(bundle_path: Path) -> None:
    path = bundle_path / "onnx" / "visual.fp32.onnx"
    emitted = quantize_trt.emit(path, dict.fromkeys(quantize_trt.tensors(onnx.load(path)), (-4.0, 4.0)))
    constants = {tensor.name: tensor for tensor in emitted.graph.initializer}
    quantize = next(node for node in emitted.graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in constants)
    constants[quantize.input[1]].CopyFrom(onnx.numpy_helper.from_array(np.float32(0.05), quantize.input[1]))
    assert "scale-type" in {finding.rule for finding in lint(emitted, "trt10.3") if finding.severity == "error"}
    constants[quantize.input[1]].CopyFrom(onnx.numpy_helper.from_array(np.float16(0), quantize.input[1]))
    assert "scale-value" in {finding.rule for finding in lint(emitted, "trt10.3") if finding.severity == "error"}


SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False, "AddQDQPairToWeight": True}
"""ONNX Runtime's quantizer asked for what TensorRT takes; it still puts Q/DQ on both inputs of a residual Add."""
ALIKE = {**SYMMETRIC, "OpTypesToExcludeOutputQuantization": ["Conv", "Relu", "Add", "MaxPool", "ReduceMean"], "ForceQuantizeNoInputCheck": True}


@pytest.mark.parametrize(
    ("form", "options", "errors", "warnings"),
    [
        ("QDQ", {}, {"zero-point", "quantized-type"}, {"int8-weights", "residual-both"}),
        ("QOperator", {}, {"integer-operator", "int8-reader", "domain", "zero-point"}, set()),
        ("QDQ", ALIKE, set(), {"residual-both"}),
    ],
)
def test_what_onnx_runtimes_quantizer_makes_is_told_apart(bundle_path: Path, tmp_path: Path, form: str, options, errors: set, warnings: set) -> None:
    ort.load()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Faces(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{"faces": np.random.default_rng(0).normal(size=(2, 3, 40, 40)).astype(np.float32)}])

        def get_next(self):
            return next(self.left, None)

    out = tmp_path / "quantized.onnx"
    quantize_static(
        bundle_path / "onnx" / "visual.fp32.onnx",
        out,
        Faces(),
        quant_format=QuantFormat[form],
        per_channel=form == "QDQ",
        op_types_to_quantize=["Conv", "MaxPool", "Add"],
        extra_options=options,
    )
    found = lint(out, "trt10.3")
    assert {finding.rule for finding in found if finding.severity == "error"} == errors
    assert {finding.rule for finding in found if finding.severity == "warning"} == warnings
