"""Faces are cropped and encoded in the order in which ticks take their frames, and each tick's row of features follows.

    encoder.encode(frame, crops, items)   # a frame that a tick takes
    encoder.tick(seen)
    encoder.flush()                       # before anybody reads the rows, and before the pixels change

An engine leaves the caches cold, and what runs between two of its runs takes several times as long as it would elsewhere. So everything is prepared
for all frames first, and `flush` has nothing to do between engines that could be done before or after.
"""

from __future__ import annotations

from time import perf_counter_ns

from .bundle import FaceInfo
from .engines import Engine
from .frames import Crop, Frame
from .native import Cropper
from .stages import Stages
from .tracks import Seen, TrackWindows


class _Job:
    """A frame, or none, and the ticks that take it: how many floats of features each does."""

    __slots__ = ("alive", "croppers", "frame", "items", "ticks")

    def __init__(self, frame: Frame | None, croppers: list[Cropper], alive: list[object], items: int) -> None:
        self.frame, self.croppers, self.alive, self.items = frame, croppers, alive, items
        self.ticks: list[int] = []


class Encoder:
    """Crops into the inputs of `visual`, whose outputs are the features that `tracks` takes."""

    def __init__(self, visual: Engine, face: FaceInfo, tracks: TrackWindows, stages: Stages) -> None:
        self._visual, self._face, self._tracks = visual, face, tracks
        self._crop_ns, self._visual_ns = stages["crop"], stages["visual"]
        self._slots = visual.inputs["faces"]
        self._inner = face.input_size / face.crop_size
        self._croppers: list[dict[int, Cropper]] = []
        """Of the first frame that waits, by item; of the second; ..."""
        self._jobs: list[_Job] = []
        self._frames = 0

    def encode(self, frame: Frame, crops: list[Crop], items: int) -> None:
        """The next tick takes this frame: crop what is given, and encode `items` faces, of which the others were cropped from it before."""
        if self._frames == len(self._croppers):
            self._croppers.append({})
        croppers, share, job = self._croppers[self._frames], self._inner, _Job(frame, [], [], items)
        border = (1.0 - share) / 2.0
        for item, pixels, face in crops:
            x, y, width, height = face.box or (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))
            cropper = croppers.get(item)
            if cropper is None:
                cropper = croppers[item] = Cropper(self._slots[item], self._face.mean, self._face.std)
            job.alive.append(cropper.aim(pixels, (x + border * width, y + border * height, share * width, share * height), frame.format))
            job.croppers.append(cropper)
        self._jobs.append(job)
        self._frames += 1

    def tick(self, seen: tuple[Seen, ...]) -> None:
        """The next tick, and the faces it takes of what was encoded last."""
        if not self._jobs:
            self._jobs.append(_Job(None, [], [], 0))
        self._jobs[-1].ticks.append(self._tracks.push(seen))

    def flush(self) -> None:
        """Crop and encode all that waits. Raises EngineError and NativeError: then every tick is forgotten, and every face of these frames."""
        jobs = self._jobs
        if not jobs:
            return
        self._jobs, self._frames = [], 0
        run, take, times = self._visual.run, self._tracks.take, []
        try:
            for job in jobs:
                if job.items:
                    start = perf_counter_ns()
                    for cropper in job.croppers:
                        if code := cropper.crop():
                            cropper.fail(code)
                    cropped = perf_counter_ns()
                    run(job.items)
                    times.append((start, cropped, perf_counter_ns()))
                for floats in job.ticks:
                    take(floats)
        except BaseException:
            self._tracks.clear()
            for job in jobs:
                if job.frame is not None:
                    job.frame.seen = ()
            raise
        for start, cropped, end in times:
            self._crop_ns.add(cropped - start)
            self._visual_ns.add(end - cropped)
