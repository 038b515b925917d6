"""Whatever a sound server's tool prints, what is made of it has the types that it should."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sage_edge.runtime.sources.pulse import PulseSource, pulse_sources, recorded_number

OWN = str(os.getpid())
SOURCE = {"index": 3, "name": "mic", "description": "Mic", "sample_specification": "s16le 2ch 48000Hz", "monitor_source": "", "source": 3}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["s16le 1ch 16000Hz", OWN]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
PROPERTIES = VALUES | st.fixed_dictionaries({"application.process.id": st.just(OWN) | VALUES})
ENTRIES = VALUES | st.fixed_dictionaries({}, optional={**{key: st.just(value) | VALUES for key, value in SOURCE.items()}, "properties": PROPERTIES})
TYPES = {"number": int, "name": str, "description": str, "rate_hz": int, "channels": int, "default": bool, "monitor": bool}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What `pactl` prints, whatever it is asked."""
    folder = tmp_path_factory.mktemp("pactl")
    tool, printed = folder / "pactl", folder / "printed"
    tool.write_text(f"#!/bin/sh\nexec cat {printed}\n")
    tool.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=os.pathsep)
        yield printed


@given(said=VALUES | st.lists(ENTRIES, max_size=3))
@example(said=[{"source": [3], "properties": {"application.process.id": OWN}}])
@example(said=[{**SOURCE, "sample_specification": f"s16le 1ch {'9' * 5000}Hz"}])
@settings(max_examples=20, deadline=None)
def test_json_of_any_shape(said: Any, printed: Path) -> None:
    printed.write_text(json.dumps(said))
    for source in pulse_sources():
        assert {name: type(value) for name, value in asdict(source).items()} == TYPES
    number = recorded_number()
    assert number is None or isinstance(number, int)


@pytest.mark.parametrize("said", [b"", b"\xff\xfe", b"[" * 200_000, b'[{"index": 1'])
def test_what_is_no_json(said: bytes, printed: Path) -> None:
    printed.write_bytes(said)
    assert pulse_sources() == []
    assert recorded_number() is None


def test_what_is_as_it_should_be(printed: Path) -> None:
    outputs = [{**SOURCE, "properties": {"application.process.id": OWN}}, {**SOURCE, "source": 4}, "none", {**SOURCE, "name": "a\0b"}]
    printed.write_text(json.dumps(outputs))
    assert pulse_sources() == [PulseSource(3, "mic", "Mic", 48_000, 2, False, False)] * 2
    assert recorded_number() == 3
