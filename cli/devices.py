"""Cameras and microphones that there are, each with the name that --camera and --mic take, its modes, and what stands in its way.

The kernel and the sound server are asked; nothing is recorded, no light goes on. Cameras on the network are not looked for: write rtsp://... or
http://... yourself. CSI sensors are listed where the kernel has them as tegra-video; that was not run on a Jetson.

example:
  sage-edge devices --json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage_edge.runtime.sources.portaudio import Device
    from sage_edge.runtime.sources.v4l2_devices import Mode, VideoDevice

_MODES_MOST = 6


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Always 0: a machine without devices is not broken."""
    import json
    from dataclasses import asdict

    from sage_edge.runtime.errors import SourceError
    from sage_edge.runtime.sources.portaudio import microphones
    from sage_edge.runtime.sources.uri import microphone_uri
    from sage_edge.runtime.sources.v4l2_devices import video_devices

    cameras = video_devices()
    problem, found = None, []
    try:
        found = microphones()
    except SourceError as error:
        problem = str(error)
    if args.json:
        heard: list[dict[str, Any]] = [
            {
                "uri": microphone_uri(device.name),
                "name": device.name,
                "host": device.host,
                "rate_hz": device.rate_hz,
                "channels": device.channels,
                "default": device.default,
            }
            for device in found
        ]
        print(json.dumps({"cameras": [asdict(camera) for camera in cameras], "microphones": heard, "microphones_problem": problem}))
    else:
        print("\n".join([*camera_lines(cameras), "", *microphone_lines(found, problem)]))
    return 0


def camera_lines(cameras: Sequence[VideoDevice]) -> list[str]:
    """The cameras for a terminal."""
    if not cameras:
        return ["cameras: none (no /dev/video*; one on the network is rtsp://HOST/PATH or http://HOST/PATH)"]
    lines = ["cameras"]
    for camera in cameras:
        lines.append(f"  {camera.uri}  {camera.name} ({camera.driver}, {camera.path})")
        if camera.problem:
            lines.append(f"    cannot be opened: {camera.problem}")
        modes = [_mode(mode) for mode in camera.modes[:_MODES_MOST]]
        if len(camera.modes) > _MODES_MOST:
            modes.append(f"{len(camera.modes) - _MODES_MOST} more with --json")
        if modes:
            lines.append(f"    {', '.join(modes)}")
    return lines


def microphone_lines(found: Sequence[Device], problem: str | None) -> list[str]:
    """The microphones for a terminal."""
    from sage_edge.runtime.sources.uri import microphone_uri

    if not found:
        return [f"microphones: none ({problem or 'plug one in, or start the sound server'})"]
    lines = ["microphones"]
    for device in found:
        channels = "1 channel" if device.channels == 1 else f"{device.channels} channels"
        default = ", the default: mic:default" if device.default else ""
        lines.append(f"  {microphone_uri(device.name)}  {device.host}, {device.rate_hz} Hz, {channels}{default}")
    return lines


def _mode(mode: Mode) -> str:
    rates = "/".join(f"{rate_hz:g}" for rate_hz in mode.rates_hz)
    return f"{mode.fourcc} {mode.width} x {mode.height}{f' at {rates}' if rates else ''}"
