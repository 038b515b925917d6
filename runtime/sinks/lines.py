"""Write whole lines, at once, or say why not: to a file, or to stdout."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

from ..errors import SinkError
from . import SinkClosed


class FileLines:
    """A file that only ever holds whole lines. The path is checked when this is made; the file is made, or emptied, by the first line."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._handle: int | None = None
        self._regular = True
        self._end = 0
        if self.path.is_dir():
            raise SinkError(f"{self.path} is a folder; name a file in it")
        if not self.path.parent.is_dir():
            raise SinkError(f"the folder {self.path.parent} does not exist; make it with mkdir -p {self.path.parent}")
        where = self.path if self.path.exists() else self.path.parent
        if not os.access(where, os.W_OK):
            raise SinkError(f"{where} cannot be written: permission denied; choose another file")

    def write(self, line: str) -> None:
        """Append `line` and a line break; all of it or nothing. Raises SinkError, SinkClosed."""
        data = memoryview(line.encode() + b"\n")
        try:
            if self._handle is None:
                self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
                self._regular = stat.S_ISREG(os.fstat(self._handle).st_mode)
            done = 0
            while done < len(data):
                done += os.write(self._handle, data[done:])
        except BrokenPipeError:
            raise SinkClosed(f"{self.path}: its reader has gone") from None
        except OSError as error:
            self._cut()
            raise SinkError(f"{self.path}: {error.strerror or error}; it holds the lines up to here, make room or choose another file") from None
        except BaseException:
            self._cut()
            raise
        self._end += len(data)

    def _cut(self) -> None:
        # A full disk takes part of a line; what is left must end with a whole one.
        if self._handle is not None and self._regular:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self._end)
                os.lseek(self._handle, self._end, os.SEEK_SET)

    def close(self) -> None:
        """Close the file; again does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class StdoutLines:
    """Standard output, flushed after every line."""

    def write(self, line: str) -> None:
        """Write `line` and a line break. Raises SinkClosed when the reader has gone, SinkError otherwise."""
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_stdout()
            raise SinkClosed("the reader of stdout has gone") from None
        except OSError as error:
            _forget_stdout()
            raise SinkError(f"stdout: {error.strerror or error}; write to a file with --out jsonl:FILE") from None

    def close(self) -> None:
        """Nothing to do: stdout belongs to the process."""


def _forget_stdout() -> None:
    # Python flushes stdout once more when it exits, and would complain about what can no longer be written.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
