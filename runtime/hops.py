"""What is computed once per hop, sound and fusion, in the caller's thread or in one of its own; its estimates are waited for by whoever polls.

    hops.ready()                               # the hop before has let go of the engines' inputs, and of its windows
    ...                                        # write the masks
    hops.run(Hop(...))
    for estimate in hops.poll(): ...

With a thread, frames go on being encoded while a hop is computed. A hop is never dropped: the next one waits. The bits are the same.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import EngineError
from .estimate import AudioLevel, Drops, Estimate, Reliability
from .graphs import Graphs
from .stages import Stages
from .ticks import rms_dbfs, tick_time_ns
from .tracks import Seen


@dataclass(frozen=True)
class Hop:
    """What was decided, beside the masks in fusion's inputs: tick `newest` and the `ticks` - 1 before it are this hop's.

    `seen` has one face, or None, for each item of fusion. `visual` [most, W, dim] and `samples` [S] are the windows, which stay as they are until the
    next `ready`; `its` are the hop's own samples; `heard`: there is any sound in the window. `spent_ns` is what it took to find all that.
    """

    newest: int
    ticks: int
    epoch_ns: int
    seen: tuple[Seen | None, ...]
    visual: NDArray[np.float32]
    samples: NDArray[np.float32]
    its: slice
    heard: bool
    drops: Drops
    spent_ns: int


class Hops:
    """Owns the audio and fusion engines between `run` and the next `ready`. `ready`, `run`, `poll` and `close` are one thread's."""

    def __init__(self, graphs: Graphs, rate_hz: int, stages: Stages, thread: bool) -> None:
        self._graphs, self._rate_hz = graphs, rate_hz
        self._wait_ns, self._audio_ns, self._fusion_ns, self._hop_ns = (stages[name] for name in ("wait", "audio", "fusion", "hop"))
        self._done: deque[list[Estimate]] = deque()
        self.error: BaseException | None = None
        """What a hop in the thread has raised; `check` raises it."""
        self.told: Callable[[], None] = lambda: None
        """Called by the thread after each hop; what it raises goes to `threading.excepthook`, and the thread goes on."""
        self._jobs: SimpleQueue[Hop | None] = SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._end: weakref.finalize[Any, Hops] | None = None
        if thread:
            self._worker = threading.Thread(target=self._work, name="sage-hop", daemon=True)
            self._worker.start()
            # also where nobody closes it, at the interpreter's end: an engine must not run on while its memory goes
            self._end = weakref.finalize(self, _stop, self._jobs, self._idle, self._worker)

    def check(self) -> None:
        """Raise what a hop in the thread has raised, once."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    @property
    def busy(self) -> bool:
        """Something is being computed, or was and waits for `poll`."""
        return not self._idle.is_set() or bool(self._done) or self.error is not None  # in this order: what is idle is done

    def ready(self) -> None:
        """Wait, for the next hop, until nothing is computed. Raises as `check`."""
        if not self._idle.is_set():
            before = perf_counter_ns()
            self._idle.wait()
            self._wait_ns.add(perf_counter_ns() - before)
        self.check()

    def rest(self) -> None:
        """Wait until nothing is computed."""
        self._idle.wait()

    def settle(self) -> None:
        """`rest`. Raises as `check`."""
        self.rest()
        self.check()

    def run(self, hop: Hop) -> None:
        """Compute the hop, or have it computed. Raises EngineError; with a thread a later call does."""
        if self._end is None:
            self._done.append(self._compute(hop))
        else:
            self._idle.clear()
            self._jobs.put(hop)

    def poll(self) -> list[Estimate]:
        """What has been computed since the last poll, oldest first. Raises as `check`."""
        if self.error is not None:
            self.check()
        if not self._done:
            return []
        estimates: list[Estimate] = []
        while self._done:
            estimates += self._done.popleft()
        return estimates

    def close(self) -> None:
        """Finish what was begun and end the thread; calling it again does nothing, or goes on where Ctrl-C ended the wait."""
        if self._end is not None and self._end.alive:
            _stop(self._jobs, self._idle, self._worker)
            self._end.detach()  # only now: called, it would forget itself before the wait

    def _work(self) -> None:
        while (hop := self._jobs.get()) is not None:
            try:
                self._done.append(self._compute(hop))
            except BaseException as error:
                self.error = error
            finally:
                self._idle.set()
                try:
                    self.told()
                except BaseException:
                    threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))

    def _compute(self, hop: Hop) -> list[Estimate]:
        start = perf_counter_ns()
        audio, fusion = self._graphs.audio, self._graphs.fusion
        items, inputs = len(hop.seen), fusion.inputs
        sound = inputs["audio"]
        if hop.heard:
            audio.read_from("samples", hop.samples[np.newaxis])
            before = perf_counter_ns()
            audio.run()
            self._audio_ns.add(perf_counter_ns() - before)
            if len(sound) == 1:
                sound = audio.outputs["audio"]
            else:
                np.copyto(sound[:items], audio.outputs["audio"])
        else:
            sound[:items] = 0
        fusion.read_from("visual", hop.visual)
        fusion.read_from("audio", sound)
        before = perf_counter_ns()
        fusion.run(items)
        self._fusion_ns.add(perf_counter_ns() - before)
        level = AudioLevel(rms_dbfs(hop.samples[hop.its]), bool(inputs["audio_mask"][0].all()))
        estimates = [self._estimate(hop, item, level) for item in range(items)]
        self._hop_ns.add(hop.spent_ns + perf_counter_ns() - start)
        return estimates

    def _estimate(self, hop: Hop, item: int, level: AudioLevel) -> Estimate:
        outputs, seen = self._graphs.fusion.outputs, hop.seen[item]
        for name, array in outputs.items():
            if not np.isfinite(array[item]).all():
                self._not_finite(name, item, hop)
        first = hop.newest + 1 - hop.ticks
        values = outputs["estimates"][item, -hop.ticks :].clip(-1.0, 1.0).tolist()
        trail = tuple((hop.epoch_ns + tick_time_ns(first + i, self._rate_hz), valence, arousal) for i, (valence, arousal) in enumerate(values))
        t_ns, valence, arousal = trail[-1]
        modality = self._graphs.modality
        visual, audio = (None, None) if modality is None else modality[item, -1].tolist()
        return Estimate(
            t_ns=t_ns,
            age_ms=None if seen is None else (t_ns - hop.epoch_ns - seen[1]) / 1e6,
            valence=valence,
            arousal=arousal,
            reliability=Reliability(float(outputs["temporal"][item, -1]), visual, audio),
            face=None if seen is None else seen[0],
            audio=level,
            drops=hop.drops,
            trail=trail,
        )

    def _not_finite(self, name: str, item: int, hop: Hop) -> None:
        """A graph of finite weights on finite inputs overflowed: say which one, rather than give numbers that mean nothing."""
        output = self._graphs.fusion.outputs[name][item]
        given = {"visual": hop.visual[item], **({"audio": self._graphs.audio.outputs["audio"]} if hop.heard else {})}
        guilty = next((graph for graph, values in given.items() if not np.isfinite(values).all()), "fusion")
        raise EngineError(
            f"the {guilty} graph in {self._graphs.precision} left {output.size - int(np.isfinite(output).sum())} non-finite values in {name!r} "
            f"at tick {hop.newest}; use precision='fp32' or compile the bundle again"
        )


def _stop(jobs: SimpleQueue[Hop | None], idle: threading.Event, worker: threading.Thread) -> None:
    jobs.put(None)
    idle.wait()  # join does not wait again after Ctrl-C, before Python 3.13
    worker.join()
