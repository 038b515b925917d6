"""What the owner's settings mean for the service: SAGE_EDGE_CAMERA, SAGE_EDGE_MIC, SAGE_EDGE_OPTIONS and so on, from an environment.

words = run_words(os.environ)                    # of a service: systemd has read the file
words = run_words(read_settings(path))           # of a tool that root starts
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sage_edge.runtime.errors import UsageError

AUTO = ("--precision", "--backend")
"""Options of `run` that are "auto" where nothing else is said."""
_BLANK = " \t\n\r"
_NETWORK = ("ws:", "mqtt:", "mqtts:", "prometheus:", "rtsp:", "http:", "https:")


def read_settings(path: Path) -> dict[str, str]:
    """The environment file at `path`, character for character as systemd reads it; empty where there is none.

    Quotes are quotes only where a value, or a part of it after another quoted one, begins; a backslash takes the next character as it is, or
    goes on in the next line (systemd's env-file.c). What is no NAME=VALUE is passed over.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    except FileNotFoundError:
        return {}
    settings: dict[str, str] = {}
    signs = iter(text)
    for sign in signs:
        if sign in "#;":
            _until(signs, "\n")
        elif sign not in _BLANK:
            key, end = _until(signs, "=\n")
            key = (sign + key).strip(_BLANK)
            value = _value(signs) if end == "=" else None
            if value is not None and re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", key):
                settings[key] = value
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
        # argparse takes an option that is cut short, too
        if len(option := word.partition("=")[0]) > len("--se") and "--serve".startswith(option):
            return "--serve"
        if value.lower().startswith(_NETWORK):
            return value.partition(":")[0] + ":"
    return None


def _until(signs: Iterator[str], ends: str) -> tuple[str, str]:
    """What comes before the first of `ends`, and that one."""
    text = ""
    for sign in signs:
        if sign in ends:
            return text, sign
        text += sign
    return text, ""


def _value(signs: Iterator[str]) -> str:
    """The value that `signs` go on with, up to the end of its line."""
    value, kept = "", 0  # up to `kept`, blanks at the end were quoted or escaped
    quote, begins = "", True
    for sign in signs:
        if quote:
            if sign == quote:
                quote, begins, kept = "", True, len(value)
            elif sign == "\\" and quote == '"':
                following = next(signs, "")
                value += following if following in '"\\`$' else "" if following == "\n" else sign + following
            else:
                value += sign
        elif sign == "\n":
            break
        elif sign == "\\":
            following = next(signs, "")
            value += "" if following == "\n" else following
            begins, kept = False, len(value)
        elif begins and sign in "\"'":
            quote = sign
        elif not (begins and sign in _BLANK):
            value, begins = value + sign, False
    return value if quote else value[:kept] + value[kept:].rstrip(_BLANK)


def _words(text: str, key: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{key} {text!r} cannot be taken apart ({error}); quote it as in a shell") from None
