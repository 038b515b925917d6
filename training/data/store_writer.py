"""Write the files of a store: arrays as their rows come, then the table of all frames and the index. `store` says what is where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sage_edge.runtime.files import sha256_file

from .store import COLUMNS

_HEADER = 128


class RowFile:
    """A .npy file whose length is known at its end: `with RowFile(path, np.uint8, (48, 48, 3)) as file: file.write(rows)`."""

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> None:
        """`shape` is that of one row."""
        self.rows = 0
        self._path, self._dtype, self._shape = path, np.dtype(dtype), shape

    def __enter__(self) -> RowFile:
        self._stream = open(self._path, "wb")
        self._stream.write(bytes(_HEADER))
        return self

    def write(self, rows: NDArray[Any]) -> None:
        """Append `rows` [n, *shape]."""
        if rows.dtype != self._dtype or rows.shape[1:] != self._shape:
            raise ValueError(f"rows are {rows.dtype} {rows.shape}, the file takes {self._dtype} [n, {self._shape}]")
        self._stream.write(rows.tobytes())
        self.rows += len(rows)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stream:
            if kind is None:
                self._stream.seek(0)
                self._stream.write(_header(self._dtype, (self.rows, *self._shape)))


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Version 1.0 of the format, padded to a length that no shape outgrows."""
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    return b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + text.ljust(_HEADER - 11).encode("ascii") + b"\n"


def file_record(path: Path) -> dict[str, Any]:
    """{"size", "sha256"} of a file, as the index lists it."""
    return {"size": path.stat().st_size, "sha256": sha256_file(path)}


def write_index(
    folder: Path, meta: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], frames: Sequence[Mapping[str, NDArray[Any]]]
) -> dict[str, Any]:
    """Write the table of frames and the index of the store `folder`, whose faces and sound are there; returns the index.

    `frames` holds the columns of each entry's frames, in the same order. `first_row` is put into the entries here.
    """
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    counts = [entry["counts"]["frames"] for entry in entries]
    first = [int(row) for row in np.cumsum([0, *counts[:-1]])]
    content: dict[str, Any] = {"meta": dict(meta), "frames": {}, "trials": []}
    for name in COLUMNS:
        path = folder / "frames" / f"{name}.npy"
        np.save(path, np.concatenate([columns[name] for columns in frames]))
        content["frames"][name] = file_record(path)
    content["trials"] = [{**entry, "first_row": row} for entry, row in zip(entries, first, strict=True)]
    (folder / "index.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return content
