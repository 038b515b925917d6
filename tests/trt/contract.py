"""Hold sources, and the stand-in, against the bindings of one TensorRT version: run in a process of its own, its bindings on PYTHONPATH.

python contract.py STUB_FOLDER SOURCE... -> one JSON object: version, used, problems (source -> lines), standin (lines), live (lines)
"""

from __future__ import annotations

import ctypes
import enum
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import standin
from bindings import signatures
from uses import Uses


def load(stubs: Path) -> ModuleType:
    """The real bindings over the stub libraries, which have to be in the process before."""
    for path in sorted(stubs.glob("*.so.*")):
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    import tensorrt_bindings

    assert isinstance(tensorrt_bindings, ModuleType)
    return tensorrt_bindings


def compare(trt: ModuleType) -> list[str]:
    """What the stand-in has and the bindings have not, or have in another form."""
    problems = []
    for name, mine in vars(standin).items():
        if name.startswith("_") or not (inspect.isclass(mine) or inspect.isfunction(mine)) or mine.__module__ != standin.__name__:
            continue
        if not hasattr(trt, name):
            problems.append(f"{name} is not in the bindings")
        elif inspect.isclass(mine):
            problems += [f"{name}.{text}" for text in _differences(mine, getattr(trt, name))]
    return problems


def _differences(mine: type, real: type) -> list[str]:
    found = []
    members = mine.__members__ if issubclass(mine, enum.Enum) else {k: v for k, v in vars(mine).items() if not k.startswith("_") or k == "__init__"}
    for name, value in members.items():
        there = getattr(real, name, None)
        if there is None:
            found.append(f"{name} is not in the bindings")
        elif isinstance(value, property):
            if not isinstance(there, property):
                found.append(f"{name} is no property in the bindings")
            elif value.fset is not None and there.fset is None:
                found.append(f"{name} cannot be set in the bindings")
        elif inspect.isfunction(value):
            # classes that TensorRT makes itself tell no constructor
            names = tuple(list(inspect.signature(value).parameters)[1:])
            known = signatures(there, name)
            if (known or name != "__init__") and not any(each.names[: len(names)] == names and each.required <= len(names) for each in known):
                found.append(f"{name}({', '.join(names)}) is {[each.names for each in known]} in the bindings")
    return found


def live(trt: ModuleType) -> list[str]:
    """Our own subclasses on the real base classes, and a builder that cannot start; returns what did not hold."""
    from sage_edge.compile.trt_build import PlanBuilder
    from sage_edge.compile.trt_progress import Phases, monitor
    from sage_edge.runtime.errors import EngineError
    from sage_edge.runtime.progress import Progress
    from sage_edge.runtime.trt import logger

    problems = []
    log = logger(trt)
    log.log(trt.ILogger.WARNING, "two\nlines")
    log.log(trt.ILogger.VERBOSE, "chatter")
    if log.since(0) != [("warning", "two lines")]:
        problems.append(f"the logger kept {log.since(0)}")
    watch = monitor(trt, phases := Phases(Progress("test", 100, shown=False)))
    watch.phase_start(phase_name="Building", parent_phase=None, num_steps=2)
    going = watch.step_complete(phase_name="Building", step=0)
    phases.cancel()
    if (going, watch.step_complete(phase_name="Building", step=1)) != (True, False):
        problems.append("a cancelled build goes on")
    watch.phase_finish(phase_name="Building")
    described = trt.PluginTensorDesc()
    described.dims = (1, -1, 3)  # as shapes of an optimization profile are given
    if tuple(described.dims) != (1, -1, 3):
        problems.append("a tuple is no Dims")
    try:
        PlanBuilder(trt, progress=False)
        problems.append("a builder without TensorRT starts")
    except EngineError as error:
        if "cannot start its builder" not in str(error) or trt.__version__ not in str(error):
            problems.append(f"without TensorRT the builder says: {error}")
    return problems


def main(stubs: str, *sources: str) -> None:
    trt = load(Path(stubs))
    result: dict[str, Any] = {"version": trt.__version__, "used": [], "problems": {}}
    for source in sources:
        uses = Uses(trt, Path(source).read_text(encoding="utf-8"), Path(source).name)
        result["used"] += sorted(uses.used)
        result["problems"][source] = uses.problems
    print(json.dumps({**result, "standin": compare(trt), "live": live(trt)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
