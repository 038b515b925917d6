"""Arrays that stay in their files until somebody looks: a store of 594 trials has about 1200 of them, and a process may open 1024 files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

C = TypeVar("C")

OPEN_AT_ONCE = 400
"""Files that are kept mapped; beyond that the one that was not used for longest is closed, once nobody holds a view of it."""


@dataclass(frozen=True)
class ArrayFile:
    """A .npy file and what tells its content apart from that of another file of this name."""

    path: Path
    sha256: str

    def open(self) -> NDArray[Any]:
        """The array, memory-mapped, read-only."""
        return _mapped(self)


@functools.lru_cache(OPEN_AT_ONCE)
def _mapped(file: ArrayFile) -> NDArray[Any]:
    array: NDArray[Any] = np.load(file.path, mmap_mode="r")
    return array


class _MappedField:
    """Holds an array or an ArrayFile, and reads as an array; a file is mapped each time it is read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            raise AttributeError(self._name)
        value = instance.__dict__[self._name]
        return value.open() if isinstance(value, ArrayFile) else value

    def __set__(self, instance: object, value: NDArray[Any] | ArrayFile) -> None:
        instance.__dict__[self._name] = value


def mapped_fields(*names: str) -> Callable[[type[C]], type[C]]:
    """Class decorator: these fields of a dataclass may be given an ArrayFile in place of an array, and read as arrays all the same."""

    def decorate(kind: type[C]) -> type[C]:
        for name in names:
            setattr(kind, name, _MappedField(name))
        return kind

    return decorate
