"""USB cameras: OpenCV's real V4L2 code and ours over a pretend driver, in a process of its own. No real device is behind it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "pretend_camera"
CHECKS = re.findall(r"^def (check_\w+)", (HERE / "camera_checks.py").read_text(), re.M)

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: sudo apt install gcc libc6-dev"),
    pytest.mark.skipif(not Path("/usr/include/linux/videodev2.h").exists(), reason="no kernel headers: sudo apt install linux-libc-dev"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("dev")
    driver = tmp_path_factory.mktemp("driver") / "fakev4l2.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-O1", str(HERE / "fakev4l2.c"), "-o", str(driver), "-ldl"], check=True)
    environment = {**os.environ, "PRETEND_CAMERAS": str(folder.resolve()), "LD_PRELOAD": str(driver), "OPENCV_LOG_LEVEL": "ERROR"}
    command = [sys.executable, str(HERE / "camera_checks.py"), str(folder.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("check", CHECKS)
def test_over_the_pretend_driver(results: dict[str, str], check: str) -> None:
    assert results[check] == ""
