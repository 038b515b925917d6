"""The face finders by name."""

from __future__ import annotations

from .faces import FaceFinder


def open_finder(spec: str | None, margin: float, most: int = 1) -> FaceFinder:
    return FaceFinder(margin)
