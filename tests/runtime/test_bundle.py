"""A bundle is verified whole before anything of it is used, and every refusal says what to do."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import write_manifest

from sage_edge.runtime.bundle import Bundle, Manifest, digest_of
from sage_edge.runtime.errors import BundleError, UsageError

Copy = Callable[[], Path]


def refusal(path: Path) -> str:
    """The message of the BundleError that opening `path` raises; checked to be one line with a fix."""
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    text = str(caught.value)
    assert "\n" not in text
    assert ";" in text or ":" in text
    return text


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """Change the manifest's JSON, give it a right digest again, and return how it is refused."""
    file = path / "manifest.json"
    value = json.loads(file.read_text())
    change(value)
    value["digest"] = digest_of(value)
    file.write_text(json.dumps(value))
    return refusal(path)


def put(value: dict[str, Any], key: str, new: Any) -> None:
    *path, name = key.split(".")
    for part in path:
        value = value[part]
    value[name] = new


def test_opens(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    assert bundle.precisions == ("fp32", "int8-cpu")
    assert bundle.manifest.hop == 15
    assert bundle.manifest.trained_on.extra == {"seed": 0}
    assert bundle.graph("audio", "int8-cpu") == bundle_path.resolve() / "onnx/audio.int8-cpu.onnx"
    golden = bundle.golden()
    assert golden["estimates_fp32"].shape == (2, 300, 2)
    assert np.abs(golden["estimates_fp32"]).max() <= 1
    for name, precision in (("motion", "fp32"), ("audio", "int8-trt"), ("audio", "int8")):
        with pytest.raises(UsageError):
            bundle.graph(name, precision)


def test_json_round_trip(bundle: Bundle) -> None:
    text = bundle.manifest.to_json()
    again = Manifest.from_json(text)
    assert again == bundle.manifest
    assert json.loads(text)["digest"] == again.digest == bundle.manifest.digest
    assert json.loads(text)["trained_on"] == {"name": "synthetic", "synthetic": True, "seed": 0}


def test_digest_is_over_canonical_json(bundle_path: Path) -> None:
    import hashlib

    value = json.loads((bundle_path / "manifest.json").read_text())
    said = value.pop("digest")
    assert said == hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("window", "300", "a whole number"),
        ("window", 300.0, "a whole number"),
        ("window", True, "a whole number"),
        ("window", 0, "at least 1"),
        ("hop", 301, "1 to 300"),
        ("samples", 160001, "160000 for 300 ticks"),
        ("model", [], "an object"),
        ("model.name", None, "a string"),
        ("model.reliability", "none", "'temporal' or 'modality'"),
        ("face.mean", [0.5, 0.5], "three numbers"),
        ("face.mean", 0.5, "a list"),
        ("face.std", [1, 1, 0], "three positive numbers"),
        ("face.std", [1, 1, "1"], "a number"),
        ("face.input_size", 49, "1 to 48"),
        ("face.colour", "bgr", "'rgb'"),
        ("dims.audio", 0, "at least 1 each"),
        ("output.range", [0, 1], "[-1, 1]"),
        ("output.names", ["arousal", "valence"], "['valence', 'arousal']"),
        ("trained_on.synthetic", "no", "true or false"),
        ("weights_bytes.fp16", 1, "one of fp32"),
        ("ccc.offline", {}, "'overlap' or 'live'"),
        ("ccc.live.fp32.mean", "high", "a number"),
        ("files.golden\u002enpz", {}, "missing"),
    ],
)
def test_wrong_value_is_named(copy_of: Copy, key: str, value: Any, rule: str) -> None:
    path = copy_of()
    if key.startswith("files."):
        text = edit(path, lambda manifest: manifest["files"].update({"golden.npz": value}))
    else:
        text = edit(path, lambda manifest: put(manifest, key, value))
    assert rule in text
    assert key.split(".")[0] in text


def test_missing_key_is_named(copy_of: Copy) -> None:
    assert "key 'face.crop_size' is missing" in edit(copy_of(), lambda manifest: manifest["face"].pop("crop_size"))


def test_unknown_key_names_the_nearest(copy_of: Copy) -> None:
    assert re.search(r"key 'windows' is unknown; did you mean 'window'\?", edit(copy_of(), lambda manifest: put(manifest, "windows", 3)))


def test_newer_schema_comes_before_everything_else(copy_of: Copy) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["schema"] = 2
        manifest["streams"] = 4

    assert "schema 2" in edit(path := copy_of(), change)
    assert "upgrade" in refusal(path)


def test_digest_must_match(copy_of: Copy) -> None:
    path = copy_of()
    file = path / "manifest.json"
    file.write_text(file.read_text().replace('"hop": 15', '"hop": 30'))
    assert "digest" in refusal(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema": 1, "schema": 1}', '{"schema": NaN}', '{"schema": "1"}', '{"schema": 0}', "\x00\xff", "[" * 99999]
)
def test_damaged_manifest(copy_of: Copy, text: str) -> None:
    path = copy_of()
    (path / "manifest.json").write_bytes(text.encode("latin-1"))
    refusal(path)


def test_manifest_missing_or_no_folder(copy_of: Copy, tmp_path: Path) -> None:
    path = copy_of()
    (path / "manifest.json").unlink()
    assert "no manifest.json" in refusal(path)
    assert "does not exist" in refusal(tmp_path / "nothing.sage")
    (tmp_path / "file.sage").write_text("{}")
    assert "is not a folder" in refusal(tmp_path / "file.sage")


def test_flipped_byte_in_every_file(copy_of: Copy) -> None:
    path = copy_of()
    for name in Bundle.open(path).manifest.files:
        whole = (path / name).read_bytes()
        damaged = bytearray(whole)
        damaged[len(damaged) // 2] ^= 1
        (path / name).write_bytes(damaged)
        text = refusal(path)
        assert name in text
        assert "sha256" in text
        (path / name).write_bytes(whole)
    Bundle.open(path)


def test_missing_longer_and_unlisted_file(copy_of: Copy) -> None:
    path = copy_of()
    graph = path / "onnx/visual.fp32.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole + b"\0")
    assert f"{len(whole) + 1} bytes" in refusal(path)
    graph.unlink()
    assert "lacks onnx/visual.fp32.onnx" in refusal(path)
    graph.write_bytes(whole)
    (path / "onnx/weights.bin").write_bytes(b"12")
    assert "onnx/weights.bin is not listed" in refusal(path)


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/passwd", "onnx/../../outside.onnx", "onnx//x", "./x", "", "C:\\x", "manifest.json", "."])
def test_path_that_leaves_the_folder(copy_of: Copy, name: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = {"size": 1, "sha256": "0" * 64}

    assert "not a plain path" in edit(copy_of(), change)


def test_link_that_leaves_the_folder(copy_of: Copy, tmp_path: Path) -> None:
    path = copy_of()
    graph = path / "onnx/fusion.fp32.onnx"
    graph.rename(tmp_path / "outside.onnx")
    graph.symlink_to(tmp_path / "outside.onnx")
    assert "link that leaves" in refusal(path)
    graph.unlink()
    (tmp_path / "outside.onnx").rename(path / "inside.onnx")
    (path / "onnx").rename(tmp_path / "onnx")
    (path / "onnx").symlink_to(tmp_path / "onnx")
    refusal(path)
    manifest = tmp_path / "manifest-outside.json"
    (path / "manifest.json").rename(manifest)
    (path / "manifest.json").symlink_to(manifest)
    assert "link that leaves" in refusal(path)


def test_a_linked_folder_inside_is_not_listed(copy_of: Copy, tmp_path: Path) -> None:
    path = copy_of()
    (tmp_path / "elsewhere").mkdir()
    (path / "more").symlink_to(tmp_path / "elsewhere")
    assert "more is not listed" in refusal(path)
    (path / "more").unlink()
    (path / "onnx/again").symlink_to(path / "onnx")
    assert "onnx/again is not listed" in refusal(path)


def test_bundle_may_itself_be_reached_by_a_link(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "link.sage").symlink_to(bundle_path)
    assert Bundle.open(tmp_path / "link.sage").path == bundle_path.resolve()


def test_incomplete_precision_is_not_offered(copy_of: Copy) -> None:
    path = copy_of()
    (path / "onnx/fusion.int8-cpu.onnx").unlink()
    write_manifest(path)
    assert Bundle.open(path).precisions == ("fp32",)
    (path / "onnx/fusion.fp32.onnx").unlink()
    write_manifest(path)
    assert "no complete set" in refusal(path)


def test_golden_of_objects_is_refused(copy_of: Copy) -> None:
    path = copy_of()
    np.savez(path / "golden.npz", faces=np.array([{}], dtype=object))
    write_manifest(path)
    with pytest.raises(BundleError, match="golden"):
        Bundle.open(path).golden()
    shutil.copy(path / "manifest.json", path / "golden.npz")
    write_manifest(path)
    with pytest.raises(BundleError, match="golden"):
        Bundle.open(path).golden()
    (path / "golden.npz").write_bytes(b"PK\x03\x04 begins like an archive")
    write_manifest(path)
    with pytest.raises(BundleError, match="golden"):
        Bundle.open(path).golden()


def test_to_json_refuses_what_from_json_would(bundle: Bundle) -> None:
    import dataclasses

    with pytest.raises(BundleError, match="hop"):
        dataclasses.replace(bundle.manifest, hop=0).to_json()
