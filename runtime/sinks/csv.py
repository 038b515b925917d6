"""A table: a header, then one row per hop, the estimate at its newest tick. RFC 4180, UTF-8, decimal points, "\\n" line ends.

| column | meaning |
| --- | --- |
| t_ns | time of the tick, nanoseconds on the source's clock |
| age_ms | how much older the frame behind it is |
| valence, arousal | in [-1, 1] |
| reliability_temporal, _visual, _audio | what the model leaned on: the tick's weight (1 is the window's mean); the two senses, which sum to 1 |
| face_track, face_x, face_y, face_w, face_h, face_score | the face, pixels of the frame; empty when there is none |
| audio_rms_dbfs, audio_warm | level of the hop's sound; 1 once the whole window has sound |
| drops_frames_stale, drops_audio_overruns, drops_sinks | losses since the start |
| smooth_valence, smooth_arousal | after the filter of the run |
| late_ms, frame_age_ms | how long ago the tick was when the row was made; age of the newest frame then |
| drift_ppm | how much faster the microphone's clock runs |
| camera, microphone | opening, live, stalled or gone |
| face_every, hop, why | every n-th frame is read, ticks between rows; overloaded or hot while that is more than asked for |

Empty means unknown, or not in a recording. With several faces there is a row for each. The ticks between two hops are in the `trail` of JSONL,
not here, and there is no hello.
"""

from __future__ import annotations

from typing import Any

from ..errors import SinkError
from ..estimate import Estimate
from ..notice import Notice, Status
from .lines import FileLines

COLUMNS = (
    *("t_ns", "age_ms", "valence", "arousal"),
    *("reliability_temporal", "reliability_visual", "reliability_audio"),
    *("face_track", "face_x", "face_y", "face_w", "face_h", "face_score"),
    *("audio_rms_dbfs", "audio_warm"),
    *("drops_frames_stale", "drops_audio_overruns", "drops_sinks"),
    *("smooth_valence", "smooth_arousal"),
    *("late_ms", "frame_age_ms", "drift_ppm", "camera", "microphone", "face_every", "hop", "why"),
)
_LIVE = COLUMNS[-8:]


class CsvSink:
    """`target` is FILE or FILE?append=1. See `sinks.Sink`. Raises SinkError where a file to append to has other columns."""

    takes_status = False

    def __init__(self, target: str) -> None:
        self.spec = f"csv:{target}"
        self._lines = FileLines(target)
        header = ",".join(COLUMNS)
        there = self._lines.first(len(header) + 1).decode(errors="replace")
        if there not in ("", header):
            raise SinkError(f"{self._lines.path} has other columns than these rows; append to another file")
        self._started = bool(there)

    def start(self, hello: dict[str, Any]) -> None:
        """Write the header, once."""
        if not self._started:
            self._lines.write(",".join(COLUMNS))
            self._started = True

    def write(self, estimate: Estimate) -> None:
        """Write one row."""
        self._lines.write(",".join(_text(value) for value in row(estimate)))

    def notice(self, notice: Notice) -> None:
        """Nothing: a table has no place for it."""

    def status(self, status: Status) -> None:
        """Nothing, as above."""

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def row(estimate: Estimate) -> list[Any]:
    """The values of one row, in the order of COLUMNS, rounded as in JSONL; None where unknown."""
    line = estimate.to_dict()
    face = line["face"] or {"track": None, "box": None, "score": None}
    return [
        *(line[key] for key in ("t_ns", "age_ms", "valence", "arousal")),
        *(line["reliability"][key] for key in ("temporal", "visual", "audio")),
        *(face["track"], *(face["box"] or [None] * 4), face["score"]),
        *(line["audio"]["rms_dbfs"], int(line["audio"]["warm"])),
        *(line["drops"][key] for key in ("frames_stale", "audio_overruns", "sinks")),
        *((line["smooth"] or {}).get(key) for key in ("valence", "arousal")),
        *((line["live"] or {}).get(key) for key in _LIVE),
    ]


def _text(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else repr(value)
