"""Corrupted trials: severities are what they say, masks and originals stay, the same seed gives the same thing."""

from dataclasses import replace

import numpy as np
import pytest

from sage_edge.training.data.corruption import CELLS, corrupted, shifted, training_view
from sage_edge.training.data.corruption_sound import speech_level
from sage_edge.training.data.store import Store, Trial


def same(a: Trial, b: Trial) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("faces", "audio", "frame_face", "frame_t_ns", "labels"))


@pytest.fixture
def trial(toy: Store) -> Trial:
    return toy.trials("train")[1]


@pytest.fixture
def silent(toy: Store) -> Trial:
    """Without a sound track."""
    return toy.trials("train")[2]


def test_the_clean_cell_is_the_trial(trial):
    assert corrupted(trial, CELLS["clean"], 0) is trial


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_deterministic_changes_its_sense_only_and_leaves_the_original(trial, name):
    cell = CELLS[name]
    faces, audio = np.array(trial.faces), np.array(trial.audio)
    worse = corrupted(trial, cell, 3)
    assert same(worse, corrupted(trial, cell, 3))
    assert np.array_equal(trial.faces, faces)
    assert np.array_equal(trial.audio, audio)
    assert np.array_equal(worse.audio, audio) == (cell.modality not in ("audio", "shift"))
    assert (worse.faces is trial.faces) == (cell.modality != "visual")
    assert len(worse.audio) == len(audio)
    assert (worse.frame_face >= 0).any() == (not cell.masked)
    if not cell.masked:
        assert np.array_equal(worse.frame_face, trial.frame_face)
        assert worse.faces.shape == faces.shape


@pytest.mark.parametrize("name", ["snr0", "occlusion50", "dark"])
def test_seeds_trials_and_cells_differ(trial, name):
    worse = corrupted(trial, CELLS[name], 3)
    assert not same(worse, corrupted(trial, CELLS[name], 4))
    assert not same(worse, replace(corrupted(replace(trial, name="another"), CELLS[name], 3), name=trial.name))


@pytest.mark.parametrize("db", [20, 10, 0, -5])
def test_measured_snr_is_the_one_asked_for(trial, db):
    clean = trial.samples(0, len(trial.audio)).astype(np.float64)
    worse = corrupted(trial, CELLS[f"snr{db}"], 0).audio.astype(np.float64)
    # the recorder may have turned itself down: take out what is the clean signal, whatever its level
    gain = (worse @ clean) / (clean @ clean)
    noise = worse - gain * clean
    assert 20 * np.log10(gain * speech_level(clean) / np.sqrt(np.mean(noise**2))) == pytest.approx(db, abs=0.3)


def test_pauses_do_not_count_as_speech(trial):
    speech = trial.samples(0, len(trial.audio))
    with_pause = np.concatenate([speech, np.zeros_like(speech), np.zeros_like(speech)])
    assert speech_level(with_pause) == pytest.approx(speech_level(speech), rel=0.1)
    assert speech_level(speech[:0]) == 0.0


def test_loud_noise_does_not_clip(trial):
    loud = replace(trial, audio=(np.sign(trial.audio.astype(np.int32)) * 32767).astype(np.int16))
    worse = corrupted(loud, CELLS["snr-5"], 0).audio
    assert (np.abs(worse.astype(np.int32)) >= 32767).sum() <= 1


def test_silence_is_silent(trial):
    assert not corrupted(trial, CELLS["silence"], 0).audio.any()


@pytest.mark.parametrize("percent", [25, 50, 75])
def test_covered_share_is_the_one_asked_for(trial, percent):
    # no surface is drawn in a negative grey, so against its complement every covered pixel shows in one of the two
    light = replace(trial, faces=np.full(trial.faces.shape, 255, np.uint8))
    dark = replace(trial, faces=np.zeros(trial.faces.shape, np.uint8))
    cell = CELLS[f"occlusion{percent}"]
    covered = (corrupted(light, cell, 0).faces == corrupted(dark, cell, 0).faces).all(3)
    assert np.array_equal(covered.mean((1, 2)), np.full(len(covered), percent / 100))
    assert (covered != covered[0]).any()


def test_dark_and_blurred_faces_lose_light_and_detail(trial):
    dark, blurred = (corrupted(trial, CELLS[name], 0).faces.astype(float) for name in ("dark", "blur"))
    faces = trial.faces.astype(float)
    assert dark.mean() == pytest.approx(CELLS["dark"].severity * faces.mean(), abs=1.0)
    assert blurred.mean() == pytest.approx(faces.mean(), abs=1.0)
    assert np.abs(np.diff(blurred, axis=2)).mean() < 0.2 * np.abs(np.diff(faces, axis=2)).mean()


@pytest.mark.parametrize("ms", [100, -100, 250, -250, 500, -500])
def test_shift_is_exact_to_the_sample(trial, ms):
    audio, by = np.array(trial.audio), ms * 16
    worse = corrupted(trial, CELLS[f"shift{ms:+d}"], 0).audio
    if by > 0:
        assert np.array_equal(worse[by:], audio[:-by])
        assert not worse[:by].any()
    else:
        assert np.array_equal(worse[:by], audio[-by:])
        assert not worse[by:].any()


@pytest.mark.parametrize("by", [0, 3, 4, 5, -3, -4, -5])
def test_shift_up_to_and_beyond_the_length(by):
    audio = np.arange(1, 5, dtype=np.int16)
    expected = [audio[k - by] if 0 <= k - by < 4 else 0 for k in range(4)]
    assert shifted(audio, by).tolist() == expected


@pytest.mark.parametrize("name", CELLS)
def test_a_trial_without_sound_passes_through_every_cell(silent, name):
    assert len(corrupted(silent, CELLS[name], 0).audio) == 0


def test_a_trial_without_faces_passes_through_every_cell(trial):
    faceless = corrupted(trial, CELLS["noface"], 0)
    assert len(faceless.faces) == 0
    assert all(len(corrupted(faceless, cell, 0).faces) == 0 for cell in CELLS.values())


def test_view_0_is_the_clean_centre(trial):
    view = training_view(trial, 40, 0, 0, corrupt=1.0)
    assert view.trial is trial
    assert (view.flip, view.top, view.left) == (False, 4, 4)
    assert not view.visual_bad.any()
    assert not view.audio_bad.any()


def test_views_are_deterministic_differ_and_leave_the_original(trial):
    faces, audio = np.array(trial.faces), np.array(trial.audio)
    views = [training_view(trial, 40, 0, number, 0.7) for number in range(1, 9)]
    again = training_view(trial, 40, 0, 3, 0.7)
    assert same(views[2].trial, again.trial)
    assert np.array_equal(views[2].visual_bad, again.visual_bad)
    assert np.array_equal(views[2].audio_bad, again.audio_bad)
    assert not any(same(views[0].trial, other.trial) for other in views[1:])
    assert {view.flip for view in views} == {False, True}
    assert all(0 <= view.top <= 8 and 0 <= view.left <= 8 for view in views)
    assert np.array_equal(trial.faces, faces)
    assert np.array_equal(trial.audio, audio)
    for view in views:
        assert len(view.visual_bad) == len(view.audio_bad) == trial.n_ticks
        assert view.trial.faces.dtype == np.uint8
        assert len(view.trial.audio) == len(audio)


def test_a_view_says_where_it_spoiled_the_face_and_only_there(trial):
    for number in range(1, 12):
        view = training_view(trial, 40, 5, number, 0.5)
        changed = (view.trial.faces != trial.faces).any((1, 2, 3))
        seen = trial.tick_face >= 0
        assert not view.visual_bad[~seen].any()
        assert not view.visual_bad[seen][~changed[trial.tick_face[seen]]].any()
        assert 0 <= view.visual_bad.min() <= view.visual_bad.max() <= 1


def unlike(trial: Trial, view: Trial) -> np.ndarray:
    """[n_ticks] how far the sound of `view` is from that of `trial`, as a share of its level; shift and gain of the whole clip do not count."""
    clean, worse = (each.samples(0, len(each.audio)).astype(np.float64) for each in (trial, view))
    size = 1 << (2 * len(clean)).bit_length()
    alike = np.fft.irfft(np.fft.rfft(worse, size) * np.conj(np.fft.rfft(clean, size)), size)
    lag = int(np.argmax(alike))
    clean = shifted(clean, lag if lag < size // 2 else lag - size)
    # a clip's gain is that of what was left alone, more than any other one stretch
    gains, counts = np.unique(np.round(worse[clean != 0] / clean[clean != 0], 2), return_counts=True)
    gains, counts = gains[gains > 0.02], counts[gains > 0.02]
    rough = gains[np.argmax(counts)]
    near = np.abs(worse - rough * clean) <= 0.01 * np.abs(clean)
    gain = (worse[near] @ clean[near]) / (clean[near] @ clean[near])
    first = np.array([trial.first_sample(k) for k in range(trial.n_ticks + 1)])
    off, of = (np.add.reduceat(np.append(each**2, np.zeros(600)), first)[:-1] for each in (worse / gain - clean, clean))
    return np.where(of > 0, np.sqrt(off / np.maximum(of, 1e-12)), np.nan)


def test_a_view_says_where_it_spoiled_the_sound_and_only_there(trial):
    """Where it says so each tick differs; elsewhere ticks are as they were, or noise of 12 dB and less, which counts as clean."""
    times = trial.frame_t_ns * 20
    hiss = np.random.default_rng(0).normal(0, 3000, int(times[-1] * 16 / 1e6)).astype(np.int16)
    long = replace(trial, frame_t_ns=times, audio=hiss)

    def fits(bad: np.ndarray, off: np.ndarray) -> bool:
        # a tick in which a stretch begins or ends is spoiled in part
        whole = np.isfinite(off[1:-1]) & (bad[1:-1] == bad[:-2]) & (bad[1:-1] == bad[2:])
        marked, left = off[1:-1][whole & (bad[1:-1] > 0)], off[1:-1][whole & (bad[1:-1] == 0)]
        return bool((marked > 0.1).all() and (left < 0.6).all() and left.min() < 0.01)

    seen = 0
    for number in range(1, 12):
        view = training_view(long, 40, 5, number, 0.4)
        assert 0 <= view.audio_bad.min() <= view.audio_bad.max() <= 1
        if not 0.1 < (view.audio_bad > 0).mean() < 0.7:
            continue
        seen += 1
        off = unlike(long, view.trial)
        assert fits(view.audio_bad, off)
        assert not fits(view.audio_bad[::-1], off)
        assert not fits(np.roll(view.audio_bad, 90), off)
    assert seen > 3


def test_no_chance_of_corruption_changes_nothing_but_the_crop(trial):
    view = training_view(trial, 40, 0, 1, 0.0)
    assert same(view.trial, trial)
    assert not view.visual_bad.any()
    assert not view.audio_bad.any()


def test_both_senses_are_spoiled_in_about_the_share_asked_for(trial):
    long = replace(trial, frame_t_ns=trial.frame_t_ns * 20)
    bad = np.array([(view.visual_bad.mean(), view.audio_bad.mean()) for view in (training_view(long, 40, 1, n, 1.0) for n in range(1, 40))])
    none = np.array([(view.visual_bad.mean(), view.audio_bad.mean()) for view in (training_view(long, 40, 1, n, 0.1) for n in range(1, 40))])
    assert (bad.mean(0) > 3 * none.mean(0)).all()
