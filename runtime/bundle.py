"""Open a bundle: read its manifest, check every key's type, verify every file's size and sha256, and only then hand out paths.

A bundle is a folder `NAME.sage/` with `manifest.json`, `onnx/GRAPH.PRECISION.onnx` and `golden.npz`; see `Manifest` for the keys.
Nothing in a bundle is read before it has been verified, no file that the manifest does not list is tolerated (an ONNX graph may
refer to one), and no path may lead out of the folder. Every refusal is a BundleError of one line.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import schema
from .errors import BundleError, UsageError
from .files import sha256_file
from .ticks import window_samples

SCHEMA = 1
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
SEARCH, SEARCH_PLOT = "search.json", "search.svg"
"""What the search over precisions measured, where there was one: as numbers and drawn."""
GRAPHS = ("visual", "audio", "fusion")
PRECISIONS = ("fp32", "int8-cpu", "int8-trt")
_MAX_MANIFEST_BYTES = 4 << 20


@dataclass(frozen=True)
class ModelInfo:
    """Which model this is. `revision` is the git revision it was built from; `reliability` is "temporal" or "modality"."""

    name: str
    preset: str
    revision: str
    reliability: str
    rgf_scale: str


@dataclass(frozen=True)
class FaceInfo:
    """How a face becomes the visual input: a square box with `margin`, of which the inner input_size / crop_size is averaged to
    `input_size` squared pixels, divided by 255, minus `mean`, divided by `std` (RGB order). A tick takes a face of at most `max_age_ms`."""

    crop_size: int
    input_size: int
    margin: float
    colour: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_age_ms: float


@dataclass(frozen=True)
class Dims:
    """Feature widths per tick."""

    visual: int
    audio: int


@dataclass(frozen=True)
class OutputInfo:
    """Names of the two estimates and their range."""

    names: tuple[str, ...]
    range: tuple[float, ...]


@dataclass(frozen=True)
class CalibrationInfo:
    """How activation ranges were found; `set_sha256` identifies the `clips` clips used."""

    method: str
    set_sha256: str
    clips: int


@dataclass(frozen=True)
class TrainedOn:
    """The corpus. `synthetic` models are for demonstration. `extra` holds whatever else the store said (flat in the JSON)."""

    name: str
    synthetic: bool
    extra: Mapping[str, Any]


@dataclass(frozen=True)
class Ccc:
    """Concordance of one precision under one protocol on the validation videos."""

    valence: float
    arousal: float
    mean: float


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes and hex sha256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says. `window` and `hop` are in ticks, `samples` is the audio of one window, `ccc` is protocol -> precision,
    `tolerance` is the greatest difference to `golden.npz` per precision, `files` is relative POSIX path -> size and hash (all but the
    manifest). `calibration` is null when the bundle holds floating-point graphs only."""

    schema: int
    model: ModelInfo
    window: int
    hop: int
    rate_hz: int
    sample_rate_hz: int
    samples: int
    face: FaceInfo
    dims: Dims
    output: OutputInfo
    calibration: CalibrationInfo | None
    trained_on: TrainedOn
    weights_bytes: dict[str, int]
    ccc: dict[str, dict[str, Ccc]]
    tolerance: dict[str, float]
    files: dict[str, FileInfo]

    @property
    def digest(self) -> str:
        """Hex sha256 of the canonical JSON, as `to_json` writes it."""
        return digest_of(self.to_dict())

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions for which all three graphs are listed."""
        return tuple(p for p in PRECISIONS if all(graph_path(g, p) in self.files for g in GRAPHS))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the digest."""
        value: dict[str, Any] = schema.plain(self)
        value["trained_on"] = {**self.trained_on.extra, "name": self.trained_on.name, "synthetic": self.trained_on.synthetic}
        return value

    def to_json(self) -> str:
        """The text of `manifest.json`, digest included. Raises BundleError when it would not pass `from_json`."""
        value = self.to_dict()
        value["digest"] = digest_of(value)
        text = json.dumps(value, indent=1, sort_keys=True) + "\n"
        Manifest.from_json(text)
        return text

    @classmethod
    def from_json(cls, text: str | bytes, where: str = MANIFEST) -> Manifest:
        """Parse and check: JSON, schema version, digest, then every key's presence, name, type and range. Raises BundleError."""
        try:
            value = json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{where} is not valid JSON ({error}); the bundle is damaged, copy or compile it again") from None
        if not isinstance(value, dict):
            raise BundleError(f"{where} holds {_kind(value)}, not an object; the bundle is damaged, copy or compile it again")
        version = value.get("schema")
        if isinstance(version, bool) or not isinstance(version, int):
            raise BundleError(f"{where}: key 'schema' is {version!r}, not a whole number; this is not a sage-edge bundle")
        if version > SCHEMA:
            raise BundleError(f"{where} has schema {version} and this sage-edge reads up to {SCHEMA}: upgrade it with pip install -U sage-edge")
        if version < 1:
            raise BundleError(f"{where}: schema {version} never existed; compile the bundle again")
        said = value.pop("digest", None)
        if said is None:
            raise BundleError(f"{where}: key 'digest' is missing; the bundle is incomplete, copy or compile it again")
        digest = digest_of(value)
        if said != digest:
            raise BundleError(
                f"{where}: digest is {str(said)[:12]!r} and its content gives {digest[:12]}...; "
                "it was changed after compiling, copy or compile it again"
            )
        trained_on = value.get("trained_on")
        if isinstance(trained_on, dict):
            value["trained_on"] = {k: v for k, v in trained_on.items() if k in ("name", "synthetic")}
            value["trained_on"]["extra"] = {k: v for k, v in trained_on.items() if k not in ("name", "synthetic")}
        manifest = schema.decode(cls, value, where)
        manifest._check(where)
        return manifest

    def _check(self, where: str) -> None:
        def need(ok: bool, key: str, value: object, rule: str) -> None:
            if not ok:
                raise BundleError(f"{where}: key {key!r} is {value!r}, must be {rule}; compile the bundle again")

        need(self.window >= 1, "window", self.window, "at least 1")
        need(1 <= self.hop <= self.window, "hop", self.hop, f"1 to {self.window}")
        need(self.rate_hz >= 1, "rate_hz", self.rate_hz, "at least 1")
        need(self.sample_rate_hz >= self.rate_hz, "sample_rate_hz", self.sample_rate_hz, f"at least {self.rate_hz}")
        samples = window_samples(self.window, self.rate_hz, self.sample_rate_hz)
        need(self.samples == samples, "samples", self.samples, f"{samples} for {self.window} ticks at {self.rate_hz} Hz and {self.sample_rate_hz} Hz")
        face = self.face
        need(1 <= face.input_size <= face.crop_size, "face.input_size", face.input_size, f"1 to {face.crop_size}")
        need(face.colour == "rgb", "face.colour", face.colour, "'rgb'")
        need(face.margin >= 0, "face.margin", face.margin, "at least 0")
        need(face.max_age_ms >= 0, "face.max_age_ms", face.max_age_ms, "at least 0")
        need(len(face.mean) == 3, "face.mean", list(face.mean), "three numbers")
        need(len(face.std) == 3 and min(face.std) > 0, "face.std", list(face.std), "three positive numbers")
        need(self.model.reliability in ("temporal", "modality"), "model.reliability", self.model.reliability, "'temporal' or 'modality'")
        need(min(self.dims.visual, self.dims.audio) >= 1, "dims", schema.plain(self.dims), "at least 1 each")
        need(self.output.names == ("valence", "arousal"), "output.names", list(self.output.names), "['valence', 'arousal']")
        need(self.output.range == (-1.0, 1.0), "output.range", list(self.output.range), "[-1, 1]")
        for key, table in (("weights_bytes", self.weights_bytes), ("tolerance", self.tolerance)):
            for precision in table:
                need(precision in PRECISIONS, key, precision, f"one of {', '.join(PRECISIONS)}")
        for protocol, rows in self.ccc.items():
            need(protocol in ("overlap", "live"), "ccc", protocol, "'overlap' or 'live'")
            for precision in rows:
                need(precision in PRECISIONS, f"ccc.{protocol}", precision, f"one of {', '.join(PRECISIONS)}")
        for path, info in self.files.items():
            _check_path(path, where)
            need(info.size >= 0, f"files.{path}.size", info.size, "at least 0")
            need(re.fullmatch(r"[0-9a-f]{64}", info.sha256) is not None, f"files.{path}.sha256", info.sha256, "64 hexadecimal digits")


def digest_of(value: Mapping[str, Any]) -> str:
    """Hex sha256 of the canonical JSON (sorted keys, no spaces) of a manifest without its key `digest`."""
    body = {k: v for k, v in value.items() if k != "digest"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def graph_path(graph: str, precision: str) -> str:
    """Path inside the bundle of one graph, as the manifest lists it."""
    return f"onnx/{graph}.{precision}.onnx"


class Bundle:
    """A verified bundle. Make one with `Bundle.open`."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Verify the bundle at `path` and return it.

        Raises BundleError for a missing folder or manifest, damaged JSON, an unknown, missing or wrong key, a newer schema, a file that is
        missing, changed, not listed or outside the folder.
        """
        root = Path(path)
        if not root.is_dir():
            what = "is not a folder" if root.exists() else "does not exist"
            raise BundleError(f"{root} {what}; a bundle is the NAME.sage folder that sage-edge compile writes")
        real = root.resolve()
        text = _inside(real, MANIFEST, root)
        if not text.is_file():
            raise BundleError(f"{root} has no {MANIFEST}; a bundle is the NAME.sage folder that sage-edge compile writes")
        if text.stat().st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{root / MANIFEST} has {text.stat().st_size} bytes, more than {_MAX_MANIFEST_BYTES}; this is not a sage-edge bundle")
        manifest = Manifest.from_json(text.read_bytes(), str(root / MANIFEST))
        for name, info in manifest.files.items():
            file = _inside(real, name, root)
            if not file.is_file():
                raise BundleError(f"{root} lacks {name}, which its manifest lists; copy the whole folder again")
            if file.stat().st_size != info.size:
                raise BundleError(f"{root / name} has {file.stat().st_size} bytes and its manifest says {info.size}; copy the bundle again")
        for found in _walk(real):
            if found != MANIFEST and found not in manifest.files:
                raise BundleError(f"{root / found} is not listed in the manifest; remove it or compile the bundle again")
        if not manifest.precisions:
            raise BundleError(f"{root} lists no complete set of {', '.join(GRAPHS)} graphs; compile the bundle again")
        for name, info in manifest.files.items():
            sha256 = sha256_file(real / name)
            if sha256 != info.sha256:
                raise BundleError(
                    f"{root / name} has sha256 {sha256[:12]}... and its manifest says {info.sha256[:12]}...; it is damaged, copy the bundle again"
                )
        return cls(real, manifest)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions whose three graphs this bundle holds, of "fp32", "int8-cpu", "int8-trt"."""
        return self.manifest.precisions

    def graph(self, name: str, precision: str) -> Path:
        """Path of one ONNX graph: `name` is "visual", "audio" or "fusion". Raises UsageError for one that the bundle does not hold."""
        if name not in GRAPHS:
            raise UsageError(f"there is no graph {name!r}; one of {', '.join(GRAPHS)}")
        if precision not in self.precisions:
            raise UsageError(f"{self.path.name} holds no {precision!r} graphs; it holds {', '.join(self.precisions)}")
        return self.path / graph_path(name, precision)

    def golden(self) -> dict[str, NDArray[Any]]:
        """The arrays of `golden.npz`: inputs `faces` uint8 [G, W, 48, 48, 3], `samples` float32 [G, S], `visual_mask` and `audio_mask` bool [G, W];
        per precision P `estimates_P` float32 [G, W, 2], `temporal_P` [G, W] and, for a modality model, `modality_P` [G, W, 2]. Raises BundleError."""
        if GOLDEN not in self.manifest.files:
            raise BundleError(f"{self.path} holds no {GOLDEN}; compile the bundle again")
        try:
            with np.load(self.path / GOLDEN, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
            raise BundleError(f"{self.path / GOLDEN} cannot be read ({error}); compile the bundle again") from None


def _check_path(name: str, where: str) -> None:
    pure = PurePosixPath(name)
    odd = name in ("", ".", MANIFEST) or any(sign in name for sign in "\\:\0")
    bad = odd or pure.is_absolute() or ".." in pure.parts or str(pure) != name
    if bad:
        raise BundleError(f"{where} lists the file {name!r}, which is not a plain path inside the bundle; do not use this bundle")


def _inside(real: Path, name: str, shown: Path) -> Path:
    file = (real / name).resolve()
    if not file.is_relative_to(real):
        raise BundleError(f"{shown / name} is a link that leaves the bundle, to {file}; copy the file itself into the bundle")
    return file


def _walk(real: Path) -> list[str]:
    found = []
    for folder, folders, names in os.walk(real):
        # The walk does not enter linked folders, so a link counts as what the manifest has to list.
        names += [name for name in folders if (Path(folder) / name).is_symlink()]
        found += [(Path(folder) / name).relative_to(real).as_posix() for name in names]
    return sorted(found)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(n for n in names if names.count(n) > 1)!r} is there twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _kind(value: object) -> str:
    return {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
