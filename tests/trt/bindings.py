"""What TensorRT's real bindings say of themselves: members of their classes, argument names from pybind11's docstrings, types of what comes back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Signature:
    """One overload, without `self`: argument names, how many of the first have no default, and the text of the type it returns."""

    names: tuple[str, ...]
    required: int
    returns: str

    def takes(self, positional: int, keywords: set[str], starred: bool = False) -> bool:
        """Whether a call with so many positional arguments and these keywords fits. With `starred` there may be more."""
        rest = self.names[positional:]
        if positional > len(self.names) or not keywords <= set(rest):
            return False
        return starred or not set(self.names[: self.required]) - set(self.names[:positional]) - keywords


def signatures(function: Any, name: str) -> list[Signature]:
    """All overloads that the docstring of a method or constructor tells."""
    found = []
    for text in (getattr(function, "__doc__", None) or "").splitlines():
        match = re.match(rf"\s*(?:\d+\.\s+)?{re.escape(name)}\((.*)\)\s*->\s*(.+)$", text)
        if match and "*args" not in match[1]:
            arguments = _split(match[1])[1:]
            required = next((i for i, argument in enumerate(arguments) if "=" in argument), len(arguments))
            found.append(Signature(tuple(re.split(r"[:=]", argument)[0].strip() for argument in arguments), required, match[2].strip()))
    return found


def _split(text: str) -> list[str]:
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "[(<") - (sign in "])>")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part for part in parts if part.strip()]


def named(module: ModuleType, text: str) -> type | None:
    """The class that a docstring means: "tensorrt_bindings.tensorrt.IHostMemory", "nvinfer1::IBuilder"; None for what is not TensorRT's."""
    last = re.split(r"\.|::", text.strip())[-1]
    for name in (last, last.removeprefix("I")):
        if isinstance(found := getattr(module, name, None), type):
            return found
    return None


def property_type(module: ModuleType, value: property) -> type | None:
    """The class of what a property gives, as far as its getter tells."""
    match = re.search(r"->\s*(.+)", (getattr(value.fget, "__doc__", None) or ""))
    return named(module, match[1]) if match else None


def all_members(module: ModuleType) -> set[str]:
    """Names of the public members of all classes."""
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    return {name for value in classes for name in dir(value) if not name.startswith("_")}
