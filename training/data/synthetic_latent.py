"""What happens in a synthetic video: valence and arousal over time, slow disturbances, and stretches in which a sense fails.

Tracks are float32 at CONTROL_HZ; labels are read off them at the frames' times.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Track = NDArray[np.float32]

CONTROL_HZ = 100
VISUAL_KINDS = ("occlusion", "darkness", "away")
AUDIO_KINDS = ("noise", "mute")


def control_times(seconds: float) -> NDArray[np.float64]:
    """Times of control points, a little beyond the end so that the last frame lies inside."""
    return np.arange(int(seconds * CONTROL_HZ) + 2 * CONTROL_HZ, dtype=np.float64) / CONTROL_HZ


def wander(rng: np.random.Generator, seconds: float, tau_s: float) -> Track:
    """A smooth random walk about zero: an Ornstein-Uhlenbeck process of time constant `tau_s`, smoothed once more; mean 0, deviation 1."""
    step_hz = 20
    n = (int(seconds) + 3) * step_hz
    keep = np.exp(-1.0 / (step_hz * tau_s * 0.6))
    value = np.zeros(n)
    kick = rng.standard_normal(n + 200)
    fast = slow = 0.0
    for i, k in enumerate(kick):
        fast = keep * fast + (1 - keep) * k
        slow = keep * slow + (1 - keep) * fast
        if i >= 200:
            value[i - 200] = slow
    value = (value - value.mean()) / value.std()
    track: Track = np.interp(control_times(seconds), np.arange(n) / step_hz, value).astype(np.float32)
    return track


def affect(rng: np.random.Generator, seconds: float, shared: Track | None = None, share: float = 0.0) -> Track:
    """One latent in (-1, 1) that spans its range within the video: about -0.9 to 0.9, its mean over the video drawn too."""
    own = wander(rng, seconds, rng.uniform(3.5, 7.0))
    if shared is not None:
        own = np.sqrt(1 - share**2) * own + share * shared
        own = (own - own.mean()) / own.std()
    latent: Track = np.tanh(rng.uniform(0.75, 0.95) * own + rng.normal(0, 0.18)).astype(np.float32)
    return latent


@dataclass(frozen=True)
class Corruption:
    """A stretch in which the picture (occlusion, darkness, away) or the sound (noise, mute) says nothing. Seconds after the first frame."""

    kind: str
    start_s: float
    end_s: float

    def level(self, t_s: NDArray[np.float64] | float, ramp_s: float = 0.25) -> NDArray[np.float64]:
        """0 outside, 1 inside, with ramps inside the stretch."""
        t = np.asarray(t_s, np.float64)
        return np.clip(np.minimum(t - self.start_s, self.end_s - t) / ramp_s, 0.0, 1.0)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def draw_corruptions(rng: np.random.Generator, seconds: float) -> list[Corruption]:
    """None in about one video of four; else one or two stretches (or three in 35 s and more), of up to a seventh of the video and 5 s each."""
    if seconds < 6 or rng.random() < 0.25:
        return []
    longest = min(5.0, seconds / 7)
    chosen: list[Corruption] = []
    for kind in rng.permutation(VISUAL_KINDS + AUDIO_KINDS)[: int(rng.integers(1, 3 if seconds < 35 else 4))]:
        length = float(rng.uniform(0.5, 1.0)) * longest
        for _ in range(20):
            start = float(rng.uniform(1.0, seconds - length - 0.5))
            if all(start > other.end_s + 0.5 or start + length < other.start_s - 0.5 for other in chosen):
                chosen.append(Corruption(str(kind), round(start, 2), round(start + length, 2)))
                break
    return sorted(chosen, key=lambda c: c.start_s)


def level_of(corruptions: list[Corruption], kind: str, t_s: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Strength of one kind over time, 0..1."""
    levels = [c.level(t_s) for c in corruptions if c.kind == kind]
    return np.maximum.reduce(levels) if levels else np.zeros_like(np.asarray(t_s, np.float64))
