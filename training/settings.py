"""`--set key=value` for frozen dataclasses: the text takes the type of the value that is there, an unknown key names the nearest one."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from sage_edge.runtime.errors import UsageError

T = TypeVar("T")

_TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """["a=1", "b=x"] -> {"a": "1", "b": "x"}; UsageError where there is no `=`."""
    result = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text!r} has no '='; write --set key=value")
        result[key.strip()] = value.strip()
    return result


def keys(*settings: Any) -> list[str]:
    """Field names of the given dataclasses, in order."""
    return [field.name for item in settings for field in dataclasses.fields(item)]


def unknown(key: str, known: Iterable[str], what: str = "setting") -> UsageError:
    """The error for a name that does not exist, with the nearest that does."""
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return UsageError(f"unknown {what} {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}"))


def parse(key: str, text: str, like: Any) -> Any:
    """`text` as a value of the type of `like` (bool, int, float, str, or a tuple of one of them, comma-separated). Raises UsageError."""
    if isinstance(like, tuple):
        return tuple(parse(key, part.strip(), like[0]) for part in text.strip("()[] ").split(",") if part.strip())
    if isinstance(like, bool):
        if text.lower() in _TRUTH:
            return _TRUTH[text.lower()]
        raise UsageError(f"{key}={text} is not a truth value; write {key}=true or {key}=false")
    try:
        return type(like)(text)
    except ValueError:
        raise UsageError(f"{key}={text} is not of type {type(like).__name__}, such as {key}={like}") from None


def replace(instance: T, values: Mapping[str, Any]) -> T:
    """A copy of a frozen dataclass with some fields changed; texts are parsed, other values must have the field's type. Raises UsageError."""
    names = keys(instance)
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in names:
            raise unknown(key, names)
        like = getattr(instance, key)
        if isinstance(value, list) and isinstance(like, tuple):
            value = tuple(value)
        if isinstance(value, str) and not isinstance(like, str):
            value = parse(key, value, like)
        if isinstance(value, int) and isinstance(like, float) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(like):
            raise UsageError(f"{key}={value!r} is not of type {type(like).__name__}, such as {like!r}")
        changes[key] = value
    return dataclasses.replace(instance, **changes)  # type: ignore[type-var]
