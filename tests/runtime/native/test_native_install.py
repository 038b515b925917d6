"""`cmake --install` gives a C package: found by pkg-config and by CMake, after it was moved too; the example built on it says what a Session says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sage_edge.runtime import ticks
from sage_edge.runtime.bundle import Bundle
from sage_edge.runtime.native.library import ABI_VERSION
from sage_edge.runtime.session import Session

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
NATIVE = ROOT / "runtime/native"
CMAKE = shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or ""
HEADERS = [os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime", "/usr/local/include/onnxruntime", "/usr/local/include"]
"""Where a header is looked for; else the one of 1.21 beside this file is taken (MIT), which every release since then keeps to."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CMAKE or shutil.which("cc") is None or shutil.which("pkg-config") is None, reason="apt-get install cmake gcc pkg-config"),
]
PROGRAM = """
#include <sage.h>
#include <stdio.h>
int main(void) {
    sage_window *window;
    int32_t code = sage_window_create(3, 2, &window);
    printf("%d %d %s", sage_abi_version(), SAGE_ABI_VERSION, sage_strerror(code));
    sage_window_destroy(window);
    return 0;
}
"""


def run(*command: str | Path, **environment: str) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installed at one place, and moved to another."""
    folder = tmp_path_factory.mktemp("sage")
    run(CMAKE, "-S", ROOT, "-B", folder / "build", f"-DCMAKE_INSTALL_PREFIX={folder / 'first'}", "-DCMAKE_INSTALL_LIBDIR=lib/here")
    run(CMAKE, "--build", folder / "build")
    run(CMAKE, "--install", folder / "build")
    shutil.rmtree(folder / "build")
    return (folder / "first").rename(folder / "moved")


def test_a_program_builds_with_pkg_config(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "program.c").write_text(PROGRAM)
    pkg_config = {"PKG_CONFIG_PATH": str(prefix / "lib/here/pkgconfig")}
    flags = run("pkg-config", "--cflags", "--libs", "sage", **pkg_config).split()
    assert run("pkg-config", "--modversion", "sage", **pkg_config).strip() in (ROOT / "pyproject.toml").read_text()
    run("cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-o", tmp_path / "program", tmp_path / "program.c", *flags)
    assert run(tmp_path / "program", LD_LIBRARY_PATH=str(prefix / "lib/here")) == f"{ABI_VERSION} {ABI_VERSION} no error"


def test_the_package_holds_the_library_its_header_and_no_more(prefix: Path) -> None:
    found = {path.relative_to(prefix).as_posix() for path in prefix.rglob("*") if path.is_file() and not path.is_symlink()}
    libraries = {name for name in found if ".so" in name or ".dylib" in name}
    assert len(libraries) == 1
    about = [f"lib/here/cmake/sage/sage{name}.cmake" for name in ("Config", "ConfigVersion", "Targets", "Targets-release")]
    assert found - libraries == {"include/sage.h", "lib/here/pkgconfig/sage.pc", *about}
    assert not any(str(prefix.parent) in (prefix / name).read_text() for name in found - libraries), "a path of the place it was built at"


def release_of_onnxruntime(folder: Path) -> Path:
    """The layout of a release: the library of the installed wheel, and a header."""
    import onnxruntime

    header = next((Path(place) for place in HEADERS if place and (Path(place) / "onnxruntime_c_api.h").is_file()), HERE / "onnxruntime-1.21")
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    (folder / "lib").mkdir(parents=True)
    (folder / "include").symlink_to(header)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / "lib" / name).symlink_to(library)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="takes the library out of the Linux wheel")
def test_the_example_says_what_a_session_says(prefix: Path, bundle: Bundle, tmp_path: Path) -> None:
    """A window that is not full, then full, then slid on; a file of sound that ends in the middle of a tick ends it."""
    release = release_of_onnxruntime(tmp_path / "onnxruntime")
    shutil.copytree(NATIVE / "example", tmp_path / "example")
    flags = "-Wall -Wextra -Wshadow -Werror"
    run(CMAKE, "-S", tmp_path / "example", "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix / 'lib/here/cmake'}",
        f"-DONNXRUNTIME_ROOT={release}", f"-DBUNDLE={bundle.path}", f"-DCMAKE_C_FLAGS={flags}")  # fmt: skip
    run(CMAKE, "--build", tmp_path / "build")

    rng = np.random.default_rng(0)
    n = bundle.manifest.window + 40
    faces = rng.integers(0, 256, (n, 48, 48, 3), dtype=np.uint8)
    sound = (rng.standard_normal(ticks.first_sample(n - 5) + 100) / 8).astype(np.float32)
    faces.tofile(tmp_path / "faces.rgb")
    sound.tofile(tmp_path / "sound.f32")
    said = run(tmp_path / "build/live", bundle.path, tmp_path / "faces.rgb", tmp_path / "sound.f32")

    with Session(bundle, precision="int8", t0_ns=0, max_lag_ms=60_000) as session:
        session.push_audio(sound, 0)
        for tick, face in enumerate(faces[: n - 5]):
            session.push_face(face, ticks.tick_time_ns(tick))
        session.finish()
        expected = [(estimate.t_ns / 1e9, estimate.valence, estimate.arousal) for estimate in session.poll()][: (n - 5) // bundle.manifest.hop]
    found = np.array([line.split() for line in said.splitlines()], float)
    assert found.shape == (22, 3)
    assert np.abs(found - np.array(expected)).max() <= 1e-3 / 2 + 1e-5, "times are printed to a millisecond"
    assert np.abs(found[:, 1:] - np.array(expected)[:, 1:]).max() <= 1e-5
    lost = subprocess.run([tmp_path / "build/live", tmp_path / "gone.sage", tmp_path / "faces.rgb", tmp_path / "sound.f32"],
                          capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert (lost.returncode, lost.stdout, lost.stderr) == (1, "", f"error: {tmp_path / 'gone.sage'}\n")
