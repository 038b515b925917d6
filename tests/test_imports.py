"""An import never points up, heavy packages are loaded where they are used, and nothing happens at import time."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ["runtime", "jetson", "training", "calibration", "compile", "cli"]
"""Lowest first: a module may import its own floor and those before it."""
TORCH_FREE = ("runtime", "training/data", "calibration")
MODULES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def module_name(path: Path) -> str:
    return "sage_edge." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of everything that a file imports, at its top or inside functions, relative imports spelt out."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_every_floor_has_modules() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(FLOORS)


@pytest.mark.parametrize("floor", FLOORS)
def test_no_import_points_up(floor: str) -> None:
    above = [f"sage_edge.{name}" for name in FLOORS[FLOORS.index(floor) + 1 :]]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in MODULES
        if path.relative_to(ROOT).parts[0] == floor
        for line, name in imported(path)
        if any(within(name, upper) for upper in above)
    ]
    assert wrong == []


def test_the_binding_knows_only_the_errors() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in (ROOT / "runtime/native").rglob("*.py")
        for line, name in imported(path)
        if within(name, "sage_edge") and not (within(name, "sage_edge.runtime.native") or within(name, "sage_edge.runtime.errors"))
    ]
    assert wrong == []


def test_calibration_takes_data_and_no_model_from_training() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in (ROOT / "calibration").rglob("*.py")
        for line, name in imported(path)
        if within(name, "sage_edge.training") and not within(name, "sage_edge.training.data")
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", TORCH_FREE)
def test_no_torch_below(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in (ROOT / folder).rglob("*.py")
        for line, name in imported(path)
        if name.split(".")[0] in ("torch", "torchvision", "torchaudio", "transformers")
    ]
    assert wrong == []


def fresh(code: str) -> list[str]:
    """What a fresh interpreter prints for `code`, in lines."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


HEAVY = ("torch", "cv2", "onnxruntime", "openvino", "onnx", "av", "soxr", "sounddevice", "matplotlib", "transformers")


@pytest.mark.parametrize(
    "module",
    [
        f"sage_edge.{name}"
        for name in (
            "runtime",
            "runtime.native",
            "jetson",
            "jetson.checks",
            "jetson.meter",
            "training",
            "training.data",
            "calibration",
            "compile",
            "cli",
            "cli.main",
        )
    ],
)
def test_import_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, threading, {module}; print(*(m for m in {HEAVY!r} if m in sys.modules)); print(threading.active_count())"
    loaded, threads = fresh(code)
    assert loaded == "", f"import {module} loads {loaded}"
    assert threads == "1", f"import {module} starts threads"


def test_runtime_modules_load_without_torch() -> None:
    """Every module of the runtime, on a machine that has no torch and no onnx."""
    names = [module_name(path) for path in MODULES if path.is_relative_to(ROOT / "runtime")]
    block = "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'onnxscript', 'safetensors', 'matplotlib', 'tqdm'))); import importlib; "
    assert fresh(block + f"[importlib.import_module(name) for name in {names!r}]; print('loaded')") == ["loaded"]


def test_these_tests_see_this_checkout() -> None:
    import sage_edge.runtime

    assert Path(sage_edge.runtime.__file__ or "").resolve() == ROOT / "runtime" / "__init__.py"
