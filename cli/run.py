"""Estimate valence and arousal, live from a camera and a microphone, or from a recorded video with sound as they would give it.

Every hop gives one estimate (twice a second by default), also while there is no face or no sound: then its masks and reliabilities say so.
Outputs, any number of them: jsonl:- (stdout, the default), jsonl:FILE, csv:FILE, ws://HOST:PORT, mqtt://HOST/TOPIC, prometheus://HOST:PORT; --serve
adds a page to watch it on. FILE is emptied first, FILE?append=1 goes on where it ends; mqtt://HOST/TOPIC?qos=1 has the broker confirm each line.
Each line is written at once; a file holds whole lines whenever the run stops. Warnings, notices and the closing
summary go to stderr. Nothing is sent or written that was not asked for, but that auto and bf16 keep what was measured in the user's cache folder
($XDG_CACHE_HOME/sage-edge); no frame leaves the process without --share-video.

A live run goes on until Ctrl-C or SIGTERM, which end it in good order. A device that goes is opened again; one that is silent does not hold up
an estimate; a machine that is too hot or too slow does less, says so, and does more again when it can.

example:
  sage-edge run out/demo/demo.sage --video out/demo/sample.mp4 --out jsonl:- --out csv:sample.csv
  sage-edge run my.sage --camera camera:0 --mic mic:default --serve 127.0.0.1:8080
"""

from __future__ import annotations

import argparse

from sage_edge.runtime.errors import UsageError

LIVE_ONLY = {
    "mic": "--mic",
    "serve": "--serve",
    "share_video": "--share-video",
    "token": "--token",
    "faces": "--faces",
    "finder": "--finder",
    "smooth": "--smooth",
    "budget_ms": "--budget-ms",
    "seconds": "--seconds",
}
"""Options that a recorded video does not have."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("bundle", metavar="NAME.sage", help="the compiled bundle")
    parser.add_argument("--video", metavar="FILE", help="a video file, with or without sound: every frame of it, as fast as it goes")
    parser.add_argument("--camera", metavar="URI", help="camera:0, v4l2:///dev/video0?fps=30, csi://0, rtsp://..., http://..., FILE.mp4, none")
    parser.add_argument("--mic", metavar="NAME", help="mic:NAME (a part of it will do), mic:default, none (default: none)")
    parser.add_argument("--out", metavar="SINK", action="append", help="where estimates go; may be given again (default: jsonl:-, none with --serve)")
    parser.add_argument("--precision", default="int8", help="fp32, fp32-cuda, int8, bf16, int8-bf16, or auto: the fastest here (default: int8)")
    parser.add_argument("--backend", default="onnxruntime", help="onnxruntime, openvino, tensorrt, or auto: the fastest here (default: onnxruntime)")
    parser.add_argument("--hop", type=int, metavar="N", help="ticks between estimates, 30 a second (default: the bundle's)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the backend (default: by the machine)")
    parser.add_argument("--pace", action="store_true", help="of --video: go at its speed, not as fast as possible")
    live = parser.add_argument_group("live")
    live.add_argument("--serve", metavar="HOST:PORT", help="a page to watch the run on; any address but loopback needs --token")
    live.add_argument("--share-video", action="store_true", help="the page shows the camera, too")
    live.add_argument("--token", metavar="T", help="what the page asks for (default: $SAGE_EDGE_TOKEN, which ps does not show)")
    live.add_argument("--faces", choices=("largest", "all"), help="one estimate a hop, or one for each face (default: largest)")
    live.add_argument("--finder", metavar="F", help="cascade, or yunet:FILE (default: cascade)")
    live.add_argument("--smooth", metavar="S", help="the filter of `smooth`: one-euro:CUTOFF_HZ,BETA, average:TICKS, none (default: one-euro:0.5,1)")
    live.add_argument("--budget-ms", type=float, metavar="N", help="how late an estimate may be before less is done (default: 200 and one hop)")
    live.add_argument("--seconds", type=float, metavar="N", help="stop after this time")


def run(args: argparse.Namespace) -> int:
    """0 at the end of the video, of the output's reader or of a live run, however it was ended; 130 when a recorded one was interrupted."""
    from .live import given_at_all, run_devices

    if args.video is None:
        return run_devices(args)
    given = [option for name, option in {"camera": "--camera", **LIVE_ONLY}.items() if given_at_all(getattr(args, name))]
    if given:
        raise UsageError(f"--video is a recording and has no {given[0]}; leave one of them away (--camera {args.video} plays it as if it were live)")
    return _recorded(args)


def _recorded(args: argparse.Namespace) -> int:
    from sage_edge.runtime.bundle import Bundle
    from sage_edge.runtime.live import run_live
    from sage_edge.runtime.session import Session
    from sage_edge.runtime.sinks import open_sinks
    from sage_edge.runtime.sources.video import VideoFile

    from .live import chosen, introduce, say, spare

    sinks = open_sinks(args.out or ["jsonl:-"])
    spare(args, video=args.video)
    for sink in sinks:
        if note := getattr(sink, "note", None):
            say(f"note: {note}")
    bundle = Bundle.open(args.bundle)
    with VideoFile(args.video) as video:
        choice = chosen(bundle, args)
        with Session(bundle, precision=choice, hop=args.hop, t0_ns=0, threads=args.threads) as session:
            introduce(bundle, session)
            summary = run_live(video, session, sinks, pace=args.pace)
        for note in video.notes:
            say(f"warning: {note}")
    say(summary.line())
    return 130 if summary.ended == "interrupted" else 0
