"""Faces are cropped and encoded in the order in which ticks take their frames, and each tick's row of features follows.

    encoder.encode(frame, crops, items)   # a frame that a tick takes
    encoder.tick(seen)
    encoder.flush()                       # before anybody reads the rows

An engine leaves the caches cold, and what runs between two of its runs takes several times as long as it would elsewhere. So a face is cropped when
it comes, to wait beside the engine's input, and between two runs `flush` only copies it there, and a row of features out.
"""

from __future__ import annotations

from time import perf_counter_ns

import numpy as np

from .bundle import FaceInfo
from .engines import Engine
from .frames import Crop, Frame
from .native import Cropper
from .stages import Stages
from .tracks import Seen, TrackWindows

_Copy = tuple[memoryview, memoryview]
"""To, from."""


class _Job:
    """A frame, or none, and the ticks that take it: which faces are to be copied where, how many there are, and how many floats of features each
    tick takes."""

    __slots__ = ("copies", "frame", "items", "ticks")

    def __init__(self, frame: Frame | None, copies: list[_Copy], items: int) -> None:
        self.frame, self.copies, self.items = frame, copies, items
        self.ticks: list[int] = []


class Encoder:
    """Crops into the inputs of `visual`, whose outputs are the features that `tracks` takes."""

    def __init__(self, visual: Engine, face: FaceInfo, tracks: TrackWindows, stages: Stages) -> None:
        self._visual, self._face, self._tracks = visual, face, tracks
        self._crop_ns, self._visual_ns = stages["crop"], stages["visual"]
        self._input = visual.inputs["faces"]
        self._inner = face.input_size / face.crop_size
        self._places: list[dict[int, tuple[Cropper, _Copy | None]]] = []
        """Of the first frame that waits, by item; of the second; ..."""
        self._jobs: list[_Job] = []
        self._frames = 0

    def encode(self, frame: Frame, crops: list[Crop], items: int) -> None:
        """The next tick takes this frame: crop what is given, and encode `items` faces, of which the others were cropped from it before. Raises
        NativeError for what cannot be cropped: then nothing of this is encoded."""
        start = perf_counter_ns()
        if self._frames == len(self._places):
            self._places.append({})
        places, share, copies = self._places[self._frames], self._inner, []
        border = (1.0 - share) / 2.0
        for item, pixels, face in crops:
            x, y, width, height = face.box or (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))
            place = places.get(item)
            if place is None:
                place = places[item] = self._place(item)
            cropper, copy = place
            cropper(pixels, (x + border * width, y + border * height, share * width, share * height), frame.format)
            if copy:
                copies.append(copy)
        self._jobs.append(_Job(frame, copies, items))
        self._frames += 1
        self._crop_ns.add(perf_counter_ns() - start)

    def _place(self, item: int) -> tuple[Cropper, _Copy | None]:
        """Where a face of the frame that comes now is cropped to: the first one's into the engine's input, where it can stay."""
        here = self._input[item]
        if not self._frames:
            return Cropper(here, self._face.mean, self._face.std), None
        apart = np.empty_like(here)
        return Cropper(apart, self._face.mean, self._face.std), (memoryview(here).cast("B"), memoryview(apart).cast("B"))

    def tick(self, seen: tuple[Seen, ...]) -> None:
        """The next tick, and the faces it takes of what was encoded last."""
        if not self._jobs:
            self._jobs.append(_Job(None, [], 0))
        self._jobs[-1].ticks.append(self._tracks.push(seen))

    def flush(self) -> None:
        """Encode all that waits. Raises EngineError: then every tick is forgotten, and every face of these frames."""
        jobs = self._jobs
        if not jobs:
            return
        self._jobs, self._frames = [], 0
        run, take, times = self._visual.run, self._tracks.take, []
        try:
            for job in jobs:
                if job.items:
                    for here, apart in job.copies:
                        here[:] = apart
                    start = perf_counter_ns()
                    run(job.items)
                    times.append((start, perf_counter_ns()))
                for floats in job.ticks:
                    take(floats)
        except BaseException:
            self._tracks.clear()
            for job in jobs:
                if job.frame is not None:
                    job.frame.seen = ()
            raise
        for start, end in times:
            self._visual_ns.add(end - start)
