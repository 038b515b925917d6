"""Features of encoders that stay as they are, on disk: computed once per trial and view, then read as often as an epoch likes.

    FOLDER/key.json                    what these are features of; another key, and everything is computed again
    FOLDER/view0/TRIAL/visual.npy      float32 [n, d_V]     V of every stored face
    FOLDER/view0/TRIAL/audio.npy       float32 [m, W, d_A]  A of the chosen windows
    FOLDER/view0/TRIAL/ticks.npy       TICK [m, W]          what else a window holds

A is that of each window by itself, as at run time: sound features of overlapping windows differ. Where nothing is corrupted, views differ in faces
only, and the sound is that of the first. A trial's folder appears when it is whole, so a run
that was killed goes on with the next one. Files are memory-mapped; of a split's features only those of the windows at hand are ever in memory.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sage_edge.runtime.errors import DataError
from sage_edge.runtime.files import atomic_file, atomic_folder
from sage_edge.runtime.progress import Progress

from . import distributed, features
from .data.corruption import View, training_view
from .data.store import Trial
from .data.windows import Window, window_at
from .model import SAGE

SCHEMA = 1
KEY = "key.json"
TICK = np.dtype(
    [("face", "<i4"), ("audio", "?"), ("valid", "?"), ("labels", "<f4", 2), ("visual_bad", "<f4"), ("audio_bad", "<f4")],
)
"""One tick of a window: row of the trial's faces (-1 for none), whether its sound and its label are there, labels, how bad each sense is (0 to 1)."""
OPEN = 128
"""Files held open; a memory map keeps a descriptor."""

End = tuple[int, int, int]
"""A window: trial, newest tick, how many of its first ticks are masked."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows with their features."""

    visual: Tensor
    """[n, W, d_V], zeros where there is no face."""
    audio: Tensor
    """[n, W, d_A]."""
    visual_mask: Tensor
    """[n, W] 0 or 1."""
    audio_mask: Tensor
    labels: Tensor
    """[n, W, 2]."""
    valid: Tensor
    """[n, W] whether the label is there, 0 or 1."""
    visual_bad: Tensor
    """[n, W] 0 clean .. 1 useless."""
    audio_bad: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on `device`."""
        return Batch(**{field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)})

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU can copy from by itself."""
        return Batch(**{field.name: getattr(self, field.name).pin_memory() for field in fields(self)})


def cut(window: Window, ticks: int) -> Window:
    """`window` as a session sees it that began `ticks` ticks after its first one: all before is masked and zero. In place."""
    if ticks <= 0:
        return window
    window.samples[: window.tick_sample[ticks] if ticks < len(window.tick_sample) else None] = 0.0
    for mask in (window.visual_mask, window.audio_mask, window.labels_valid):
        mask[:ticks] = False
    window.tick_face[:ticks] = -1
    return window


def tensors_digest(module: nn.Module) -> str:
    """sha256 of a module's state: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def amount(size: float) -> str:
    """Bytes in words: 27 GB, 3.1 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.0f} {unit}" if size >= 10 * scale else f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"


class FeatureCache:
    """Features of windows `ends` of `trials` in `views` views, under `folder`. `fill` computes those that are not there, `batch` reads."""

    def __init__(
        self,
        folder: Path,
        model: SAGE,
        trials: Sequence[Trial],
        ends: Sequence[End],
        *,
        corpus: str,
        views: int = 1,
        seed: int = 0,
        corrupt: float = 0.0,
    ) -> None:
        """`corpus` is the digest of the store; (`seed`, `corrupt`) say what views 1 and up look like (`corruption.training_view`)."""
        self.folder, self.views, self.ends = Path(folder), views, list(ends)
        self._model, self._trials, self._seed, self._corrupt = model, trials, seed, corrupt
        self._of_trial: list[list[int]] = [[] for _ in trials]
        self._row = []
        for i, (trial, *_) in enumerate(self.ends):
            self._row.append(len(self._of_trial[trial]))
            self._of_trial[trial].append(i)
        self._corpus = corpus
        self._missing: list[tuple[int, int]] = []
        self._open = functools.lru_cache(OPEN)(self._load)

    def key(self) -> dict[str, Any]:
        """What the features depend on, but for the view's number."""
        chosen = [[self._trials[trial].name, newest, masked] for trial, newest, masked in self.ends]
        return {
            "schema": SCHEMA,
            "visual": tensors_digest(self._model.visual),
            "audio": tensors_digest(self._model.audio),
            "preset": self._model.preset.to_dict(),
            "corpus": self._corpus,
            "seed": self._seed,
            "corrupt": self._corrupt,
            "windows": hashlib.sha256(json.dumps(chosen).encode()).hexdigest(),
        }

    def missing(self) -> int:
        """Bytes that are still to be computed; what lies in the folder is of this key afterwards. For `fill`."""
        self._model.eval()
        if distributed.main():
            self._claim()
        distributed.barrier()
        missing = [(view, i) for view in range(self.views) for i in range(len(self._trials)) if not self._whole(view, i)]
        # nobody looks for what is missing after somebody has begun to write
        distributed.barrier()
        # long ones first and in turns, so that the processes end at about the same time
        self._missing = sorted(missing, key=lambda item: (-self._size(*item), item))
        return sum(self._size(*item) for item in missing)

    def _fill(self, label: str) -> None:
        mine = self._missing[distributed.rank() :: distributed.size()]
        ticks = sum(len(self._trials[i].faces) + len(self._of_trial[i]) * self._model.preset.window for _, i in mine)
        if mine:
            with Progress(f"features of {label}", ticks, "ticks", shown=distributed.main()) as bar:
                for view, i in mine:
                    self._write(view, i, bar)
        distributed.barrier()

    def _claim(self) -> None:
        """The folder is there, is of this key, and holds nothing half-written."""
        key, file = json.loads(json.dumps(self.key())), self.folder / KEY
        if self.folder.is_dir():
            try:
                found = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                found = None
            if found != key:
                if found is not None:
                    print(f"{self.folder} holds features of other weights, data or settings; computing them again", file=sys.stderr, flush=True)
                shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for rest in self.folder.glob("view*/.*"):
            shutil.rmtree(rest, ignore_errors=True)
        if not file.is_file():
            with atomic_file(file) as work:
                work.write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")

    def _place(self, view: int, i: int) -> Path:
        return self.folder / f"view{view}" / self._trials[i].name

    def _sounds(self, view: int) -> bool:
        """Whether the sound of a view is its own."""
        return view == 0 or self._corrupt > 0

    def _shapes(self, view: int, i: int) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        p, windows, float32 = self._model.preset, len(self._of_trial[i]), np.dtype("<f4")
        return {
            "visual": (float32, (len(self._trials[i].faces), p.visual_dim)),
            "audio": (float32, (windows if self._sounds(view) else 0, p.window, p.audio_dim)),
            "ticks": (TICK, (windows, p.window)),
        }

    def _size(self, view: int, i: int) -> int:
        return sum(dtype.itemsize * int(np.prod(shape)) for dtype, shape in self._shapes(view, i).values())

    def _load(self, view: int, i: int, name: str) -> NDArray[Any]:
        dtype, shape = self._shapes(view, i)[name]
        # NumPy cannot map an array without elements
        array: NDArray[Any] = np.load(self._place(view, i) / f"{name}.npy", mmap_mode="r" if np.prod(shape) else None)
        if (array.dtype, array.shape) != (dtype, shape):
            raise ValueError(f"{name} is {array.dtype} {array.shape}")
        return array

    def _whole(self, view: int, i: int) -> bool:
        """Whether the three files are there and as long as they should be; what is left of others is removed."""
        try:
            for name in self._shapes(view, i):
                self._load(view, i, name)
        except (OSError, ValueError):
            shutil.rmtree(self._place(view, i), ignore_errors=True)
            return False
        return True

    def _write(self, view: int, i: int, bar: Progress) -> None:
        seen = training_view(self._trials[i], self._model.preset.input_size, self._seed, view, self._corrupt)
        try:
            with atomic_folder(self._place(view, i)) as work:
                arrays = {name: (work / f"{name}.npy").open("wb") for name in self._shapes(view, i)}
                try:
                    for name, (dtype, shape) in self._shapes(view, i).items():
                        descr = np.lib.format.dtype_to_descr(dtype)
                        np.lib.format.write_array_header_2_0(arrays[name], {"descr": descr, "fortran_order": False, "shape": shape})
                    for rows in features.face_batches(self._model, seen.trial.faces, seen.top, seen.left, seen.flip):
                        arrays["visual"].write(np.ascontiguousarray(rows.numpy()).data)
                        bar.step(len(rows))
                    for audio, ticks in self._windows(view, seen, self._of_trial[i]):
                        arrays["audio"].write(np.ascontiguousarray(audio.numpy()).data)
                        arrays["ticks"].write(ticks.tobytes())
                        bar.step(ticks.size)
                finally:
                    for stream in arrays.values():
                        stream.close()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DataError(
                f"the disk of {self.folder} is full ({amount(self._size(view, i))} were to come); free some and repeat with --resume"
            ) from None

    def _windows(self, view: int, seen: View, numbers: Sequence[int]) -> Iterator[tuple[Tensor, NDArray[Any]]]:
        """A (of no window where the view has no sound of its own) and ticks of the windows of one trial, some at a time."""
        length = self._model.preset.window
        at_once = features.WINDOWS_AT_ONCE.get(features.device_of(self._model).type, 8)
        for some in features.batches(numbers, at_once):
            windows = [cut(window_at(seen.trial, self.ends[n][1], length), self.ends[n][2]) for n in some]
            ticks = np.zeros((len(some), length), TICK)
            for row, window, n in zip(ticks, windows, some, strict=True):
                row["face"], row["audio"] = window.tick_face, window.audio_mask
                row["valid"], row["labels"] = window.labels_valid, window.labels
                first = self.ends[n][1] - length + 1
                low, high = max(first, 0), min(first + length, seen.trial.n_ticks)
                row["visual_bad"][low - first : high - first] = seen.visual_bad[low:high]
                row["audio_bad"][low - first : high - first] = seen.audio_bad[low:high]
            yield features.encode_windows(self._model, windows) if self._sounds(view) else torch.zeros(0), ticks

    def batch(self, picked: Iterable[int], visual_view: Iterable[int] | None = None, audio_view: Iterable[int] | None = None) -> Batch:
        """The windows numbered `picked` (places in `ends`), V and A of each from the views given (0)."""
        picked = [int(n) for n in picked]
        of_v, of_a = (([0] * len(picked)) if views is None else [int(view) for view in views] for views in (visual_view, audio_view))
        of_a = [view if self._sounds(view) else 0 for view in of_a]
        p = self._model.preset
        visual = np.zeros((len(picked), p.window, p.visual_dim), np.float32)
        audio = np.empty((len(picked), p.window, p.audio_dim), np.float32)
        ticks_v, ticks_a = (np.empty((len(picked), p.window), TICK) for _ in range(2))
        for k, (n, v, a) in enumerate(zip(picked, of_v, of_a, strict=True)):
            trial, row = self.ends[n][0], self._row[n]
            ticks_v[k], ticks_a[k] = self._open(v, trial, "ticks")[row], self._open(a, trial, "ticks")[row]
            on = ticks_v[k]["face"] >= 0
            if on.any():
                visual[k, on] = self._open(v, trial, "visual")[ticks_v[k]["face"][on]]
            audio[k] = self._open(a, trial, "audio")[row]
        columns = (ticks_v["face"] >= 0, ticks_a["audio"], ticks_v["labels"], ticks_v["valid"], ticks_v["visual_bad"], ticks_a["audio_bad"])
        return Batch(torch.from_numpy(visual), torch.from_numpy(audio), *[torch.from_numpy(column.astype(np.float32)) for column in columns])


def fill(caches: Mapping[str, FeatureCache], folder: Path) -> None:
    """Compute and write what is missing in {label: cache}, all under `folder`, the processes of a run together; models are put into eval mode.

    Raises DataError when the disk has less free than all of that needs, before any work, or is full all the same.
    """
    need, refusal = sum(cache.missing() for cache in caches.values()), None
    if need and distributed.main():
        print(f"features: {amount(need)} into {folder}", file=sys.stderr, flush=True)
        free = shutil.disk_usage(folder).free
        if need > free:
            refusal = (
                f"features need {amount(need)} in {folder}, {amount(free)} are free; "
                "free some, choose another --out, fewer views or a larger fusion_stride"
            )
    # in every process: one alone would leave the others at work, and then waiting for it
    if refusal := distributed.agreed(refusal):
        raise DataError(refusal)
    for label, cache in caches.items():
        cache._fill(label)
