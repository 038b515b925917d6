"""The root file system of the machine: Debian's, with a Jetson's marks, what plays camera and microphone, and our release by `jetson/overlay`."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from image import L4T_RELEASE
from report import Failure, Report
from scene import write_scene

ROOT = Path(__file__).resolve().parents[2]
CAMERA = "v4l2:///dev/v4l/by-path/platform-vivid.0-video-index0?width=320&height=240&fourcc=YUYV"
"""By where it is plugged in: its number may be another one after that."""
MICROPHONE = "mic:hw:0,1"
ESTIMATES = "/var/log/sage-edge/estimates.jsonl"
SETTINGS = {
    "SAGE_EDGE_CAMERA": CAMERA,
    "SAGE_EDGE_MIC": MICROPHONE,
    "SAGE_EDGE_OPTIONS": f"--out jsonl:{ESTIMATES}?append=1 --precision int8 --threads 1 --hop 30",
    "SAGE_EDGE_ALLOW_DEMO": "1",
}
"""One estimate a second: an emulated core is that much slower than a board's."""
_VIVID = "n_devs=1 node_types=0x101 num_inputs=1 input_types=0x2 num_outputs=1 output_types=0x0"
"""One capture and one output device, both S-Video: what is written to the output can be looped to the capture."""
_FILES = {
    "etc/nv_tegra_release": L4T_RELEASE,
    "etc/hostname": "jetson\n",
    "etc/hosts": "127.0.0.1 localhost jetson\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/machine-id": "",
    "etc/modprobe.d/e2e.conf": f"options vivid {_VIVID}\noptions snd_aloop pcm_substreams=1\n",
    "etc/modules-load.d/e2e.conf": "vivid\nsnd_aloop\n",
    "etc/systemd/journald.conf.d/e2e.conf": "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\nReadKMsg=no\n",
}
_UNITS = {"e2e-agent.service": "sysinit.target", "e2e-voice.service": "multi-user.target", "e2e-face.service": None}
"""Unit -> what wants it; the face comes when it is told to, for it costs an emulated core more than the service does."""
_MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer"),
    *("proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service", "systemd-pstore.service", "getty@tty1.service", "serial-getty@ttyAMA0.service"),
)
"""What the machine can do without."""


def make_root(tar: Path, root: Path) -> Path:
    """Fill the folder `root` with everything but the release; what was there before goes."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    subprocess.run(["tar", "-C", str(root), "-xf", str(tar)], check=True)
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
    guest = Path(__file__).parent / "guest"
    shutil.copytree(guest, root / "usr/local/lib/e2e")
    for unit, target in _UNITS.items():
        shutil.copy(guest / unit, root / "etc/systemd/system")
        if target is not None:
            _link(root / f"etc/systemd/system/{target}.wants/{unit}", f"/etc/systemd/system/{unit}")
    for unit in _MASKED:
        _link(root / "etc/systemd/system" / unit, "/dev/null")
    write_scene(root / "srv/e2e")
    return root


def lay_in(root: Path, release: Path, report: Report) -> None:
    """Lay the release in, twice: the second time has nothing to do."""
    report.saw(_overlay(root, release, report))
    again = _overlay(root, release, report)
    if "all else was as it should be" not in again:
        raise Failure(f"a second overlay changed something: {again}")
    report.saw("again: all was as it should be")


def _overlay(root: Path, release: Path, report: Report) -> str:
    """`jetson/overlay` on `root`, as a person would type it; what it says."""
    command = [str(ROOT / "jetson/overlay"), str(root), "--release", str(release)]
    for key, value in SETTINGS.items():
        command += ["--conf", f"{key}={value}"]
    report.did(shlex.join(command))
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"jetson/overlay ended with exit code {done.returncode}: {(done.stdout + done.stderr).strip()}")
    return done.stdout + done.stderr


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
