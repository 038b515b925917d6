"""What a file of weights holds, by its names and shapes: layout, architecture, every tensor in our names; or a refusal that names what is off.

A file fits whole or not at all: no layer keeps random weights unseen.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sage_edge.runtime.errors import CheckpointError, UsageError
from sage_edge.training import presets
from sage_edge.training.checkpoint import META, WEIGHTS, read_meta
from sage_edge.training.presets import Preset

from . import published, reading
from .layouts import CHECKPOINT, PUBLISHED, Layout

FORMAT = "sage-edge encoder 1"
"""Value of the key `format` in the metadata of a converted file."""
_COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class Encoder:
    """What a file was recognised as."""

    family: str
    architecture: str
    """resnet50, wavlm-base, wavlm-large; or sizes, where it is none of them."""
    layout: str
    preset: Preset
    """One whose encoder has these shapes."""
    exact: bool
    """Whether that preset also tells what shapes do not: strides, order of norms, normalised sound."""
    tensors: dict[str, Tensor]
    """Whole, in our names, float32."""
    ignored: tuple[str, ...]
    """Names that were left out, as no part of the encoder."""
    notes: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """How many numbers training could change."""
        return sum(tensor.numel() for name, tensor in self.tensors.items() if "running_" not in name and not name.endswith(_COUNTER))

    def facts(self) -> dict[str, Any]:
        """All but the tensors, as JSON values."""
        return {
            "architecture": self.architecture,
            "layout": self.layout,
            "parameters": self.parameters,
            "tensors": len(self.tensors),
            "ignored": list(self.ignored),
            "notes": list(self.notes),
        }


def recognise(path: Path, family: str | None = None) -> Encoder:
    """The encoder that `path` holds: a published file in any layout, a converted one, or (with `family`) a checkpoint folder's.

    Raises UsageError: no such file, a checkpoint without `family`; CheckpointError: unreadable, no encoder, names missing or surplus, other
    shapes, values that are no numbers.
    """
    path = Path(path)
    if not (path / META).is_file():
        path = reading.find(path)
        return from_tensors(*reading.read(path), source=str(path))
    if family is None:
        raise UsageError(
            f"{path} is a checkpoint, with two encoders; it needs no import: train with --set visual_weights={path}, audio_weights={path}"
        )
    try:
        preset = presets.from_dict(read_meta(path)["preset"])
    except UsageError as error:
        raise CheckpointError(f"{path / META}: {error}; it was made by another version of sage-edge") from None
    tensors, metadata = reading.read(reading.find(path / WEIGHTS))
    return from_tensors(tensors, metadata, (CHECKPOINT[family],), preset, source=str(path))


def from_tensors(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    layouts: Sequence[Layout] = PUBLISHED,
    preset: Preset | None = None,
    *,
    source: str,
) -> Encoder:
    """`recognise` for tensors that have been read already; `preset` is known for a checkpoint's. `source` is what errors call them."""
    known = [sum(_known(layout, name) for name in tensors) for layout in layouts]
    if not any(known):
        raise CheckpointError(f"{source} holds no ResNet and no WavLM but {_some(list(tensors))}; 'sage-edge weights list' says what fits")
    layout = layouts[known.index(max(known))]
    ours, ignored, unknown, twice = _in_our_names(layout, tensors)
    exact = preset is not None
    preset = preset or _nearest(layout.family, ours)
    misfits = {**_misfits(layout.family, ours, preset), "unknown": unknown, "twice": twice}
    architecture = published.describe(layout.family, preset)
    if any(misfits.values()):
        what = "; ".join(f"{problem}: {_some(names)}" for problem, names in misfits.items() if names)
        raise CheckpointError(f"{source} looks most like {architecture} as {layout.name}, but {what}; give the file as it was published")
    values = {}
    for name, shape in published.shapes(layout.family, preset).items():
        kind = torch.int64 if name.endswith(_COUNTER) else torch.float32
        values[name] = ours[name].to(kind).contiguous() if name in ours else torch.zeros(shape, dtype=kind)
    if broken := [name for name, tensor in values.items() if not bool(torch.isfinite(tensor).all())]:
        raise CheckpointError(f"{source}: not all finite: {_some(broken)}; download it again")
    return Encoder(
        family=layout.family,
        architecture=architecture,
        layout=f"converted from {metadata['layout']}" if metadata.get("format") == FORMAT and "layout" in metadata else layout.name,
        preset=preset,
        exact=exact or published.of_preset(layout.family, preset) is not None,
        tensors=values,
        ignored=tuple(ignored),
        notes=tuple(_notes(architecture, ours, values)),
    )


@cache
def _signatures(family: str) -> frozenset[str]:
    """Names in the published encoders of a family, # for every number."""
    names = {name for item in published.PUBLISHED if item.family == family for name in published.shapes(family, presets.get(item.preset))}
    return frozenset(re.sub(r"\d+", "#", name) for name in names)


def _known(layout: Layout, name: str) -> bool:
    ours = layout.ours(name)
    return bool(ours) and re.sub(r"\d+", "#", ours[0]) in _signatures(layout.family)


def _in_our_names(layout: Layout, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str], list[str], list[str]]:
    """(tensors in our names, names to leave out, names of neither kind, names that mean what another means too)."""
    ours: dict[str, Tensor] = {}
    ignored: list[str] = []
    unknown: list[str] = []
    twice: list[str] = []
    for name, parts in layout.translate(tensors).items():
        if not _known(layout, name):
            (ignored if re.search(layout.harmless, name) else unknown).append(name)
        elif parts.keys() & ours.keys():
            twice.append(name)
        else:
            ours |= parts
    return ours, ignored, unknown, twice


def _nearest(family: str, tensors: Mapping[str, Tensor]) -> Preset:
    """The published encoder, or the one with the sizes seen, that fewest tensors speak against."""
    candidates = [presets.get(item.preset) for item in published.PUBLISHED if item.family == family]
    if (sizes := published.seen(family, tensors)) is not None:
        candidates.append(sizes)
    return min(candidates, key=lambda preset: sum(map(len, _misfits(family, tensors, preset).values())))


def _misfits(family: str, tensors: Mapping[str, Tensor], preset: Preset) -> dict[str, list[str]]:
    """What of `tensors` (our names) does not fit the encoder of `preset`, by kind of problem."""
    wanted = published.shapes(family, preset)
    there = {name: tensor for name, tensor in tensors.items() if name in wanted}
    return {
        "missing": [name for name in wanted if name not in there and not name.endswith(_COUNTER)],
        "surplus": [name for name in tensors if name not in wanted],
        "of another shape": [f"{name} {list(t.shape)}, not {list(wanted[name])}" for name, t in there.items() if t.shape != wanted[name]],
        "of another type": [f"{name} {_kind(tensor)}" for name, tensor in there.items() if not _right_kind(name, tensor)],
    }


def _right_kind(name: str, tensor: Tensor) -> bool:
    return tensor.dtype == torch.int64 if name.endswith(_COUNTER) else tensor.is_floating_point()


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _notes(architecture: str, given: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> list[str]:
    notes = []
    if architecture == "wavlm-base":
        notes.append("wavlm-base-plus has the same shapes: which of the two this is, only where it came from tells")
    if kinds := sorted({_kind(tensor) for tensor in given.values() if tensor.is_floating_point()} - {"float32"}):
        notes.append(f"stored as {', '.join(kinds)}, taken as float32")
    if len(given) < len(values):
        notes.append(f"{len(values) - len(given)} {_COUNTER} are not in the file and start at 0")
    return notes


def _some(names: Sequence[str]) -> str:
    """The first three, and how many more."""
    more = len(names) - 3
    return ", ".join(name[:80] if name.isprintable() else ascii(name[:80]) for name in names[:3]) + (f" and {more} more" if more > 0 else "")
