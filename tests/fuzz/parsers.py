"""Fuzz what reads words and files from outside: whatever comes, the answer is a value or a SageError of one line, without a password in it.

    pip install atheris
    python tests/fuzz/parsers.py camera -max_total_time=600

The first word is one of TARGETS, what follows is libFuzzer's. An input that breaks a rule is written to the working folder.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import atheris

with atheris.instrument_imports(include=["sage_edge", "urllib"]):
    from sage_edge.calibration.ranges import Ranges
    from sage_edge.runtime import bundle, errors, smoothing
    from sage_edge.runtime.sinks import address, open_sink, open_sinks
    from sage_edge.runtime.sources import uri

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
from tiny_bundle import write_manifest

Provider = atheris.FuzzedDataProvider
SECRET = "pAs5w0rd"
WORDS = {
    "camera": [
        "camera:",
        "v4l2:///dev/video0",
        "csi://0",
        "rtsp://",
        "http://",
        "https://",
        "none",
        "file.mp4",
        "?",
        "fps=",
        "&",
        "width=",
        "height=",
        "pace=",
        "fourcc=MJPG",
    ],
    "microphone": ["mic:", "mic:default", "none", "?", "rate=", "&", "channels=", "%3F", "%"],
    "sink": [
        "jsonl:",
        "csv:",
        "ws://",
        "prometheus://",
        "mqtt://",
        "mqtts://",
        ":1883/",
        "?token=",
        "?append=1",
        "[::1]",
        "127.0.0.1",
        ":0",
        "/",
        "#",
        "+",
    ],
    "smoothing": ["one-euro", ":", "0.5", ",", "1", "average", "s", "none", "nan", "inf", "1e999", "-"],
}


def accept(call: Callable[[], Any], secret: str = "") -> Any:
    """The value of `call`, or None for a SageError, which is one line and does not hold `secret`."""
    try:
        return call()
    except errors.SageError as error:
        said = str(error)
        assert said.isprintable(), f"not one line: {said!r}"
        assert not secret or secret not in said, f"a password in an error: {said!r}"
        return None


def words(data: Provider, kind: str) -> str:
    """Pieces of what `kind` understands, and anything between them."""
    parts = []
    for _ in range(data.ConsumeIntInRange(1, 6)):
        parts.append(data.PickValueInList(WORDS[kind]) if data.ConsumeBool() else data.ConsumeUnicode(data.ConsumeIntInRange(0, 12)))
    return "".join(parts)


def camera(data: Provider) -> None:
    text = words(data, "camera")
    found = accept(lambda: uri.parse_camera(text))
    assert found is None or found.text.isprintable()
    scheme = data.PickValueInList(["http", "https", "rtsp"])
    text = f"{scheme}://{data.ConsumeUnicodeNoSurrogates(6)}:{SECRET}{data.ConsumeUnicodeNoSurrogates(4)}@{data.ConsumeUnicodeNoSurrogates(20)}"
    found = accept(lambda: uri.parse_camera(text), SECRET)
    assert found is None or SECRET not in found.text + repr(found), f"a password in {found.text!r}"


def microphone(data: Provider) -> None:
    text = words(data, "microphone")
    found = accept(lambda: uri.parse_microphone(text))
    assert found is None or found.name is None or found.name.strip()
    name = data.ConsumeUnicodeNoSurrogates(20)
    again = accept(lambda: uri.parse_microphone(uri.microphone_uri(name)))
    assert again is None or again.name in (None, name.strip()), f"{name!r} came back as {again.name!r}"


def sink(data: Provider) -> None:
    # A path may hold a line break, and is named as it is.
    text, other = ("".join(filter(str.isprintable, words(data, "sink"))) for _ in range(2))
    accept(lambda: open_sink(text))
    accept(lambda: open_sinks([text, other]))
    scheme = data.PickValueInList(list(address.FORMS))
    text = f"{scheme}://{data.ConsumeUnicodeNoSurrogates(6)}:{SECRET}{data.ConsumeUnicodeNoSurrogates(4)}@{data.ConsumeUnicodeNoSurrogates(20)}"
    found = accept(lambda: address.Address.parse(text), SECRET)
    assert found is None or SECRET not in f"{found} {found!r}", f"a password in {found!r}"


def smooth(data: Provider) -> None:
    text = words(data, "smoothing")
    found = accept(lambda: smoothing.Smoothing.parse(text))
    assert found is None or str(found)


def plain(data: Provider, depth: int = 0) -> Any:
    """Any JSON value."""
    kind = data.ConsumeIntInRange(0, 7 if depth < 3 else 5)
    if kind == 0:
        return data.PickValueInList([None, True, False, {}, [], "", 0, -1, 1e308, float("inf"), float("nan"), 10**400])
    if kind in (1, 2):
        return data.ConsumeInt(8) if kind == 1 else data.ConsumeFloat()
    if kind < 6:
        return data.ConsumeUnicodeNoSurrogates(data.ConsumeIntInRange(0, 10))
    if kind == 6:
        return [plain(data, depth + 1) for _ in range(data.ConsumeIntInRange(0, 4))]
    return {data.ConsumeUnicodeNoSurrogates(6): plain(data, depth + 1) for _ in range(data.ConsumeIntInRange(0, 4))}


def change(data: Provider, value: Any) -> Any:
    """`value` with something in it replaced, removed or added."""
    if not isinstance(value, (dict, list)) or not value or data.ConsumeIntInRange(0, 5) == 0:
        return plain(data)
    key: Any = data.PickValueInList(list(value)) if isinstance(value, dict) else data.ConsumeIntInRange(0, len(value) - 1)
    what = data.ConsumeIntInRange(0, 9)
    if what == 0:
        del value[key]
    elif what == 1 and isinstance(value, dict):
        value[data.ConsumeUnicodeNoSurrogates(8)] = plain(data)
    else:
        value[key] = change(data, value[key])
    return value


def manifest(data: Provider) -> None:
    if data.ConsumeBool():
        value = json.loads(MANIFEST)
        for _ in range(data.ConsumeIntInRange(1, 4)):
            value = change(data, value)
        if isinstance(value, dict) and data.ConsumeIntInRange(0, 7):
            accept(lambda: value.update(digest=bundle.digest_of({key: item for key, item in value.items() if key != "digest"})))
        text = json.dumps(value).encode()
    else:
        text = data.ConsumeBytes(400)
    found = accept(lambda: bundle.Manifest.from_json(text))
    assert found is None or bundle.Manifest.from_json(found.to_json()) == found


def ranges(data: Provider) -> None:
    if data.ConsumeBool():
        value = json.loads(RANGES)
        for _ in range(data.ConsumeIntInRange(1, 4)):
            value = change(data, value)
        text = json.dumps(value).encode()
    else:
        text = data.ConsumeBytes(400)
    SCRATCH.write_bytes(text)
    found = accept(lambda: Ranges.load(SCRATCH))
    if found is not None:
        found.save(SCRATCH)
        Ranges.load(SCRATCH)


def instrument_methods() -> None:
    """atheris follows functions of instrumented modules, and not those of their classes."""
    for name, module in list(sys.modules.items()):
        for each in vars(module).values() if name.startswith("sage_edge.") else ():
            if isinstance(each, type) and each.__module__ == name:
                for member in vars(each).values():
                    function = getattr(member, "__func__", member)
                    if isinstance(function, FunctionType):
                        atheris.instrument_func(function)


TARGETS = {"camera": camera, "microphone": microphone, "sink": sink, "smoothing": smooth, "manifest": manifest, "ranges": ranges}
RANGES = json.dumps(
    {
        "method": "percentile", "set_sha256": "0" * 64, "clips": 1, "graphs": {"visual": {"x": [-1.0, 2.5, "minmax"], "y": [0, 1]}},
        "equalised": {"visual": {"x": [0, -1, 2]}}, "search": {"precision": "int8-cpu", "float_groups": ["audio"]},
        "set": {"split": "train", "length": 300, "store_digest": "abc", "clips": [{"trial": "a", "newest": 299, "why": "loud"}]},
    }
)  # fmt: skip


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"name one target: {', '.join(TARGETS)}")
    run = TARGETS[sys.argv.pop(1)]
    sys.argv[1:] = [word if word.startswith("-") else os.path.abspath(word) for word in sys.argv[1:]]
    if run is sink:
        os.chdir(SCRATCH.parent)  # should an output be created after all

    def one(data: bytes) -> None:
        run(Provider(data))

    instrument_methods()
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        SCRATCH = Path(folder) / "scratch.json"
        write_manifest(Path(folder))
        MANIFEST = (Path(folder) / "manifest.json").read_text()
        main()
