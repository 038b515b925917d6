"""What every binding of a C handle needs: the funnel for errors, addresses of arrays, and an owner that outlives every view."""

from __future__ import annotations

import ctypes
from typing import Any

from numpy.typing import NDArray

from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.native.library import load


def check(code: int, what: str) -> int:
    """`code` when it is not negative, else the NativeError that says what failed and why."""
    if code >= 0:
        return code
    raise NativeError(f"{what}: {load().sage_strerror(code).decode()}", code)


def address(array: NDArray[Any]) -> int:
    """Of the first element."""
    flags = array.flags
    if flags.c_contiguous and flags.writeable and array.size:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type] # a fifth of the time of what always works
    at: int = array.__array_interface__["data"][0]
    return at


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
