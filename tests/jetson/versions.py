"""Releases whose programs do what a test wants of them: a service that is well, or is not in one of several ways."""

from __future__ import annotations

import sys
from pathlib import Path

from released import make_release

_SERVICE = """#!{python} -ES
import os, socket, sys, time
link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def tell(*lines):
    link.sendto("\\n".join([*lines, "RUN=" + os.environ["RUN"]]).encode(), os.environ["NOTIFY_SOCKET"])
behaviour, begin = {behaviour!r}, time.monotonic()
if behaviour == "dies at once":
    sys.stderr.write("error: no camera of mine\\n")
    print('{{"v":1}}', flush=True)
    sys.exit(3)
estimates = 0
while True:
    time.sleep(0.01)
    if behaviour == "never ready":
        continue
    if behaviour != "stalls" or estimates < 5:
        estimates += 1
    tell(*["READY=1"] * (estimates == 1), f"STATUS={{estimates}} estimates of {version}")
    if behaviour == "dies later" and time.monotonic() - begin > 0.1:
        sys.exit(4)
"""
_PREPARE = """#!/bin/sh
echo "$CACHE_DIRECTORY $HOME $PYTHONPYCACHEPREFIX $(id -u) $SAGE_EDGE_OPTIONS" > "$CACHE_DIRECTORY/prepared-{version}"
{rest}
"""


def make_version(out: Path, version: str, behaviour: str = "well", prepare: str = "exit 0") -> Path:
    """An archive in `out`."""
    programs = {
        "bin/sage-edge-service": _SERVICE.format(python=sys.executable, behaviour=behaviour, version=version),
        "bin/sage-edge-prepare": _PREPARE.format(version=version, rest=prepare),
        "bin/sage-edge-update": "#!/bin/sh\n",
    }
    return make_release(out, programs, version=version)
