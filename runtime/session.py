"""The loop's core: frames and sound with time stamps go in, one estimate per hop comes out.

    with Session(Bundle.open("sage.sage"), precision="int8") as session:
        session.push_frame(pixels, t_ns, format="rgb")      # uint8, any size; or push_face for a crop, None for 'no face'
        session.push_audio(samples, t_ns)                   # float32 mono, any chunk size; t_ns is samples[0]'s
        for estimate in session.poll(): ...

Time: int nanoseconds of one clock for both streams; tick k lies k / rate_hz seconds after the epoch. A tick takes the newest frame at or
before it; a frame is found, cropped and encoded once, when the first tick takes it, or never. A hop is decided when its newest tick is over
(`timeline.Timeline`). So every estimate follows from data and stamps alone: neither the size of chunks, nor the moment of a push or poll, nor
the order of two streams that stay within `max_lag_ms` of each other changes a bit of it.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .errors import EngineError, UsageError
from .estimate import AudioLevel, Drops, Estimate, Face, Reliability
from .graphs import Graphs
from .native import FeatureWindow, crop
from .precision import Choice, choose
from .soundtrack import Soundtrack
from .stages import Stages
from .ticks import rms_dbfs, tick_time_ns
from .timeline import Timeline

FORMATS = ("rgb", "bgr", "nv12", "yuyv")
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


class Session:
    """One bundle on one pair of streams. One thread at a time; close it, or use it in a `with`.

    `precision` is "fp32", "int8", ... (`flavours.FLAVOURS`) or "auto" (the fastest on this device, timed once), `backend` one of `engines.BACKENDS`
    or "auto" (all that work here); a `Choice` made before says both. `hop` is in ticks, the bundle's when None; `t0_ns` is the epoch, the first
    stamp when None; `threads` is for the engines; `faces` finds faces in pushed frames, the built-in finder when None; `max_lag_ms` is how long
    a stream that stays behind the other is waited for. Raises UsageError, BundleError, EngineError.

    Hops are computed inside the push that decides them; `poll` only hands them out. Estimates are finite and in range, always: samples that are
    NaN or infinite become 0, and a graph that overflows is an EngineError from that push, which names the graph.
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
        faces: Finder | None = None,
        max_lag_ms: int = 1000,
    ) -> None:
        m = bundle.manifest
        hop = m.hop if hop is None else hop
        if isinstance(hop, bool) or not isinstance(hop, int) or not 1 <= hop <= m.window:
            raise UsageError(f"hop is {hop!r}, must be a whole number of ticks from 1 to {m.window}")
        if not 0 <= max_lag_ms <= 60_000:
            raise UsageError(f"max_lag_ms is {max_lag_ms}, must be 0 to 60000")
        self.bundle, self.hop = bundle, hop
        self.sample_rate_hz, self.rate_hz, self.window = m.sample_rate_hz, m.rate_hz, m.window
        self.stages = Stages()
        """Durations of find, crop, visual, audio, fusion, hop (all of a hop but the frames); a live loop adds its own."""
        self._find_ns, self._crop_ns, self._visual_ns, self._audio_ns, self._fusion_ns, self._hop_ns = (
            self.stages[name] for name in ("find", "crop", "visual", "audio", "fusion", "hop")
        )
        self.choice = precision if isinstance(precision, Choice) else choose(bundle, precision, backend, threads)
        self.backend, self.precision = self.choice.backend, self.choice.precision
        self._graphs: Graphs | None = Graphs(bundle, self.precision, self.backend, threads)
        self._graphs.warm_up()
        self.rungs, self.rung_note = self._graphs.rungs, self._graphs.note()
        self.threads = self._graphs.threads
        self._time = Timeline(m.rate_hz, m.sample_rate_hz, max_lag_ms * 1_000_000, t0_ns)
        self._sound = Soundtrack(self._time, m.window, m.samples)
        # Frames run ahead of a hop that waits for sound, by the lag at most.
        self._rows = m.window + self._time.ended(self._time.lag_ns) + 4
        self._features = FeatureWindow(self._rows, m.dims.visual)
        self._faces: deque[tuple[Face, int] | None] = deque([None] * self._rows, maxlen=self._rows)
        self._finder = faces
        self._inner = m.face.input_size / m.face.crop_size
        self._mean, self._std = tuple(m.face.mean), tuple(m.face.std)
        self._max_age_ns = int(m.face.max_age_ms * 1_000_000)
        self._next_tick = 0
        self._newest_of_hop = hop - 1
        self._frame: _Frame | None = None
        self._kept: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._estimates: list[Estimate] = []
        self._frames_stale = self._more_overruns = self._more_stale = self._more_sinks = 0
        self._finished = False

    # ---- what goes in

    def push_frame(self, pixels: NDArray[np.uint8], t_ns: int, format: str = "rgb", copy: bool = True) -> None:
        """Give one frame: uint8, "rgb" or "bgr" [H, W, 3], "nv12" [H * 3 / 2, W], "yuyv" [H, W, 2].

        `copy=False` saves copying the pixels, for a caller that leaves them alone until the next frame has been pushed. Raises UsageError
        for pixels of another kind, before anything has happened.
        """
        _check_pixels(pixels, format)
        self._push(t_ns, pixels, format, copy, None)

    def push_face(self, face: NDArray[np.uint8] | None, t_ns: int, track: int = 0, copy: bool = True) -> None:
        """Give one frame as its face: uint8 RGB [h, w, 3], the whole crop with its margin, or None when the frame has no face."""
        if face is not None:
            _check_pixels(face, "rgb")
        self._push(t_ns, face, "rgb", copy, Face(track, None, None))

    def push_audio(self, samples: NDArray[np.float32], t_ns: int) -> None:
        """Give sound: float32 [n] mono in [-1, 1] at `sample_rate_hz`; `t_ns` is the time of samples[0]. Raises UsageError as above."""
        if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
            raise UsageError(f"samples are {_describe(samples)}, must be float32 [n] in [-1, 1]; int16 is divided by 32768, channels are averaged")
        self._open()
        if not len(samples):
            return
        time = self._time
        for _ in self._sound.append(samples, time.sample_at(time.relative(t_ns))):
            self._decide(time.over(), 0)

    def advance(self, t_ns: int) -> None:
        """Say that nothing older than `t_ns` is coming on either stream: hops up to there are decided with what there is."""
        self._open()
        time = self._time
        time.advanced_ns = max(time.advanced_ns, time.relative(t_ns))
        self._decide(time.over(), 0)

    def finish(self) -> None:
        """Say that nothing more is coming: every hop that is left is decided, the last one however short. Again does nothing."""
        if self._finished:
            return
        self._open()
        last = self._time.final()
        self._decide(last, 0)
        begun = last - 1 - (self._newest_of_hop - self.hop)
        if begun > 0:
            self._reach(last)
            self._run_hop(last - 1, begun)
        self._finished, self._frame = True, None

    # ---- what comes out

    def poll(self) -> list[Estimate]:
        """The estimates since the last poll, oldest first; empty when no hop has been decided."""
        estimates, self._estimates = self._estimates, []
        return estimates

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
        }

    def close(self) -> None:
        """Free the engines; estimates that were decided can still be polled. Again does nothing."""
        if self._graphs is not None:
            self._graphs.close()
            self._graphs = self._frame = None

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

    def _push(self, t_ns: int, pixels: NDArray[np.uint8] | None, format: str, copy: bool, pushed: Face | None) -> None:
        self._open()
        time = self._time
        ns = time.relative(t_ns)
        if ns < time.video_ns:
            self._frames_stale += 1
            return
        time.video_ns = ns
        before = time.begun(ns)
        self._decide(time.over(), before)
        if self._next_tick > before:
            self._frames_stale += 1
        if copy and pixels is not None:
            if self._kept.shape != pixels.shape:
                self._kept = np.empty(pixels.shape, np.uint8)
            np.copyto(self._kept, pixels)
            pixels = self._kept
        self._frame = _Frame(ns, int(t_ns), pixels, format, pushed)

    def _decide(self, over: int, seen: int) -> None:
        """Run every hop whose newest tick is below `over`; then let ticks below `seen`, whose frame is known, take it."""
        while self._newest_of_hop < over:
            newest = self._newest_of_hop
            self._reach(newest + 1)
            self._run_hop(newest, self.hop)
            self._newest_of_hop += self.hop
        self._reach(seen)

    def _reach(self, ticks: int) -> None:
        """Let ticks up to `ticks` - 1 take their frame."""
        while self._next_tick < ticks:
            frame = self._frame
            face = None
            if frame is not None and tick_time_ns(self._next_tick, self.rate_hz) - frame.ns <= self._max_age_ns:
                if frame.pixels is not None:
                    self._encode(frame, frame.pixels)
                face = frame.face
            if face is None:
                self._features.skip()
                self._faces.append(None)
            else:
                self._features.push(self._open().visual.outputs["visual"][0])
                self._faces.append(face)
            self._next_tick += 1

    def _encode(self, frame: _Frame, pixels: NDArray[np.uint8]) -> None:
        """Find, crop and encode: the row is in the visual engine's output until the next frame's."""
        graphs = self._open()
        frame.pixels = None
        face = frame.pushed
        start = perf_counter_ns()
        if face is None:
            if self._finder is None:
                from .faces import FaceFinder

                self._finder = FaceFinder(self.bundle.manifest.face.margin)
                start = perf_counter_ns()
            found = self._finder.find(pixels, frame.format, frame.t_ns)
            now = perf_counter_ns()
            self._find_ns.add(now - start)
            start = now
            if found is None:
                return
            x, y, width, height = found.box
            face = Face(found.track, (x, y, width, height), found.score)
        else:
            x, y, height, width = 0.0, 0.0, *map(float, pixels.shape[:2])
        share = self._inner
        border = (1.0 - share) / 2.0
        box = (x + border * width, y + border * height, share * width, share * height)
        crop(pixels, box, graphs.visual.inputs["faces"][0], self._mean, self._std, frame.format)
        now = perf_counter_ns()
        self._crop_ns.add(now - start)
        graphs.visual.run()
        self._visual_ns.add(perf_counter_ns() - now)
        frame.face = face, frame.ns

    def _run_hop(self, newest: int, ticks: int) -> None:
        """Audio and fusion over the window that ends with tick `newest`; its last `ticks` ticks are this hop."""
        start = perf_counter_ns()
        graphs = self._open()
        audio, fusion = graphs.audio, graphs.fusion
        inputs = fusion.inputs
        heard, edges = self._sound.window(newest, audio.inputs["samples"][0], inputs["audio_mask"][0])
        if heard:
            before = perf_counter_ns()
            audio.run()
            self._audio_ns.add(perf_counter_ns() - before)
            np.copyto(inputs["audio"], audio.outputs["audio"])
        else:
            inputs["audio"].fill(0)
        high = self._rows - (self._next_tick - 1 - newest)
        low = high - self.window
        np.copyto(inputs["visual"][0], self._features.view()[low:high])
        inputs["visual_mask"][0] = [face is not None for face in islice(self._faces, low, high)]
        before = perf_counter_ns()
        fusion.run()
        self._fusion_ns.add(perf_counter_ns() - before)
        hop_samples = audio.inputs["samples"][0, edges[self.window - ticks] : edges[-1]]
        self._estimates.append(self._estimate(graphs, newest, ticks, self._faces[high - 1], hop_samples))
        self._hop_ns.add(perf_counter_ns() - start)

    def _estimate(self, graphs: Graphs, newest: int, ticks: int, seen: tuple[Face, int] | None, samples: NDArray[np.float32]) -> Estimate:
        outputs = graphs.fusion.outputs
        for name, array in outputs.items():
            if not np.isfinite(array).all():
                self._not_finite(graphs, name, newest)
        epoch = self._time.epoch_ns or 0
        values = np.clip(outputs["estimates"][0, self.window - ticks :], -1.0, 1.0).tolist()
        trail = tuple((epoch + tick_time_ns(newest + 1 - ticks + i, self.rate_hz), valence, arousal) for i, (valence, arousal) in enumerate(values))
        t_ns, valence, arousal = trail[-1]
        modality = graphs.modality
        visual, audio = (None, None) if modality is None else modality[0, -1].tolist()
        return Estimate(
            t_ns=t_ns,
            age_ms=None if seen is None else (t_ns - epoch - seen[1]) / 1e6,
            valence=valence,
            arousal=arousal,
            reliability=Reliability(float(outputs["temporal"][0, -1]), visual, audio),
            face=None if seen is None else seen[0],
            audio=AudioLevel(rms_dbfs(samples), bool(graphs.fusion.inputs["audio_mask"].all())),
            drops=self.drops,
            trail=trail,
        )

    def _not_finite(self, graphs: Graphs, name: str, newest: int) -> None:
        """A graph of finite weights on finite inputs overflowed: say which one, rather than give numbers that mean nothing."""
        inputs = graphs.fusion.inputs
        guilty = next((graph for graph in ("visual", "audio") if not np.isfinite(inputs[graph]).all()), "fusion")
        count = int(graphs.fusion.outputs[name].size - np.isfinite(graphs.fusion.outputs[name]).sum())
        raise EngineError(
            f"the {guilty} graph in {graphs.precision} left {count} non-finite values in {name!r} at tick {newest}; "
            "use precision='fp32' or compile the bundle again"
        )


class _Frame:
    """The newest frame, until a newer one replaces it. `pixels` until it is encoded, None for 'no face'; then `face`, if it has one."""

    __slots__ = ("face", "format", "ns", "pixels", "pushed", "t_ns")

    def __init__(self, ns: int, t_ns: int, pixels: NDArray[np.uint8] | None, format: str, pushed: Face | None) -> None:
        self.ns, self.t_ns, self.pixels, self.format, self.pushed = ns, t_ns, pixels, format, pushed
        self.face: tuple[Face, int] | None = None


def _check_pixels(pixels: object, format: str) -> None:
    if format not in FORMATS:
        raise UsageError(f"pixel format {format!r} is unknown; one of {', '.join(FORMATS)}")
    if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.size:
        shape = pixels.shape
        if format == "nv12":
            fits = len(shape) == 2 and shape[0] % 3 == 0 and shape[1] % 2 == 0
        elif format == "yuyv":
            fits = len(shape) == 3 and shape[2] == 2 and shape[1] % 2 == 0
        else:
            fits = len(shape) == 3 and shape[2] == 3
        if fits:
            return
    rule = {"nv12": "[H * 3 / 2, W], both sides even", "yuyv": "[H, W, 2], W even"}.get(format, "[H, W, 3]")
    raise UsageError(f"{format} pixels are {_describe(pixels)}, must be uint8 {rule}")


def _describe(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
