"""What `precision=` means, and that "auto" measures once per machine, and takes what is fastest among what is right."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_bundle import write_manifest

from sage_edge.runtime import Bundle, BundleError, EngineError, Session, UsageError, machine
from sage_edge.runtime.bundle import GRAPHS, graph_path
from sage_edge.runtime.files import cache_folder
from sage_edge.runtime.precision import Choice, choose, named

needs_openvino = pytest.mark.skipif(util.find_spec("openvino") is None, reason="openvino is not installed")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/sage-edge"


def test_names(bundle: Bundle) -> None:
    assert choose(bundle, "fp32") == Choice("onnxruntime", "fp32")
    assert choose(bundle, "int8") == choose(bundle, "int8-cpu", "onnxruntime") == Choice("onnxruntime", "int8-cpu")
    for asked, name in (("fp32", "fp32"), ("int8", "int8-cpu"), ("bf16", "bf16"), ("int8-bf16", "int8-bf16")):
        assert named(bundle, asked, "openvino").name == named(bundle, name, "openvino").name == name
        if "bf16" not in asked:
            assert choose(bundle, asked, "openvino") == Choice("openvino", name)
    for wrong in ("int4", "int8-trt", "bf16", ""):
        with pytest.raises(UsageError, match="unknown to onnxruntime; one of fp32, int8, fp32-cuda, auto"):
            choose(bundle, wrong, "onnxruntime")
    with pytest.raises(UsageError, match="unknown to openvino; one of fp32, int8, bf16, int8-bf16, auto"):
        choose(bundle, "int8-trt", "openvino")
    with pytest.raises(UsageError, match="unknown to tensorrt; one of fp32, int8, auto"):
        choose(bundle, "int8-cpu", "tensorrt")
    with pytest.raises(UsageError, match="'int4' is unknown; one of fp32, int8, fp32-cuda, bf16, int8-bf16, auto"):
        choose(bundle, "int4", "auto")
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        choose(bundle, "auto", "openvno")


def test_missing_precision_says_what_there_is(copy_of: Callable[[], Path]) -> None:
    path = copy_of()
    (path / "onnx/visual.int8-cpu.onnx").unlink()
    write_manifest(path)
    bundle = Bundle.open(path)
    with pytest.raises(UsageError, match="holds no int8-cpu graphs, only fp32"):
        Session(bundle)
    with pytest.raises(UsageError, match="holds fp32 and auto runs int8-cpu, int8-trt"):
        choose(bundle, "int8", "auto")
    assert choose(bundle, "auto", "onnxruntime") == Choice("onnxruntime", "fp32")


def test_auto_takes_the_fastest_and_keeps_the_answer(bundle: Bundle, cache: Path) -> None:
    choice = choose(bundle, "auto", "onnxruntime", 1)
    (file,) = cache.iterdir()
    kept = json.loads(file.read_text())
    assert set(kept["seconds_per_hop"]) == {"onnxruntime fp32", "onnxruntime int8-cpu"}
    assert choice.name == kept["fastest"] == min(kept["seconds_per_hop"], key=kept["seconds_per_hop"].get)
    assert kept["bundle"] == bundle.manifest.digest
    assert choose(bundle, "auto", "onnxruntime", 1) == choice
    (other,) = choice.ratios
    file.write_text(json.dumps({**kept, "fastest": other}))
    assert choose(bundle, "auto", "onnxruntime", 1).name == other
    for damaged in ("", "[]", '{"fastest": "int4"}', json.dumps({**kept, "seconds_per_hop": {}})):
        file.write_text(damaged)
        assert choose(bundle, "auto", "onnxruntime", 1).precision in ("fp32", "int8-cpu")
        assert json.loads(file.read_text())["bundle"] == bundle.manifest.digest
    choose(bundle, "auto", "onnxruntime", 2)
    assert len(list(cache.iterdir())) == 2


def test_auto_looks_again_where_gpus_or_providers_are_others(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    seen = []

    def files() -> int:
        choose(bundle, "auto", "onnxruntime", 1)
        return len(list(cache.iterdir()))

    seen.append(files())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    seen.append(files())
    monkeypatch.setattr(machine, "gpus", lambda: ["Model: Another"])
    seen.append(files())
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AnotherExecutionProvider", "CPUExecutionProvider"])
    seen.append(files())
    assert [*seen, files()] == [1, 2, 3, 4, 4]


def test_auto_without_a_writable_home(bundle: Bundle, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    with Session(bundle, precision="auto", t0_ns=0) as session:
        assert session.precision in ("fp32", "int8-cpu")
        said = session.hello()["auto"]
        assert set(said["seconds_per_hop"]) == {"onnxruntime fp32", "onnxruntime int8-cpu"}
        assert (said["backend"], said["precision"]) == (session.backend, session.precision)
        assert min(said["times_as_long"].values()) >= 1
    with Session(bundle, precision=session.choice, t0_ns=0) as again:
        assert again.hello() == session.hello()
    with Session(bundle, precision="fp32", t0_ns=0) as named:
        assert named.hello()["auto"] is None


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/nowhere")
    assert cache_folder() == Path("/nowhere/.cache/sage-edge")
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/x")
    assert cache_folder() == Path("/var/cache/x")


def test_auto_under_another_name_of_the_wheel(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert choose(bundle, "auto", "onnxruntime", 1).precision in ("fp32", "int8-cpu")
    (file,) = cache.iterdir()
    assert ["onnxruntime", onnxruntime.__version__, "fp32"] in json.loads(file.read_text())["candidates"]


def with_int8_graphs(path: Path, change: Callable[[onnx.ModelProto], None]) -> Bundle:
    """The bundle at `path` with changed FP32 graphs, and FP32's golden outputs, in the place of its INT8 ones."""
    for name in GRAPHS:
        model = onnx.load(path / graph_path(name, "fp32"))
        change(model)
        onnx.save(model, path / graph_path(name, "int8-cpu"))
    with np.load(path / "golden.npz") as archive:
        golden = {name: archive[name.replace("int8-cpu", "fp32")] for name in archive.files}
    np.savez_compressed(path / "golden.npz", **golden)  # type: ignore[arg-type]
    write_manifest(path)
    return Bundle.open(path)


def more_work(model: onnx.ModelProto) -> None:
    """Products of 512 x 512 that hang on the input and add nothing to the output."""
    graph = model.graph
    output = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["real" if name == output else name for name in node.output]
        node.input[:] = ["real" if name == output else name for name in node.input]
    graph.initializer.extend([numpy_helper.from_array(np.array([512, 512], np.int64), "side"), numpy_helper.from_array(np.float32(0), "zero")])
    nodes = [("ReduceMax", [graph.input[0].name], "one", {"keepdims": 0}), ("Expand", ["one", "side"], "w0", {})]
    nodes += [
        (kind, [f"w{i}", *("w0" if kind == "MatMul" else "",)][: 1 + (kind == "MatMul")], f"w{i + 1}", {})
        for i, kind in enumerate(["MatMul", "Tanh"] * 4)
    ]
    nodes += [("ReduceMean", ["w8"], "mean", {"keepdims": 0}), ("Mul", ["mean", "zero"], "nothing", {}), ("Add", ["real", "nothing"], output, {})]
    graph.node.extend(helper.make_node(kind, inputs, [to], **attributes) for kind, inputs, to, attributes in nodes)
    onnx.checker.check_model(model, full_check=True)


def test_int8_is_not_chosen_because_it_is_int8(copy_of: Callable[[], Path], cache: Path) -> None:
    choice = choose(with_int8_graphs(copy_of(), more_work), "auto", "onnxruntime", 1)
    assert choice.precision == "fp32"
    assert choice.ratios["onnxruntime int8-cpu"] > 1
    assert choice.line().startswith("auto chose onnxruntime fp32, ")
    assert "times as long: onnxruntime int8-cpu " in choice.line()
    assert not choice.refused


def wrong_sign(model: onnx.ModelProto) -> None:
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["real" if name == output else name for name in node.output]
        node.input[:] = ["real" if name == output else name for name in node.input]
    model.graph.node.append(helper.make_node("Neg", ["real"], [output]))


def test_who_fails_the_golden_windows_is_not_raced(copy_of: Callable[[], Path], cache: Path) -> None:
    path = copy_of()
    bundle = with_int8_graphs(path, wrong_sign)
    choice = choose(bundle, "auto", "onnxruntime", 1)
    assert choice.precision == "fp32"
    assert list(choice.seconds) == ["onnxruntime fp32"]
    assert "golden windows differ by" in choice.refused["onnxruntime int8-cpu"]
    assert "\n" not in choice.line()
    assert "nothing else ran; onnxruntime int8-cpu refused: its golden windows differ" in choice.line()
    assert choose(bundle, "auto", "onnxruntime", 1) == choice
    write_manifest(path, tolerance={"fp32": 0.0, "int8-cpu": 0.0})
    shutil.copy(path / graph_path("visual", "int8-cpu"), path / graph_path("visual", "fp32"))
    write_manifest(path)
    with pytest.raises(
        EngineError,
        match=r"nothing that was asked for runs copy.sage on this machine: onnxruntime fp32: its golden windows .*; onnxruntime int8-cpu: its",
    ):
        choose(Bundle.open(path), "auto", "onnxruntime", 1)


def test_a_race_needs_golden_windows(copy_of: Callable[[], Path], cache: Path) -> None:
    path = copy_of()
    (path / "golden.npz").unlink()
    write_manifest(path)
    with pytest.raises(BundleError, match=r"holds no golden\.npz"):
        choose(Bundle.open(path), "auto", "onnxruntime", 1)


@needs_openvino
def test_auto_over_all_backends(copy_of: Callable[[], Path], cache: Path) -> None:
    from sage_edge.runtime.engines.openvino import has_bf16

    # OpenVINO rounds activations to bf16 where only the weights are INT8, as in these graphs made by hand
    write_manifest(path := copy_of(), tolerance={"fp32": 1e-4, "int8-cpu": 0.05})
    bundle = Bundle.open(path)
    choice = choose(bundle, "auto", "auto", 1)
    bf16 = {"openvino bf16", "openvino int8-bf16"} if has_bf16() else set()
    expected = {"onnxruntime fp32", "onnxruntime int8-cpu", "openvino fp32", "openvino int8-cpu"}
    assert expected <= {*choice.seconds, *choice.refused} <= expected | bf16 | {"onnxruntime fp32-cuda"}
    assert bf16 <= {*choice.seconds, *choice.refused}
    assert choice.name == min(choice.seconds, key=lambda name: choice.seconds[name])
    assert set(choose(bundle, "int8", "auto", 1).seconds) == {"onnxruntime int8-cpu", "openvino int8-cpu"}
    with Session(bundle, "auto", "auto", t0_ns=0, threads=1) as session:
        assert (session.backend, session.precision) == (choice.backend, choice.precision)


@needs_openvino
def test_bf16_by_name_has_to_pass_the_golden_windows_too(copy_of: Callable[[], Path], cache: Path) -> None:
    from sage_edge.runtime.engines.openvino import has_bf16

    path = copy_of()
    if not has_bf16():
        with pytest.raises(EngineError, match="this processor computes no bf16; choose precision fp32 or int8"):
            choose(Bundle.open(path), "bf16", "openvino", 1)
        return
    assert choose(Bundle.open(path), "bf16", "openvino", 1) == Choice("openvino", "bf16")
    with np.load(path / "golden.npz") as archive:
        golden = {name: -archive[name] if name == "estimates_fp32" else archive[name] for name in archive.files}
    np.savez_compressed(path / "golden.npz", **golden)  # type: ignore[arg-type]
    write_manifest(path)
    with pytest.raises(EngineError, match=r"openvino bf16: its golden windows differ by .*, more than 0\.05"):
        choose(Bundle.open(path), "bf16", "openvino", 1)


def test_auto_without_openvino(bundle: Bundle, cache: Path) -> None:
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from sage_edge.runtime import Bundle\n"
        "from sage_edge.runtime.precision import choose\n"
        f"bundle = Bundle.open({str(bundle.path)!r})\n"
        "print(sorted(choose(bundle, 'auto', 'auto', 1).seconds))\n"
        "try: choose(bundle, 'auto', 'openvino', 1)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=True)
    first, second = done.stdout.splitlines()
    assert first == "['onnxruntime fp32', 'onnxruntime int8-cpu']"
    assert second.startswith("EngineError openvino does not work on this machine (")
    assert second.endswith("): pip install 'sage-edge[openvino]'")
