"""A clip through the live session gives what the model gives on the same windows, whatever the order and size of what is pushed."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from feeding import Clip, by_time, events, make_clip, offline, run, stamp
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import Offline

from sage_edge.runtime import Bundle, Session, ticks


@pytest.fixture(scope="module")
def model(bundle_path: Path) -> Offline:
    return Offline(bundle_path)


def compare(bundle: Bundle, model: Offline, clip: Clip, hop: int) -> None:
    """Every estimate of a session over `clip`, in order of time, against the offline model."""
    with Session(bundle, precision="fp32", hop=hop, t0_ns=0) as session:
        estimates = run(session, by_time(*events(clip)))
    heard = next(k for k in range(10**6) if ticks.first_sample(k + 1) > len(clip.audio))
    n_ticks = max(ticks.tick_at_or_after(clip.frames[-1][0]) + 1, heard)
    newest = [ticks.tick_at_or_after(e.t_ns) for e in estimates]
    assert newest == [*range(hop - 1, n_ticks, hop), *([n_ticks - 1] if n_ticks % hop else [])]
    for estimate, tick, before, truth in zip(estimates, newest, [-1, *newest], offline(clip, model, newest), strict=False):
        expected = truth["estimates"]
        own = tick - before
        assert [t for t, _, _ in estimate.trail] == [ticks.tick_time_ns(k) for k in range(before + 1, tick + 1)]
        trail = np.array([pair for _, *pair in estimate.trail])
        assert np.abs(trail - expected[-own:]).max() <= 1e-5, f"tick {tick}"
        assert (estimate.valence, estimate.arousal) == tuple(trail[-1])
        reliability = estimate.reliability
        assert reliability.temporal == pytest.approx(truth["temporal"][-1], abs=1e-5)
        assert [reliability.visual, reliability.audio] == pytest.approx(truth["modality"][-1], abs=1e-5)
        assert (estimate.face is not None) == truth["visual_mask"][-1]
        assert estimate.audio.warm == bool(truth["audio_mask"].all())
        heard = truth["samples"][ticks.first_sample(before + 1) - ticks.first_sample(tick + 1) :]
        assert estimate.audio.rms_dbfs == pytest.approx(ticks.rms_dbfs(heard), abs=1e-3)


@pytest.mark.parametrize("hop", [1, 7, 15, 300])
def test_every_hop(bundle: Bundle, model: Offline, hop: int) -> None:
    seconds = {1: 11.2, 7: 11, 15: 12.1, 300: 25}[hop]
    compare(bundle, model, make_clip(seconds, seed=hop), hop)


@pytest.mark.parametrize("rate", [5.0, 15.0, 23.976, 29.97, 60.0])
@pytest.mark.parametrize("jitter_ns", [0, 9_000_000])
def test_every_rate(bundle: Bundle, model: Offline, rate: float, jitter_ns: int) -> None:
    clip = make_clip(4.3, rate, seed=int(rate), jitter_ns=jitter_ns)
    clip.frames = [(max(t, 0), face) for t, face in clip.frames]
    compare(bundle, model, clip, 15)


def test_int8_is_the_int8_graphs(bundle: Bundle, bundle_path: Path) -> None:
    clip = make_clip(3)
    with Session(bundle, precision="int8", t0_ns=0) as session:
        estimates = run(session, by_time(*events(clip)))
    assert session.precision == "int8-cpu"
    newest = [ticks.tick_at_or_after(e.t_ns) for e in estimates]
    float_differs = False
    for estimate, int8, fp32 in zip(
        estimates, offline(clip, Offline(bundle_path, "int8-cpu"), newest), offline(clip, Offline(bundle_path), newest), strict=True
    ):
        assert np.abs(np.array([estimate.valence, estimate.arousal]) - int8["estimates"][-1]).max() <= 1e-5
        float_differs |= bool(np.abs(fp32["estimates"][-1] - int8["estimates"][-1]).max() > 1e-4)
    assert float_differs


def test_temporal_model_has_no_modality(temporal_bundle: Bundle) -> None:
    with Session(temporal_bundle, precision="fp32", t0_ns=0) as session:
        estimates = run(session, by_time(*events(make_clip(1))))
    assert estimates[-1].reliability.visual is None
    assert estimates[-1].reliability.audio is None
    assert estimates[-1].reliability.temporal > 0


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_neither_chunks_nor_order_nor_polls_nor_a_thread_matter(bundle: Bundle, data: st.DataObject) -> None:
    clip = make_clip(4.6, data.draw(st.sampled_from([12.0, 30.0, 50.0])), seed=data.draw(st.integers(0, 5)), jitter_ns=3_000_000)
    t0_ns, hop = data.draw(st.integers(-(10**15), 10**15)), data.draw(st.sampled_from([1, 4, 15, 100]))

    def shifted(order: list[tuple[str, int, object]]) -> list[tuple[str, int, object]]:
        return [(kind, t_ns + t0_ns, value) for kind, t_ns, value in order]

    with Session(bundle, precision="fp32", hop=hop, t0_ns=t0_ns) as session:
        expected = run(session, shifted(by_time(*events(clip))))

    cuts = sorted({0, len(clip.audio), *data.draw(st.lists(st.integers(1, len(clip.audio)), max_size=30))})
    # What comes in one chunk must not be longer than the greatest lag, or the video counts as behind it.
    cuts = sorted({*cuts, *range(0, len(clip.audio), 6_000)})
    sound = [("audio", stamp(low), clip.audio[low:high]) for low, high in itertools.pairwise(cuts)]
    frames, _ = events(clip)
    order, most_ns = [], 500_000_000
    choices = data.draw(st.lists(st.booleans(), min_size=200, max_size=200))
    while frames or sound:
        video_first = choices[len(order) % 200]
        if not frames or not sound:
            video_first = bool(frames)
        elif abs(frames[0][1] - sound[0][1]) > most_ns:
            video_first = frames[0][1] < sound[0][1]
        order.append((frames if video_first else sound).pop(0))
    polls = set(data.draw(st.lists(st.integers(0, len(order)), max_size=20)))
    follow, thread = data.draw(st.sampled_from(["largest", "all"])), data.draw(st.booleans())
    with Session(bundle, precision="fp32", hop=hop, t0_ns=t0_ns, follow=follow, hop_thread=thread) as session:
        assert run(session, shifted(order), lambda i: i in polls) == expected
        assert session.drops == expected[-1].drops


@settings(max_examples=15, deadline=None)
@given(chunks=st.lists(st.integers(1, 50_000), min_size=1, max_size=12))
def test_chunks_never_matter_even_when_the_other_stream_is_dead(bundle: Bundle, chunks: list[int]) -> None:
    clip = make_clip(7.3, seed=1)
    with Session(bundle, precision="fp32") as session:
        expected = run(session, [("audio", 0, clip.audio)])
    cuts = [0]
    while cuts[-1] < len(clip.audio):
        cuts.append(min(cuts[-1] + chunks[len(cuts) % len(chunks)], len(clip.audio)))
    with Session(bundle, precision="fp32") as session:
        assert run(session, [("audio", stamp(low), clip.audio[low:high]) for low, high in itertools.pairwise(cuts)]) == expected
    assert len(expected) == 15
