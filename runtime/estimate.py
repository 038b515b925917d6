"""What a session says at every hop: `Estimate`, the fields of one JSON line. Keys never disappear; what is not known is null.

{"v":1,"t_ns":...,"age_ms":12.5,"valence":0.12,"arousal":-0.31,"reliability":{"temporal":0.9,"visual":0.64,"audio":0.36},
 "face":{"track":1,"box":[x,y,w,h],"score":0.97},"audio":{"rms_dbfs":-31.0,"warm":true},
 "drops":{"frames_stale":3,"audio_overruns":0,"sinks":0},"trail":[[t_ns,valence,arousal],...]}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

VERSION = 1


@dataclass(frozen=True)
class Reliability:
    """How much the model leaned on what. `temporal` is the newest tick's weight (1 is the window's mean); `visual` + `audio` = 1, both
    None in a model that weighs ticks alone."""

    temporal: float
    visual: float | None
    audio: float | None


@dataclass(frozen=True)
class Face:
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
class Estimate:
    """Valence and arousal, in [-1, 1] and finite, at the newest tick of one hop.

    `t_ns` is that tick's time on the clock of the stamps. `age_ms` is how much older the frame behind it is, None without a face. `trail`
    holds (t_ns, valence, arousal) of every tick of this hop, oldest first; the last one is this estimate.
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
    v: int = VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, in the order of the line; numbers rounded to what they mean."""
        reliability, face = self.reliability, self.face
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
        }

    def to_json(self) -> str:
        """One line of JSON, without the line break."""
        return json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False)


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
