"""Features on disk: what the encoders say, computed once, continued after a kill, never taken for another model's."""

from __future__ import annotations

import dataclasses
import datetime
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sage_edge.runtime.errors import DataError
from sage_edge.training import SAGE, features, inputs
from sage_edge.training.cache import FeatureCache, amount, cut, fill
from sage_edge.training.data.corruption import training_view
from sage_edge.training.data.store import Trial
from sage_edge.training.data.windows import window_at

W = 40


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture
def model(toy_preset) -> SAGE:
    torch.manual_seed(0)
    return SAGE(toy_preset).eval()


ENDS = [(0, 10, 0), (0, 60, 0), (1, 90, 13), (2, 50, 0), (3, 149, 0), (1, 45, 0), (0, 149, 39)]


@pytest.fixture
def trials(toy) -> list:
    return [*toy.trials("train"), *toy.trials("val")]


def cache(folder: Path, model: SAGE, trials: list, ends: list = ENDS, **changes) -> FeatureCache:
    return FeatureCache(folder, model, trials, ends, **{"corpus": "c", "views": 2, "seed": 3, "corrupt": 0.7, **changes})


def filled(*args, **changes) -> FeatureCache:
    made = cache(*args, **changes)
    fill({"train": made}, made.folder)
    return made


def test_what_is_read_is_what_the_encoders_say(tmp_path, model, trials):
    made = filled(tmp_path / "f", model, trials)
    for view in (0, 1):
        batch = made.batch(range(len(ENDS)), [view] * len(ENDS), [view] * len(ENDS))
        for k, (i, newest, masked) in enumerate(ENDS):
            seen = training_view(trials[i], 40, 3, view, 0.7)
            window = cut(window_at(seen.trial, newest, W), masked)
            visual = torch.cat([torch.zeros(0, 128), *features.face_batches(model, seen.trial.faces, seen.top, seen.left, seen.flip)])
            torch.testing.assert_close(batch.visual[k], features.face_rows(visual, window.tick_face), rtol=0, atol=0)
            torch.testing.assert_close(batch.audio[k], features.encode_windows(model, [window])[0], rtol=1e-5, atol=1e-5)
            assert np.array_equal(batch.visual_mask[k].numpy(), window.visual_mask)
            assert np.array_equal(batch.audio_mask[k].numpy(), window.audio_mask)
            assert np.array_equal(batch.labels[k].numpy(), window.labels)
            assert np.array_equal(batch.valid[k].numpy(), window.labels_valid)
            for ticks, bad in ((batch.visual_bad, seen.visual_bad), (batch.audio_bad, seen.audio_bad)):
                inside = slice(max(0, W - 1 - newest), None)
                assert np.array_equal(ticks[k, inside].numpy(), bad[max(0, newest - W + 1) : newest + 1])


def test_the_first_view_is_clean_and_the_others_are_not_and_stay_the_same(tmp_path, model, trials):
    made, again = (filled(tmp_path / name, model, trials, views=3) for name in "ab")
    picked, batches = range(len(ENDS)), []
    for view in range(3):
        batch, other = (each.batch(picked, [view] * len(ENDS), [view] * len(ENDS)) for each in (made, again))
        assert torch.equal(batch.visual, other.visual)
        assert torch.equal(batch.audio, other.audio)
        batches.append(batch)
    assert not batches[0].visual_bad.any()
    assert not batches[0].audio_bad.any()
    assert batches[1].visual_bad.any() or batches[1].audio_bad.any()
    assert not torch.equal(batches[0].visual, batches[1].visual)
    assert not torch.equal(batches[1].visual, batches[2].visual)
    mixed = made.batch(picked, [1] * len(ENDS), [2] * len(ENDS))
    assert torch.equal(mixed.visual, batches[1].visual)
    assert torch.equal(mixed.visual_bad, batches[1].visual_bad)
    assert torch.equal(mixed.audio, batches[2].audio)
    assert torch.equal(mixed.audio_mask, batches[2].audio_mask)


def count_trials(monkeypatch, die_after: int | None = None) -> list[str]:
    """Names of the trials that are written from now on; a kill in the middle of the next one."""
    written, write, encode = [], FeatureCache._write, features.encode_windows

    def counted(self, view, i, bar):
        written.append(f"{view}/{self._trials[i].name}")
        write(self, view, i, bar)

    def dying(*args):
        if die_after is not None and len(written) > die_after:
            raise Killed
        return encode(*args)

    monkeypatch.setattr(FeatureCache, "_write", counted)
    monkeypatch.setattr(features, "encode_windows", dying)
    return written


def test_after_a_kill_the_rest_is_computed_and_nothing_twice(tmp_path, model, trials, monkeypatch):
    filled(tmp_path / "whole", model, trials)
    with monkeypatch.context() as patch:
        first = count_trials(patch, die_after=4)
        with pytest.raises(Killed):
            filled(tmp_path / "f", model, trials)
    half = tmp_path / "f" / "view1" / ".t0.killed"
    half.mkdir(parents=True)
    (half / "visual.npy").write_bytes(b"half")
    with monkeypatch.context() as patch:
        rest = count_trials(patch)
        filled(tmp_path / "f", model, trials)
        assert len(first) == 5
        assert sorted(first[:4] + rest) == sorted(f"{view}/{trial.name}" for view in range(2) for trial in trials)
        rest.clear()
        filled(tmp_path / "f", model, trials)
        assert rest == []
    assert not half.exists()
    for name in sorted(file.relative_to(tmp_path / "whole") for file in (tmp_path / "whole").rglob("*.npy")):
        assert (tmp_path / "f" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_damaged_file_is_computed_again(tmp_path, model, trials, monkeypatch):
    filled(tmp_path / "f", model, trials)
    os.truncate(tmp_path / "f" / "view0" / "t1" / "visual.npy", 200)
    (tmp_path / "f" / "view1" / "t2" / "ticks.npy").unlink()
    written = count_trials(monkeypatch)
    filled(tmp_path / "f", model, trials)
    assert sorted(written) == ["0/t1", "1/t2"]


@pytest.mark.parametrize("change", ["weights", "statistics", "corpus", "seed", "corrupt", "windows", "damaged key"])
def test_features_of_something_else_are_never_used(tmp_path, model, trials, monkeypatch, capsys, change):
    filled(tmp_path / "f", model, trials)
    ends, settings = ENDS, {}
    if change == "weights":
        with torch.no_grad():
            model.audio.wavlm.encoder.layers[0].attention.q_proj.weight[0, 0] += 1e-3
    elif change == "statistics":
        model.visual.bn1.running_mean += 1e-3
    elif change == "windows":
        ends = [*ENDS[:-1], (0, 148, 39)]
    elif change == "damaged key":
        (tmp_path / "f" / "key.json").write_text("{")
    else:
        settings = {"corpus": {"corpus": "other"}, "seed": {"seed": 4}, "corrupt": {"corrupt": 0.6}}[change]
    capsys.readouterr()
    written = count_trials(monkeypatch)
    filled(tmp_path / "f", model, trials, ends, **settings)
    assert len(written) == 2 * len(trials)
    said = capsys.readouterr().err.splitlines()
    assert sum("of other weights, data or settings; computing them again" in line for line in said) == (change != "damaged key")


def test_more_views_are_added_to_those_that_are_there(tmp_path, model, trials, monkeypatch):
    filled(tmp_path / "f", model, trials, views=1)
    written = count_trials(monkeypatch)
    filled(tmp_path / "f", model, trials, views=3)
    assert {name[0] for name in written} == {"1", "2"}


def test_views_without_corruption_share_their_sound(tmp_path, model, trials, monkeypatch):
    encoded, encode = [], features.encode_windows
    monkeypatch.setattr(features, "encode_windows", lambda *args: encoded.append(len(args[1])) or encode(*args))
    made, n = filled(tmp_path / "f", model, trials, corrupt=0.0), len(ENDS)
    assert sum(encoded) == n
    clean, other = (made.batch(range(n), [view] * n, [view] * n) for view in (0, 1))
    assert torch.equal(clean.audio, other.audio)
    assert torch.equal(clean.audio_mask, other.audio_mask)
    assert not torch.equal(clean.visual, other.visual)


def test_the_disk_it_takes_is_said_and_is_what_it_takes(tmp_path, model, trials, capsys):
    filled(tmp_path / "f", model, trials)
    size = sum(np.load(file).nbytes for file in (tmp_path / "f").rglob("*.npy"))
    assert f"features: {amount(size)} into {tmp_path / 'f'}" in capsys.readouterr().err
    assert amount(27.4e9) == "27 GB"
    assert amount(3.14e6) == "3.1 MB"


def test_a_disk_with_too_little_room_is_refused_before_any_work(tmp_path, model, trials, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=500_000))
    written = count_trials(monkeypatch)
    made = {label: cache(tmp_path / label, model, trials, views=1) for label in ("train", "val")}
    with pytest.raises(DataError, match=r"need 959\.5 kB in .*, 500\.0 kB are free; free some") as caught:
        fill(made, tmp_path)
    assert "\n" not in str(caught.value)
    assert written == []


def refused(rank: int, tmp_path: Path, made: FeatureCache, said: multiprocessing.SimpleQueue) -> None:
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'meet'}", datetime.timedelta(seconds=60), world_size=2, rank=rank)
    try:
        fill({"train": made}, tmp_path)
    except Exception as error:
        said.put((type(error), str(error)))


def test_a_disk_with_too_little_room_is_refused_by_every_process(tmp_path, model, trials, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=500_000))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    fork = multiprocessing.get_context("fork")
    said = fork.SimpleQueue()
    both = [fork.Process(target=refused, args=(rank, tmp_path, cache(tmp_path / "f", model, trials), said)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    (kind, message), other = said.get(), said.get()
    assert kind is DataError
    assert other == (kind, message)
    assert "500.0 kB are free" in message
    assert not list((tmp_path / "f").rglob("*.npy"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_is_one_line_and_leaves_whole_trials_only(tmp_path, model, trials, monkeypatch):
    made, place = cache(tmp_path / "f", model, trials), FeatureCache._place
    opened = Path.open

    def full(self, *args, **kwargs):
        return opened(Path("/dev/full") if self.name == "audio.npy" and ".t1." in str(self) else self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DataError, match=r"is full .*; free some and repeat with --resume") as caught:
        fill({"train": made}, made.folder)
    assert "\n" not in str(caught.value)
    left = [(view, i) for view in range(2) for i in range(len(trials)) if place(made, view, i).exists()]
    assert all(made._whole(*item) for item in left)
    assert not list((tmp_path / "f").rglob(".*"))


def test_key_says_nothing_of_the_place(tmp_path, model, trials):
    filled(tmp_path / "f", model, trials)
    assert str(tmp_path) not in json.dumps(json.loads((tmp_path / "f" / "key.json").read_text()))


def test_pixels_on_the_device_are_those_of_numpy(toy, toy_preset):
    faces = np.array(toy.trials("train")[0].faces[:9])
    low = inputs.centre(toy_preset)
    assert np.array_equal(features.pixels(torch.from_numpy(faces), toy_preset, low, low).numpy(), inputs.central(faces, toy_preset))
    mirrored = features.pixels(torch.from_numpy(faces), toy_preset, 0, 8, flip=True).numpy()
    assert np.array_equal(mirrored, inputs.normalise(faces[:, :40, 8:][:, :, ::-1], toy_preset))


def native(trial: Trial) -> Trial:
    """The same frames at 23.976 a second, a little late each, and ticks at them."""
    times = np.arange(len(trial.frame_t_ns)) / 23.976 + np.random.default_rng(0).uniform(0, 5e-3, len(trial.frame_t_ns))
    return dataclasses.replace(trial, frame_t_ns=np.rint((times - times[0]) * 1e9).astype(np.int64), native=True, rate_hz=24)


def test_windows_of_a_native_trial_are_encoded_at_their_frames(trials, model):
    windows = [window_at(native(trials[0]), newest, W) for newest in (10, 39, 70)]
    assert len({len(window.samples) for window in windows}) > 1
    rows = features.encode_windows(model, windows)
    assert rows.shape == (3, W, 16)
    for window, row in zip(windows, rows, strict=True):
        with torch.no_grad():
            alone = model.audio(torch.from_numpy(window.samples[None]), torch.from_numpy(window.tick_sample))
        assert torch.equal(row, alone[0])
