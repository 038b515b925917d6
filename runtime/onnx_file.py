"""What an ONNX file says of itself, read without the onnx package and without reading its weights.

    metadata(path).get("precision")     # "int8-cpu", "int8-trt"; a float graph has none

An ONNX file is one protobuf message, `ModelProto`: fields one after another, `metadata_props` (field 14) among them, and the graph (field 7),
which is skipped. Source: onnx.proto of ONNX 1.17 and protobuf's encoding of varints and lengths.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """`metadata_props` of the ONNX file at `path`; what is no ONNX file has none. Raises OSError."""
    found: dict[str, str] = {}
    with open(Path(path), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            while stream.tell() < size:
                field, body = _field(stream, size, keep=_METADATA_PROPS)
                if field == _METADATA_PROPS:
                    entry = _strings(body)
                    found[entry.get(_KEY, "")] = entry.get(_VALUE, "")
        except ValueError:
            return found
    return found


def _field(stream: BinaryIO, size: int, keep: int | None) -> tuple[int, bytes]:
    """Number and body of the next field; the body is read only for a length-delimited field `keep` (None: for all)."""
    tag = _varint(stream)
    field, kind = tag >> 3, tag & 7
    if kind == _VARINT:
        _varint(stream)
        return field, b""
    length = _varint(stream) if kind == _LENGTH else {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
    if length < 0 or stream.tell() + length > size:
        raise ValueError("not a protobuf message")
    if kind == _LENGTH and keep in (None, field):
        return field, stream.read(length)
    stream.seek(length, os.SEEK_CUR)
    return field, b""


def _strings(message: bytes) -> dict[int, str]:
    stream, found = io.BytesIO(message), {}
    while stream.tell() < len(message):
        field, body = _field(stream, len(message), keep=None)
        found[field] = body.decode("utf-8", "replace")
    return found


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise ValueError("cut off")
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value
    raise ValueError("not a varint")
