"""The loop's core: frames and sound with time stamps go in, one estimate per hop comes out.

    with Session(Bundle.open("sage.sage"), precision="int8") as session:
        session.push_frame(pixels, t_ns, format="rgb")      # uint8, any size; or push_face for a crop, None for 'no face'
        session.push_audio(samples, t_ns)                   # float32 mono, any chunk size; t_ns is samples[0]'s
        for estimate in session.poll(): ...

Time: int nanoseconds of one clock for both streams; tick k lies k / rate_hz seconds after the epoch. A tick takes the newest frame at or
before it; a frame is found, cropped and encoded once, when the first tick takes it, or never. A hop is decided when its newest tick is over
(`timeline.Timeline`). So every estimate follows from data and stamps alone: neither the size of chunks, nor the moment of a push or poll, nor
the order of two streams that stay within `max_lag_ms` of each other, nor a thread for the hops changes a bit of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .encoding import Encoder
from .errors import UsageError
from .estimate import Drops, Estimate, Face
from .frames import Frame, check_pixels, describe, whole_track
from .graphs import Graphs
from .heap import give_back
from .hops import Hop, Hops
from .precision import Choice, choose
from .soundtrack import Soundtrack
from .sources import FrameEvent
from .stages import Stages
from .ticks import first_sample, tick_time_ns
from .timeline import Timeline
from .tracks import Seen, TrackWindows

FOLLOW = ("largest", "all")
MOST_FACES = 16
"""What `most_faces` may be: a batch of so many faces is far more than a small board keeps up with."""
_AT_ONCE = -(1 << 62)
_BOX = tuple[float, float, float, float]


class FoundFace(Protocol):
    """What a finder says: `box` is x, y, width, height in pixels, square, margin included, and may leave the frame."""

    @property
    def box(self) -> _BOX: ...
    @property
    def score(self) -> float: ...
    @property
    def track(self) -> int: ...


class Finder(Protocol):
    """Finds the face of one frame, or None (`faces.FaceFinder` is the built-in one); called with the frames that ticks take, in their order."""

    def find(self, pixels: NDArray[np.uint8], format: str, t_ns: int) -> FoundFace | None: ...


class FinderOfAll(Protocol):
    """Finds every face of one frame, largest first, each with a track of its own; called as a `Finder` is."""

    def find_all(self, pixels: NDArray[np.uint8], format: str, t_ns: int) -> Sequence[FoundFace]: ...


class Session:
    """One bundle on one pair of streams. One thread at a time; close it, or use it in a `with`.

    `precision` is "fp32", "int8", ... (`flavours.FLAVOURS`) or "auto" (the fastest on this device, timed once), `backend` one of `engines.BACKENDS`
    or "auto" (all that work here); a `Choice` made before says both. `hop` is in ticks, the bundle's when None; `t0_ns` is the epoch, the first
    stamp when None; `threads` is for the engines; `faces` finds faces in pushed frames, the built-in finder when None; `max_lag_ms` is how long
    a stream that stays behind the other is waited for. Raises UsageError, BundleError, EngineError.

    `follow="largest"` reads one face a frame, and a hop is one estimate. With "all", up to `most_faces` of a frame are read, largest first, and a
    hop is one estimate for each track that has a face at its newest tick, or one without a face: then from the window of the track seen last.

    Hops are computed inside the push that decides them, or with `hop_thread` in a thread, while frames go on being encoded; `poll` hands them out.
    Estimates are finite and in range, always: samples that are NaN or infinite become 0, and a graph that overflows is an EngineError, which
    names the graph, from the push that decided the hop, or from the next call when the hops have a thread.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: str = "onnxruntime",
        precision: str | Choice = "int8",
        hop: int | None = None,
        *,
        t0_ns: int | None = None,
        threads: int | None = None,
        faces: Finder | FinderOfAll | None = None,
        max_lag_ms: int = 1000,
        follow: str = "largest",
        most_faces: int = 4,
        hop_thread: bool = False,
    ) -> None:
        m = bundle.manifest
        hop = m.hop if hop is None else hop
        _check_hop(hop, m.window)
        most = _most_faces(follow, most_faces, faces)
        if not 0 <= max_lag_ms <= 60_000:
            raise UsageError(f"max_lag_ms is {max_lag_ms}, must be 0 to 60000")
        self.bundle, self.hop = bundle, hop
        self.sample_rate_hz, self.rate_hz, self.window = m.sample_rate_hz, m.rate_hz, m.window
        self.stages = Stages()
        """Durations of find, crop, visual (of frames that were one run its share of that), audio, fusion, hop (all of a hop but the frames), wait (of
        a hop for the one before, where hops have a thread); a live loop adds its own."""
        self._find_ns = self.stages["find"]
        self.choice = precision if isinstance(precision, Choice) else choose(bundle, precision, backend, threads)
        self.backend, self.precision = self.choice.backend, self.choice.precision
        self._graphs: Graphs | None = Graphs(bundle, self.precision, self.backend, threads, most, apart=hop_thread)
        self._graphs.warm_up()
        self.rungs, self.rung_note = self._graphs.rungs, self._graphs.note()
        self.threads = self._graphs.threads
        self._time = Timeline(m.rate_hz, m.sample_rate_hz, max_lag_ms * 1_000_000, t0_ns)
        self._sound = Soundtrack(self._time, m.window, self._graphs.audio.inputs["samples"][0])
        # Frames run ahead of a hop that waits for sound, by the lag at most.
        rows = m.window + self._time.ended(self._time.lag_ns) + 4
        self._tracks = TrackWindows(self._graphs.visual.outputs["visual"], most, rows, m.window, joined=follow == "largest")
        self._hops = Hops(self._graphs, m.rate_hz, self.stages, hop_thread)
        self.follow, self._most = follow, most
        self._find = None if faces is None else _finding(faces, follow)
        self._encoder = Encoder(self._graphs, m.face, self._tracks, self.stages, self._hops.rest)
        self._max_age_ns = int(m.face.max_age_ms * 1_000_000)
        self._next_tick = 0
        self._plan_hop(-1, hop - 1)
        self._frame: Frame | None = None
        self._kept: list[NDArray[np.uint8]] = [np.empty(0, np.uint8) for _ in range(most)]
        self._frames_stale = self._more_overruns = self._more_stale = self._more_sinks = 0
        self._finished = self._skipped = False

    # ---- what goes in

    def push_frame(self, pixels: NDArray[np.uint8], t_ns: int, format: str = "rgb", copy: bool = True) -> None:
        """Give one frame: uint8, "rgb" or "bgr" [H, W, 3], "nv12" [H * 3 / 2, W], "yuyv" [H, W, 2].

        `copy=False` saves copying the pixels, for a caller that leaves them alone until the next frame has been pushed. Raises UsageError
        for pixels of another kind, before anything has happened.
        """
        check_pixels(pixels, format)
        frame = self._next_frame(t_ns, format, True)
        self._encoder.flush()
        if frame is not None:
            frame.pixels = self._keep(pixels, 0) if copy else pixels

    def push_frames(self, frames: Sequence[FrameEvent]) -> None:
        """Give frames that have waited, oldest first: as one `push_frame(copy=False)` after the other, but in fewer runs of the visual engine, if it
        takes several frames at once (`Graphs.together`): the same bits wherever that was looked at, in half to two thirds of the time. Leave their
        pixels alone until the next frame has been pushed. Raises UsageError for pixels of another kind, before anything happens.
        """
        self._begin()
        for event in frames:
            check_pixels(event.pixels, event.format)
        try:
            for t_ns, pixels, format in frames:
                frame = self._next_frame(t_ns, format, True)
                if frame is not None:
                    frame.pixels = pixels
        finally:
            self._encoder.flush()

    def push_face(self, face: NDArray[np.uint8] | None, t_ns: int, track: int = 0, copy: bool = True) -> None:
        """Give one frame as its face: uint8 RGB [h, w, 3], the whole crop with its margin, or None when the frame has no face.

        Where all faces are followed, a frame's faces are pushed one by one, largest first, with the same stamp and a `track` each. Raises UsageError
        for more of them than `most_faces`, and as above.
        """
        if face is not None:
            check_pixels(face, "rgb")
        track = whole_track(track)
        frame = self._more_of_frame(t_ns, face, track) or self._next_frame(t_ns, "rgb", False)
        self._encoder.flush()
        if frame is not None and face is not None:
            item = frame.item_of(track)
            frame.add(item, self._keep(face, item) if copy else face, Face(track, None, None))

    def push_audio(self, samples: NDArray[np.float32], t_ns: int) -> None:
        """Give sound: float32 [n] mono in [-1, 1] at `sample_rate_hz`; `t_ns` is the time of samples[0]. Raises UsageError as above."""
        if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
            raise UsageError(f"samples are {describe(samples)}, must be float32 [n] in [-1, 1]; int16 is divided by 32768, channels are averaged")
        self._begin()
        if not len(samples):
            return
        time = self._time
        start = time.sample_at(time.relative(t_ns))
        if self._skipped and start + len(samples) <= 0:
            self._more_overruns += 1
        for _ in self._sound.append(samples, start):
            self._decide(time.over(), 0)

    def advance(self, t_ns: int) -> None:
        """Say that nothing older than `t_ns` is coming on either stream: hops up to there are decided with what there is."""
        self._begin()
        time = self._time
        time.advanced_ns = max(time.advanced_ns, time.relative(t_ns))
        self._decide(time.over(), 0)

    def finish(self) -> None:
        """Say that nothing more is coming: every hop that is left is decided, the last one however short. Again does nothing."""
        if self._finished:
            return
        self._begin()
        last = self._time.final()
        self._decide(last, 0)
        if last - 1 > self._decided:
            self._reach(last)
            self._run_hop(last - 1)
        self._finished, self._frame = True, None
        self._hops.settle()

    def set_hop(self, ticks: int) -> None:
        """Make the hops that are not decided yet `ticks` long; ticks that are over by now, in a hop that was to be longer, become one. Raises
        UsageError."""
        self._open()
        _check_hop(ticks, self.window)
        self.hop = ticks
        over = self._time.over()
        self._plan_hop(self._decided, max(self._decided + ticks, over - 1))
        if self._newest_of_hop < over:
            self._due = _AT_ONCE

    def skip(self, t_ns: int) -> None:
        """After a jump of the clock: drop frames, sound and ticks that no hop was decided for, and go on at the first tick at or after `t_ns`,
        forwards or backwards, as a new session would. Counts, and the finder's tracks, go on; what comes too late for that tick is counted as lost.
        Raises UsageError."""
        self._open()
        self._hops.settle()
        self._time.restart(t_ns)
        self._sound.restart()
        self._tracks.clear()
        self._next_tick = 0
        self._plan_hop(-1, self.hop - 1)
        self._frame, self._skipped = None, True

    # ---- what comes out

    def poll(self) -> list[Estimate]:
        """The estimates since the last poll, oldest first, of one hop the largest face first; empty when no hop has been decided, or computed."""
        return self._hops.poll()

    def when_computed(self, call: Callable[[], None]) -> None:
        """Let the thread for the hops, where there is one, call `call` each time there is something to `poll`, or to raise."""
        self._hops.told = call

    @property
    def busy(self) -> bool:
        """A hop was decided and `poll` has not given its estimates yet."""
        return self._hops.busy

    @property
    def decided_ns(self) -> int | None:
        """Time of the newest tick that a hop was decided for; None before the first."""
        epoch_ns = self._time.epoch_ns
        return None if epoch_ns is None or self._decided < 0 else epoch_ns + tick_time_ns(self._decided, self.rate_hz)

    @property
    def due_ns(self) -> int:
        """When the newest tick of the next hop is over: before, no time that is given to `advance` changes anything. 0 before the epoch."""
        epoch_ns = self._time.epoch_ns
        return 0 if epoch_ns is None else epoch_ns + self._due

    @property
    def drops(self) -> Drops:
        """Losses so far."""
        sound = self._sound
        breaks = sound.gaps + sound.overlaps + sound.stretches_not_finite
        return Drops(self._frames_stale + self._more_stale, breaks + self._more_overruns, self._more_sinks)

    def count_drops(self, frames_stale: int = 0, audio_overruns: int = 0, sinks: int = 0) -> None:
        """Add losses that happened outside (in a source, in a capture thread, in a sink) to `drops` of the estimates that follow."""
        self._more_stale += frames_stale
        self._more_overruns += audio_overruns
        self._more_sinks += sinks

    def hello(self) -> dict[str, Any]:
        """The first line of a stream of estimates, JSON types: what runs, on what it was trained, how."""
        m = self.bundle.manifest
        return {
            "type": "hello",
            "v": 1,
            "model": {"name": m.model.name, "preset": m.model.preset, "revision": m.model.revision, "reliability": m.model.reliability},
            "trained_on": m.to_dict()["trained_on"],
            "bundle": m.digest,
            "precision": self.precision,
            "backend": self.backend,
            "auto": self.choice.to_dict() if self.choice.raced else None,
            "rungs": self.rungs or None,
            "threads": self.threads,
            "window": m.window,
            "hop": self.hop,
            "rate_hz": m.rate_hz,
            "sample_rate_hz": m.sample_rate_hz,
            "follow": self.follow,
        }

    def close(self) -> None:
        """Free the engines; estimates that were decided can still be polled. Again does nothing."""
        if self._graphs is not None:
            self._hops.close()
            self._graphs.close()
            self._graphs = self._frame = None
            del self._encoder
            give_back()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- the loop

    def _open(self) -> Graphs:
        if self._graphs is None:
            raise UsageError("the session is closed; make a new one")
        if self._finished:
            raise UsageError("the session is finished; make a new one for another clip")
        return self._graphs

    def _begin(self) -> None:
        """Raise what stands against any more input."""
        if self._graphs is None or self._finished or self._hops.error is not None:
            self._open()
            self._hops.check()

    def _next_frame(self, t_ns: int, format: str, whole: bool) -> Frame | None:
        """A frame in place of the one before, empty yet; None where it comes too late to be one."""
        self._begin()
        time = self._time
        ns = time.relative(t_ns)
        if ns < time.video_ns or (self._skipped and ns + self._max_age_ns < 0):
            self._frames_stale += 1
            return None
        time.video_ns = ns
        before = time.begun(ns)
        if ns < self._due:
            self._reach(before)
        else:
            self._decide(time.over(), before)
        if self._next_tick > before:
            self._frames_stale += 1
        self._frame = Frame(ns, int(t_ns), format, whole)
        return self._frame

    def _more_of_frame(self, t_ns: int, face: NDArray[np.uint8] | None, track: int) -> Frame | None:
        """The newest frame, where `face` is one more of its faces. Raises UsageError where there is no room for it."""
        frame = self._frame
        if self._most == 1 or face is None or frame is None or frame.t_ns != t_ns or frame.whole:
            return None
        self._begin()
        if frame.item_of(track) >= self._most:
            raise UsageError(f"the frame of t_ns {t_ns} has more than {self._most} faces; push the largest ones, or raise most_faces")
        return frame

    def _keep(self, pixels: NDArray[np.uint8], item: int) -> NDArray[np.uint8]:
        """A copy, in memory that is taken again for the next frame."""
        if self._kept[item].size < pixels.size:
            self._kept[item] = np.empty(pixels.size, np.uint8)
        kept = self._kept[item][: pixels.size].reshape(pixels.shape)
        np.copyto(kept, pixels)
        return kept

    def _decide(self, over: int, seen: int) -> None:
        """Run every hop whose newest tick is below `over`; then let ticks below `seen`, whose frame is known, take it."""
        while self._newest_of_hop < over:
            newest = self._newest_of_hop
            self._reach(newest + 1)
            self._run_hop(newest)
        self._reach(seen)

    def _reach(self, ticks: int) -> None:
        """Let ticks up to `ticks` - 1 take their frame."""
        while self._next_tick < ticks:
            frame = self._frame
            seen: tuple[Seen, ...] = ()
            if frame is not None and tick_time_ns(self._next_tick, self.rate_hz) - frame.ns <= self._max_age_ns:
                if frame.pixels is not None or frame.crops:
                    self._encode(frame)
                seen = frame.seen
            self._encoder.tick(seen)
            self._next_tick += 1

    def _encode(self, frame: Frame) -> None:
        """Find its faces and have them encoded, for the next ticks."""
        crops = frame.crops
        if frame.pixels is not None:
            if self._find is None:
                from .finders import open_finder

                self._find = _finding(open_finder(None, self.bundle.manifest.face.margin, self._most), self.follow)
            start = perf_counter_ns()
            found = self._find(frame.pixels, frame.format, frame.t_ns)[: self._most]
            self._find_ns.add(perf_counter_ns() - start)
            crops = [(item, frame.pixels, Face(each.track, each.box, each.score)) for item, each in enumerate(found)]
        frame.pixels, frame.crops = None, []
        if crops:
            seen = [*frame.seen]
            for item, _, face in crops:
                seen[item:] = [(face, frame.ns), *seen[item + 1 :]]
            self._encoder.encode(frame, crops, len(seen))
            frame.seen = tuple(seen)

    def _run_hop(self, newest: int) -> None:
        """Audio and fusion over the window that ends with tick `newest`; its ticks that no hop had are this one's."""
        graphs, hops = self._open(), self._hops
        self._encoder.flush()
        hops.ready()
        start = perf_counter_ns()
        ticks = newest - self._decided
        inputs = graphs.fusion.inputs
        masks = inputs["audio_mask"]
        samples, heard = self._sound.window(newest, masks[0])
        visual, seen = self._tracks.fill(self._next_tick - 1 - newest, inputs["visual"], inputs["visual_mask"])
        masks[1 : len(seen)] = masks[0]
        first, its, end = (first_sample(newest + 1 - n, self.rate_hz, self.sample_rate_hz) for n in (self.window, ticks, 0))
        epoch_ns = self._time.epoch_ns or 0
        hops.run(Hop(newest, ticks, epoch_ns, seen, visual, samples, slice(its - first, end - first), heard, self.drops, perf_counter_ns() - start))
        self._plan_hop(newest, newest + self.hop)

    def _plan_hop(self, decided: int, newest: int) -> None:
        """Tick `decided` is the last that a hop was decided for, `newest` the last of the next hop, which is due when that tick is over."""
        self._decided, self._newest_of_hop = decided, newest
        self._due = tick_time_ns(newest + 1, self.rate_hz)


def _check_hop(hop: object, window: int) -> None:
    if isinstance(hop, bool) or not isinstance(hop, int) or not 1 <= hop <= window:
        raise UsageError(f"hop is {hop!r}, must be a whole number of ticks from 1 to {window}")


def _finding(finder: Any, follow: str) -> Callable[[NDArray[np.uint8], str, int], Sequence[FoundFace]]:
    """What gives the faces of a frame that are to be read, largest first."""
    if follow == "all" and hasattr(finder, "find_all"):
        every: Callable[[NDArray[np.uint8], str, int], Sequence[FoundFace]] = finder.find_all
        return every

    def one(pixels: NDArray[np.uint8], format: str, t_ns: int) -> Sequence[FoundFace]:
        found = finder.find(pixels, format, t_ns)
        return () if found is None else (found,)

    return one


def _most_faces(follow: str, most: int, finder: object) -> int:
    """How many faces of a frame are read."""
    if follow not in FOLLOW:
        raise UsageError(f"follow is {follow!r}, must be one of {', '.join(FOLLOW)}")
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST_FACES:
        raise UsageError(f"most_faces is {most!r}, must be a whole number from 1 to {MOST_FACES}")
    most = most if follow == "all" else 1
    needs = ("find",) if follow == "largest" else ("find_all",) if most > 1 else ("find_all", "find")
    if finder is not None and not any(hasattr(finder, name) for name in needs):
        raise UsageError(f"follow={follow!r} needs a finder with {needs[0]}, {type(finder).__name__} has none; see runtime/finders.py")
    return most
