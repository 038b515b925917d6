"""`sage-edge compile NAME.sage --target tensorrt`: what it prints and refuses, and that it needs neither PyTorch nor data."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import standin

from sage_edge.cli.main import main
from sage_edge.runtime.bundle import Bundle
from sage_edge.runtime.engines import open_engine
from sage_edge.runtime.errors import EngineError
from sage_edge.runtime.session import Session

HERE = Path(__file__).resolve().parent
BLOCKED = ("torch", "torchaudio", "onnxscript", "safetensors", "matplotlib", "tqdm", "tensorboard", "transformers", "modelopt", "openvino")


def test_json_tells_every_engine(bundle: Bundle, script: standin._Script, capsys: pytest.CaptureFixture[str]) -> None:
    script.refuse = lambda model: "no kernel" if any(node.op_type == "Conv" for node in model.graph.node) and len(script.built) < 3 else None
    assert main(["compile", str(bundle.path), "--target", "tensorrt", "--precision", "both", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bundle"] == bundle.manifest.digest
    assert [(row["graph"], row["precision"], row["rung"]) for row in told["engines"]] == [
        ("visual", "int8", "int8"),
        ("audio", "int8", "fp16"),
        ("fusion", "int8", "int8"),
        ("visual", "fp32", "fp32"),
        ("audio", "fp32", "fp32"),
        ("fusion", "fp32", "fp32"),
    ]
    assert told["engines"][1]["failed"] == [{"rung": "int8", "why": "no kernel"}]
    assert all(Path(row["path"]).is_file() and row["size_bytes"] and row["layers"] for row in told["engines"])


def test_the_table_names_rung_size_layers_and_what_failed(bundle: Bundle, script: standin._Script, capsys: pytest.CaptureFixture[str]) -> None:
    script.refuse = lambda model: "no kernel" if len(script.built) < 2 else None
    assert main(["compile", str(bundle.path), "--target", "tensorrt"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split() == ["graph", "wanted", "built", "s", "MB", "layers", "difference", "allowed"]
    assert lines[1].split()[:3] == ["visual", "int8", "fp16"]
    assert lines[2] == "  int8 failed: no kernel"
    assert "note: visual: int8 failed: no kernel" in captured.err
    assert main(["compile", str(bundle.path), "--target", "tensorrt"]) == 0
    again = capsys.readouterr().out.splitlines()
    assert main(["compile", str(bundle.path), "--target", "tensorrt", "--fastest"]) == 0
    assert sum(line.startswith("  one run: ") and "int8" in line for line in capsys.readouterr().out.splitlines()) == 3
    assert [line.split()[3] for line in again if line.split()[0] in ("visual", "audio", "fusion")] == ["there"] * 3


@pytest.mark.parametrize("refused", ["nothing", "int8", "visual's int8"])
def test_what_was_built_passes_verify_whatever_rung_it_is(
    bundle: Bundle, script: standin._Script, capsys: pytest.CaptureFixture[str], refused: str
) -> None:
    def refuse(model: onnx.ModelProto) -> str | None:
        quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
        return "no" if quantized and (refused == "int8" or (refused != "nothing" and len(script.built) < 3)) else None

    script.refuse = refuse
    assert main(["compile", str(bundle.path), "--target", "tensorrt", "--precision", "both", "--json"]) == 0
    rungs = [row["rung"] for row in json.loads(capsys.readouterr().out)["engines"][:3]]
    assert rungs == {"nothing": ["int8"] * 3, "int8": ["fp16"] * 3, "visual's int8": ["fp16", "int8", "int8"]}[refused]
    assert main(["verify", str(bundle.path), "--backend", "tensorrt"]) == 0, capsys.readouterr().out


def test_a_session_says_what_tensorrt_runs(bundle: Bundle, script: standin._Script) -> None:
    script.refuse = lambda model: "no" if len(script.built) == 1 else None
    assert main(["compile", str(bundle.path), "--target", "tensorrt", "--precision", "both"]) == 0
    for precision, rungs in (("int8", ("fp16", "int8", "int8")), ("fp32", ("fp32",) * 3)):
        with Session(bundle, "tensorrt", precision, t0_ns=0) as session:
            assert session.hello()["rungs"] == dict(zip(("visual", "audio", "fusion"), rungs, strict=True))
            note = session.rung_note
        wanted = "TensorRT runs visual as fp16, not as int8; `sage-edge compile by-hand.sage --target tensorrt` says why"
        assert note == (wanted if precision == "int8" else None)
    with Session(bundle, precision="fp32", t0_ns=0) as session:
        assert (session.hello()["rungs"], session.rung_note) == (None, None)


def test_a_missing_engine_is_told_with_the_command_that_builds_it(bundle: Bundle, script: standin._Script) -> None:
    for precision, option in (("int8-trt", ""), ("fp32", " --precision fp32")):
        with pytest.raises(EngineError) as caught:
            open_engine(bundle.graph("visual", precision), "tensorrt")
        command = re.search(r"`sage-edge (.*)`", str(caught.value))
        assert command
        assert command[1] == f"compile by-hand.sage --target tensorrt{option}"
        assert main([str(bundle.path) if word == "by-hand.sage" else word for word in command[1].split()]) == 0
        open_engine(bundle.graph("visual", precision), "tensorrt").close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{bundle}"], "is a bundle; give --target tensorrt"),
        (["{bundle}", "--data", "STORE", "--out", "x.sage"], "is a bundle; give --target tensorrt"),
        (["{bundle}", "--target", "tensorrt", "--data", "STORE"], "--data is for compiling a checkpoint"),
        (["{bundle}", "--target", "tensorrt", "--max-drop", "0.1"], "--max-drop is for compiling a checkpoint"),
        (["{bundle}", "--target", "tensorrt", "--workspace-mb", "0"], "a workspace of 0 MB is too small"),
        (["{bundle}", "--target", "openvino"], "invalid choice: 'openvino'"),
        (["{folder}", "--target", "tensorrt"], "is no bundle"),
        (["{folder}", "--data", "STORE", "--out", "x.sage", "--workspace-mb", "9"], "--workspace-mb needs --target tensorrt"),
        (["{folder}", "--data", "STORE", "--out", "x.sage", "--precision", "fp32"], "--precision needs --target tensorrt"),
        (["{folder}", "--data", "STORE", "--out", "x.sage", "--fastest"], "--fastest needs --target tensorrt"),
        (["{folder}"], "the following arguments are required: --data, --out"),
        (["{folder}", "--data", "STORE"], "the following arguments are required: --out"),
    ],
)
def test_options_of_the_other_way_are_wrong_use(
    bundle: Bundle, script: standin._Script, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    filled = [argument.format(bundle=bundle.path, folder=tmp_path) for argument in arguments]
    assert main(["compile", *filled]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith("error: ")
    assert says in error[0]
    assert script.built == []


def test_a_bundle_that_is_not_there_is_one_line(script: standin._Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(tmp_path / "none.sage"), "--target", "tensorrt"]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_without_tensorrt_the_exit_code_is_1_and_the_line_says_how_to_install_it(
    bundle: Bundle, script: standin._Script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["compile", str(bundle.path), "--target", "tensorrt"]) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert "python3-libnvinfer" in error[0]


@pytest.mark.gpu
def test_on_a_gpu_the_engines_of_a_bundle_are_built_raced_and_verified(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path))
    assert main(["compile", str(bundle.path), "--target", "tensorrt", "--precision", "both", "--fastest", "--json"]) == 0
    engines = json.loads(capsys.readouterr().out)["engines"]
    assert [row["graph"] for row in engines] == ["visual", "audio", "fusion"] * 2
    assert all(row["layers"] > 0 and sum(row["precisions"].values()) == row["layers"] for row in engines)
    assert list(tmp_path.glob("engines/timing-*.cache"))
    assert main(["verify", str(bundle.path), "--backend", "tensorrt"]) == 0


CHILD = """
import importlib, sys
sys.modules.update(dict.fromkeys({blocked!r}))
sys.path.insert(0, {here!r})
import host_driver, standin
sys.modules["tensorrt"] = standin
for name in host_driver.modules():
    importlib.import_module(name).open_cuda = host_driver.open_cuda
{more}
from sage_edge.cli.main import main
code = main(["compile", {bundle!r}, "--target", "tensorrt", "--json"])
assert not any(name.startswith("sage_edge.training") and "data" not in name for name in sys.modules), "training was loaded"
sys.exit(code)
"""


def child(bundle: Bundle, cache: Path, more: str = "") -> subprocess.CompletedProcess[str]:
    """The verb in a fresh interpreter in which PyTorch, and what else a board lacks, cannot be imported."""
    code = CHILD.format(blocked=BLOCKED, here=str(HERE), bundle=str(bundle.path), more=more)
    environment = {"CACHE_DIRECTORY": str(cache), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment, check=False)


def test_a_board_needs_no_torch_no_onnxscript_and_no_data(bundle: Bundle, tmp_path: Path) -> None:
    done = child(bundle, tmp_path, 'standin._script.refuse = lambda model: "no" if len(standin._script.built) == 1 else None')
    assert done.returncode == 0, done.stderr
    assert [row["rung"] for row in json.loads(done.stdout)["engines"]] == ["fp16", "int8", "int8"]


def test_ctrl_c_is_one_line_exit_130_and_nothing_half_written(bundle: Bundle, tmp_path: Path) -> None:
    more = """
import os, signal, time
def interrupt(phase, step):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        time.sleep(0.01)
        if not standin._script.configs[-1]._monitor.step_complete("", 0):
            return
standin._script.at_step = interrupt
"""
    done = child(bundle, tmp_path / "cache", more)
    assert done.returncode == 130, done.stderr
    lines = done.stderr.splitlines()
    assert lines[-1] == "error: interrupted; nothing half-written was left behind"
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*")), "something was left behind"
