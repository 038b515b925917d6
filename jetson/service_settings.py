"""What the owner's settings mean for the service: SAGE_EDGE_CAMERA, SAGE_EDGE_MIC, SAGE_EDGE_OPTIONS and so on, from an environment.

words = run_words(os.environ)                    # of a service: systemd has read the file
words = run_words(read_settings(path))           # of a tool that root starts
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from sage_edge.runtime.errors import UsageError

AUTO = ("--precision", "--backend")
"""Options of `run` that are "auto" where nothing else is said."""
_NETWORK = ("ws:", "mqtt:", "mqtts:", "prometheus:", "rtsp:", "http:", "https:")


def read_settings(path: Path) -> dict[str, str]:
    """The environment file at `path` as systemd reads it, but for values over several lines; empty where there is none. Raises UsageError."""
    settings: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return settings
    for number, line in enumerate(text.splitlines(), 1):
        key, equals, value = line.strip().partition("=")
        if not key or key.startswith(("#", ";")):
            continue
        if not equals or not key.strip().isidentifier():
            raise UsageError(f"{path}, line {number}: {line.strip()!r} is no setting; write NAME=VALUE, or # before it")
        value = value.strip()
        settings[key.strip()] = " ".join(_words(value, key.strip())) if set(value) & set("\"'\\") else value
    return settings


def is_yes(value: str | None) -> bool:
    """Whether a setting is switched on. Raises UsageError for what is neither."""
    folded = (value or "no").strip().lower()
    if folded in ("1", "yes", "true", "on"):
        return True
    if folded in ("0", "no", "false", "off", ""):
        return False
    raise UsageError(f"setting {value!r} is neither yes nor no; write one of the two")


def run_words(environ: Mapping[str, str]) -> list[str]:
    """The options of `sage-edge run` that the settings ask for. Raises UsageError for settings that cannot be taken."""
    given = _words(environ.get("SAGE_EDGE_OPTIONS", ""), "SAGE_EDGE_OPTIONS")
    devices = [("--camera", "SAGE_EDGE_CAMERA"), ("--mic", "SAGE_EDGE_MIC")]
    words = [word for option, key in devices for word in (option, environ.get(key, "").strip() or "none")]
    words += [word for option in AUTO if option_value(given, option) is None for word in (option, "auto")]
    return [*words, *given]


def option_value(words: Sequence[str], option: str) -> str | None:
    """The value of `option` as the last one of "--option VALUE" and "--option=VALUE" gives it; None where it is not there."""
    found = None
    for index, word in enumerate(words):
        if word == option:
            found = "".join(words[index + 1 : index + 2])
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def wants_network(words: Sequence[str]) -> str | None:
    """The first word that needs a network, secrets left out; None where nothing does."""
    for word in words:
        value = word.partition("=")[2] if word.startswith("--") else word
        if word.partition("=")[0] == "--serve":
            return "--serve"
        if value.lower().startswith(_NETWORK):
            return value.partition(":")[0] + ":"
    return None


def _words(text: str, key: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{key} {text!r} cannot be taken apart ({error}); quote it as in a shell") from None
