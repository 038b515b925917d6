"""TensorRT's Python module and the one logger of this process, for the builder and the runtime alike.

JetPack's apt packages and NVIDIA's wheels call the module `tensorrt`; where only the wheel with the bindings is installed, it is
`tensorrt_bindings`. Nothing in this package imports it but through here.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

from .errors import EngineError

MODULES = ("tensorrt", "tensorrt_bindings")
_INSTALL = (
    "on a Jetson `sudo apt install python3-libnvinfer` and a venv made by `/usr/bin/python3 -m venv --system-site-packages`, "
    "elsewhere `pip install tensorrt`"
)
_MAX_LINE = 400
_MAX_KEPT = 200


def load() -> Any:
    """The module. Raises EngineError where it is not installed, or is and cannot be loaded."""
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise EngineError(f"{name} cannot be loaded ({line(error)}); install TensorRT again: {_INSTALL}") from None
        except (ImportError, OSError) as error:
            raise EngineError(f"{name} cannot be loaded ({line(error)}); install TensorRT again: {_INSTALL}") from None
    raise EngineError(f"TensorRT is not installed (there is no Python module {' or '.join(MODULES)}): {_INSTALL}")


@lru_cache(maxsize=1)
def logger(trt: Any) -> Any:
    """The logger of this process, made once: TensorRT keeps using the first one it was given.

    A `tensorrt.ILogger` that prints nothing and keeps errors and warnings; `mark()` says how many there were so far, `since(mark)` gives those
    after it, as (severity, text), the same one once; "error" or "warning".
    """
    names = {trt.ILogger.INTERNAL_ERROR: "error", trt.ILogger.ERROR: "error", trt.ILogger.WARNING: "warning"}

    class Messages(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._kept: list[tuple[str, str]] = []
            self._dropped = 0

        def log(self, severity: Any, msg: str) -> None:
            # called from TensorRT's own threads too; must not raise
            if severity in names:
                self._kept.append((names[severity], line(msg)))
                if len(self._kept) > _MAX_KEPT:
                    del self._kept[0]
                    self._dropped += 1

        def mark(self) -> int:
            return self._dropped + len(self._kept)

        def since(self, mark: int) -> list[tuple[str, str]]:
            return list(dict.fromkeys(self._kept[max(0, mark - self._dropped) :]))

    return Messages()


def line(text: object) -> str:
    """`text` as one line of bounded length."""
    found = " ".join(str(text).split())
    return found if len(found) <= _MAX_LINE else found[: _MAX_LINE - 3] + "..."
