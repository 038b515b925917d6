"""What a Jetson lacks for `run`, each thing asked of the board itself, with the command that brings it: `doctor` shows them on a Jetson alone.

    for check in board_checks(): print(check.name, check.ok, check.fact, check.fix)

None of them is `needed`: which camera and which backend a person wants is theirs to say. `root` is where the board's / lies; tools are found on
PATH. Tried on made-up boards only: on a real one, `sage-edge doctor` prints them.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from sage_edge.runtime.checkup import Check
from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.sources.gstreamer import PACKAGES

from .boards import Device, detect
from .layout import Layout
from .nvpmodel import current_mode, read_modes
from .power import Rails
from .service_settings import read_settings
from .sysfs import text
from .throttling import BRIEF, cooling, events
from .tools import find_tool, run_tool

ELEMENTS = ("nvarguscamerasrc", "nvvidconv", "videoconvert", "queue", "fdsink")
"""What `csi://0` is made of."""
CAMERA_STACK = ("nvidia-l4t-camera", "nvidia-l4t-multimedia", "nvidia-l4t-multimedia-utils", "nvidia-l4t-gstreamer")
"""Packages that go together: of one version, whichever."""
NODES = ("video*", "snd/pcm*c", "nvmap", "nvgpu/igpu0/ctrl", "nvhost-ctrl-gpu", "nvhost-gpu", "nvidia0", "nvidiactl", "dri/renderD*")
"""Under /dev: cameras, microphones, and what CUDA opens first (linux/nvgpu-ctrl.h; nvidia*: Thor). Which there are differs from board to board."""
GROUPS = "video,audio,render"
_SETTINGS = "/" + str(Layout(Path()).settings)


def board_checks(root: str | Path = "/") -> list[Check]:
    """All of them; none on a machine that is no Jetson."""
    device = detect(root)
    if device is None:
        return []
    base = Path(root)
    looks: tuple[Callable[[Path, Device], Check | None], ...] = (_board, _power_mode, _rails, _throttling, _csi, _daemon, _stack, _access, _tensorrt)
    return [check for look in looks if (check := look(base, device)) is not None]


def _board(_root: Path, device: Device) -> Check:
    system = f"L4T {device.l4t}" if device.l4t else "no NVIDIA system"
    jetpack = f", JetPack {device.revision.jetpack}" if device.revision else ""
    name = device.model or (device.module.name if device.module else "unknown module")
    return Check("board", not device.warnings, f"{name}, {system}{jetpack}", "; ".join(device.warnings))


def _power_mode(root: Path, device: Device) -> Check:
    modes, now = read_modes(root), current_mode(root)
    if modes is None or now is None:
        return Check("power mode", False, "nvpmodel does not tell which one the board is in", "sudo apt install nvidia-l4t-nvpmodel")
    fact = f"{now}, one of {', '.join(modes.numbers)}"
    if asked := _asked_mode(root):
        try:
            wanted = modes.find(asked)
        except UsageError:
            fix = f"choose one of them in {_SETTINGS}, then: sudo sage-edge-first-boot"
            return Check("power mode", False, f"{fact}; {_SETTINGS} asks for {asked}, which this board does not have", fix)
        if wanted != now:
            fix = f"sudo nvpmodel -m {modes.numbers[wanted]}, at a terminal: it may ask for a reboot"
            return Check("power mode", False, f"{fact}; {_SETTINGS} asks for {wanted}", fix)
    lacking = next((quirk for quirk in device.quirks if quirk.id == "iso-without-super"), None)
    if lacking is not None and not any("SUPER" in name for name in modes.numbers):
        return Check("power mode", False, f"{fact}; {lacking.fact}", lacking.fix)
    return Check("power mode", True, fact)


def _asked_mode(root: Path) -> str:
    """The mode that the owner's settings name; empty where none is, and where only root may read them."""
    try:
        return read_settings(Layout(root).settings).get("SAGE_EDGE_POWER_MODE", "")
    except OSError:
        return ""


def _rails(root: Path, _device: Device) -> Check:
    watts = Rails(root / "sys").read()
    if not watts:
        return Check("power rails", False, "no power monitor answers, so profile measures no watts", "a container needs -v /sys:/sys:ro")
    return Check("power rails", True, ", ".join(f"{label} {each:.2f} W" for label, each in watts.items()))


def _throttling(root: Path, _device: Device) -> Check:
    counted, cooled = events(root / "sys"), cooling(root / "sys")
    facts = [f"{count} x {cause} since it booted" for cause, count in counted.items() if count]
    facts += [f"slowed down now by {kind}" for kind in cooled]
    fixes = ["take a stronger power supply and a shorter cable"] if counted.get("undervoltage") else []
    fixes += ["choose a lower power mode"] if counted.get("average overcurrent") else []
    fixes += ["cool the board better"] if cooled else []
    healthy = not fixes
    note = f" (healthy boards have {BRIEF}, too)" if healthy and counted.get(BRIEF) else ""
    return Check("throttling", healthy, (", ".join(facts) or "nothing slows the board down") + note, "; ".join(fixes))


def _csi(_root: Path, _device: Device) -> Check:
    if find_tool("gst-launch-1.0") is None or find_tool("gst-inspect-1.0") is None:
        return Check("CSI camera", False, "GStreamer's tools are missing", "sudo apt install gstreamer1.0-tools")
    missing = [element for element in ELEMENTS if (said := run_tool("gst-inspect-1.0", "--exists", element)) is None or said.code != 0]
    if missing:
        packages = dict.fromkeys(PACKAGES.get(element, "libgstreamer1.0-0") for element in missing)
        return Check("CSI camera", False, f"GStreamer has no {', '.join(missing)}", f"sudo apt install {' '.join(packages)}")
    return Check("CSI camera", True, f"GStreamer has {', '.join(ELEMENTS)}")


def _daemon(_root: Path, _device: Device) -> Check | None:
    said = run_tool("systemctl", "is-active", "nvargus-daemon")
    if said is None or "not been booted with systemd" in said.text:  # a container: it is the host's
        return None
    active = said.code == 0
    fix = "" if active else "sudo systemctl enable --now nvargus-daemon; without it csi:// gives no frame"
    return Check("nvargus-daemon", active, said.last, fix)


def _stack(root: Path, device: Device) -> Check | None:
    known = next((quirk for quirk in device.quirks if quirk.id == "argus-relaunch"), None)
    if known is None or device.l4t is None:
        return None
    versions = _versions(root)
    bad = [package for package in CAMERA_STACK if versions.get(package, device.l4t).split("-")[0] in known.l4t]
    fact = f"{known.fact} ({', '.join(bad)} of {device.l4t})" if bad else f"of {versions[CAMERA_STACK[0]]}, which is none of {', '.join(known.l4t)}"
    return Check("camera stack", not bad, fact, known.fix if bad else "")


def _versions(root: Path) -> dict[str, str]:
    """Package -> version of what dpkg has of the camera stack."""
    status = text(root / "var/lib/dpkg/status") or ""
    found = re.findall(r"^Package: (nvidia-l4t-\S+)$(?:\n(?!\n).*)*?\nVersion: (\S+)$", status, re.MULTILINE)
    return {package: version for package, version in found if package in CAMERA_STACK}


def _access(root: Path, _device: Device) -> Check:
    nodes = [node for pattern in NODES for node in sorted((root / "dev").glob(pattern)) if not node.is_dir()]
    shut = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK, effective_ids=True)]
    if not nodes:
        return Check("device access", False, "no camera, no microphone and no GPU under /dev", "a container needs --runtime nvidia and --device")
    if shut:
        names = ", ".join(str(node.relative_to(root / "dev")) for node in shut[:4]) + (f" and {len(shut) - 4} more" if len(shut) > 4 else "")
        return Check("device access", False, f"this user may not open {names}", f"sudo usermod -aG {GROUPS} $USER, and log in again")
    return Check("device access", True, f"{len(nodes)} devices of cameras, microphones and the GPU may be opened")


def _tensorrt(root: Path, device: Device) -> Check:
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if importlib.util.find_spec("tensorrt") is not None:
        return Check("TensorRT for Python", True, f"Python {python} has it")
    there = sorted((root / "usr/lib").glob("python3*/dist-packages/tensorrt*"))
    if not there:
        return Check("TensorRT for Python", False, "JetPack's package is not installed", "sudo apt install python3-libnvinfer")
    if device.line is not None and python != device.line.python:
        fact = f"JetPack's is for Python {device.line.python}, this is {python}"
        return Check("TensorRT for Python", False, fact, "run sage-edge with /usr/bin/python3")
    return Check("TensorRT for Python", False, f"it is in {there[0].parent}, which this Python does not see", _VENV)


_VENV = "make the virtual environment with '/usr/bin/python3 -m venv --system-site-packages'"
