"""Make one version ready on this device: TensorRT engines where there is TensorRT, the golden check, and which backend is fastest.

    /opt/sage-edge/versions/VERSION/bin/sage-edge-prepare       # as the service's user, CACHE_DIRECTORY=/var/cache/sage-edge

First boot runs it, and an update does before it is switched to, so a version that computes something else here never runs. What it finds lies in
the cache folder, where the service looks; what is there already is not done again, and what versions that are gone have left there is removed. A
progress log goes to stdout. Exit code 0: ready.
TensorRT's part was not run on a board: there, `sudo sage-edge-first-boot` shows it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_edge.runtime.errors import BoardError, SageError, UsageError

from .layout import PREPARED
from .release_file import Release, ReleaseError
from .service import own_folder, tensorrt_version
from .service_settings import is_yes, option_value, run_words

if TYPE_CHECKING:
    from sage_edge.runtime.bundle import Bundle
    from sage_edge.runtime.precision import Choice

Say = Callable[[str], None]
_LEAST_FREE_MB = 500
"""Engines and timings of `base` take about 250 MB."""


def prepare(folder: Path, environ: Mapping[str, str], say: Say = print) -> dict[str, Any]:
    """Everything, in order; returns what was found, which is also in `PREPARED` in the cache folder.

    Raises UsageError for a bundle that was trained on synthetic data without SAGE_EDGE_ALLOW_DEMO, BundleError for a damaged one, BoardError when
    the golden windows come out wrong, EngineError when nothing runs the bundle here.
    """
    from sage_edge.runtime.bundle import Bundle
    from sage_edge.runtime.files import atomic_file, cache_folder
    from sage_edge.runtime.precision import choose

    release = Release.read(folder)
    words = run_words(environ)
    model = folder / release.model
    say(f"sage-edge {release.version}, {model.name}")
    bundle = Bundle.open(model)
    trained_on = bundle.manifest.trained_on
    if trained_on.synthetic and not is_yes(environ.get("SAGE_EDGE_ALLOW_DEMO")):
        raise UsageError(
            f"{model.name} was trained on synthetic data ({trained_on.name}): it shows that the chain works, no more; "
            "set SAGE_EDGE_ALLOW_DEMO=yes in /etc/sage-edge/sage-edge.conf, or give a model that was trained on people"
        )
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    if folder.parent.name == "versions":
        _make_room(folder.parent, cache, say)
    free_mb = shutil.disk_usage(cache).free >> 20
    if free_mb < _LEAST_FREE_MB:
        raise BoardError(f"{cache} has {free_mb} MB free, and engines may need {_LEAST_FREE_MB}; make room there")
    backend = option_value(words, "--backend") or "auto"
    launcher = folder / "bin/sage-edge"
    engines = _engines(launcher, model, environ, backend, say)
    say("golden check")
    if _followed([launcher, "verify", model], environ, say) != 0:
        raise BoardError(f"{model.name} does not compute its golden windows on this board; keep the version before, and report the lines above")
    threads = option_value(words, "--threads")
    if threads is not None and not threads.isdecimal():
        raise UsageError(f"--threads {threads!r} in SAGE_EDGE_OPTIONS is no number; write one")
    choice = choose(bundle, option_value(words, "--precision") or "auto", backend, None if threads is None else int(threads))
    say(choice.line() if choice.raced else f"it will run by {choice.name}")
    if not choice.raced and choice.backend != "onnxruntime":  # what raced was checked, and ONNX Runtime is above
        _check(bundle, choice, None if threads is None else int(threads))
        say(f"golden check of {choice.name}: ok")
    found = {
        "version": release.version,
        "model_digest": release.model_digest,
        "engines": engines,
        "tensorrt": tensorrt_version(),
        "choice": choice.to_dict(),
        "prepared": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    with atomic_file(cache / PREPARED) as work:
        work.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _make_room(versions: Path, cache: Path, say: Say) -> None:
    """Versions that are gone need nothing in the cache any more; what cannot be removed has no part in whether this one is ready."""
    from .leftovers import remove_leftovers

    try:
        freed = remove_leftovers(versions, Path(sys.pycache_prefix) if sys.pycache_prefix else None)
    except OSError as error:
        say(f"warning: {error.filename or cache}: what versions that are gone have left cannot be removed ({error.strerror or error})")
    else:
        if freed:
            say(f"{freed / 1e6:.0f} MB of versions that are gone removed from {cache}")


def _check(bundle: Bundle, choice: Choice, threads: int | None) -> None:
    """Raises BoardError where what will run does not compute the bundle's golden windows, EngineError where it does not run."""
    from sage_edge.runtime.bundle import GRAPHS
    from sage_edge.runtime.flavours import flavour
    from sage_edge.runtime.golden import GoldenPass
    from sage_edge.runtime.graphs import open_graph

    kind = flavour(choice.precision, choice.backend)
    golden = GoldenPass(bundle, kind)
    for graph in GRAPHS:
        with contextlib.closing(open_graph(bundle, graph, kind, choice.backend, threads)) as engine:
            golden.run(graph, engine)
    moved, allowed = max(golden.differences().values()), golden.allowed
    if not moved <= allowed:
        raise BoardError(
            f"by {choice.name} {bundle.path.name} moves its golden windows by {moved:.2g} on this board, more than {allowed:.2g}; "
            "leave --backend and --precision out of SAGE_EDGE_OPTIONS"
        )


def _engines(launcher: Path, model: Path, environ: Mapping[str, str], backend: str, say: Say) -> str:
    """Build what TensorRT needs; a word on how it went: "built", "none" (no TensorRT here), "failed", "not wanted"."""
    from sage_edge.runtime.engines.probe import available

    if backend not in ("auto", "tensorrt"):
        return "not wanted"
    (found,) = available((("tensorrt", "cuda"),))
    if not found.ok:
        if backend == "tensorrt":
            raise BoardError(
                f"--backend tensorrt in SAGE_EDGE_OPTIONS, and it does not work here: {found.why}" + (f"; {found.fix}" if found.fix else "")
            )
        say(f"no TensorRT: {found.why}")
        return "none"
    say(f"TensorRT {found.version}: building engines, which takes minutes the first time")
    if _followed([launcher, "compile", model, "--target", "tensorrt"], environ, say) == 0:
        return "built"
    if backend == "tensorrt":
        raise BoardError(
            "TensorRT's engines could not be built, see the lines above; leave --backend tensorrt out of SAGE_EDGE_OPTIONS to do without"
        )
    say("TensorRT's engines could not be built: going on without")
    return "failed"


def _followed(command: list[str | Path], environ: Mapping[str, str], say: Say) -> int:
    """Run `command` to its end, every line of it said as it comes; its exit code."""
    with subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=dict(environ),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            say(f"  {line.rstrip()}")
    return process.returncode


def main(folder: Path | None = None) -> int:
    """0 when the version is ready; 1 or 2 with one line of why not."""
    begin_s = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin_s:6.1f} s] {text}", flush=True)

    try:
        prepare(folder or own_folder(), os.environ, say)
    except (SageError, ReleaseError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code if isinstance(error, SageError) else 1
    except OSError as error:
        print(f"error: {error.filename or 'prepare'}: {error.strerror or error}; check the disk and the folder's owner", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; run it again, what is finished is kept", file=sys.stderr, flush=True)
        return 130
    say("ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
