"""What tests of a board's facts share."""

from __future__ import annotations

from pathlib import Path

import pytest
from board_files import Tools


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """No tool of a board but those that the test adds."""
    return Tools(tmp_path / "tools", monkeypatch)
