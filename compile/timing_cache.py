"""Measured kernel times, kept in a file between builds: the second build of a graph takes a fraction of the first.

A file belongs to one TensorRT version and one GPU. One that is damaged, or refused, costs the measuring again and a line, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sage_edge.runtime.files import atomic_file
from sage_edge.runtime.trt import line

if TYPE_CHECKING:
    import tensorrt as trt


class TimingCache:
    """The cache in the file `path`; None keeps nothing. `say` gets a line when it cannot be used or written."""

    def __init__(self, path: Path | None, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        self._loaded = b""
        self._attached: trt.ITimingCache | None = None

    def attach(self, config: trt.IBuilderConfig) -> None:
        """Give what the file holds to a builder's configuration, or an empty cache."""
        self._loaded = self._read()
        self._attached = _set(config, self._loaded) if self._loaded else None
        if self._attached is None:
            if self._loaded:
                self._say(f"{self._path} is no timing cache of this TensorRT and GPU, or damaged; it is not used and will be replaced")
            self._loaded = b""
            self._attached = _set(config, b"")

    def keep(self, config: trt.IBuilderConfig) -> None:
        """Write what the configuration's cache holds after a build, with what others have written meanwhile."""
        # without one of ours attached, the bindings would take TensorRT's own cache for theirs, and free it
        if self._path is None or self._attached is None or (cache := config.get_timing_cache()) is None:
            return
        meanwhile = self._read()
        if meanwhile and meanwhile != self._loaded and (other := _make(config, meanwhile)) is not None:
            # what it refuses is of another version and goes
            cache.combine(other, ignore_mismatch=False)
        serialized = cache.serialize()
        if serialized is None:
            return
        data = bytes(serialized)
        if data == meanwhile:
            return
        try:
            with atomic_file(self._path) as work:
                work.write_bytes(data)
        except OSError as error:
            self._say(f"{self._path} cannot be written ({error.strerror or error}); the next build measures its kernels again")

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes() if self._path is not None else b""
        except FileNotFoundError:
            return b""
        except OSError as error:
            self._say(f"{self._path} cannot be read ({line(error.strerror or error)}); kernels are measured again")
            return b""


def _make(config: trt.IBuilderConfig, data: bytes) -> trt.ITimingCache | None:
    try:
        return config.create_timing_cache(data)
    except (RuntimeError, TypeError, ValueError):
        return None


def _set(config: trt.IBuilderConfig, data: bytes) -> trt.ITimingCache | None:
    """The cache that was attached; None where `data` is refused."""
    cache = _make(config, data)
    return cache if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False) else None
