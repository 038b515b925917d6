"""Estimate valence and arousal from a recorded video with sound, as a live camera and microphone would give it.

Every hop gives one estimate (twice a second by default), also while there is no face or no sound: then its masks and reliabilities say so.
Outputs, any number of them: jsonl:- (stdout, the default), jsonl:FILE, csv:FILE. Each line is written at once; a file holds whole lines
whenever the run stops. Warnings and the closing summary go to stderr. Nothing is sent anywhere, and
nothing else is written, but that auto and bf16 keep what was measured in the user's cache folder ($XDG_CACHE_HOME/sage-edge).

example:
  sage-edge run out/demo/demo.sage --video out/demo/sample.mp4 --out jsonl:- --out csv:sample.csv
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sage_edge.runtime.errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("bundle", metavar="NAME.sage", help="the compiled bundle")
    parser.add_argument("--video", metavar="FILE", required=True, help="a video file, with or without sound")
    parser.add_argument("--out", metavar="SINK", action="append", help="jsonl:-, jsonl:FILE or csv:FILE; may be given again (default: jsonl:-)")
    parser.add_argument("--precision", default="int8", help="fp32, fp32-cuda, int8, bf16, int8-bf16, or auto: the fastest here (default: int8)")
    parser.add_argument("--backend", default="onnxruntime", help="onnxruntime, openvino, tensorrt, or auto: the fastest here (default: onnxruntime)")
    parser.add_argument("--hop", type=int, metavar="N", help="ticks between estimates, 30 a second (default: the bundle's)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the backend (default: by the machine)")
    parser.add_argument("--pace", action="store_true", help="go at the speed of the video, not as fast as possible")


def run(args: argparse.Namespace) -> int:
    """0 at the end of the video or of the output's reader, 130 when interrupted."""
    from sage_edge.runtime.bundle import Bundle
    from sage_edge.runtime.live import run_live
    from sage_edge.runtime.precision import choose
    from sage_edge.runtime.session import Session
    from sage_edge.runtime.sinks import open_sinks
    from sage_edge.runtime.sources.video import VideoFile

    sinks = open_sinks(args.out or ["jsonl:-"])
    _spare(args.video, args.out or [])
    bundle = Bundle.open(args.bundle)
    with VideoFile(args.video) as video:
        _one_thread()
        choice = choose(bundle, args.precision, args.backend, args.threads, progress=True)
        if choice.raced:
            _say(f"note: {choice.line()}")
        if note := choice.note(bundle):
            _say(f"note: {note}")
        with Session(bundle, precision=choice, hop=args.hop, t0_ns=0, threads=args.threads) as session:
            if session.rung_note:
                _say(f"note: {session.rung_note}")
            trained_on = bundle.manifest.trained_on
            if trained_on.synthetic:
                _say(f"warning: {bundle.path.name} was trained on synthetic data ({trained_on.name}): it shows that the chain works, no more")
            summary = run_live(video, session, sinks, pace=args.pace)
        for note in video.notes:
            _say(f"warning: {note}")
    _say(summary.line())
    return 130 if summary.ended == "interrupted" else 0


def _spare(video: str, specs: list[str]) -> None:
    """Refuse an output that would overwrite the video."""
    for spec in specs:
        target = Path(spec.partition(":")[2])
        if target.exists() and Path(video).exists() and target.samefile(video):
            raise UsageError(f"{spec} would overwrite the video; name another file")


def _one_thread() -> None:
    import cv2

    # The engines have the cores; OpenCV's pool would only wait beside them.
    cv2.setNumThreads(1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
