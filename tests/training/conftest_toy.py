"""A toy store: valence is the brightness of the face, arousal the loudness of the sound, both plain to see. And a model that learns it in seconds."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sage_edge.training.config import TrainConfig
from sage_edge.training.data.store import ARRAYS, COLUMNS, SCHEMA, array_path
from sage_edge.training.data.store_writer import file_record, write_index

TINY_SETTINGS = {
    "window": 40,
    "resnet_width": 4,
    "wavlm_conv_dims": (8,) * 7,
    "wavlm_dim": 16,
    "wavlm_layers": 1,
    "wavlm_ff": 32,
    "wavlm_pos_kernel": 16,
    "wavlm_pos_groups": 4,
    "tcn_visual": (8, 8, 8, 8),
    "tcn_audio": (8, 8, 8, 8),
    "fusion_dim": 16,
    "fusion_layers": 1,
    "fusion_ff": 32,
    "head_dim": 16,
}

QUICK = TrainConfig(
    visual_epochs=2,
    visual_faces=128,
    visual_batch=32,
    audio_epochs=2,
    audio_windows=16,
    audio_batch=4,
    audio_ticks=40,
    fusion_epochs=3,
    fusion_windows=32,
    fusion_batch=8,
    fusion_stride=20,
)


def smooth(rng: np.random.Generator, n: int) -> np.ndarray:
    steps = np.cumsum(rng.normal(0, 1, n + 30))
    slow = np.convolve(steps, np.ones(31) / 31, "valid")
    return np.tanh((slow - slow.mean()) / (slow.std() + 1e-9)).astype(np.float32)


def write_trial(
    folder: Path, name: str, split: str, seed: int, frames: int, sound: bool = True, no_face: slice = slice(0, 0)
) -> tuple[dict, dict[str, np.ndarray]]:
    """The entry of a trial and the columns of its frames; its faces and sound are written."""
    rng = np.random.default_rng(seed)
    labels = np.stack([smooth(rng, frames), smooth(rng, frames)], axis=1)
    t_ns = np.arange(frames, dtype=np.int64) * 1_000_000_000 // 30
    has = np.ones(frames, bool)
    has[no_face] = False
    frame_face = np.where(has, np.cumsum(has) - 1, -1).astype(np.int32)
    pattern = rng.integers(0, 60, (48, 48, 3))
    faces = (pattern + (labels[has, 0, None, None, None] + 1.0) * 80.0).astype(np.uint8)
    loud = np.interp(np.arange(frames * 16_000 // 30) / 16_000, np.arange(frames) / 30, 0.02 + 0.1 * (labels[:, 1] + 1.0))
    audio = (rng.normal(0, 1, len(loud)) * loud * 8000).clip(-32768, 32767).astype(np.int16) if sound else np.zeros(0, np.int16)
    valid = np.ones(frames, bool)
    valid[5:8] = False
    labels[5:8] = 0
    arrays = {"frame_t_ns": t_ns, "frame_face": frame_face, "faces": faces, "labels": labels, "labels_valid": valid, "audio": audio}
    entry = {
        "name": name,
        "split": split,
        "source": f"{name}.mp4",
        "subject": name,
        "rate_hz": 30,
        "last_ns": int(t_ns[-1]),
        "counts": {"frames": frames, "faces": len(faces), "audio": len(audio), "label_rows": frames, "valid": int(valid.sum())},
        "files": {},
    }
    for array in ARRAYS:
        path = array_path(folder, entry, array)
        path.parent.mkdir(exist_ok=True)
        np.save(path, arrays[array])
        entry["files"][array] = file_record(path)
    return entry, {column: arrays[column] for column in COLUMNS}


def write_store(folder: Path, splits: tuple[str, ...] = ("train", "train", "train", "val", "val"), **changes: object) -> Path:
    folder.mkdir()
    trials = [
        write_trial(folder, f"t{i}", split, seed=i, frames=150 + 17 * i, sound=i != 2, no_face=slice(40, 55) if i % 2 else slice(0, 0))
        for i, split in enumerate(splits)
    ]
    meta = {"name": "toy", "synthetic": True, "seed": 0, "schema": SCHEMA, "face_size": 48, "rate": 30, **changes}
    write_index(folder, meta, [entry for entry, _ in trials], [columns for _, columns in trials])
    return folder


def set_array(store: Path, trial: str, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change an array of one trial in place, and the index with it."""
    index = json.loads((store / "index.json").read_text(encoding="utf-8"))
    entry = next(entry for entry in index["trials"] if entry["name"] == trial)
    column = name in COLUMNS
    path = store / "frames" / f"{name}.npy" if column else array_path(store, entry, name)
    array = np.load(path)
    rows = slice(entry["first_row"], entry["first_row"] + entry["counts"]["frames"]) if column else slice(None)
    array[rows] = change(array[rows])
    np.save(path, array)
    (index["frames"] if column else entry["files"])[name] = file_record(path)
    (store / "index.json").write_text(json.dumps(index), encoding="utf-8")
