"""Two processes give what one gives: the same loss curve and weights from the same global batches, whatever the loss pools over."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest_toy import QUICK, TINY_SETTINGS
from safetensors.torch import load_file

from sage_edge.training import train
from sage_edge.training.settings import replace

# what differs between processes by nature: every dropout, and BatchNorm's statistics
ALIKE = {"wavlm_dropout": 0.0, "tcn_dropout": 0.0, "fusion_dropout": 0.0}
CONFIG = replace(
    QUICK,
    {"drop_features": 0.0, "freeze_norms": True, "visual_batch": 16, "visual_faces": 64, "joint_batch": 2, "ema": 0.9}
    | dict.fromkeys(("visual_lr", "audio_lr", "fusion_lr"), 3e-4),
)


def as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def launch(processes: int, store: Path, out: Path, **changes: object) -> subprocess.CompletedProcess:
    values = {**TINY_SETTINGS, **ALIKE, **vars(CONFIG), **changes}
    values.pop("seed")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "sage_edge.cli.main", "train", str(store), "--out", str(out), "--threads", "1", "--device", "cpu"]
    command += [part for key, value in values.items() for part in ("--set", f"{key}={as_text(value)}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def curve(out: Path) -> list[tuple[str, float]]:
    return [(record["stage"], record["loss"]) for record in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())]


EVERYTHING = {"views": 2, "corrupt": 0.5, "gate": 0.3, "joint_epochs": 2, "joint_windows": 4, "joint_stride": 40, "joint_release": 1}


@pytest.mark.parametrize(("reduction", "more"), [("sequence", {}), ("both", EVERYTHING)], ids=["sequence", "everything"])
def test_two_processes_give_the_loss_curve_and_the_weights_of_one(toy, toy_path, toy_preset, tmp_path, reduction, more):
    train(toy, toy_preset.replace(ALIKE), tmp_path / "1", replace(CONFIG, {"reduction": reduction, **more}))
    done = launch(2, toy_path, tmp_path / "2", reduction=reduction, **more)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len([line for line in done.stdout.splitlines() if "validation CCC" in line]) == 1, "each process printed"
    one, two = (curve(tmp_path / name) for name in "12")
    assert [name for name, _ in one] == ["visual"] * 2 + ["audio"] * 2 + ["fusion"] * 3 + ["joint"] * more.get("joint_epochs", 0)
    for (name, loss), (_, other) in zip(one, two, strict=True):
        assert other == pytest.approx(loss, rel=1e-5), name
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "12")
    # CCC's gradient is ill-conditioned where predictions hardly vary, and AdamW divides by its size: weights agree less closely than losses
    worst = max(float((first[key] - second[key]).abs().max()) for key in first if first[key].is_floating_point())
    assert worst < 1e-3
    assert json.loads((tmp_path / "2" / "checkpoint.json").read_text())["training"]["processes"] == 2


def test_a_batch_that_cannot_be_shared_is_refused_in_one_line(toy_path, tmp_path):
    done = launch(2, toy_path, tmp_path / "out", fusion_batch=7)
    assert done.returncode != 0
    assert "a batch of 7 cannot be shared by 2 processes; choose a multiple of 2" in done.stderr
    assert list(tmp_path.iterdir()) == []


RANKS = """
import hashlib, sys
import torch
sys.path.insert(0, sys.argv[1])
from conftest_toy import QUICK, TINY_SETTINGS
from sage_edge.training import SAGE, distributed, presets
from sage_edge.training.data.store import Store
from sage_edge.training.stages.visual import VisualStage
import numpy as np
from pathlib import Path

torch.set_num_threads(1)
with distributed.processes(torch.device("cpu")):
    torch.manual_seed(0)
    stage = VisualStage(SAGE(presets.get("tiny", TINY_SETTINGS)), Store.open(sys.argv[2]).trials("train"), [], QUICK)
    stage.start(Path())
    stage.epoch(0, np.random.default_rng(0), lambda loss: None)
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in stage.model.visual.state_dict().values()))
    Path(sys.argv[3], f"rank{distributed.rank()}.sha256").write_text(digest.hexdigest())
    distributed.barrier()
"""


def test_all_processes_hold_the_same_encoder_after_an_epoch_running_statistics_too(toy_path, tmp_path):
    (tmp_path / "ranks.py").write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "ranks.py"), str(Path(__file__).parent), str(toy_path), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "rank0.sha256").read_text() == (tmp_path / "rank1.sha256").read_text()
