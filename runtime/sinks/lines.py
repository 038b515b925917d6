"""Write whole lines, at once, or say why not: to a file, or to stdout.

FILE is emptied by the first line; FILE?append=1 goes on where it ends. What came before is never touched: half a line, as a power cut leaves one,
is ended, and the next one stands for itself. At two lines a second JSONL is 0.17 GB a day: logrotate with
`copytruncate` may empty the file under way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
from pathlib import Path

from ..errors import SinkError, UsageError
from ..secrets import without_secrets
from . import SinkClosed


def parse_file(target: str) -> tuple[str, bool]:
    """The path in FILE or FILE?append=1, and whether lines are appended. Raises UsageError for any other option, and for none to append to."""
    path, mark, option = target.rpartition("?")
    if not mark:
        return target, False
    if option not in ("append=0", "append=1") or path in ("", "-"):
        raise UsageError(f"output {without_secrets(target)!r} has an unknown option; write FILE?append=1 to go on where a file ends")
    return path, option == "append=1"


class FileLines:
    """A file that only ever holds whole lines. The path is checked when this is made; the file is made, or emptied, by the first line.

    `target` is as of `parse_file`, which raises UsageError; SinkError for a path that cannot be written.
    """

    def __init__(self, target: str) -> None:
        path, self._appends = parse_file(target)
        self.path = Path(path)
        self._handle: int | None = None
        if self.path.is_dir():
            raise SinkError(f"{self.path} is a folder; name a file in it")
        if not self.path.parent.is_dir():
            raise SinkError(f"the folder {self.path.parent} does not exist; make it with mkdir -p {self.path.parent}")
        where = self.path if self.path.exists() else self.path.parent
        if not os.access(where, os.W_OK):
            raise SinkError(f"{where} cannot be written: permission denied; choose another file")

    def first(self, most: int) -> bytes:
        """The first line that will stay, without its end, `most` bytes of it; empty where there is none."""
        if not self._appends or not self.path.is_file():
            return b""
        try:
            with open(self.path, "rb") as stream:
                return stream.readline(most).rstrip(b"\n")
        except OSError as error:
            raise SinkError(f"{self.path} cannot be read: {error.strerror}; choose another file") from None

    def write(self, line: str) -> None:
        """Append `line` and a line break; all of it or nothing. Raises SinkError, SinkClosed."""
        try:
            if self._handle is None:
                self._handle = self._open()
            _append(self._handle, line)
        except BrokenPipeError:
            raise SinkClosed(f"{self.path}: its reader has gone") from None
        except OSError as error:
            raise SinkError(f"{self.path}: {error.strerror or error}; it holds the lines up to here, make room or choose another file") from None

    def _open(self) -> int:
        half = self._appends and self.path.is_file() and not _ends_whole(self.path)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if self._appends else os.O_TRUNC), 0o644)
        if half:
            try:
                _append(handle, "")
            except BaseException:
                os.close(handle)
                raise
        return handle

    def close(self) -> None:
        """Close the file; again does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class StdoutLines:
    """Standard output, each line at once."""

    def __init__(self) -> None:
        self._handle: int | None = None
        with contextlib.suppress(OSError, ValueError):  # a notebook's or a test's stdout is no file
            self._handle = sys.stdout.fileno()

    def write(self, line: str) -> None:
        """Write `line` and a line break. Raises SinkClosed when the reader has gone, SinkError otherwise."""
        try:
            if self._handle is None:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            else:
                # Past Python's buffer: it would be written once more at exit, and its lock held then by a thread that waits for a slow reader.
                _append(self._handle, line)
        except BrokenPipeError:
            raise SinkClosed("the reader of stdout has gone") from None
        except OSError as error:
            raise SinkError(f"stdout: {error.strerror or error}; write to a file with --out jsonl:FILE") from None

    def close(self) -> None:
        """Nothing to do: stdout belongs to the process."""


def _ends_whole(path: Path) -> bool:
    with open(path, "rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - 1))
        return stream.read() in (b"", b"\n")


def _append(handle: int, line: str) -> None:
    """Write `line` and a line break. A full disk takes part of a line: what a file is left with ends with a whole one."""
    rest = memoryview(line.encode() + b"\n")
    regular = stat.S_ISREG(os.fstat(handle).st_mode)
    appends = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_APPEND
    end = os.lseek(handle, 0, os.SEEK_END if appends else os.SEEK_CUR) if regular else 0
    try:
        while rest:
            rest = rest[os.write(handle, rest) :]
    except BaseException:
        if regular:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, end)
                os.lseek(handle, end, os.SEEK_SET)
        raise
