"""A checkpoint becomes a bundle that verifies itself, or an error of one line and nothing on the disk."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from sage_edge.calibration import verify
from sage_edge.calibration.check import check_golden, evaluate
from sage_edge.calibration.evaluation import Loss
from sage_edge.calibration.offline import Offline
from sage_edge.calibration.ranges import Ranges
from sage_edge.cli.main import main
from sage_edge.compile import compile_bundle, golden, quantize_cpu
from sage_edge.compile.blame import blame
from sage_edge.runtime import Bundle
from sage_edge.runtime.bundle import FileInfo, graph_path
from sage_edge.runtime.errors import BundleError, CompileError
from sage_edge.runtime.files import sha256_file
from sage_edge.training.data.store import Store

GRAPHS = ("visual", "audio", "fusion")


def spoilt_ranges(bundle: Path, graph: str) -> Ranges:
    """Ranges that are good for every graph but `graph`, whose activations are all cut to a sliver."""
    graphs = {}
    for name in GRAPHS:
        model = onnx.load(bundle / "onnx" / f"{name}.int8-cpu.onnx")
        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        graphs[name] = {}
        for tensor in quantize_cpu.tensors(onnx.load(bundle / "onnx" / f"{name}.fp32.onnx")):
            if f"{tensor}_scale" in values:
                scale, zero = float(values[f"{tensor}_scale"]), int(values[f"{tensor}_zero_point"])
                graphs[name][tensor] = (-zero * scale, (255 - zero) * scale)
            else:  # in front of a Relu that 8 bits absorb
                graphs[name][tensor] = (-1.0, 1.0)
    graphs[graph] = dict.fromkeys(graphs[graph], (0.0, 0.001))
    return Ranges("minmax", "0" * 64, 1, graphs)


def rewritten(bundle: Path, folder: Path, **changes: object) -> Bundle:
    """A copy of `bundle` whose manifest fits the files that lie in `folder`, with `changes`."""
    manifest = Bundle.open(bundle).manifest
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    files = {path.relative_to(folder).as_posix(): FileInfo(path.stat().st_size, sha256_file(path)) for path in paths}
    (folder / "manifest.json").write_text(dataclasses.replace(manifest, files=files, **changes).to_json())
    return Bundle.open(folder)


def test_the_manifest_says_what_was_compiled(bundle_path: Path, checkpoint_path: Path, model) -> None:
    m, meta = Bundle.open(bundle_path).manifest, json.loads((checkpoint_path / "checkpoint.json").read_text())
    p = model.preset
    assert (m.model.preset, m.model.reliability, m.model.rgf_scale, m.model.revision) == ("tiny", "modality", "length", meta["revision"])
    assert (m.window, m.hop, m.rate_hz, m.samples) == (p.window, 15, 30, p.samples)
    assert (m.face.crop_size, m.face.input_size, m.face.mean, m.face.std) == (48, 40, p.mean, p.std)
    assert (m.dims.visual, m.dims.audio) == (p.visual_dim, p.audio_dim)
    assert (m.trained_on.name, m.trained_on.synthetic, m.trained_on.extra["seed"]) == ("synthetic", True, 3)
    assert m.calibration is not None
    assert (m.calibration.method, m.calibration.clips) == ("percentile", 9)
    assert set(m.ccc) == {"overlap", "live"}
    assert set(m.ccc["live"]) == {"fp32", "int8-cpu"}
    assert set(m.ccc["overlap"]) == {"fp32", "int8-cpu", "int8-trt"}, "simulated on the CPU"
    assert m.ccc["overlap"]["fp32"].mean > 0.8, "the micro model was fitted to these videos"
    assert m.weights_bytes["int8-cpu"] < 0.45 * m.weights_bytes["fp32"]
    assert m.weights_bytes["int8-trt"] < 0.6 * m.weights_bytes["fp32"], "FP16 in the file, INT8 in the engine"
    assert not list(bundle_path.parent.glob(".*")), "no temporary folder is left"


def test_verify_agrees_with_the_manifest(bundle_path: Path, store_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    result = verify(bundle, Store.open(store_path), max_drop=0.25, progress=False)
    assert result.ok, result.failures
    assert result.videos == 2
    for protocol, rows in result.ccc.items():
        for precision, row in rows.items():
            assert row == pytest.approx(dataclasses.asdict(bundle.manifest.ccc[protocol][precision]))
            for name, (low, high) in result.ccc_interval[protocol][precision].items():
                assert low <= row[name] <= high
    fp32, int8 = result.ccc["live"]["fp32"], result.ccc["live"]["int8-cpu"]
    assert result.drop["live"]["int8-cpu"]["valence"] == pytest.approx(fp32["valence"] - int8["valence"])
    assert set(result.ccc_without) == {"visual", "audio"}
    assert result.ccc_without["visual"] != result.ccc["overlap"]["fp32"]
    json.dumps(result.to_dict(), allow_nan=False)


def test_live_ends_where_overlap_of_single_windows_does(bundle_path: Path, store_path: Path) -> None:
    """The newest tick of a window is what a session says there: two ways through the graphs, one answer."""
    from sage_edge.calibration.evaluation import play
    from sage_edge.runtime import Session
    from sage_edge.training.data.windows import window_at

    bundle, trial = Bundle.open(bundle_path), Store.open(store_path).trials("val")[0]
    with Session(bundle, precision="fp32", t0_ns=0) as session, Offline.of(bundle) as offline:
        estimates = list(play(session, trial))
        assert len(estimates) == -(-trial.n_ticks // 15)
        for i, estimate in enumerate(estimates):
            newest = min(15 * (i + 1), trial.n_ticks) - 1
            clip = window_at(trial, newest, 60)
            want = offline.window(clip.faces, clip.samples, clip.visual_mask, clip.audio_mask, "fp32")["estimates"][-1]
            assert abs(estimate.valence - want[0]) <= 1e-4
            assert abs(estimate.arousal - want[1]) <= 1e-4


def test_golden_windows_are_synthetic_small_and_cover_the_masks(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    stored = bundle.golden()
    for name, value in golden.inputs(60, 32000, 48).items():
        assert (stored[name] == value).all()
        assert stored[name].dtype == value.dtype
    assert bundle.manifest.files["golden.npz"].size < 60_000
    assert stored["faces"][~stored["visual_mask"]].max() == 0
    assert not stored["visual_mask"].all()
    assert not stored["audio_mask"].all()
    assert stored["faces"].std() > 40
    assert 0.01 < np.abs(stored["samples"]).max() <= 1
    for precision in ("fp32", "int8-cpu"):
        assert stored[f"estimates_{precision}"].shape == (3, 60, 2)
        assert stored[f"temporal_{precision}"].shape == (3, 60)
        assert stored[f"modality_{precision}"].shape == (3, 60, 2)
    assert (stored["estimates_fp32"] != stored["estimates_int8-cpu"]).any()
    assert all(result.ok for result in check_golden(bundle, progress=False).values())


def test_full_windows_of_golden_are_small_too(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "golden.npz", **golden.inputs(300, 160_000, 48))
    assert (tmp_path / "golden.npz").stat().st_size < 150_000


def test_verify_fails_on_a_golden_window_that_is_off(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "off.sage"
    shutil.copytree(bundle_path, folder)
    arrays = Bundle.open(bundle_path).golden()
    arrays["estimates_fp32"][1, 7, 0] += 0.01
    np.savez_compressed(folder / "golden.npz", **arrays)
    rewritten(bundle_path, folder)
    assert main(["verify", str(folder)]) == 1
    assert "FAILED: golden windows in fp32 differ by 0.01, more than 0.001" in capsys.readouterr().out


def test_verify_fails_when_int8_loses_more_than_allowed(bundle_path: Path, store_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle_path), "--data", str(store_path), "--max-drop", "-1", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is False
    assert len(result["failures"]) == 6, "valence and arousal: int8-cpu under both protocols, int8-trt under overlap"
    assert all("more than -1" in text for text in result["failures"])


def test_verify_takes_the_precisions_that_run_here(bundle_path: Path, store_path: Path, tmp_path: Path) -> None:
    """Graphs for TensorRT are none of its business, and INT8 alone has nothing to be compared with."""
    folder = tmp_path / "other.sage"
    shutil.copytree(bundle_path, folder)
    for name in GRAPHS:
        (folder / graph_path(name, "fp32")).unlink()
        (folder / graph_path(name, "int8-trt")).write_bytes(b"not for this backend")
    bundle = rewritten(bundle_path, folder)
    assert bundle.precisions == ("int8-cpu", "int8-trt")
    result = verify(bundle, progress=False)
    assert result.ok
    assert list(result.golden) == ["int8-cpu"]
    with pytest.raises(BundleError, match="no fp32 to compare with"):
        verify(bundle, Store.open(store_path), progress=False)


def test_verify_and_inspect_need_neither_torch_nor_onnx(bundle_path: Path, store_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxscript', 'safetensors', 'cv2'): sys.modules[name] = None\n"
        "from sage_edge.cli.main import main\n"
        f"bundle, store = {str(bundle_path)!r}, {str(store_path)!r}\n"
        "sys.exit(main(['verify', bundle, '--data', store, '--max-drop', '0.25', '--json']) or main(['inspect', bundle]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert json.loads(first)["videos"] == 2
    assert any(line.startswith("visual.int8-cpu") for line in rest)
    assert "operators" not in done.stdout


def test_inspect_counts_operators(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["graphs"]["visual.fp32"]["operators"]["Conv"] == 17
    assert facts["graphs"]["visual.int8-cpu"]["quantized_share"] > 0.9
    assert facts["graphs"]["visual.int8-trt"]["quantized_share"] > 0.9, "its weights are rounded in front of their node"
    assert {graph["opset"] for graph in facts["graphs"].values()} == {20}
    assert facts["bytes"] == sum(path.stat().st_size for path in bundle_path.rglob("*") if path.name != "manifest.json" and path.is_file())
    total = sum(facts["graphs"][f"{name}.fp32"]["weights_bytes"] for name in GRAPHS)
    assert facts["weights_bytes"]["fp32"] == total
    assert main(["inspect", str(bundle_path)]) == 0
    text = capsys.readouterr().out
    assert "synthetic: for demonstration only" in text
    assert "every hash right" in text


def test_compile_fails_when_a_graph_is_spoilt_and_names_it(
    bundle_path: Path, checkpoint_path: Path, store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt_ranges(bundle_path, "visual").save(tmp_path / "ranges.json")
    out = tmp_path / "out" / "bad.sage"
    code = main(["compile", str(checkpoint_path), "--data", str(store_path), "--out", str(out), "--ranges", str(tmp_path / "ranges.json")])
    assert code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: int8-cpu loses 0.")
    assert "graph visual does it" in error
    assert not out.parent.exists(), "the folder made for it has gone again"


def test_blame_under_live_names_the_graph_too(bundle_path: Path, store_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "spoilt.sage"
    shutil.copytree(bundle_path, folder)
    emitted = quantize_cpu.emit(folder / graph_path("fusion", "fp32"), spoilt_ranges(bundle_path, "fusion").graphs["fusion"])
    onnx.save(emitted, folder / graph_path("fusion", "int8-cpu"))
    bundle = rewritten(bundle_path, folder)
    found = evaluate(bundle, Store.open(store_path), progress=False)
    text = blame(bundle, found, Loss("live", "int8-cpu", "valence", 0.5, 0.005), progress=False)
    assert text.startswith("graph fusion does it (alone in int8-cpu: visual ")


def expect_refusal(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str, parent: Path) -> None:
    before = sorted(parent.iterdir())
    assert main(arguments) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert says in error
    assert sorted(parent.iterdir()) == before


def test_refusals_are_one_line_and_leave_nothing(
    checkpoint_path: Path, store_path: Path, bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, ck, data = str(tmp_path / "x.sage"), str(checkpoint_path), str(store_path)

    def refuse(arguments: list[str], code: int, says: str) -> None:
        expect_refusal(capsys, ["compile", *arguments], code, says, tmp_path)

    refuse([str(tmp_path / "none"), "--data", data, "--out", out], 1, "is not a checkpoint")
    refuse([ck, "--data", data, "--out", out, "--preset", "base"], 1, "of preset 'tiny', not 'base'")
    refuse([ck, "--data", str(tmp_path), "--out", out], 1, "no prepared store")
    refuse([ck, "--data", data, "--out", str(bundle_path)], 2, "exists already")
    refuse([ck, "--data", data, "--out", out, "--method", "median"], 2, "unknown calibration method 'median'")
    refuse([ck, "--data", data, "--out", out, "--ranges", str(store_path / "index.json")], 1, "is no ranges file")
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint_path, damaged)
    (damaged / "model.safetensors").write_bytes(b"\x00" * 100)
    refuse([str(damaged), "--data", data, "--out", out], 1, "model.safetensors")
    meta = json.loads((checkpoint_path / "checkpoint.json").read_text())
    shutil.copy(checkpoint_path / "model.safetensors", damaged)
    (damaged / "checkpoint.json").write_text(json.dumps({**meta, "trained_on": {}}))
    refuse([str(damaged), "--data", data, "--out", out], 1, "does not say which corpus it was trained on")
    expect_refusal(capsys, ["calibrate", ck, "--data", data, "--out", str(damaged / "checkpoint.json")], 2, "exists already", tmp_path)
    expect_refusal(capsys, ["verify", str(tmp_path / "none.sage")], 1, "does not exist", tmp_path)


def test_a_store_on_another_clock_is_refused(
    checkpoint_path: Path, store_path: Path, bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    native = tmp_path / "native"
    shutil.copytree(store_path, native)
    index = json.loads((native / "index.json").read_text())
    index["meta"]["rate"] = "native"
    (native / "index.json").write_text(json.dumps(index))
    arguments = ["compile", str(checkpoint_path), "--data", str(native), "--out", str(tmp_path / "x.sage")]
    expect_refusal(capsys, arguments, 1, "prepared with --rate native", tmp_path)
    expect_refusal(capsys, ["verify", str(bundle_path), "--data", str(native)], 1, "prepared with --rate native", tmp_path)


def test_a_full_disk_is_one_line_and_leaves_nothing(checkpoint_path: Path, store_path: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(small)]
    mounted = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    limit = "" if mounted else "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); "
    code = f"import sys; {limit}from sage_edge.cli.main import main; sys.exit(main(sys.argv[1:]))"
    try:
        command = [sys.executable, "-c", code, "compile", str(checkpoint_path), "--data", str(store_path), "--out", str(small / "x.sage")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        error = [line for line in done.stderr.splitlines() if line.startswith("error")]
        assert len(error) == 1
        assert "x.sage" in error[0]
        assert ("No space left on device" if mounted else "File too large") in error[0]
        assert "Traceback" not in done.stderr
        assert list(small.iterdir()) == []
    finally:
        if mounted:
            subprocess.run(["umount", str(small)], check=True)


def test_interrupting_leaves_nothing(checkpoint_path: Path, store_path: Path, tmp_path: Path) -> None:
    code = "import sys; from sage_edge.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "compile", str(checkpoint_path), "--data", str(store_path), "--out", str(tmp_path / "x.sage")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob(".x.sage.*/onnx/*.onnx")) and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "interrupted" in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_calibrated_ranges_compile_to_the_same_graphs(
    bundle_path: Path, checkpoint_path: Path, store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ranges.json"
    assert main(["calibrate", str(checkpoint_path), "--data", str(store_path), "--out", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    ranges = Ranges.load(file)
    manifest = Bundle.open(bundle_path).manifest
    assert manifest.calibration is not None
    assert said["set_sha256"] == ranges.set_sha256 == manifest.calibration.set_sha256
    assert {clip["trial"] for clip in said["clips"]} == {trial.name for trial in Store.open(store_path).trials("train")}
    for name in GRAPHS:
        emitted = quantize_cpu.emit(bundle_path / graph_path(name, "fp32"), ranges.graphs[name])
        stored = onnx.load(bundle_path / graph_path(name, "int8-cpu"))
        assert emitted.graph == stored.graph


@pytest.mark.slow
@pytest.mark.nightly
def test_modelopt_makes_a_bundle_that_keeps_the_ccc_too(
    checkpoint_path: Path, store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("modelopt")
    out = tmp_path / "by-modelopt.sage"
    arguments = ["compile", str(checkpoint_path), "--data", str(store_path), "--out", str(out), "--modelopt", "--max-drop", "0.25", "--clips", "2"]
    assert main(arguments) == 0, capsys.readouterr().err
    for name in GRAPHS:
        props = {prop.key: prop.value for prop in onnx.load(Bundle.open(out).graph(name, "int8-trt")).metadata_props}
        assert props["emitter"] == "modelopt"
    assert main(["inspect", str(out), "--target", "trt10.3"]) == 0, capsys.readouterr().out


def test_compiling_by_name_is_lazy() -> None:
    code = "import sys, sage_edge.compile, sage_edge.calibration; print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert compile_bundle.__module__ == "sage_edge.compile.bundle_writer"
    assert verify.__module__ == "sage_edge.calibration.check"
    with pytest.raises(CompileError):
        Ranges.load(Path(__file__))
