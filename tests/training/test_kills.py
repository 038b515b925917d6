"""SIGKILL at any moment: a training run that is resumed again and again ends with the weights of one that was never disturbed."""

import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

# A process that has loaded everything forks the ones that train, so that kills come in the midst of training and not of imports.
SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from torch.utils.tensorboard import SummaryWriter
sys.path.insert(0, sys.argv[3])
from conftest_toy import QUICK, TINY_SETTINGS
from sage_edge.runtime.files import atomic_folder
from sage_edge.training import loop, presets
from sage_edge.training.data.store import Store
from sage_edge.training.settings import replace

torch.set_num_threads(1)
preset = presets.get("tiny", TINY_SETTINGS)
config = replace(QUICK, dict(fusion_epochs=5, ema=0.9, views=2, corrupt=0.5, joint_epochs=2, joint_windows=4, joint_batch=2, joint_stride=40))
store, whole, out = Store.open(sys.argv[1]), Path(sys.argv[2]) / "whole", Path(sys.argv[2]) / "killed"
run = out.with_name("killed.run")

def start(path, resume):
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        loop.train(store, preset, path, config, resume=resume)
        os._exit(0)
    return child

begin = time.monotonic()
assert os.waitpid(start(whole, False), 0)[1] == 0
seconds, kills, random = time.monotonic() - begin, 0, random.Random(0)
while kills < 20:
    child = start(out, (run / "state.pt").is_file() or (run / "features").is_dir())
    time.sleep(random.uniform(0.0, seconds / 12))
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        assert status == 0, status
        break
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
if not out.exists():
    assert os.waitpid(start(out, (run / "state.pt").is_file() or (run / "features").is_dir()), 0)[1] == 0
print(kills)
"""


def test_twenty_kills_change_nothing(toy_path, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, str(script), str(toy_path), str(work), str(Path(__file__).parent)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) == 20, "it was done before it was killed twenty times"
    first, again = (load_file(work / name / "model.safetensors") for name in ("whole", "killed"))
    assert all((first[name] == again[name]).all() for name in first)
    assert sorted(path.name for path in work.iterdir()) == ["killed", "whole"]
