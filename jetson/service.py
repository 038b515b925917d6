"""What sage-edge.service runs: `sage-edge run` over this version's bundle, with the owner's settings.

    /opt/sage-edge/current/bin/sage-edge-service        # SAGE_EDGE_CAMERA and others from the environment

It becomes the run by exec, so systemd's messages come from the process that systemd started. Exit code 2, which the unit does not try again,
for settings that cannot be taken.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from sage_edge.runtime.errors import SageError, UsageError

from .layout import PREPARED
from .release_file import Release, ReleaseError
from .service_settings import is_yes, run_words, wants_network


def own_folder() -> Path:
    """The folder of the version that this module belongs to: versions/VERSION."""
    return Path(__file__).resolve().parents[3]


def command(folder: Path, environ: Mapping[str, str]) -> list[str]:
    """The program and its arguments. Raises UsageError for settings that cannot be taken, ReleaseError where `folder` is no release."""
    words = run_words(environ)
    network = wants_network(words)
    # systemd says by INVOCATION_ID that this is a service; by hand there is the network of whoever starts it
    if network is not None and "INVOCATION_ID" in environ and not is_yes(environ.get("SAGE_EDGE_NETWORK")):
        raise UsageError(
            f"the settings have {network} and the service has no network; sudo install -D -m 644 /opt/sage-edge/current/systemd/"
            "sage-edge-network.conf /etc/systemd/system/sage-edge.service.d/network.conf && sudo systemctl daemon-reload"
        )
    return [str(folder / "bin/sage-edge"), "run", str(folder / Release.read(folder).model), *words]


def tensorrt_version() -> str:
    """Of the package that is installed, "" for none; nothing is loaded."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("tensorrt")
    return ""


def stale(cache: Path) -> str | None:
    """A line when the board's TensorRT is no longer the one that engines were built with; None else, and where nothing was built."""
    try:
        before = str(json.loads((cache / PREPARED).read_bytes())["tensorrt"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    now = tensorrt_version()
    if now == before:
        return None
    return (
        f"TensorRT is {now or 'gone'} and the board was made ready with {before or 'none'}, so this runs without its engines; "
        "sudo sage-edge-first-boot && sudo systemctl restart sage-edge"
    )


def main(folder: Path | None = None) -> int:
    """Become the run; returns an exit code only when that cannot be."""
    try:
        words = command(folder or own_folder(), os.environ)
        if (cache := os.environ.get("CACHE_DIRECTORY")) and (line := stale(Path(cache))) is not None:
            print(f"warning: {line}", file=sys.stderr, flush=True)
        os.execv(words[0], words)
    except (SageError, ReleaseError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, SageError) else 1
    except OSError as error:
        print(f"error: {words[0]} cannot be started ({error.strerror}); install the release again", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
