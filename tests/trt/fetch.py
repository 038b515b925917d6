"""Fetch TensorRT's Python bindings of three versions for the contract tests: `python tests/trt/fetch.py` fills build/trt-bindings.

Only the bindings, 3.5 MB in all; TensorRT itself is not in them. What is there already stays; arguments go to pip. Where they cannot be had, a line
says so and the tests are skipped; with CI=true that is a failure (exit code 1).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGES = {"10.3.0": "tensorrt-cu12-bindings", "10.13.3.9": "tensorrt-cu13-bindings", "11.4.0.106": "tensorrt-cu13-bindings"}
FOLDER = Path(__file__).resolve().parents[2] / "build/trt-bindings"


def bindings(version: str) -> Path:
    """Folder to put on PYTHONPATH for `import tensorrt_bindings` of `version`."""
    return FOLDER / f"cp{sys.version_info.major}{sys.version_info.minor}-{version}"


def fetch(version: str) -> str | None:
    """Download and unpack one version unless it is there; returns why that failed."""
    target = bindings(version)
    if target.is_dir():
        return None
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=FOLDER) as work:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--retries=1", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run([*pip, "--dest", work, *sys.argv[1:], f"{PACKAGES[version]}=={version}"], capture_output=True, text=True, check=False)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["pip gives no reason"])[-1]
        with zipfile.ZipFile(next(Path(work).glob("*.whl"))) as wheel:
            wheel.extractall(Path(work) / "unpacked")
        shutil.move(Path(work) / "unpacked", target)
    return None


def main() -> int:
    failed = {version: why for version in PACKAGES if (why := fetch(version))}
    for version, why in failed.items():
        print(f"tensorrt bindings {version} for Python {sys.version_info.major}.{sys.version_info.minor} cannot be fetched: {why}", file=sys.stderr)
    if failed and os.environ.get("CI") != "true":
        print("their contract tests will be skipped", file=sys.stderr)
        return 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
