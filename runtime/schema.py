"""Frozen dataclasses to JSON and back, with every key type-checked: the field types are the schema.

Understands dataclasses, `int`, `float` (an int is taken, NaN and infinity are not), `bool`, `str`, `tuple[T, ...]` (a JSON list),
`dict[str, T]`, `Mapping[str, Any]` (left as it is) and `T | None`. Raises BundleError naming the key, its value and what it must be.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from .errors import BundleError

T = TypeVar("T")
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}


def decode(cls: type[T], value: object, where: str) -> T:
    """Build `cls` from plain JSON types. `where` opens every message (a file name)."""
    return typing.cast(T, _dataclass(cls, value, where, ""))


def plain(value: Any) -> Any:
    """Dataclasses, mappings and tuples as dicts and lists."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def _dataclass(cls: Any, value: object, where: str, key: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, key, value, "an object")
    hints = typing.get_type_hints(cls)
    for name in value:
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "upgrade sage-edge or compile the bundle again"
            raise BundleError(f"{where}: key {_join(key, name)!r} is unknown; {hint}")
    for name in hints:
        if name not in value:
            raise BundleError(f"{where}: key {_join(key, name)!r} is missing; compile the bundle again")
    return cls(**{name: _value(hint, value[name], where, _join(key, name)) for name, hint in hints.items()})


def _value(hint: Any, value: object, where: str, key: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _value(next(a for a in args if a is not type(None)), value, where, key)
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, where, key)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, key, value, "a list")
        return tuple(_value(args[0], item, where, f"{key}[{i}]") for i, item in enumerate(value))
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise _wrong(where, key, value, "an object")
        return dict(value) if args[1] is Any else {name: _value(args[1], item, where, _join(key, name)) for name, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) <= sys.float_info.max else math.inf
    if type(value) is not hint or (isinstance(value, float) and not math.isfinite(value)):
        raise _wrong(where, key, value, _NAMES[hint])
    return value


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _wrong(where: str, key: str, value: object, rule: str) -> BundleError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return BundleError(f"{where}: key {key!r} is {shown}, must be {rule}; compile the bundle again")
