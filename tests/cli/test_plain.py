"""What --json prints is JSON, also where a score is not defined."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sage_edge.cli.main import main
from sage_edge.cli.plain import dumps


def strict(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_is_null() -> None:
    value = {"a": math.nan, "b": [math.inf, (1.5, -math.inf)], "c": {"d": True, "e": None, "f": "NaN", "g": 3}}
    assert strict(dumps(value)) == {"a": None, "b": [None, [1.5, None]], "c": {"d": True, "e": None, "f": "NaN", "g": 3}}


def test_verify_prints_json_when_outputs_are_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from sage_edge.calibration import check
    from sage_edge.runtime.bundle import Bundle

    golden = {"fp32": check.GoldenResult({"estimates": math.inf}, 0.001)}
    monkeypatch.setattr(Bundle, "open", lambda path: path)
    monkeypatch.setattr(check, "verify", lambda *_, **__: check.VerifyResult("x", "0", golden, 0.005))
    assert main(["verify", str(tmp_path), "--json"]) == 1
    said = strict(capsys.readouterr().out)
    assert said["golden"]["fp32"]["differences"] == {"estimates": None}
    assert said["ok"] is False
