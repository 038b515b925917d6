"""The loop over live devices: the newest frame and all new sound go into a session, its estimates go to sinks, until somebody stops it.

    camera.start(); microphone.start()
    with Session(bundle, hop_thread=True) as session:
        summary = run_live_devices(camera, microphone, session, [Queued(open_sink("jsonl:-"))])

One thread, the caller's. A camera keeps its newest frame in a thread of its own, a microphone records in C, sinks write behind queues; nothing
here waits for any of them. Stamps are ns of CLOCK_MONOTONIC. A device that is silent does not hold up an estimate: a tick that is older than
`WAIT_MS` is decided with what there is. Losses are counted, changes are notices: every estimate is there, or a notice says why not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .clock import Clock, MonotonicClock
from .degrade import Degrader, levels
from .estimate import Drops, Estimate, Live
from .gathering import FEW, Dearest, Gathering
from .heap import seldom_searched
from .live import STAGES, hello
from .notice import Notice
from .session import Session
from .sinks import Sink, SinkClosed
from .smooth_tracks import SmoothTracks
from .sources import Camera, FrameEvent, Microphone
from .stages import Histogram, StageSummary
from .status import StatusLine
from .thermal import Heat, Thermometer
from .ticks import NS_PER_S

WAIT_MS = 200.0
"""A silent device is waited for this long, half the budget if that is less."""
JUMP_NS = 5 * NS_PER_S
"""A wait that takes longer than this: the process was stopped, and the time in between is left out."""
LONG_NS = 60 * NS_PER_S
"""The same when the loop was at work, where it may only be slow."""
ASLEEP_NS = NS_PER_S
"""The machine was suspended for longer than this; the clock stood still, but what comes now does not belong to what came before."""
TURN_S = 1 / 30
"""The longest turn while nothing comes and a hop is near,"""
QUIET_S = 0.5
"""and while none is."""
LOOK_NS = NS_PER_S // 10
"""So often devices and sinks are asked for notices, and lateness and heat are looked at."""
HEAR_NS = NS_PER_S
"""Sound is fetched when a hop needs it, and this often where that is rarer: it waits in libsage, and a large piece costs as much as a small one."""
CHUNK_NS = 40_000_000
"""No sound comes in larger pieces: what is further behind than the least by more has met something else."""
MARGIN_NS = 4_000_000
"""Sound that was not here at a moment after a hop was due is not expected to be at the next hop's, and so much later,"""
SOUND_LATELY_NS = 30 * NS_PER_S
"""for so long."""
BEHIND_TICKS = 8
"""The loop is behind by this much more than a hop at least, before hops become one."""
FRESH_NS = NS_PER_S
"""The frame that waits when the loop begins is used when it is no older."""
STATUS_NS = NS_PER_S
HEAT_NS = 5 * NS_PER_S
TOUCHING_NS = 25_000_000
"""Stamps of sound are trusted to this when they stand for its samples (`soundtrack.JITTER_NS` and a bit)."""
ENDS = {"end": "", "seconds": "", "stopped": "; stopped", "closed": "; the reader of the output has gone", "interrupted": "; interrupted"}


@dataclass(frozen=True)
class DeviceSummary:
    """What a run did. `ended` is one of `ENDS`: "end" (of a file that stood in for a camera), "seconds" (as many as asked for), "stopped" (by
    `stop`), "closed" (the reader of a sink has gone), "interrupted"."""

    frames: int
    """Frames that were taken; those that a newer one replaced before are in `drops`."""
    estimates: int
    seconds: float
    late: StageSummary
    """How late estimates were, ms."""
    stages: dict[str, StageSummary]
    drops: Drops
    reopened: int
    degraded: int
    """How often less was done than asked for."""
    jumps: int
    skipped: int
    """Ticks without an estimate, because hops took longer than the window lasts."""
    ended: str

    def line(self) -> str:
        """The run in one line for people."""
        times = ", ".join(f"{STAGES[name]} {s.p50:.2f}/{s.p95:.2f}" for name in STAGES if (s := self.stages.get(name)) is not None)
        return (
            f"{self.frames} frames, {self.estimates} estimates in {self.seconds:.1f} s, p50/p95 {self.late.p50:.0f}/{self.late.p95:.0f} ms late; "
            f"drops: frames_stale {self.drops.frames_stale}, audio_overruns {self.drops.audio_overruns}, sinks {self.drops.sinks}; "
            f"reopened {self.reopened}, degraded {self.degraded}, clock jumps {self.jumps}, ticks skipped {self.skipped}; "
            f"p50/p95 ms: {times or 'none'}{ENDS[self.ended]}"
        )


def run_live_devices(
    camera: Camera | None,
    microphone: Microphone | None,
    session: Session,
    sinks: Sequence[Sink],
    *,
    clock: Clock | None = None,
    stop: Callable[[], bool] = lambda: False,
    seconds: float | None = None,
    smooth: SmoothTracks | None = None,
    budget_ms: float | None = None,
    thermometer: Thermometer | None = None,
    say: Callable[[Notice], None] = lambda _: None,
    show: Callable[[FrameEvent], None] | None = None,
    about: dict[str, Any] | None = None,
) -> DeviceSummary:
    """Run devices that were started through `session` into `sinks`, which are closed; devices and session stay the caller's.

    Ends when `stop` says so (asked at every turn), after `seconds`, when a file that stands in for a camera is over or the reader of a sink has
    gone; estimates that are due by then are written. An estimate may be `budget_ms` late (`WAIT_MS` and one hop when None) before less is
    done. `say` gets every notice, too, `show` every frame that is taken, and `about` goes into the hello. Raises what session and devices
    raise: SourceError, EngineError.
    """
    loop = _Loop(camera, microphone, session, sinks, clock or MonotonicClock(), smooth, budget_ms, thermometer, say, show, about or {})
    ended = "stopped"
    try:
        with seldom_searched():
            ended = loop.run(stop, seconds)
    except KeyboardInterrupt:
        ended = "interrupted"
    except SinkClosed:
        ended = "closed"
    finally:
        for sink in sinks:
            sink.close()
    return loop.summary(ended)


class _Loop:
    """One run. Times are ns of `clock`, durations of stages ns of it as well."""

    def __init__(
        self,
        camera: Camera | None,
        microphone: Microphone | None,
        session: Session,
        sinks: Sequence[Sink],
        clock: Clock,
        smooth: SmoothTracks | None,
        budget_ms: float | None,
        thermometer: Thermometer | None,
        say: Callable[[Notice], None],
        show: Callable[[FrameEvent], None] | None,
        about: dict[str, Any],
    ) -> None:
        self._camera, self._microphone, self._session, self._sinks, self._clock = camera, microphone, session, sinks, clock
        self._smooth, self._thermometer, self._say, self._show, self._about = smooth, thermometer, say, show, about
        budget_ms = WAIT_MS + session.hop * 1000 / session.rate_hz if budget_ms is None else budget_ms
        self._budget_ms, self._wait_ns = budget_ms, int(min(WAIT_MS, budget_ms / 2) * 1_000_000)
        self._degrader = Degrader(levels(session.hop, session.window, camera is not None), session.rate_hz, budget_ms)
        self._spacing_ns = 0
        self._heat: Heat | None = None
        self._frames = self._estimates = self._degraded = self._jumps = self._skipped = 0
        self._late = Histogram()
        self._start_ns = self._now_ns = self._worked_ns = self._estimate_ns = self._status_ns = self._heat_ns = clock.now_ns()
        self._gathering = Gathering(session.rate_hz, self._now_ns)
        self._encoded = (0, 0)
        """Frames with a face, and what they took, at the last status."""
        self._end_ns = sys.maxsize
        self._asleep_ns = clock.asleep_ns()
        self._newest_ns: int | None = None
        self._sound_ns, self._least_ns = 0, self._wait_ns
        """The least that sound has come behind the time it stands for, 0 until it has come: it need not be asked for sooner."""
        self._sound_most, self._sound_not = _lately(self._start_ns), _lately(self._start_ns)
        """The most that it was behind lately, and how long after a hop was due its sound was not here."""
        self._stamp_ns = 0
        self._epoch_ns = self._pushed_ns = self._heard_ns = self._fetched_ns = self._start_ns
        self._looked_ns = self._start_ns - LOOK_NS
        self._notices = [part.notices for part in (camera, microphone, *sinks) if part is not None and hasattr(part, "notices")]
        self._capture_ns = session.stages["capture"]
        self._find_ns, self._crop_ns, self._visual_ns = (session.stages[name] for name in ("find", "crop", "visual"))
        self._lost = self._losses()
        if camera is not None:
            session.when_computed(camera.nudge)
        self._line = StatusLine(clock, session.stages, camera, microphone, sinks)

    def run(self, stop: Callable[[], bool], seconds: float | None) -> str:
        self._begin()
        if seconds is not None:
            self._end_ns = self._start_ns + round(seconds * NS_PER_S)
        ended = "stopped"
        while not stop():
            if self._now_ns >= self._end_ns:
                ended = "seconds"
                break
            if not self._turn() and getattr(self._camera, "ended", False):
                ended = "end"
                break
        self._hear()
        self._session.advance(self._ready_ns())
        self._session.finish()
        self._emit()
        self._tell()
        self._status()
        return ended

    def _begin(self) -> None:
        """The epoch is now, or the frame that waits; sound from before the engines were loaded is old."""
        if self._microphone is not None:
            self._microphone.read()
        frames = self._taken()
        self._lost = self._losses()
        self._start_ns = self._now_ns = self._worked_ns = self._estimate_ns = self._clock.now_ns()
        frames = [frame for frame in frames if 0 <= self._start_ns - frame.t_ns < FRESH_NS]
        if frames:
            self._start_ns = frames[0].t_ns
        first = self.hello()
        for sink in self._sinks:
            sink.start(first)
        self._session.advance(self._start_ns)
        self._epoch_ns, self._pushed_ns = self._start_ns, self._start_ns - NS_PER_S
        if frames:
            self._see(frames)

    def hello(self) -> dict[str, Any]:
        """The hello of a session, and what the loop adds."""
        return {
            **hello(self._session),
            "smooth": None if self._smooth is None else self._smooth.to_dict(),
            "budget_ms": self._budget_ms,
            "camera": None if self._camera is None else self._camera.uri,
            "microphone": None if self._microphone is None else self._microphone.uri,
            **self._about,
        }

    def _turn(self) -> bool:
        """Whether there was a frame."""
        session, camera, most = self._session, self._camera, self._most()
        until_ns, self._stamp_ns, else_ns = self._plan(most)
        if camera is None:
            self._clock.sleep(min(max(TURN_S, (until_ns - self._worked_ns) / NS_PER_S), QUIET_S))
        elif not camera.wait(self._left_s(until_ns), self._stamp_ns, most) and else_ns and self._clock.now_ns() >= until_ns:
            self._stamp_ns = session.due_ns
            camera.wait(self._left_s(else_ns), self._stamp_ns, most)
        now_ns = self._clock.now_ns()
        elapsed_ns, waited_ns, self._now_ns = now_ns - self._now_ns, now_ns - self._worked_ns, now_ns
        asleep_ns = self._clock.asleep_ns() - self._asleep_ns
        if waited_ns > JUMP_NS or elapsed_ns > LONG_NS or asleep_ns > ASLEEP_NS:
            self._asleep_ns += asleep_ns
            self._jump(now_ns, elapsed_ns, asleep_ns)
        behind = 0
        due_ns = session.due_ns
        if now_ns - self._wait_ns >= due_ns:
            self._keep_up()
            behind = self._behind()
            if behind:
                session.set_hop(behind)
                due_ns = session.due_ns
        frames = self._taken()  # before a hop can hold up this turn: they are to be no newer than the turn
        now_ns = self._now_ns
        if (now_ns >= due_ns + self._sound_ns and self._reached(frames, due_ns)) or now_ns - self._fetched_ns >= HEAR_NS:
            self._hear()
            self._count_losses()
        looked_at, seen_ns = self._see(frames) if frames else (0, 0)
        ready_ns = self._ready_ns()
        if ready_ns >= due_ns:  # as it was before this turn's frame and sound: at worst once more than needed
            session.advance(ready_ns)
        if behind:
            session.set_hop(self._degrader.level.hop)
        self._emit()
        if now_ns - self._looked_ns >= LOOK_NS:
            self._looked_ns = now_ns
            self._tell()
            self._watch()
        if now_ns - self._status_ns >= STATUS_NS:
            self._status()
        self._worked_ns = self._clock.now_ns()
        if session.due_ns == due_ns and not session.busy:  # nothing is gathered for a turn with a hop, nor beside one, where all takes longer
            self._gathering.took(looked_at, seen_ns, self._worked_ns - now_ns - seen_ns, now_ns)
        return bool(frames)

    def _reached(self, frames: list[FrameEvent], due_ns: int) -> bool:
        """Whether a hop that is due then needs no other frame: one of that time has come, or none is waited for any more."""
        newest_ns = frames[-1].t_ns if frames else self._newest_ns or 0
        return self._camera is None or newest_ns >= due_ns or self._now_ns - self._wait_ns >= due_ns

    def _most(self) -> int:
        """How many frames may wait: one, the newest, while less is done than could be, and while somebody watches them."""
        return 1 if self._spacing_ns or self._show is not None else self._gathering.most()

    def _left_s(self, until_ns: int) -> float:
        """Seconds to `until_ns`, `QUIET_S` at most."""
        return min(max(0.0, (until_ns - self._clock.now_ns()) / NS_PER_S), QUIET_S)

    def _plan(self, most: int) -> tuple[int, int, int]:
        """Until when to wait, and, where there is a camera, for a frame with which stamp: those before may wait, too; 0 for any, as when there is
        something to do, or a hop is being computed. And until when to go on where none has come by then; 0 where that makes no difference."""
        session, gathering, now_ns, newest_ns = self._session, self._gathering, self._now_ns, self._newest_ns
        due_ns, status_ns, turn_ns = session.due_ns, self._status_ns + STATUS_NS, round(TURN_S * NS_PER_S)
        if self._camera is None:
            return min(due_ns - NS_PER_S // session.rate_hz, self._end_ns, status_ns), 0, 0
        silent_ns = due_ns + self._wait_ns
        soon_ns = min(self._worked_ns + turn_ns, silent_ns if silent_ns > now_ns else sys.maxsize)
        if session.busy or most == 1 or newest_ns is None:
            return soon_ns, 0, 0
        end_ns = min(silent_ns, self._end_ns)
        most_ns = self._sound_most.ns
        last = gathering.last(due_ns, due_ns + max(self._sound_ns, min(self._sound_not.ns, most_ns)), due_ns + most_ns, newest_ns)
        near_ns = min(gathering.until_ns(min(last.at_ns, end_ns), most, now_ns), status_ns)
        together = last.stamp_ns and now_ns < last.at_ns <= min(end_ns, status_ns)
        if near_ns > now_ns and not (together and last.frames <= FEW):
            return near_ns + turn_ns, near_ns - gathering.behind_ns, 0
        if not together:
            return soon_ns, 0, 0
        frame_ns = min(last.frame_ns + turn_ns, silent_ns)
        if last.at_ns == last.frame_ns:
            return frame_ns, last.stamp_ns, 0
        return last.at_ns, last.stamp_ns, frame_ns if newest_ns < due_ns else 0

    def _hear(self) -> None:
        self._fetched_ns = self._now_ns
        if self._microphone is None:
            return
        session, heard_ns = self._session, self._heard_ns
        for event in self._microphone.read():
            session.push_audio(event.samples, event.t_ns)
            heard_ns = max(heard_ns, event.t_ns + len(event.samples) * NS_PER_S // session.sample_rate_hz)
        if heard_ns > self._heard_ns:
            self._heard_ns = heard_ns
            behind_ns = max(0, self._now_ns - heard_ns)
            self._least_ns = min(self._least_ns, behind_ns)
            if behind_ns - self._least_ns <= CHUNK_NS:
                self._sound_most.add(behind_ns, self._now_ns)
            over_ns = self._now_ns - session.due_ns
            missing = heard_ns < session.due_ns and 0 <= over_ns <= CHUNK_NS
            self._sound_not.add(over_ns + MARGIN_NS if missing else 0, self._now_ns)
            self._sound_ns = self._least_ns

    def _keep_up(self) -> None:
        """Leave out what no window will hold, where hops take longer than it lasts: the loop would fall ever further behind."""
        session, first_ns, ticks = self._session, self._undecided_ns(), 0
        while (more := self._over() - session.window) > 0:
            ticks += more
            self._epoch_ns = self._undecided_ns() + more * NS_PER_S // session.rate_hz
            session.skip(self._epoch_ns)  # waits for the hop that is being computed
            self._now_ns = self._clock.now_ns()
        if ticks:
            self._skipped += ticks
            self._emit()  # what was decided before
            detail = f"hops take longer than the {session.window / session.rate_hz:g} s of their window; no estimates for {ticks} ticks"
            self._notice(Notice(self._now_ns, "ticks_skipped", f"{detail}, from t_ns {first_ns} to {self._epoch_ns}"))

    def _undecided_ns(self) -> int:
        """Time of the first tick that no hop was decided for."""
        decided_ns = self._session.decided_ns
        return self._epoch_ns if decided_ns is None else decided_ns + NS_PER_S // self._session.rate_hz

    def _over(self) -> int:
        """How many ticks this turn will find to be over, at least."""
        return (self._now_ns - self._wait_ns - self._undecided_ns()) * self._session.rate_hz // NS_PER_S

    def _behind(self) -> int:
        """`_over`, when those are more than two hops: they become one, so that a hop that takes longer to compute than it lasts does not put the
        loop ever further behind. Else 0."""
        ticks, hop = self._over(), self._degrader.level.hop
        return min(ticks, self._session.window) if ticks >= max(2 * hop, hop + BEHIND_TICKS) else 0

    def _taken(self) -> list[FrameEvent]:
        return [] if self._camera is None else self._camera.take()

    def _see(self, frames: list[FrameEvent]) -> tuple[int, int]:
        """How many frames were looked at, as no tick takes some, and how long that took."""
        before_ns, looked_at, apart_ns = self._clock.now_ns(), self._find_ns.count, sys.maxsize
        pushed = []
        for frame in frames:
            apart_ns = min(apart_ns, frame.t_ns - (self._newest_ns or 0))
            self._newest_ns = frame.t_ns
            if frame.t_ns - self._pushed_ns >= self._spacing_ns:
                self._pushed_ns = frame.t_ns
                pushed.append(frame)
        self._frames += len(frames)
        self._session.push_frames(pushed)
        if self._show is not None:
            for frame in frames:
                self._show(frame)
        came = frames[-1].t_ns >= self._stamp_ns or len(frames) >= self._gathering.most()
        behind_ns = self._now_ns - frames[-1].t_ns if came else None
        if behind_ns is not None:
            self._capture_ns.add(behind_ns)  # others were let wait
        self._gathering.came(apart_ns, behind_ns)
        return self._find_ns.count - looked_at, self._clock.now_ns() - before_ns

    def _ready_ns(self) -> int:
        """Up to here nothing older is to be waited for: what the session cannot know by itself."""
        late_ns = self._now_ns - self._wait_ns
        if self._camera is None:
            return max(late_ns, self._heard_ns - TOUCHING_NS)
        if self._newest_ns is None:
            return late_ns
        if self._microphone is None:
            return max(late_ns, self._newest_ns)
        return max(late_ns, min(self._newest_ns, self._heard_ns - TOUCHING_NS)) if self._spacing_ns else late_ns

    def _jump(self, now_ns: int, elapsed_ns: int, asleep_ns: int) -> None:
        """Leave out the time that nobody saw: no burst of estimates about it."""
        self._jumps += 1
        if self._microphone is not None:
            self._microphone.read()
        self._taken()
        self._session.skip(now_ns)
        self._emit()  # what was decided before
        seconds, since_ns = (elapsed_ns + asleep_ns) / NS_PER_S, self._estimate_ns
        why = "the machine slept" if asleep_ns > ASLEEP_NS else "the process was stopped"
        detail = f"{seconds:.1f} s passed between two turns of the loop ({why}); no estimates for them"
        self._notice(Notice(now_ns, "clock_jump", f"{detail}, from t_ns {since_ns} to {now_ns}"))
        self._newest_ns = None
        self._pushed_ns = self._heard_ns = self._estimate_ns = self._epoch_ns = now_ns
        self._gathering.restart(now_ns)
        self._sound_most, self._sound_not = _lately(now_ns), _lately(now_ns)
        self._degrader.forget(now_ns)
        if self._smooth is not None:
            self._smooth.clear()

    def _emit(self) -> None:
        if self._camera is not None:
            self._camera.hush()  # before: who nudges has left something for this poll
        for estimate in self._session.poll():
            now_ns = self._clock.now_ns()
            late_ms = (now_ns - estimate.t_ns) / 1e6
            self._late.add(now_ns - estimate.t_ns)
            self._degrader.late(now_ns, late_ms)
            self._estimate_ns = max(self._estimate_ns, estimate.t_ns)
            line = replace(estimate, smooth=None if self._smooth is None else self._smooth.add(estimate), live=self._live(now_ns, late_ms))
            self._write(line)
            self._session.stages.add("emit", self._clock.now_ns() - now_ns)
            self._estimates += 1

    def _write(self, estimate: Estimate) -> None:
        for sink in self._sinks:
            sink.write(estimate)

    def _live(self, now_ns: int, late_ms: float) -> Live:
        camera, microphone, level = self._camera, self._microphone, self._degrader.level
        return Live(
            late_ms=late_ms,
            frame_age_ms=None if self._newest_ns is None else max(0.0, (now_ns - self._newest_ns) / 1e6),
            drift_ppm=None if microphone is None else microphone.drift_ppm,
            camera=None if camera is None else camera.state,
            microphone=None if microphone is None else microphone.state,
            face_every=level.face_every,
            hop=level.hop,
            why=self._degrader.why,
        )

    def _watch(self) -> None:
        """Late, hot, or neither: do as much as there is time for."""
        now_ns = self._now_ns
        if self._thermometer is not None and now_ns - self._heat_ns >= HEAT_NS:
            self._heat_ns = now_ns
            self._heat = self._thermometer.read()
            self._degrader.heat(self._heat)
        due_ms = (now_ns - self._estimate_ns) / 1e6 - self._degrader.level.hop * 1000 / self._session.rate_hz
        if due_ms > self._budget_ms:
            self._degrader.late(now_ns, due_ms)
        change = self._degrader.step(now_ns)
        if change is None:
            return
        every, tick_ns = change.level.face_every, NS_PER_S / self._session.rate_hz
        self._spacing_ns = 0 if every == 1 else int((every - 0.25) * tick_ns)
        self._session.set_hop(change.level.hop)
        self._degraded += change.worse
        self._notice(Notice(now_ns, "degraded" if change.worse else "recovered", change.detail))

    def _tell(self) -> None:
        """Hand on what devices and sinks have to say."""
        for notices in self._notices:
            for notice in notices():
                self._notice(notice)

    def _notice(self, notice: Notice) -> None:
        self._say(notice)
        for sink in self._sinks:
            sink.notice(notice)

    def _status(self) -> None:
        self._status_ns = self._now_ns
        encoded = self._visual_ns.count, sum(stage.total_ns for stage in (self._find_ns, self._crop_ns, self._visual_ns))
        (faces, spent_ns), self._encoded = (now - before for now, before in zip(encoded, self._encoded, strict=True)), encoded
        if faces:
            self._gathering.face_ns = spent_ns // faces
        status = self._line.line(self._session.drops, self._heat)
        for sink in self._sinks:
            sink.status(status)

    def _losses(self) -> tuple[int, int, int]:
        """Frames, sound and lines that were lost outside the session so far."""
        camera, microphone = self._camera, self._microphone
        frames = 0 if camera is None else camera.counts.stale + camera.counts.damaged
        sound = 0 if microphone is None else microphone.counts.overruns
        return frames, sound, sum(getattr(sink, "dropped", 0) for sink in self._sinks)

    def _count_losses(self) -> None:
        now, before = self._losses(), self._lost
        if now != before:
            self._lost = now
            self._session.count_drops(now[0] - before[0], now[1] - before[1], now[2] - before[2])

    def summary(self, ended: str) -> DeviceSummary:
        self._count_losses()
        reopened = sum(part.counts.reopened for part in (self._camera, self._microphone) if part is not None)
        return DeviceSummary(
            self._frames,
            self._estimates,
            (self._clock.now_ns() - self._start_ns) / NS_PER_S,
            self._late.summary(),
            self._session.stages.summary(),
            self._session.drops,
            reopened,
            self._degraded,
            self._jumps,
            self._skipped,
            ended,
        )


def _lately(now_ns: int) -> Dearest:
    return Dearest(0, now_ns, SOUND_LATELY_NS)
