"""`sage-edge VERB`: find the verb's module, parse, run it, turn errors into one line and an exit code.

A verb's module has `configure(parser)` and `run(args) -> int`; it is imported only when its verb is called. Exit codes: 0 done,
1 failed its check, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from sage_edge.runtime.errors import SageError, UsageError

VERBS = {
    "synth": "make a corpus in Aff-Wild2's layout: people, voices, videos, labels",
    "prepare": "index and decode a corpus in Aff-Wild2's layout once",
    "weights": "recognise and convert published encoder weights",
    "train": "train SAGE in full precision",
    "evaluate": "CCC of a checkpoint, pooled and per video",
    "compile": "checkpoint -> ONNX -> INT8 -> checked bundle; with --target tensorrt, bundle -> engines",
    "calibrate": "activation ranges alone, as a file people can read; --search for the mix of precisions",
    "verify": "golden windows of a bundle; with --data, CCC against FP32 too",
    "profile": "latency per stage of a bundle on this machine",
    "run": "estimate valence and arousal, live or from a video with sound",
    "inspect": "what is in a bundle; --target trt10.3 says what TensorRT will not take",
    "devices": "cameras and microphones that can be opened",
    "doctor": "what works on this machine, tried, not assumed",
    "demo": "the whole chain on a synthetic corpus, with a report",
}


EXTRA_OF = {
    "torch": "train",
    "safetensors": "train",
    "matplotlib": "train",
    "tensorboard": "train",
    "tqdm": "train",
    "onnx": "compile",
    "onnxscript": "compile",
}
"""Which optional install brings a module that may be missing."""


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    return f"usage: sage-edge VERB [options]\n       sage-edge --version\n\n{verbs}\n\nsage-edge VERB --help shows options and an example.\n"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything here does."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; {self.prog} --help shows the options and an example")


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage(), end="")
        return 0 if argv else 2
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"sage-edge {version('sage-edge')}")
        return 0
    verb = argv[0]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        raise UsageError(f"unknown verb {verb!r}; " + (f"did you mean {near[0]!r}?" if near else f"one of {', '.join(VERBS)}"))
    # before torch loads: threads that spin while they wait make training many times slower on a machine that does anything else
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    module = importlib.import_module(f"sage_edge.cli.{verb}")
    parser = _Parser(prog=f"sage-edge {verb}", formatter_class=argparse.RawDescriptionHelpFormatter, description=module.__doc__)
    module.configure(parser)
    return int(module.run(parser.parse_args(argv[1:])))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code. Only a mistake of ours raises."""
    argv = list(sys.argv[1:] if argv is None else argv)
    interrupts: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # here, where a reader that has gone is no traceback
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    except SageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get(error.name or "")
        if extra is None:
            raise
        print(f"error: {argv[0]} needs {error.name}, which is not installed: pip install 'sage-edge[{extra}]'", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        print(f"error: {what}{error.strerror or error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Exception) as error:
        # a C extension that is interrupted while it loads says ImportError
        if not interrupts and not isinstance(error, KeyboardInterrupt):
            raise
        print("error: interrupted; nothing half-written was left behind", file=sys.stderr)
        return 130
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main())
