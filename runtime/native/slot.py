"""The newest frame, handed from the thread that captures to the one that looks, without a lock and without a copy."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.native.handle import Handle, check
from sage_edge.runtime.native.library import SlotFrame, load


@dataclass(frozen=True)
class NewestFrame:
    """`pixels` is uint8 [bytes] of the slot: it stays as it is until the next `take` that gives a frame. `replaced`: frames since the one taken
    before that nobody will see."""

    pixels: NDArray[np.uint8]
    t_ns: int
    tag: int
    replaced: int


class FrameSlot:
    """Three buffers of `nbytes` bytes between one writing and one reading thread; neither waits, and no frame is seen half-written."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._handle = Handle("sage_slot_create", "sage_slot_destroy", nbytes)
        self._pointer = self._handle.pointer
        self._views: dict[int, NDArray[np.uint8]] = {}

    def _view(self, data: int) -> NDArray[np.uint8]:
        found = self._views.get(data)
        if found is None:
            memory = (ctypes.c_uint8 * self.nbytes).from_address(data)
            memory._handle = self._handle  # type: ignore[attr-defined]
            found = self._views[data] = np.ctypeslib.as_array(memory)
        return found

    def begin(self) -> NDArray[np.uint8]:
        """Where to write the next frame, uint8 [nbytes], 64-byte aligned; the same until `commit`. Its old content is undefined."""
        return self._view(load().sage_slot_begin(self._pointer))

    def commit(self, t_ns: int, tag: int = 0) -> None:
        """Make what was written the newest frame. `tag` goes with it: a number of the caller's."""
        check(load().sage_slot_commit(self._pointer, t_ns, tag), "commit of a frame")

    def take(self) -> NewestFrame | None:
        """The newest frame, once; None when it was taken before, or none came yet."""
        frame = SlotFrame()
        if not check(load().sage_slot_take(self._pointer, ctypes.byref(frame)), "take of a frame"):
            return None
        return NewestFrame(self._view(frame.data), frame.t_ns, frame.tag, frame.replaced)
