"""From clips to what each graph takes in, and from there to ranges: faces, sound and features, one clip at a time.

A device also meets what a recorded clip seldom shows: the first seconds of a session, a dead camera, a dead microphone. Three clips of
four are therefore used a second time with that condition laid over them.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.bundle import GRAPHS, FaceInfo
from sage_edge.runtime.errors import DataError
from sage_edge.runtime.onnx_file import metadata
from sage_edge.runtime.progress import Progress

from . import clips
from . import equalise as equalisation
from .equalise import Emit, Gain
from .observe import Feed
from .offline import Offline
from .ranges import Ranges, check_method, find

if TYPE_CHECKING:
    from sage_edge.training.data.store import Store
    from sage_edge.training.data.windows import Window

FACES = 32
"""Faces per clip that the visual graph is calibrated on, evenly spread: neighbours differ too little to tell more."""


def calibrate(
    graphs: Mapping[str, Path],
    store: Store,
    chosen: clips.ClipSet,
    tensors: Mapping[str, Collection[str]],
    face: FaceInfo,
    method: str = "percentile",
    progress: bool = True,
) -> Ranges:
    """Ranges of `tensors` (graph name -> tensor names) of the float32 `graphs` (graph name -> path) on the clips `chosen` from `store`.

    Raises UsageError for an unknown method, DataError as `check` does and for clips that the store lacks, CompileError as `ranges.find`
    does.
    """
    check_method(method)
    check(store, chosen, next((metadata(path) for path in graphs.values()), {}))
    if len(chosen.clips) == 1:
        print("warning: ranges from one clip are narrow: what it does not show will be clipped; give more data or --clips", file=sys.stderr)
    with _source(graphs, store, chosen, face, f"calibrate {method}", progress) as source:
        found = {name: find(graphs[name], getattr(source, name), tensors[name], method, source.where) for name in GRAPHS}
    for graph, each in found.items():
        if still := [name for name, (low, high, _) in each.items() if low == high]:
            print(
                f"warning: {graph}: {len(still)} of {len(each)} tensors never change on the calibration clips, first {still[0]!r}; "
                "8 bits will not do for other input, give data with more in it",
                file=sys.stderr,
            )
    return Ranges.of(method, chosen, found)


def equalise(
    graphs: Mapping[str, Path],
    folder: Path,
    store: Store,
    chosen: clips.ClipSet,
    tensors: Mapping[str, Collection[str]],
    emit: Emit,
    face: FaceInfo,
    method: str = "percentile",
    progress: bool = True,
) -> dict[str, list[Gain]]:
    """Write the float `graphs` to GRAPH.onnx in `folder`, with the channels equalised where that pays in 8 bits, as `equalise.equalise` has it.

    `tensors` are those that `emit(path, ranges)` quantizes. Raises as `calibrate` does.
    """
    check(store, chosen, next((metadata(path) for path in graphs.values()), {}))
    with _source(graphs, store, chosen, face, "equalise", progress) as source:
        return {
            name: equalisation.equalise(graphs[name], getattr(source, name), folder / f"{name}.onnx", tensors[name], emit, method, source.where)
            for name in GRAPHS
        }


@contextlib.contextmanager
def _source(graphs: Mapping[str, Path], store: Store, chosen: clips.ClipSet, face: FaceInfo, label: str, progress: bool) -> Iterator[_Source]:
    with (
        tempfile.TemporaryDirectory(prefix="sage-features-") as folder,
        Offline({(name, "fp32"): path for name, path in graphs.items()}, face) as offline,
        Progress(label, None, "feeds", stream=None if progress else io.StringIO()) as bar,
    ):
        yield _Source(store, chosen, offline, Path(folder), bar)


def check(store: Store, chosen: clips.ClipSet, facts: Mapping[str, str]) -> None:
    """DataError unless `chosen` fits a graph with the metadata `facts`, where it says, some clip shows a face and the sound of all is finite."""
    rate, window = facts.get("rate_hz", store.meta.get("rate")), facts.get("window", chosen.length)
    if str(store.meta.get("rate")) != str(rate):
        raise DataError(f"{store.path} was prepared with --rate {store.meta.get('rate')}, the model ticks at {rate} Hz; prepare the corpus again")
    if str(chosen.length) != str(window):
        raise DataError(f"the clips are {chosen.length} ticks long, the window of the model {window}; choose clips as long as its window")
    shows_a_face = False
    for clip, content in zip(chosen.clips, clips.windows(store, chosen), strict=True):
        shows_a_face |= bool(content.visual_mask.any())
        if not np.isfinite(content.samples).all():
            raise DataError(
                f"{store.path}: {_clip(clip)} has NaN or infinite sound, the audio graph cannot be calibrated on it; prepare the corpus again"
            )
    if not shows_a_face:
        raise DataError(f"none of the {len(chosen.clips)} calibration clips shows a face; prepare a corpus with faces")


def _clip(clip: clips.Clip) -> str:
    return f"the clip of trial {clip.trial!r} that ends at tick {clip.newest}"


class _Source:
    """Feeds of each graph; each call of a method starts over."""

    def __init__(self, store: Store, chosen: clips.ClipSet, offline: Offline, folder: Path, bar: Progress) -> None:
        self._store, self._chosen, self._offline, self._folder, self._bar = store, chosen, offline, folder, bar
        self._now = 0

    def where(self) -> str:
        """The clip in hand."""
        return _clip(self._chosen.clips[self._now])

    def _windows(self) -> Iterator[tuple[int, Window]]:
        for i, window in enumerate(clips.windows(self._store, self._chosen)):
            self._now = i
            yield i, window
            self._bar.step()

    def visual(self) -> Iterator[Feed]:
        for _, window in self._windows():
            seen = np.flatnonzero(window.visual_mask)
            if len(seen):
                some = seen[np.linspace(0, len(seen) - 1, min(len(seen), FACES)).astype(int)]
                yield {"faces": self._offline.pixels(window.faces[some])}

    def audio(self) -> Iterator[Feed]:
        for i, window in self._windows():
            yield {"samples": window.samples[None]}
            if i % 4 == 1:
                yield {"samples": _without_beginning(window)[None]}

    def fusion(self) -> Iterator[Feed]:
        for i, window in self._windows():
            visual, audio, late = self._features(i, window)
            feed = {
                "visual": visual[None],
                "audio": audio[None],
                "visual_mask": window.visual_mask[None].astype(np.float32),
                "audio_mask": window.audio_mask[None].astype(np.float32),
            }
            yield feed
            if i % 4 == 1:
                half = visual.shape[0] // 2
                masks = {name: feed[name].copy() for name in ("visual_mask", "audio_mask")}
                for mask in masks.values():
                    mask[:, :half] = 0
                yield {**feed, "audio": late[None], **masks}
            elif i % 4 > 1:
                name = ("visual_mask", "audio_mask")[i % 4 - 2]
                yield {**feed, name: np.zeros_like(feed[name])}

    def _features(self, i: int, window: Window) -> tuple[NDArray[np.float32], ...]:
        """Visual and audio features of clip `i`, and the audio features without its first half; kept in a file for the second pass."""
        file = self._folder / f"{i}.npz"
        if not file.is_file():
            visual = np.zeros((len(window.visual_mask), self._offline.visual_dim("fp32")), np.float32)
            if window.visual_mask.any():
                visual[window.visual_mask] = self._offline.faces(window.faces[window.visual_mask], "fp32")
            audio = self._offline.sound(window.samples, "fp32")
            late = self._offline.sound(_without_beginning(window), "fp32") if i % 4 == 1 else audio[:0]
            np.savez(file, visual=visual, audio=audio, late=late)
        with np.load(file) as kept:
            return kept["visual"], kept["audio"], kept["late"]


def _without_beginning(window: Window) -> NDArray[np.float32]:
    """Samples of a window half of which lies before the session began."""
    samples: NDArray[np.float32] = window.samples.copy()
    samples[: len(samples) // 2] = 0
    return samples
