"""What every binding of a C handle needs: the funnel for errors, addresses of arrays, and an owner that outlives every view."""

from __future__ import annotations

import ctypes
from typing import Any

from numpy.typing import NDArray

from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.native.library import load

_DATA = object.__basicsize__
"""Where an array keeps its address: right behind the head of every object. `PyArray_DATA` compiles this into each extension that uses NumPy, so it
is NumPy's ABI; asking its Python interface takes five times as long, and a live loop asks for every frame."""


def check(code: int, what: str) -> int:
    """`code` when it is not negative, else the NativeError that says what failed and why."""
    if code >= 0:
        return code
    raise NativeError(f"{what}: {load().sage_strerror(code).decode()}", code)


def address(array: NDArray[Any]) -> int:
    """Of the first element."""
    return ctypes.c_size_t.from_address(id(array) + _DATA).value


class Handle:
    """Owns a C handle; gone with the last of its users, so that no view outlives its memory."""

    def __init__(self, create: str, destroy: str, *sizes: int) -> None:
        self.pointer = ctypes.c_void_p()
        self._destroy = getattr(load(), destroy)
        code = getattr(load(), create)(*sizes, ctypes.byref(self.pointer))
        check(code, f"{create}({', '.join(map(str, sizes))})")

    def __del__(self) -> None:
        if self.pointer:
            self._destroy(self.pointer)
