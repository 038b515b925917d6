"""Faces are cropped and encoded in the order in which ticks take their frames, and each tick's row of features follows.

    encoder.encode(frame, crops, items)   # a frame that a tick takes
    encoder.tick(seen)
    encoder.flush()                       # before anybody reads the rows

A face is cropped when it comes, into its place in the engine's input. Those of several frames are one run where the engine is open to that
(`Graphs.together`): on a CPU it takes three fifths of the time of as many runs, and leaves the caches cold once.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

from .bundle import FaceInfo
from .frames import Crop, Frame
from .graphs import Graphs
from .native import Cropper
from .stages import Stages
from .tracks import Seen, TrackWindows


class _Job:
    """A frame that waits: the items of the input that are its faces, and how many floats of features each tick takes that takes it."""

    __slots__ = ("at", "frame", "items", "ticks")

    def __init__(self, frame: Frame, at: int, items: int) -> None:
        self.frame, self.at, self.items = frame, at, items
        self.ticks: list[int] = []


class Encoder:
    """Crops into the input of `graphs.visual`, whose outputs are the features that `tracks` takes; `rest` waits until nobody reads those."""

    def __init__(self, graphs: Graphs, face: FaceInfo, tracks: TrackWindows, stages: Stages, rest: Callable[[], None]) -> None:
        self._visual, self._together, self._face, self._tracks, self._rest = graphs.visual, graphs.together, face, tracks, rest
        self._crop_ns, self._visual_ns = stages["crop"], stages["visual"]
        self._input = graphs.visual.inputs["faces"]
        self._inner = face.input_size / face.crop_size
        self._croppers: dict[int, Cropper] = {}
        self._jobs: list[_Job] = []
        self._end = self._at = 0
        """Items that wait; where the faces of the newest frame begin, also when they have been encoded."""

    def encode(self, frame: Frame, crops: list[Crop], items: int) -> None:
        """The next tick takes this frame: crop what is given, and encode `items` faces, of which the others were cropped from it before. Raises
        NativeError for what cannot be cropped: then nothing of this is encoded. Raises as `flush` does."""
        if self._jobs and not (self._together and frame.whole and self._end + items <= len(self._input)):
            self.flush()
        start = perf_counter_ns()
        at, share = self._end, self._inner
        border = (1.0 - share) / 2.0
        for item, pixels, face in crops:
            x, y, width, height = face.box or (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))
            cropper = self._croppers.get(at + item)
            if cropper is None:
                cropper = self._croppers[at + item] = Cropper(self._input[at + item], self._face.mean, self._face.std)
            cropper(pixels, (x + border * width, y + border * height, share * width, share * height), frame.format)
        self._jobs.append(_Job(frame, at, items))
        self._at, self._end = at, at + items
        self._crop_ns.add(perf_counter_ns() - start)

    def tick(self, seen: tuple[Seen, ...]) -> None:
        """The next tick, and the faces it takes of what was encoded last."""
        floats = self._tracks.push(seen)
        if self._jobs:
            self._jobs[-1].ticks.append(floats)
        else:
            self._tracks.take(floats, self._at)

    def flush(self) -> None:
        """Encode all that waits. Raises EngineError: then every tick is forgotten, and every face of these frames."""
        jobs, items = self._jobs, self._end
        if not jobs:
            return
        start = perf_counter_ns()
        try:
            self._jobs, self._end = [], 0
            self._visual.run(items)
            spent_ns, take = perf_counter_ns() - start, self._tracks.take
            for job in jobs:
                self._visual_ns.add(spent_ns * job.items // items)
                for floats in job.ticks:
                    take(floats, job.at)
        except BaseException:  # also Ctrl-C: a row that was not taken would put all later ones at other ticks
            for job in jobs:
                job.frame.seen = ()
            try:
                self._rest()
            finally:
                self._tracks.clear()
            raise
