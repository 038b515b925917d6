"""`inspect --target`: a row per graph, findings with fix and source, exit code, JSON, one-line errors."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import onnx
import pytest
from lint_graphs import conv, good, unary

from sage_edge.cli.lint_text import SHOWN
from sage_edge.cli.main import main
from sage_edge.compile.lint import TARGETS


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Six operators that no release has."""
    model = unary("Det")
    node, last = model.graph.node[0], model.graph.node[0].output[0]
    for index in range(5):
        more = onnx.helper.make_node("Det", [last], [f"d{index}"], name=f"/det{index}")
        model.graph.node.append(more)
        last = more.output[0]
    node.name = "/first"
    onnx.save(model, tmp_path / "det.onnx")
    return tmp_path / "det.onnx"


@pytest.mark.parametrize("target", TARGETS)
def test_the_graphs_of_a_bundle_that_are_meant_for_tensorrt_are_linted(bundle_path: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle_path), "--target", target, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    held = {name.rsplit(".", 1)[1] for name in facts["graphs"]}
    assert "fp32" in held
    assert "int8-cpu" not in held
    assert len(facts["graphs"]) == 3 * len(held)
    assert facts["ok"]
    assert facts["target"] == target
    assert all(graph["nodes"] > 0 and graph["errors"] == 0 for graph in facts["graphs"].values())


def test_errors_are_exit_code_1_with_fix_and_source(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(broken), "--target", "trt10.3"]) == 1
    shown = capsys.readouterr().out
    assert "error [operator] in det.onnx: write it with other operators" in shown
    assert "  /first: Det is not supported by TensorRT 10.3" in shown
    assert shown.count("Det is not supported") == SHOWN
    assert f"and {6 - SHOWN} more (--json lists them)" in shown
    assert "operator: https://github.com/onnx/onnx-tensorrt" in shown


def test_json_has_every_finding(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(broken), "--target", "trt11.4", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    graph = facts["graphs"]["det.onnx"]
    assert (facts["ok"], graph["errors"], len(graph["findings"])) == (False, 6, 6)
    assert {*graph["findings"][0]} == {"rule", "severity", "node", "fact", "fix", "source"}


def test_warnings_and_notes_are_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(conv(x={}), tmp_path / "g.onnx")
    assert main(["inspect", str(tmp_path / "g.onnx"), "--target", "trt10.16"]) == 0
    assert "warning [half-quantized] in g.onnx" in capsys.readouterr().out


def test_wrong_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(good(), tmp_path / "g.onnx")
    assert main(["inspect", str(tmp_path / "g.onnx"), "--target", "trt10.2"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: unknown target 'trt10.2'; did you mean 'trt10.3'? one of trt10.3, trt10.13, trt10.16, trt11.4"
    ]
    assert main(["inspect", str(tmp_path / "none.onnx"), "--target", "trt10.3"]) == 1
    assert main(["inspect", str(tmp_path), "--target", "trt10.3"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_without_onnx_it_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(good(), tmp_path / "g.onnx")
    real = builtins.__import__

    def without(name: str, *rest, **options):
        if name.split(".")[0] == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["inspect", str(tmp_path / "g.onnx"), "--target", "trt10.3"]) == 2
    assert capsys.readouterr().err == "error: inspect needs onnx, which is not installed: pip install 'sage-edge[compile]'\n"
