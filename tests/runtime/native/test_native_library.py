"""The binding refuses a library that is missing, broken or of another version, in one line that says what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.native import library

HEADER = Path(library.__file__).parent / "include" / "sage.h"


@pytest.fixture
def reload() -> Iterator[None]:
    library.load.cache_clear()
    yield
    library.load.cache_clear()


def test_missing(reload: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_candidates", list)
    with pytest.raises(NativeError, match=r"libsage\S+ is not installed: run `make native`"):
        library.load()


def test_broken_then_good(reload: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken, good = tmp_path / library.NAME, library._candidates()
    broken.write_bytes(b"no library")
    monkeypatch.setattr(library, "_candidates", lambda: [broken])
    with pytest.raises(NativeError, match=re.escape(str(broken))):
        library.load()
    monkeypatch.setattr(library, "_candidates", lambda: [broken, *good])
    assert library.load()._name == str(good[0])


def test_another_version(reload: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "ABI_VERSION", 99)
    with pytest.raises(NativeError, match=r"speaks version \d, this binding 99: run `make native`"):
        library.load()


def test_binding_follows_the_header() -> None:
    """Same version, and every public function of the header is declared with as many arguments."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    assert f"#define SAGE_ABI_VERSION {library.ABI_VERSION}\n" in HEADER.read_text()
    header = {
        name: 0 if arguments.strip() == "void" else arguments.count(",") + 1
        for name, arguments in re.findall(r"SAGE_API\s+[\w\s*]+?\*?(sage_\w+)\(([^)]*)\);", text)
    }
    declared = {name: len(arguments) for name, (_result, arguments) in library._PROTOTYPES.items()}
    assert header == {"sage_abi_version": 0, **declared}


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_neon_kernels_are_named_only_where_they_are_built() -> None:
    header = HEADER.parent.parent / "src/kernels.h"

    def named(*macros: str) -> bool:
        flags = ["-undef", *(f"-D{macro}" for macro in macros)]
        # Without the system's headers, which want a processor of their own.
        text = header.read_text().replace("#include <stdint.h>", "")
        done = subprocess.run(["cc", "-E", "-dM", *flags, "-"], input=text, capture_output=True, text=True, check=True)
        return "SAGE_HAVE_NEON" in done.stdout

    assert named("__aarch64__", "__ARM_NEON", "__GNUC__")
    assert not named("__arm__", "__ARM_NEON", "__GNUC__"), "CMake compiles them for AArch64 alone"
