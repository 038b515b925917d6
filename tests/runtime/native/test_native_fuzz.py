"""Every fuzz target builds and holds for some thousands of inputs; `make fuzz` runs each for ten minutes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CMAKE = shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or ""
TARGETS = sorted(path.stem for path in (ROOT / "runtime/native/fuzz").glob("*_fuzz.c"))
PROBE = "#include <stddef.h>\n#include <stdint.h>\nint LLVMFuzzerTestOneInput(const uint8_t *d, size_t n) { return d == NULL && n == 7; }\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    probe = ["clang", "-fsanitize=fuzzer,address", "-x", "c", "-", "-o", str(folder / "probe")]
    if not CMAKE or not shutil.which("clang") or subprocess.run(probe, input=PROBE, text=True, capture_output=True, check=False).returncode:
        pytest.skip("needs Clang and libFuzzer: apt-get install cmake clang libclang-rt-dev (libclang-rt-14-dev on Debian 12)")
    for command in (
        ["-S", str(ROOT), "-B", str(folder), "-DCMAKE_C_COMPILER=clang", "-DSAGE_FUZZ=ON"],
        ["--build", str(folder), "-j", "2", "--target", *TARGETS],
    ):
        done = subprocess.run([CMAKE, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runtime/native/fuzz"


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_holds(target: str, built: Path, tmp_path: Path) -> None:
    command = [str(built / target), "-runs=4000", "-seed=1", "-max_len=1000", "-timeout=60"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert list(tmp_path.iterdir()) == []


def test_every_target_is_built() -> None:
    listed = (ROOT / "runtime/native/fuzz/CMakeLists.txt").read_text()
    assert sorted(f"{name}_fuzz" for name in listed.split("foreach(target ")[1].split(")")[0].split()) == TARGETS
