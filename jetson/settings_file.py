"""The owner's settings, /etc/sage-edge/sage-edge.conf: an environment file of systemd (KEY=VALUE a line, # begins a comment)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from .lay_in import write_beside


class SettingsError(Exception):
    """A setting that does not exist or cannot be written down."""


def parse_setting(text: str) -> tuple[str, str]:
    """KEY=VALUE as given on a command line. Raises SettingsError."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch("[A-Z][A-Z0-9_]*", key) or not value.isprintable():
        raise SettingsError(f"{text!r} is no setting; give KEY=VALUE in one line, as in SAGE_EDGE_CAMERA=/dev/video0")
    return key, value


def known_settings(text: str) -> list[str]:
    """The keys that a settings file names, set or commented out."""
    return list(dict.fromkeys(re.findall(r"^#? ?([A-Z][A-Z0-9_]*)=", text, re.MULTILINE)))


def with_settings(text: str, values: Mapping[str, str], example: str = "") -> str:
    """The file `text` with these settings: each on the line that set it or had it commented out, else at the end.

    Raises SettingsError for a key that neither `text` nor `example`, the file as the release has it, names.
    """
    known = list(dict.fromkeys([*known_settings(text), *known_settings(example)]))
    for key, value in values.items():
        if key not in known:
            near = (difflib.get_close_matches(key, known, n=1) or ["none like it"])[0]
            raise SettingsError(f"setting {key!r} does not exist; nearest: {near}")
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        line = f"{key}={value}" if re.fullmatch(r"[\w./:@,+=-]*", value) else f'{key}="{quoted}"'
        # the last line that sets it counts; only where none does, the example is taken
        set_at = list(re.finditer(rf"^{key}=.*$", text, re.MULTILINE)) or list(re.finditer(rf"^# ?{key}=.*$", text, re.MULTILINE))[:1]
        begin, end = set_at[-1].span() if set_at else (len(text), len(text))
        text = text[:begin] + ("" if set_at else "\n") + line + (text[end:] if set_at else "\n")
    return text


def change_settings(path: Path, values: Mapping[str, str], example: str = "") -> bool:
    """`with_settings` on the file, all or none; returns whether it changed. Raises SettingsError."""
    before = path.read_text()
    after = with_settings(before, values, example)
    if after != before:
        write_beside(path, after.encode(), path.stat().st_mode & 0o777)
    return after != before
