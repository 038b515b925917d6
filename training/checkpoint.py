"""A checkpoint is a folder: model.safetensors (float32 tensors) and checkpoint.json (preset with all its fields, what it was trained on, metrics).

    save(Path("CKPT"), model, trained_on=store.meta, epoch=12, metrics={...})
    model, meta = load(Path("CKPT"))

Written whole or not at all. No pickle: a checkpoint from elsewhere cannot run code.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file

from sage_edge.runtime.errors import CheckpointError, UsageError
from sage_edge.runtime.files import atomic_folder

from . import presets
from .model import SAGE

SCHEMA = 1
WEIGHTS, META = "model.safetensors", "checkpoint.json"
_KEYS: dict[str, type] = {"schema": int, "preset": dict, "trained_on": dict, "epoch": int, "metrics": dict, "revision": str}


def revision(source: Path = Path(__file__)) -> str:
    """`git describe` of the checkout whose training/checkpoint.py is the running file `source`; "unknown" when it was installed elsewhere."""
    source = source.resolve()
    try:
        # a copy inside another project's repository must not take that project's revision for its own
        if (Path(_git(source.parent, "rev-parse", "--show-toplevel")) / "training" / source.name).resolve() != source:
            return "unknown"
        return _git(source.parent, "describe", "--always", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(folder: Path, *args: str) -> str:
    return subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def defined(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with None for a number that is undefined: JSON has no word for NaN."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}


def write_model(
    folder: Path,
    model: SAGE,
    *,
    trained_on: Mapping[str, Any],
    epoch: int = 0,
    metrics: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write the two files into an existing folder. `training`: the settings it was trained with, the device, how many processes."""
    save_file({name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)
    meta = {
        "schema": SCHEMA,
        "preset": model.preset.to_dict(),
        "trained_on": dict(trained_on),
        "epoch": epoch,
        "metrics": defined(metrics or {}),
        "training": dict(training or {}),
        "revision": revision(),
    }
    (folder / META).write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def save(
    path: Path,
    model: SAGE,
    *,
    trained_on: Mapping[str, Any],
    epoch: int = 0,
    metrics: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> None:
    """Write checkpoint folder `path`. Raises UsageError when it exists and `replace` is false."""
    with atomic_folder(Path(path), replace=replace) as folder:
        write_model(folder, model, trained_on=trained_on, epoch=epoch, metrics=metrics)


def read_meta(path: Path) -> dict[str, Any]:
    """The checked contents of checkpoint.json. Raises CheckpointError."""
    file = Path(path) / META
    if not file.is_file():
        raise CheckpointError(f"{path} is not a checkpoint: it has no {META}; make one with 'sage-edge train DATA --out {path}'")
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged ({error}); train again or take it from a backup") from None
    if not isinstance(meta, dict):
        raise CheckpointError(f"{file} holds a {type(meta).__name__}, not an object; train again or take it from a backup")
    for key, kind in _KEYS.items():
        if not isinstance(meta.get(key), kind):
            raise CheckpointError(
                f"{file}: {key!r} is {'missing' if key not in meta else 'not of type ' + kind.__name__}; train again or take it from a backup"
            )
    if meta["schema"] > SCHEMA:
        raise CheckpointError(f"{file} has schema {meta['schema']}, this version reads up to {SCHEMA}; update sage-edge")
    return meta


def load(path: Path, preset: str | None = None) -> tuple[SAGE, dict[str, Any]]:
    """(model in eval mode, contents of checkpoint.json).

    Raises CheckpointError: not a checkpoint, damaged, made for another preset than `preset` (where one is asked for), tensors missing,
    surplus or of other shapes.
    """
    path = Path(path)
    meta = read_meta(path)
    try:
        fields = presets.from_dict(meta["preset"])
    except UsageError as error:
        raise CheckpointError(f"{path / META}: {error}; it was made by another version of sage-edge") from None
    if preset is not None and fields.name != preset:
        raise CheckpointError(f"{path} is of preset {fields.name!r}, not {preset!r}; give --preset {fields.name} or another checkpoint")
    try:
        tensors = load_file(path / WEIGHTS)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path / WEIGHTS} cannot be read ({str(error).splitlines()[0]}); train again or take it from a backup") from None
    model = SAGE(fields)
    fill(model, tensors, path)
    return model.eval(), meta


def fill(model: SAGE, tensors: Mapping[str, Any], path: Path) -> None:
    """Load `tensors` into `model`. Raises CheckpointError naming the first tensor that does not fit."""
    own = model.state_dict()
    where = f"{path / WEIGHTS} does not fit preset {model.preset.name!r}"
    for name, tensor in own.items():
        if name not in tensors:
            raise CheckpointError(f"{where}: tensor {name} is missing; train again or use the preset it was made for")
        shape, wanted = list(tensors[name].shape), list(tensor.shape)
        if shape != wanted:
            raise CheckpointError(f"{where}: tensor {name} has shape {shape}, not {wanted}; train again or use the preset it was made for")
    if surplus := sorted(set(tensors) - set(own)):
        raise CheckpointError(f"{where}: it has no tensor {surplus[0]}; train again or use the preset it was made for")
    model.load_state_dict(dict(tensors))
