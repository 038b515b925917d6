"""Builds the pretend driver and runs checks over it in a process of their own, with the real bindings of CUDA.

A check is a function of a module beside this one that takes a `Fake`. The process reports each as passed or with its traceback; a check also fails
when it leaves something alive on the pretend GPU or uses the driver wrongly.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import inspect
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
KINDS = ("device", "pinned", "stream", "event", "graph", "exec", "context")
OUT_OF_MEMORY, ILLEGAL_ADDRESS, CAPTURE_UNSUPPORTED = 2, 700, 900
NEVER, ALWAYS = -1, 0


class Fake:
    """The pretend driver of this process, from its other side."""

    def __init__(self) -> None:
        self.lib = ctypes.CDLL("libcuda.so.1")
        self.lib.fakecuda_said.restype = ctypes.c_char_p
        self.lib.fakecuda_view.restype = ctypes.c_void_p
        self.lib.fakecuda_view.argtypes = [ctypes.c_ulonglong, ctypes.c_size_t]
        for name in ("live", "made", "misuse", "pageable", "calls", "reset"):
            getattr(self.lib, f"fakecuda_{name}").restype = ctypes.c_long

    def fail(self, name: str = "", nth: int = NEVER, code: int = 0) -> None:
        """From now on the nth call of `name` ("" for any) fails with `code`."""
        self.lib.fakecuda_fail(name.encode(), ctypes.c_long(nth), code)

    def live(self) -> dict[str, int]:
        """What was made and not freed, but for what the driver refused to free."""
        return {name: count for i, name in enumerate(KINDS) if (count := self.lib.fakecuda_live(i))}

    def made(self) -> dict[str, int]:
        """What was ever made."""
        return {name: count for i, name in enumerate(KINDS) if (count := self.lib.fakecuda_made(i))}

    def calls(self, name: str = "") -> int:
        """How often a function was called, "" for all."""
        return int(self.lib.fakecuda_calls(name.encode()))

    def pageable(self) -> int:
        """Copies that were not from or to pinned memory."""
        return int(self.lib.fakecuda_pageable())

    def misuse(self) -> str:
        """What was done wrong last, "" for nothing."""
        return self.lib.fakecuda_said().decode() or "something" if self.lib.fakecuda_misuse() else ""

    def reset(self) -> None:
        """A driver as new."""
        self.lib.fakecuda_reset()


def build(folder: Path, missing: Path | None = None) -> Path:
    """Compile libcuda.so.1 into `folder`; for `missing`, a library, also what it needs of a driver and the pretend one lacks."""
    source, library = HERE / "fakecuda.c", folder / "libcuda.so.1"
    command = ["cc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([*command, "-Wall", "-Wextra", "-Werror", str(source), "-o", str(library)], check=True)
    if missing is not None:
        rest = folder / "rest.c"
        needed, there = _symbols("--undefined-only", missing), _symbols("--defined-only", library)
        # 801: not supported
        rest.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in sorted(needed - there)))
        subprocess.run([*command, str(source), str(rest), "-o", str(library)], check=True)
    return library


def _symbols(which: str, library: Path) -> set[str]:
    text = subprocess.run(["nm", "-D", which, str(library)], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1] for line in text.splitlines() if line.split()[-1].startswith("cu")}


def report(module: str, library: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Check -> "" or what went wrong, of every check of `module` run over the driver `library`."""
    command = [sys.executable, str(HERE / "fake_cuda.py"), module, *arguments]
    # preloaded rather than found: a binding that was linked without its driver counts too
    env = {**os.environ, "LD_LIBRARY_PATH": str(library.parent), "LD_PRELOAD": str(library), **(environment or {})}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return dict(json.loads(done.stdout.splitlines()[-1]))


def checks_of(module: str) -> list[str]:
    """Names of the checks, read without importing the module."""
    return [line.split("(")[0][4:] for line in (HERE / f"{module}.py").read_text().splitlines() if line.startswith("def check_")]


def main(module: str, *arguments: str) -> None:
    """Run all checks of a module and print what became of them as JSON."""
    sys.path[:0] = [str(HERE)]
    loaded, fake, results, failed = importlib.import_module(module), Fake(), {}, ""
    if hasattr(loaded, "set_up"):
        loaded.set_up(*arguments)
    for name, check in inspect.getmembers(loaded, inspect.isfunction):
        if name.startswith("check_") and failed:
            results[name] = f"not run, {failed} left the driver as it was"
        elif name.startswith("check_"):
            fake.reset()
            try:
                check(fake)
                gc.collect()
                assert not fake.misuse(), fake.misuse()
                assert not fake.live(), fake.live()
                results[name] = ""
            except BaseException:
                results[name], failed = traceback.format_exc(), name
    print(json.dumps(results), flush=True)
    if failed:
        os._exit(0)  # what it left is not for anybody to free


if __name__ == "__main__":
    main(*sys.argv[1:])
