"""Addresses as they may be shown: in logs, notices, errors and on a page."""

from __future__ import annotations

import re

_USER = re.compile(r"//.*@", re.DOTALL)
_OPTION = re.compile(r"([?&;][^=&;]*(?:pass|pwd|token|secret|key|auth)[^=&;]*=)[^&]*", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """`text` with everything between // and the last @ starred out, and the value of every option whose name sounds like a secret."""
    return _OPTION.sub(r"\1***", _USER.sub("//***@", text))
