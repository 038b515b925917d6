"""Tensors out of a file that somebody else wrote: safetensors, or torch files with the weights-only unpickler. Nothing in a file is ever run."""

from __future__ import annotations

import argparse
import re
import warnings
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from sage_edge.runtime.errors import CheckpointError, UsageError

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""What a folder downloaded from Hugging Face holds."""
_CONTAINERS = ("model", "state_dict")


def find(path: Path) -> Path:
    """`path`, or the file of weights in it where it is a folder. Raises UsageError: neither."""
    if path.is_dir():
        files = [path / name for name in FOLDER_FILES if (path / name).is_file()]
        if not files:
            raise UsageError(f"{path} is a folder without {' or '.join(FOLDER_FILES)}; give the file itself")
        return files[0]
    if not path.is_file():
        raise UsageError(f"{path} does not exist; give a file of weights ('sage-edge weights list' says where to get one)")
    return path


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors on the CPU, metadata of a safetensors file) of the file `path`.

    The original release's {"cfg": ..., "model": tensors} counts as its `model`. Raises CheckpointError: damaged, no file of weights, or a pickle
    that asks for more than tensors.
    """
    with open(path, "rb") as stream:
        start = stream.read(9)
    if start[8:] == b"{":  # a safetensors file: the header's length in 8 bytes, then JSON
        return _read_safetensors(path)
    return _read_torch(path), {}


def metadata(path: Path) -> dict[str, str]:
    """Metadata alone of a safetensors file. Raises CheckpointError."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118 (not a dict)
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        # old training scripts keep their command line beside the tensors, as a Namespace, which is data
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols: they are read, or refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        if wanted := re.search(r"(?:GLOBAL|class|type) ([\w.]+\.[\w.]+)", str(error)):
            raise CheckpointError(
                f"{path} holds {wanted[1]}, and loading that would run code: refused; get the published file, or one in safetensors"
            ) from None
        raise CheckpointError(f"{path} is neither safetensors nor a whole torch file of tensors; download it again") from None
    while isinstance(content, dict) and (inner := [content[key] for key in _CONTAINERS if isinstance(content.get(key), dict)]):
        content = inner[0]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not tensors by name; give a file of weights")
    for name, value in content.items():
        if not (isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"):
            raise CheckpointError(f"{path}: {str(name)[:80]!r} is a {type(value).__name__} where a plain tensor is expected; give a file of weights")
    return content


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} is no whole safetensors file ({str(error).splitlines()[0]}); download it again")
