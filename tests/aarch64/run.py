"""Does it all work on AArch64, with no such machine at hand? `make test-aarch64`, minutes the first time; arguments are pip's.

1. The wheel: cross-built and audited.  2. The C tests on three emulated processors.  3. Python tests of the runtime, from that wheel, on a Python for
AArch64.  4. The outputs of a whole `tiny` bundle against this machine's, on the same version of ONNX Runtime: INT8 differs by 40 dB less than it is
large, CCC by no more than 0.002.

Speed is not tested: emulation says nothing about it.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from emulated import ORIN, ROOT, Emulated, Failed, call, qemu
from taught import taught

from sage_edge.jetson.host.errors import HostError
from sage_edge.jetson.host.wheel import build_wheel

BUILD = ROOT / "build/aarch64"
CROSS = "/usr/aarch64-linux-gnu"
APT = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user mmdebstrap"
PROCESSORS = {"cortex-a57": "no dot products", ORIN: "as Orin", "max": "SVE and all else, as Thor"}
TESTS = (
    *(f"tests/runtime/native/test_native_{name}.py" for name in ("capture", "crop", "histogram", "ring", "slot", "window")),
    *(f"tests/runtime/test_{name}.py" for name in ("bundle", "golden", "notify", "sinks", "ticks", "timeline")),
    "tests/runtime/test_session_offline.py::test_every_hop[15]",
)
SELECTION = "not 720p and not fills_up"
"""Left out: whole frames, which the NumPy twin of the crop takes minutes for here, and another process, which needs binfmt_misc and so root."""
MIN_SQNR_DB, MAX_CCC = 40.0, 0.002
MAX_INSTALL_MB = 350


def c_tests() -> str:
    """Build them once, run them on every processor."""
    build = BUILD / "c"
    options = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc", "-DSAGE_TESTS=ON")
    tools = Path(sys.executable).parent
    call([tools / "cmake", "-S", ROOT, "-B", build, *options, f"-DCMAKE_CROSSCOMPILING_EMULATOR={qemu()};-L;{CROSS}"])
    call([tools / "cmake", "--build", build, "-j", "2"])
    said = []
    for cpu, why in PROCESSORS.items():
        out = call([tools / "ctest", "--test-dir", build, "-j", "2", "--output-on-failure", "--no-tests=error"], {**os.environ, "QEMU_CPU": cpu})
        said.append(f"  {cpu} ({why}): {next(line for line in out.splitlines() if 'tests passed' in line)}")
    return "\n".join(said)


def python_tests(machine: Emulated) -> str:
    """The chosen tests, on the emulated Python with our wheel."""
    out = machine.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow and not gpu and not jetson", "-k", SELECTION, *TESTS)
    return "  " + out.strip().splitlines()[-1]


def compare(here: dict[str, Any], there: dict[str, Any]) -> tuple[list[str], bool]:
    """Lines to print, and whether they are close enough."""
    lines, good = [f"  ONNX Runtime {there['versions'][0]}, NumPy {there['versions'][1]} on both"], True
    if (here["versions"] != there["versions"]).any():
        raise Failed(f"versions differ: {here['versions']} here, {there['versions']} there; make .venv anew from constraints.txt")
    for name in sorted(set(here) - {"versions"}):
        difference = np.abs(here[name].astype(np.float64) - there[name])
        if name.startswith("ccc/"):
            ok = bool((difference <= MAX_CCC).all())
            text = f"{here[name].round(4)} here, {there[name].round(4)} there, apart by at most {difference.max():.2g} (limit {MAX_CCC})"
        else:
            noise = float(np.square(difference).sum())
            sqnr = 10 * np.log10(float(np.square(here[name], dtype=np.float64).sum()) / noise) if noise else np.inf
            ok = bool(sqnr >= MIN_SQNR_DB)
            text = f"SQNR {sqnr:.1f} dB (limit {MIN_SQNR_DB:g}), apart by at most {difference.max():.2g}"
        lines.append(f"  {name:<16} {text}{'' if ok else ' FAILED'}")
        good = good and ok
    return lines, good


def tiny_outputs(machine: Emulated, folder: Path) -> str:
    """`tiny` on both machines, side by side; Failed where they are too far apart."""
    arguments = [ROOT / "tests/aarch64/outputs.py", folder / "tiny.sage", folder / "store"]
    files = {name: BUILD / f"outputs-{name}.npz" for name in ("here", "there")}
    with ThreadPoolExecutor(2) as pool:
        both = (pool.submit(call, [sys.executable, *arguments, files["here"]]), pool.submit(machine.run, *arguments, files["there"]))
    for each in both:
        each.result()
    loaded = {name: dict(np.load(file)) for name, file in files.items()}
    lines, good = compare(loaded["here"], loaded["there"])
    if not good:
        raise Failed("\n".join(lines))
    return "\n".join(lines)


def step(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """Do it, say how long it took and what it said."""
    begin = time.monotonic()
    result = work(*arguments)
    print(f"{name}: {time.monotonic() - begin:.0f} s" + (f"\n{result}" if isinstance(result, str) else ""), flush=True)
    return result


def for_pip(arguments: list[str]) -> dict[str, str]:
    """Options of pip as the environment variables that it reads: `--index-url URL` is PIP_INDEX_URL=URL."""
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    starts = [i for i, word in enumerate(words) if word.startswith("--")]
    return {
        "PIP_" + words[i][2:].replace("-", "_").upper(): " ".join(words[i + 1 : end]) or "1"
        for i, end in zip(starts, [*starts[1:], len(words)], strict=False)
    }


def main() -> None:
    if platform.machine() == "aarch64":
        raise Failed("this machine is AArch64 itself: make test and make test-c are the tests here")
    missing = [name for name in ("aarch64-linux-gnu-gcc", "mmdebstrap") if shutil.which(name) is None] + ([] if qemu() else ["qemu-aarch64"])
    if missing or not Path(CROSS).is_dir():
        raise Failed(f"needs {', '.join(missing) or CROSS}: apt-get install {APT}")
    os.environ.update(for_pip(sys.argv[1:]))
    wheel = step("wheel", build_wheel, BUILD / "wheel")
    with ThreadPoolExecutor(2) as pool:
        model = pool.submit(step, "tiny bundle", taught)
        native = pool.submit(step, "C tests", c_tests)
        machine = step("AArch64's python and packages", Emulated.make, BUILD, wheel)
        print(f"  base install with [serve,mqtt,prometheus]: {machine.installed_mb:.0f} MB (limit {MAX_INSTALL_MB})")
        if machine.installed_mb >= MAX_INSTALL_MB:
            raise Failed(f"a board's packages take {machine.installed_mb:.0f} MB, more than {MAX_INSTALL_MB}")
        tests = pool.submit(step, "Python tests", python_tests, machine)
        for each in (native, tests):
            each.result()
    step("tiny, here and there", tiny_outputs, machine, model.result())


if __name__ == "__main__":
    try:
        main()
    except (Failed, HostError) as error:
        sys.exit(f"error: {error}")
