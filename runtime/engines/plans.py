"""TensorRT plans in the user's cache folder: found by what they were built from, for and with; one of another key is never tried.

    plan = find(Path("demo.sage/onnx/visual.int8-trt.onnx"), "10.3.0", "8.7", "Orin")
    engine = runtime.deserialize_cuda_engine(plan.read())

A plan is machine code for one TensorRT on one GPU. Per key there are KEY.engine and KEY.json, in which people can read where it comes from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import EngineError
from ..files import atomic_file, cache_folder, sha256_file


@dataclass(frozen=True)
class Key:
    """What a plan depends on: the ONNX file's content, TensorRT's version, the GPU's compute capability ("8.7") and name, the builder's flags."""

    onnx_sha256: str
    tensorrt: str
    sm: str
    gpu: str
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """32 hex digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]

    def __str__(self) -> str:
        return f"TensorRT {self.tensorrt} on {self.gpu} (SM {self.sm})"


@dataclass(frozen=True)
class Plan:
    """A plan whose bytes were there and whole when it was found. `facts` are what its builder told of it: rung, failures, seconds, layers."""

    key: Key
    path: Path
    facts: Mapping[str, Any]

    def read(self) -> bytes:
        """The serialized engine. Raises EngineError."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise EngineError(f"{self.path} cannot be read ({error.strerror or error}); build it again") from None


Say = Callable[[str], None]


def folder() -> Path:
    """Where plans lie: `engines` in the user's cache folder."""
    return cache_folder() / "engines"


def store(key: Key, engine: bytes | bytearray | memoryview, facts: Mapping[str, Any]) -> Plan:
    """Write a plan and its JSON, whole or not at all; one of the same key is replaced. `facts` has to be JSON-able. Raises OSError."""
    path = folder() / f"{key.name}.engine"
    about = {"key": asdict(key), "facts": dict(facts), "size": len(engine), "sha256": hashlib.sha256(engine).hexdigest()}
    # Both are whole before either has its name. A power cut between the two renames leaves a pair that does not fit and is taken for none.
    with atomic_file(path.with_suffix(".json")) as described, atomic_file(path) as work:
        described.write_text(json.dumps(about, indent=1) + "\n")
        work.write_bytes(engine)
    return Plan(key, path, dict(facts))


def get(key: Key, say: Say | None = None) -> Plan | None:
    """The plan of exactly this key, or None. A damaged one counts as none; `say` gets a line about it (default: standard error)."""
    described = folder() / f"{key.name}.json"
    return _whole(described, say or _to_stderr) if described.exists() else None


def find(onnx: Path, tensorrt: str, sm: str, gpu: str, say: Say | None = None) -> Plan:
    """The newest plan of an ONNX file for this TensorRT and GPU, whatever its flags.

    Raises EngineError where there is none, and says what there is instead. `say` as in `get`.
    """
    if not onnx.is_file():
        raise EngineError(f"{onnx} does not exist; compile the bundle again")
    say = say or _to_stderr
    wanted = Key(sha256_file(onnx), tensorrt, sm, gpu)
    keys = {path: key for path in folder().glob("*.json") if (key := _key(path, say)) and key.onnx_sha256 == wanted.onnx_sha256}
    fitting = [path for path, key in keys.items() if replace(key, flags=()) == wanted]
    for path in sorted(fitting, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True):
        if plan := _whole(path, say):
            return plan
    others = " and ".join(sorted({str(key) for path, key in keys.items() if path not in fitting}))
    raise EngineError(
        f"no engine of {onnx.name} for {wanted}" + (f", only for {others}" if others else "") + f"; build it with {build_command(onnx)}"
    )


def prune(onnx_sha256s: Collection[str]) -> int:
    """Remove the plans of every ONNX file but these, and what no longer describes one; how many bytes that freed. Raises OSError."""
    freed = 0
    for described in folder().glob("[!.]*.json"):
        key = _key(described, lambda _: None)
        if key is None or key.onnx_sha256 not in onnx_sha256s:
            for path in (described.with_suffix(".engine"), described):
                with contextlib.suppress(FileNotFoundError):
                    size = path.stat().st_size
                    path.unlink()
                    freed += size
    return freed


def _key(described: Path, say: Say) -> Key | None:
    try:
        key = json.loads(described.read_text())["key"]
        found = Key(**{**key, "flags": tuple(key["flags"])})
        hash(found)  # each part is a word, or may pass for one
        return found
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        say(f"{described} is no description of an engine ({type(error).__name__}: {error}) and is passed over; build it again")
        return None


def _whole(described: Path, say: Say) -> Plan | None:
    """The plan that the JSON file describes, if it is the one beside it."""
    if (key := _key(described, say)) is None:
        return None
    engine = described.with_suffix(".engine")
    try:
        about = json.loads(described.read_text())
        facts, size, sha256 = dict(about["facts"]), about["size"], about["sha256"]
        found = engine.stat().st_size
        if key.name != described.stem:
            why = "was renamed or edited"
        elif found != size:
            why = f"describes an engine of {size} bytes and the one beside it has {found}"
        elif sha256_file(engine) != sha256:
            why = "describes an engine of other content than the one beside it"
        else:
            return Plan(key, engine, facts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"describes no engine that can be read ({type(error).__name__}: {error})"
    say(f"{described} {why} and is passed over; build it again")
    return None


def build_command(onnx: Path) -> str:
    """What builds the engine of this file, for people."""
    return f"`sage-edge compile {bundle_name(onnx)} --target tensorrt{' --precision fp32' if '.fp32.' in onnx.name else ''}`"


def bundle_name(onnx: Path) -> str:
    """The bundle that a graph lies in, for a command; NAME.sage where it lies in none."""
    return next((parent.name for parent in onnx.absolute().parents if parent.suffix == ".sage"), "NAME.sage")


def _to_stderr(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
