"""--device: where a model runs."""

from __future__ import annotations

from typing import Any

HELP = "cpu, cuda or cuda:N (default: cuda where PyTorch finds it)"


def choose(name: str) -> Any:
    """torch.device of --device. Raises UsageError."""
    import torch

    from sage_edge.runtime.errors import UsageError

    there = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if there else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name!r} is unknown; choose cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name} is not supported; choose cpu, cuda or cuda:N")
    if device.type == "cuda" and not (there and (device.index or 0) < torch.cuda.device_count()):
        raise UsageError(
            f"--device {name}: PyTorch {torch.__version__} finds {torch.cuda.device_count()} CUDA devices; choose cpu, or install a CUDA build"
        )
    return device
