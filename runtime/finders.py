"""The face finders by name: `open_finder("cascade", margin)`, `open_finder("yunet:face_detection_yunet_2023mar.onnx", margin, most=4)`."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from .errors import UsageError

if TYPE_CHECKING:
    from .crowd import CrowdFinder
    from .faces import FaceFinder
    from .following import Detector

FINDERS = {"cascade": "cascade", "yunet": "yunet:FILE"}


def open_finder(spec: str | None, margin: float, most: int = 1) -> FaceFinder | CrowdFinder:
    """The finder that `spec` names, the cascade when None: of the largest face where `most` is 1, else of up to `most` faces.

    `margin` is the bundle's `face.margin`. Raises UsageError for an unknown spec and for a file that is no YuNet.
    """
    detector = _detector("cascade" if spec is None else spec)
    if most == 1:
        from .faces import FaceFinder

        return FaceFinder(margin, detector)
    from .crowd import CrowdFinder

    return CrowdFinder(margin, detector, most)


def _detector(spec: str) -> Detector | None:
    name, colon, file = spec.partition(":")
    if name not in FINDERS:
        near = difflib.get_close_matches(name, FINDERS, n=1)
        raise UsageError(
            f"unknown face finder {spec!r}; " + (f"did you mean {FINDERS[near[0]]}?" if near else f"one of {', '.join(FINDERS.values())}")
        )
    if name == "cascade":
        if colon:
            raise UsageError(f"face finder {spec!r}: the cascade comes with OpenCV and takes no file; write cascade, or yunet:FILE")
        return None
    if not file:
        raise UsageError(f"face finder {spec!r} names no file; write {FINDERS[name]}")
    import cv2

    from .yunet import YuNet

    return YuNet(cv2, file)
