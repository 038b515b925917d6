"""The sound track's parts: resampling in a stream, chunks, gaps and overlaps. Frames of sound are real av.AudioFrames."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sage_edge.runtime.sources import AudioEvent
from sage_edge.runtime.sources.sound import CHUNK, StreamResampler, mono, sound_events


def frames_of(samples: NDArray[np.float32], rate: int, sizes: list[int], start: int = 0, base: Fraction | None = None) -> Iterator[av.AudioFrame]:
    """Cut `samples` into frames of `sizes`, again and again, with exact stamps from sample `start` on."""
    base = base or Fraction(1, rate)
    at, turn = 0, 0
    while at < len(samples):
        piece = samples[at : at + sizes[turn % len(sizes)]]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece[None]), "fltp", "mono")
        frame.sample_rate, frame.time_base = rate, base
        frame.pts = round(Fraction(start + at, rate) / base)
        yield frame
        at, turn = at + len(piece), turn + 1


def events(frames: Iterator[av.AudioFrame], origin_s: Fraction = Fraction(0)) -> list[AudioEvent]:
    return list(sound_events(frames, origin_s, lambda: pytest.fail("nothing is damaged")))


def joined(found: list[AudioEvent]) -> NDArray[np.float32]:
    return np.concatenate([event.samples for event in found])


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 12_345]),
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    count=st.integers(1, 30_000),
    seed=st.integers(0, 99),
)
def test_resampling_does_not_depend_on_the_pieces(rate: int, sizes: list[int], count: int, seed: int) -> None:
    samples = np.random.default_rng(seed).uniform(-1, 1, count).astype(np.float32)
    whole, pieces = StreamResampler(rate), StreamResampler(rate)
    expected = np.concatenate([whole.push(samples), whole.finish()])
    got, at, turn = [], 0, 0
    while at < count:
        got.append(pieces.push(samples[at : at + sizes[turn % len(sizes)]]))
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    np.testing.assert_array_equal(np.concatenate([*got, pieces.finish()]), expected)
    assert abs(len(expected) - count * 16_000 / rate) <= 1


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([8_000, 16_000, 44_100, 48_000]),
    sizes=st.lists(st.integers(64, 2048), min_size=1, max_size=4),
    start=st.integers(-3000, 3000),
)
def test_events_do_not_depend_on_the_packets(rate: int, sizes: list[int], start: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, rate // 2).astype(np.float32)
    found, expected = events(frames_of(samples, rate, sizes, start)), events(frames_of(samples, rate, [len(samples)], start))
    assert [event.t_ns for event in found] == [event.t_ns for event in expected]
    np.testing.assert_array_equal(joined(found), joined(expected))
    assert {len(event.samples) for event in found[:-1]} <= {CHUNK}
    first = found[0].t_ns
    assert first == round(start / rate * 1e9) if start >= 0 else 0 <= first < 62_500
    end_s = (start + len(samples)) / rate
    assert abs(len(joined(found)) - (end_s - max(start / rate, 0)) * 16_000) <= 1


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_a_click_stays_where_it_was(rate: int) -> None:
    samples = np.zeros(rate, np.float32)
    samples[rate // 2] = 1.0
    found = joined(events(frames_of(samples, rate, [1024])))
    # The centre of gravity of the energy around the peak.
    peak = int(np.abs(found).argmax())
    around = np.arange(peak - 40, peak + 41)
    energy = found[around] ** 2
    assert float((around * energy).sum() / energy.sum()) == pytest.approx(8000, abs=0.01)


def test_coarse_stamps_are_no_gap() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 44_100).astype(np.float32)
    coarse = events(frames_of(samples, 44_100, [1024], base=Fraction(1, 1000)))
    np.testing.assert_array_equal(joined(coarse), joined(events(frames_of(samples, 44_100, [1024]))))


def test_a_gap_keeps_what_follows_in_place() -> None:
    rate = 48_000
    samples = np.ones(rate, np.float32)
    kept = [frame for i, frame in enumerate(frames_of(samples, rate, [960])) if not 20 <= i < 30]
    found = events(iter(kept))
    ends = [event.t_ns + len(event.samples) * 62_500 for event in found]
    gaps = [(end, event.t_ns) for end, event in zip(ends, found[1:], strict=False) if event.t_ns - end > 100_000]
    assert gaps == [(400_000_000, 600_000_000)]
    assert len(joined(found)) == 16_000 * 8 // 10


def test_one_lost_packet_of_20_ms_is_a_gap() -> None:
    kept = [frame for i, frame in enumerate(frames_of(np.ones(48_000, np.float32), 48_000, [960])) if i != 20]
    found = events(iter(kept))
    assert len(joined(found)) == 16_000 - 320
    assert found[-1].t_ns + len(found[-1].samples) * 62_500 == 1_000_000_000


def test_an_overlap_is_dropped() -> None:
    rate = 16_000
    first = frames_of(np.full(8_000, 0.25, np.float32), rate, [400])
    again = frames_of(np.full(8_000, 0.75, np.float32), rate, [400], start=4_000)
    found = events(iter([*first, *again]))
    stamps = [event.t_ns for event in found]
    assert stamps == sorted(stamps)
    heard = joined(found)
    assert len(heard) == 12_000
    assert (heard[:8_000] == 0.25).all()
    assert (heard[8_000:] == 0.75).all()


def test_another_rate_on_the_way() -> None:
    first = frames_of(np.full(24_000, 0.5, np.float32), 48_000, [960])
    second = frames_of(np.full(4_000, 0.5, np.float32), 8_000, [200], start=4_000)
    found = events(iter([*first, *second]))
    assert len(joined(found)) == 16_000
    assert found[-1].t_ns + len(found[-1].samples) * 62_500 == 1_000_000_000


def test_what_is_not_finite_becomes_silence_and_is_counted() -> None:
    samples = np.full(1_600, 0.5, np.float32)
    samples[800:820] = np.nan
    counted: list[int] = []
    found = list(sound_events(frames_of(samples, 16_000, [400]), Fraction(0), lambda: counted.append(1)))
    assert len(counted) == 1
    assert np.isfinite(joined(found)).all()
    assert (joined(found)[800:820] == 0).all()


def test_the_last_packet_is_cut_to_its_duration() -> None:
    *most, last = frames_of(np.full(4_096, 0.5, np.float32), 48_000, [1024])
    last.duration = 100
    assert len(joined(events(iter([*most, last])))) == round((3 * 1024 + 100) / 3)


@pytest.mark.parametrize(
    ("name", "dtype", "full"), [("s16", np.int16, 32_768), ("s32", np.int32, 2**31), ("u8", np.uint8, 128), ("s16p", np.int16, 32_768)]
)
def test_sample_formats(name: str, dtype: type, full: int) -> None:
    levels = np.array([0, 0.5, -0.5, 0.25])
    integers = np.round(levels * full + (128 if name == "u8" else 0)).astype(dtype)
    stereo = np.stack([integers, integers])
    array = stereo if name.endswith("p") else stereo.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(array), name, "stereo")
    np.testing.assert_allclose(mono(frame), levels, atol=1e-6)
