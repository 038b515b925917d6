"""What a session says at every hop: `Estimate`, the fields of one JSON line. Keys never disappear; what is not known is null.

{"v":1,"t_ns":...,"age_ms":12.5,"valence":0.12,"arousal":-0.31,"reliability":{"temporal":0.9,"visual":0.64,"audio":0.36},
 "face":{"track":1,"box":[x,y,w,h],"score":0.97},"audio":{"rms_dbfs":-31.0,"warm":true},
 "drops":{"frames_stale":3,"audio_overruns":0,"sinks":0},"trail":[[t_ns,valence,arousal],...],
 "smooth":{"valence":0.11,"arousal":-0.29},
 "live":{"late_ms":63.1,"frame_age_ms":21.0,"drift_ppm":-12.5,"camera":"live","microphone":"live","face_every":1,"hop":15,"why":null}}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

VERSION = 1


@dataclass(frozen=True)
class Reliability:
    """How much the model leaned on what. `temporal` is the newest tick's weight (1 is the window's mean); `visual` + `audio` = 1, both
    None in a model that weighs ticks alone."""

    temporal: float
    visual: float | None
    audio: float | None


class Face(NamedTuple):
    """The face of the newest tick. `box` is x, y, width, height in pixels of the frame, margin included, and `score` the finder's; both
    None for a face that was pushed as a crop."""

    track: int
    box: tuple[float, float, float, float] | None
    score: float | None


@dataclass(frozen=True)
class AudioLevel:
    """`rms_dbfs` is the level of this hop's samples, -120 for silence or no sound; `warm` says that every tick of the window has sound."""

    rms_dbfs: float
    warm: bool


@dataclass(frozen=True)
class Drops:
    """Losses since the session began.

    `frames_stale`: frames that came too late for a tick, or that the source found damaged. `audio_overruns`: gaps, overlaps and stretches of NaN
    or infinity in the sound, and pieces that the source found damaged (one that leaves a gap is a piece and a gap). `sinks`: lines that sinks
    gave up.
    """

    frames_stale: int = 0
    audio_overruns: int = 0
    sinks: int = 0


@dataclass(frozen=True)
class Smooth:
    """The estimate after the filter that the hello names, per track."""

    valence: float
    arousal: float


@dataclass(frozen=True)
class Live:
    """What only a live loop knows, at the moment the estimate goes to the sinks.

    `late_ms` is how long ago the newest tick was, `frame_age_ms` the age of the newest frame (None before the first), `drift_ppm` how much faster
    the microphone's clock runs than this machine's (None without sound). `camera` and `microphone` are one of `sources.STATES`, None where none
    was asked for. At most one frame in `face_every` ticks is read and a hop is `hop` ticks: more than asked for while `why` says "overloaded" or
    "hot".
    """

    late_ms: float
    frame_age_ms: float | None
    drift_ppm: float | None
    camera: str | None
    microphone: str | None
    face_every: int
    hop: int
    why: str | None


@dataclass(frozen=True)
class Estimate:
    """Valence and arousal, in [-1, 1] and finite, at the newest tick of one hop.

    `t_ns` is that tick's time on the clock of the stamps. `age_ms` is how much older the frame behind it is, None without a face. `trail`
    holds (t_ns, valence, arousal) of every tick of this hop, oldest first; the last one is this estimate. `smooth` and `live` are added by the
    loop; None where nothing smooths, and in a recording.
    """

    t_ns: int
    age_ms: float | None
    valence: float
    arousal: float
    reliability: Reliability
    face: Face | None
    audio: AudioLevel
    drops: Drops
    trail: tuple[tuple[int, float, float], ...]
    smooth: Smooth | None = None
    live: Live | None = None
    v: int = VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, in the order of the line; numbers rounded to what they mean."""
        reliability, face, smooth, live = self.reliability, self.face, self.smooth, self.live
        return {
            "v": self.v,
            "t_ns": self.t_ns,
            "age_ms": _round(self.age_ms, 1),
            "valence": _round(self.valence, 6),
            "arousal": _round(self.arousal, 6),
            "reliability": {
                "temporal": _round(reliability.temporal, 6),
                "visual": _round(reliability.visual, 6),
                "audio": _round(reliability.audio, 6),
            },
            "face": None
            if face is None
            else {"track": face.track, "box": None if face.box is None else [round(side, 1) for side in face.box], "score": _round(face.score, 4)},
            "audio": {"rms_dbfs": _round(self.audio.rms_dbfs, 1), "warm": self.audio.warm},
            "drops": {"frames_stale": self.drops.frames_stale, "audio_overruns": self.drops.audio_overruns, "sinks": self.drops.sinks},
            "trail": [[t_ns, round(valence, 6), round(arousal, 6)] for t_ns, valence, arousal in self.trail],
            "smooth": None if smooth is None else {"valence": round(smooth.valence, 6), "arousal": round(smooth.arousal, 6)},
            "live": None
            if live is None
            else {
                "late_ms": round(live.late_ms, 1),
                "frame_age_ms": _round(live.frame_age_ms, 1),
                "drift_ppm": _round(live.drift_ppm, 1),
                "camera": live.camera,
                "microphone": live.microphone,
                "face_every": live.face_every,
                "hop": live.hop,
                "why": live.why,
            },
        }

    def to_json(self) -> str:
        """One line of JSON, without the line break."""
        return json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False)


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
