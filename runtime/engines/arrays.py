"""What the engines share: aligned arrays, the shapes they may have, and an error of somebody else's library in one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..native.handle import address

ALIGN = 64
"""Bytes of a cache line."""


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros that start on a cache line."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.zeros(size + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + size].view(dtype).reshape(shape)


def static_shape(path: Path, name: str, sizes: Sequence[object], batch: int) -> tuple[int, ...]:
    """The shape of `name` for `batch` items; a size that is no whole number is an open one. Raises EngineError unless only the first is open."""
    shape = tuple(batch if i == 0 and not isinstance(size, int) else size for i, size in enumerate(sizes))
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise EngineError(f"{path}: {name} has shape {list(sizes)}, only the first size may be open; export the graph again")
    if shape and shape[0] != batch:
        raise EngineError(f"{path}: {name} is made for batches of {shape[0]}, not {batch}; export the graph again")
    return tuple(int(size) for size in shape if isinstance(size, int))


def check_like(path: Path, name: str, array: NDArray[Any], own: NDArray[Any] | None) -> None:
    """Raise EngineError unless an engine can read its input `name` from `array` as it does from its `own`."""
    if own is None:
        raise EngineError(f"{path.name} has no input {name!r}")
    if array.shape != own.shape or array.dtype != own.dtype or not array.flags.c_contiguous or address(array) % ALIGN:
        wanted = f"{own.dtype} {list(own.shape)}, C-contiguous, from a multiple of {ALIGN} bytes on"
        raise EngineError(f"{path.name} cannot read {name!r} from {array.dtype} {list(array.shape)} at {address(array):#x}, needs {wanted}")


def check_items(path: Path, items: int, batch: int) -> int:
    """`items` where it is a part of the batch. Raises EngineError."""
    if not 1 <= items <= batch:
        raise EngineError(f"{path.name} runs 1 to {batch} items, not {items}; open it with a larger batch")
    return items


def one_line(error: BaseException, limit: int = 200) -> str:
    """What an exception says, in one line of at most `limit` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
