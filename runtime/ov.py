"""OpenVINO, loaded with its telemetry off: what runs on the device stays on the device.

Its package brings `openvino-telemetry`, and `import openvino` alone sends an event to Google Analytics (openvino/tools/ovc/__init__.py) and keeps
an identifier in ~/intel, unless somebody has opted out before. The wheel has a stub for where that package is missing, so it is made to be
missing in this process. Nothing in this package imports openvino but through here.
"""

from __future__ import annotations

import contextlib
import sys
from functools import lru_cache
from typing import Any

_TELEMETRY = "openvino_telemetry"


def load() -> Any:
    """The module `openvino`. Raises ImportError when it is not installed."""
    sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type]
    import openvino

    # the event has gone where somebody else has loaded it before; no other follows
    if (loaded := sys.modules.get(_TELEMETRY)) is not None:
        with contextlib.suppress(Exception):
            loaded.Telemetry().consent = False
    return openvino


@lru_cache(maxsize=1)
def core() -> Any:
    """The one `openvino.Core` of this process. Raises ImportError as above, RuntimeError when its plugins cannot be loaded."""
    return load().Core()


def version() -> str:
    """OpenVINO's version without its build. Raises ImportError as above."""
    return str(load().__version__).split("-")[0]
