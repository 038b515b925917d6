"""Plans are found by what they were built from, for and with; what is damaged, half there or of another key is never opened."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from sage_edge.runtime import EngineError
from sage_edge.runtime.engines import plans
from sage_edge.runtime.engines.plans import Key, find, get, store
from sage_edge.runtime.files import sha256_file

HERE = ("10.13.3", "11.0", "Thor")
BYTES = bytes(range(256)) * 4


@pytest.fixture
def onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    path = tmp_path / "a.sage/onnx/visual.int8-trt.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a graph")
    return path


def key_of(onnx: Path, *flags: str) -> Key:
    return Key(sha256_file(onnx), *HERE, flags)


def quiet(text: str) -> None:
    raise AssertionError(f"nothing to say: {text}")


def refusal(onnx: Path) -> str:
    with pytest.raises(EngineError) as caught:
        find(onnx, *HERE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_stored_is_found_with_its_facts(onnx: Path) -> None:
    key = key_of(onnx, "batch=1", "workspace_mb=512")
    stored = store(key, BYTES, {"rung": "int8", "failed": {}, "seconds": 61.5})
    for plan in (find(onnx, *HERE, say=quiet), get(key, say=quiet)):
        assert plan == stored
        assert plan.read() == BYTES
    assert stored.path.parent == plans.folder()
    assert sorted(path.name for path in plans.folder().iterdir()) == [f"{key.name}.engine", f"{key.name}.json"]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Key)])
def test_every_part_of_a_key_makes_another_plan(onnx: Path, field: str) -> None:
    key = key_of(onnx, "a")
    other = dataclasses.replace(key, **{field: ("b",) if field == "flags" else "other"})
    store(key, BYTES, {})
    assert other.name != key.name
    assert get(other, say=quiet) is None


def test_of_several_flags_the_newest_counts(onnx: Path) -> None:
    old, new = (store(key_of(onnx, flag), flag.encode(), {}) for flag in ("old", "new"))
    for plan, at_s in ((old, 100), (new, 200)):
        os.utime(plan.path.with_suffix(".json"), (at_s, at_s))
    assert find(onnx, *HERE, say=quiet) == new
    os.truncate(new.path, 1)
    said: list[str] = []
    assert find(onnx, *HERE, say=said.append) == old
    assert len(said) == 1
    assert "of 3 bytes and the one beside it has 1" in said[0]


def test_without_a_plan_the_command_is_named(onnx: Path) -> None:
    assert refusal(onnx) == (
        "no engine of visual.int8-trt.onnx for TensorRT 10.13.3 on Thor (SM 11.0); build it with `sage-edge compile a.sage --target tensorrt`"
    )


def test_a_plan_of_another_version_or_gpu_is_the_reason_and_not_opened(onnx: Path) -> None:
    store(dataclasses.replace(key_of(onnx), tensorrt="10.3.0", sm="8.7", gpu="Orin"), BYTES, {})
    assert "only for TensorRT 10.3.0 on Orin (SM 8.7); build it" in refusal(onnx)
    onnx.write_bytes(b"another graph")
    assert "only for" not in refusal(onnx)


def test_a_graph_that_is_missing(onnx: Path) -> None:
    onnx.unlink()
    assert "visual.int8-trt.onnx does not exist" in refusal(onnx)


DAMAGE = {
    "no engine": lambda plan: plan.path.unlink(),
    "truncated engine": lambda plan: os.truncate(plan.path, 100),
    "other engine": lambda plan: plan.path.write_bytes(BYTES[::-1]),
    "empty JSON": lambda plan: plan.path.with_suffix(".json").write_text(""),
    "half a JSON": lambda plan: os.truncate(plan.path.with_suffix(".json"), 60),
    "binary JSON": lambda plan: plan.path.with_suffix(".json").write_bytes(BYTES),
    "a list": lambda plan: plan.path.with_suffix(".json").write_text("[1]"),
    "no size": lambda plan: edit(plan, lambda about: about.pop("size")),
    "no key": lambda plan: edit(plan, lambda about: about.pop("key")),
    "a key of more": lambda plan: edit(plan, lambda about: about["key"].update(more=1)),
    "an edited key": lambda plan: edit(plan, lambda about: about["key"].update(flags=["x"])),
    "facts that are none": lambda plan: edit(plan, lambda about: about.update(facts=3)),
}


def edit(plan: plans.Plan, change: object) -> None:
    path = plan.path.with_suffix(".json")
    about = json.loads(path.read_text())
    change(about)  # type: ignore[operator]
    path.write_text(json.dumps(about))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_plan_counts_as_none_and_says_so_in_a_line(onnx: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = key_of(onnx)
    DAMAGE[damage](store(key, BYTES, {}))
    assert get(key) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {plans.folder() / key.name}.json ")
    assert line.endswith("and is passed over; build it again")
    refusal(onnx)
    assert store(key, BYTES, {}) == get(key, say=quiet)


def test_a_failure_leaves_the_old_plan_as_it_was(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_of(onnx)
    stored = store(key, BYTES, {"rung": "int8"})
    with pytest.raises(TypeError, match="serializable"):
        store(key, b"new", {"rung": object()})

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "write_bytes", full)
        store(key, b"new", {})
    assert find(onnx, *HERE, say=quiet) == stored
    assert len(list(stored.path.parent.iterdir())) == 2


def test_a_plan_that_goes_between_finding_and_reading_is_a_line(onnx: Path) -> None:
    plan = store(key_of(onnx), BYTES, {})
    plan.path.unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        plan.read()


def test_pruning_keeps_the_plans_of_what_is_named_and_says_what_it_freed(onnx: Path) -> None:
    assert plans.prune([]) == 0
    kept = [store(key_of(onnx, flag), BYTES, {}) for flag in ("a", "b")]
    timings = plans.folder() / "timing-10.3.0-Thor-sm11.0.cache"
    timings.write_bytes(BYTES)
    before = {path.name for path in plans.folder().iterdir()}
    gone = [store(dataclasses.replace(key_of(onnx), onnx_sha256=other * 64), BYTES, {}) for other in "01"]
    gone[1].path.unlink()
    for name, text in {"cut": "{", "deep": "[" * 100_000, "foreign": '{"key": {"onnx_sha256": []}}'}.items():
        (plans.folder() / f"{name}.json").write_text(text)
    wanted = sum(path.stat().st_size for path in plans.folder().iterdir() if path.name not in before)
    being_written = {"half.engine", ".half.engine", ".half.json"}
    for name in being_written:
        (plans.folder() / name).write_bytes(BYTES)
    assert plans.prune({sha256_file(onnx), "2" * 64}) == wanted
    assert {path.name for path in plans.folder().iterdir()} == before | being_written
    assert [get(plan.key, say=quiet) for plan in kept] == kept
