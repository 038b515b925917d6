"""The live half of `sage-edge run`: devices, outputs and a page are checked first, then engines are loaded, then the loop has them."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sage_edge.runtime.errors import UsageError

if TYPE_CHECKING:
    from sage_edge.runtime.bundle import Bundle
    from sage_edge.runtime.clock import Clock
    from sage_edge.runtime.precision import Choice
    from sage_edge.runtime.session import Session
    from sage_edge.runtime.smooth_tracks import SmoothTracks

MOST_FACES = 4
LEAST_BUDGET_MS = 100
"""A sound server hands sound on 30 to 100 ms after it was made, and doing less does not make it come earlier."""


def run_devices(args: argparse.Namespace) -> int:
    """0 when it was ended, by whatever."""
    from sage_edge.runtime.bundle import Bundle
    from sage_edge.runtime.clock import MonotonicClock
    from sage_edge.runtime.finders import open_finder
    from sage_edge.runtime.live_devices import run_live_devices
    from sage_edge.runtime.notify import Notifier, NotifySink
    from sage_edge.runtime.session import Session
    from sage_edge.runtime.sources.uri import parse_camera
    from sage_edge.runtime.sources.video import VideoFile
    from sage_edge.runtime.thermal import Thermometer

    from .voice import Voice

    clock = MonotonicClock()
    follow = args.faces or "largest"
    smooth = _smooth(args.smooth, follow)
    _check_times(args)
    camera, microphone = _devices(args, clock)
    uri = parse_camera(_or_none(args.camera))
    recorded = uri is not None and uri.kind == "file"
    spare(args, video=uri.target if uri is not None and recorded else None, finder=(args.finder or "").partition(":")[2])
    sinks, show, notes = _sinks(args, clock)
    if (notifier := Notifier.of_environment()) is not None:
        sinks.insert(0, NotifySink(notifier))
    bundle = Bundle.open(args.bundle)
    finder = open_finder(args.finder, bundle.manifest.face.margin, MOST_FACES if follow == "all" else 1)
    if uri is not None and recorded:
        VideoFile(uri.target).close()  # one that cannot be used is refused before engines are loaded
    with Voice() as tell, contextlib.ExitStack() as stack:

        def start(device: Any) -> None:
            if device is not None:
                stack.callback(device.close)
                device.start()

        if not recorded:
            start(camera)
        start(microphone)
        choice = chosen(bundle, args, tell)
        session = stack.enter_context(
            Session(bundle, precision=choice, hop=args.hop, threads=args.threads, faces=finder, follow=follow, most_faces=MOST_FACES, hop_thread=True)
        )
        introduce(bundle, session, tell)
        for note in notes:
            tell(f"note: {note}")
        if recorded:  # it begins when it is started, not when somebody looks
            start(camera)
        stop = stack.enter_context(_stop_signals())
        summary = run_live_devices(
            camera,
            microphone,
            session,
            sinks,
            clock=clock,
            stop=stop,
            seconds=args.seconds,
            smooth=smooth,
            budget_ms=args.budget_ms,
            thermometer=Thermometer(),
            say=lambda notice: tell(f"{notice.what}: {notice.detail}"),
            show=show,
            about={"faces": follow, "finder": args.finder or "cascade", "begun": _begun(clock)},
        )
        tell(summary.line())
    return 0


def say(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


def chosen(bundle: Bundle, args: argparse.Namespace, tell: Callable[[str], None] = say) -> Choice:
    """The precision and backend that were asked for, with a line about what is not plain."""
    import cv2

    from sage_edge.runtime.precision import choose

    cv2.setNumThreads(1)  # the engines have the cores; OpenCV's pool would only wait beside them
    choice = choose(bundle, args.precision, args.backend, args.threads, progress=True)
    if choice.raced:
        tell(f"note: {choice.line()}")
    if note := choice.note(bundle):
        tell(f"note: {note}")
    return choice


def introduce(bundle: Bundle, session: Session, tell: Callable[[str], None] = say) -> None:
    """What a person should know of the engines and of the data behind them."""
    if session.rung_note:
        tell(f"note: {session.rung_note}")
    trained_on = bundle.manifest.trained_on
    if trained_on.synthetic:
        tell(f"warning: {bundle.path.name} was trained on synthetic data ({trained_on.name}): it shows that the chain works, no more")


def spare(args: argparse.Namespace, **inputs: str | None) -> None:
    """Refuse an output that would overwrite one of the files `inputs`, by what they are, or anything in the bundle."""
    from sage_edge.runtime.sinks.lines import parse_file

    bundle = os.path.realpath(args.bundle)
    for spec in args.out or []:
        if not spec.startswith(("jsonl:", "csv:")):
            continue
        target, _ = parse_file(spec.partition(":")[2])
        if not os.path.exists(target):
            continue
        if os.path.realpath(target).startswith(os.path.join(bundle, "")):
            raise UsageError(f"{spec} would overwrite a file of the bundle; name another file")
        for what, name in inputs.items():
            if name and os.path.exists(name) and os.path.samefile(target, name):
                raise UsageError(f"{spec} would overwrite the {what}; name another file")


def _check_times(args: argparse.Namespace) -> None:
    for option, value in (("--budget-ms", args.budget_ms), ("--seconds", args.seconds)):
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{option} {value:g} is no time; give a number above 0")
    if args.budget_ms is not None and args.budget_ms < LEAST_BUDGET_MS:
        raise UsageError(f"--budget-ms {args.budget_ms:g} cannot be kept, sound alone comes later than that; give at least {LEAST_BUDGET_MS}")
    if args.pace:
        raise UsageError("--pace is of --video; a live run has no other speed")


def given_at_all(value: object) -> bool:
    """Whether an option was given, even as 0 or as nothing."""
    return value is not None and value is not False


def _begun(clock: Clock) -> dict[str, Any]:
    """One moment on both clocks: stamps begin anew at each boot, a file that is appended to does not."""
    import datetime

    return {"t_ns": clock.now_ns(), "utc": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")}


def _or_none(text: str | None) -> str:
    return "none" if text is None else text


def _smooth(text: str | None, follow: str) -> SmoothTracks | None:
    from sage_edge.runtime.smooth_tracks import SmoothTracks
    from sage_edge.runtime.smoothing import Smoothing

    return None if text == "none" else SmoothTracks(Smoothing.parse("one-euro" if text is None else text), follow == "all")


def _devices(args: argparse.Namespace, clock: Clock) -> tuple[Any, Any]:
    """The camera and the microphone, not started; None for "none"."""
    from sage_edge.runtime.sources.uri import parse_camera, parse_microphone

    camera, microphone = parse_camera(_or_none(args.camera)), parse_microphone(_or_none(args.mic))
    if camera is None and microphone is None:
        raise UsageError("nothing to look at or to listen to; give --camera URI, --mic NAME or --video FILE (sage-edge devices lists what there is)")
    if camera is not None and not camera.pace and microphone is not None:
        raise UsageError(f"{camera.text} runs ahead of the clock, and no microphone can follow; leave ?pace=0 or --mic away")
    opened: list[Any] = [None, None]
    if camera is not None:
        from sage_edge.runtime.sources.camera import open_camera

        opened[0] = open_camera(args.camera, clock)
    if microphone is not None:
        from sage_edge.runtime.sources.microphone import open_microphone

        opened[1] = open_microphone(args.mic, clock)
    return opened[0], opened[1]


def _sinks(args: argparse.Namespace, clock: Clock) -> tuple[list[Any], Callable[[Any], None] | None, list[str]]:
    """The outputs behind their queues; what shows pictures, if that was asked for; and what a person should be told."""
    from sage_edge.runtime.sinks import open_sinks
    from sage_edge.runtime.sinks.queued import Queued

    for option in ("share_video", "token"):
        if given_at_all(getattr(args, option)) and args.serve is None:
            raise UsageError(f"--{option.replace('_', '-')} is of the page; give --serve HOST:PORT, too")
    found: list[Any] = list(open_sinks(args.out or (["jsonl:-"] if args.serve is None else []), clock.now_ns))
    show, notes = None, [note for sink in found if (note := getattr(sink, "note", None))]
    if args.serve is not None:
        from sage_edge.runtime.serve.page import Page
        from sage_edge.runtime.sinks.address import token_of_environment
        from sage_edge.runtime.sinks.broadcast import parse_address

        host, port = parse_address(args.serve)
        token = token_of_environment() if args.token is None else args.token
        page = Page(host, port, token=token, share_video=args.share_video, clock=clock)
        page.listen()
        show = page.offer if args.share_video else None
        found.append(page)
        notes += [f"the page is at {page.url}", *([page.note] if page.note else [])]
    return [Queued(sink, now_ns=clock.now_ns) for sink in found], show, notes


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or Ctrl-C has come; the second one interrupts as usual."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: object) -> None:
        came.append(number)
        restore()

    for number in before:
        signal.signal(number, stop)
    try:
        yield lambda: bool(came)
    finally:
        restore()
