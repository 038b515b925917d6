"""What this processor can multiply: the instruction sets that decide how an INT8 or bf16 graph runs, as Linux tells them.

features()                  # frozenset({"avx2", "avx512", "avx512_vnni", "amx_int8", ...}); empty where there is no /proc/cpuinfo
saturates(features())       # True: x86 without VNNI, whose 8-bit products can overflow 16 bits
"""

from __future__ import annotations

import platform
from collections.abc import Set
from functools import lru_cache
from pathlib import Path

_X86 = {
    "avx2": "avx2",
    "avx512bw": "avx512",
    "avx_vnni": "avx_vnni",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
}
_AARCH64 = {"asimdhp": "fp16", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16"}
FEATURES = (*_X86.values(), *_AARCH64.values())
_X86_MACHINES = ("x86_64", "AMD64", "amd64")


@lru_cache(maxsize=1)
def features() -> frozenset[str]:
    """Those of `FEATURES` that this machine's processor has."""
    try:
        return features_of(Path("/proc/cpuinfo").read_text(), platform.machine())
    except OSError:
        return frozenset()


def features_of(cpuinfo: str, arch: str) -> frozenset[str]:
    """Those of `FEATURES` that the text of a /proc/cpuinfo names; `arch` is what `platform.machine()` says there."""
    names = _X86 if arch in _X86_MACHINES else _AARCH64
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(names[word] for word in value.split() if word in names)
    return frozenset()


def saturates(found: Set[str], arch: str | None = None) -> bool:
    """Whether sums of two products of uint8 by int8 saturate at 16 bits here: x86 with AVX2 or AVX-512 and without VNNI (vpmaddubsw)."""
    x86 = (platform.machine() if arch is None else arch) in _X86_MACHINES
    return x86 and "avx2" in found and not found & {"avx_vnni", "avx512_vnni"}


def saturation_note(backend: str, found: Set[str] | None = None) -> str | None:
    """The line that says what this means for `int8-cpu` graphs with weights of 8 bits on `backend`; None where there is nothing to say."""
    if backend not in _NOTES or not saturates(features() if found is None else found):
        return None
    return f"this processor has no VNNI: {_NOTES[backend]}"


_NOTES = {
    "onnxruntime": "onnxruntime gives int8-cpu graphs uint8 weights, so that nothing saturates; --precision auto tells whether fp32 is faster now",
    "openvino": "openvino's sums saturate in int8-cpu graphs; compile with --reduce-range (weights of 7 bits), or let --precision auto check them",
}
