"""Stands in for systemd: a `systemctl` on PATH, and one unit whose program is really started, told to stop, and started again when it fails.

It listens where sd_notify sends to, so what it shows of the unit is what the unit said. Every call of `systemctl` is kept in `calls`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

READY_S = 60.0
"""TimeoutStartSec."""
RESTART_S = 0.1
_SYSTEMCTL = """#!{python} -ES
import json, socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    link.sendall(json.dumps(sys.argv[1:]).encode() + b"\\n")
    code, out, err = json.loads(link.makefile().readline())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


class Systemd:
    """`program` is ExecStart of the one unit."""

    def __init__(self, folder: Path, program: Path, unit: str = "sage-edge.service") -> None:
        self.unit, self.program, self.calls = unit, program, list[list[str]]()
        self.environment: dict[str, str] = {}
        """What the unit gets besides systemd's own."""
        self.patience_s: dict[str, float] = {}
        """The same for programs in a folder of this name."""
        self.heard: list[str] = []
        """Every message of sd_notify."""
        self._values = {
            "ActiveState": "inactive",
            "SubState": "dead",
            "Result": "success",
            "ExecMainStatus": "0",
            "InvocationID": "",
            "StatusText": "",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._changed = threading.Condition(threading.RLock())
        folder.mkdir(parents=True)
        self.bin = folder / "bin"
        self.bin.mkdir()
        address, self._notify_path = str(folder / "control"), str(folder / "notify")
        (self.bin / "systemctl").write_text(_SYSTEMCTL.format(python=sys.executable, address=address))
        (self.bin / "systemctl").chmod(0o755)
        self._journal = folder / "journal"
        self._journal.mkdir()
        (self.bin / "journalctl").write_text(f'#!/bin/sh\nfor last; do :; done\nexec cat "{self._journal}/${{last#*=}}"\n')
        (self.bin / "journalctl").chmod(0o755)
        self._control = socket.socket(socket.AF_UNIX)
        self._control.bind(address)
        self._control.listen(8)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(self._notify_path)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._serve, self._listen)]
        for thread in self._threads:
            thread.start()

    @property
    def active(self) -> bool:
        with self._changed:
            return self._values["ActiveState"] == "active"

    def close(self) -> None:
        """End the unit and stop listening."""
        self.power_off()
        for end in (self._control, self._notify):
            end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:  # first: one that is on its way to a closed socket would read from the next one of its number
            thread.join()
        for end in (self._control, self._notify):
            end.close()

    def power_off(self) -> None:
        """The unit is gone at once, and its programs with it."""
        with self._changed:
            self._wanted, process, self._process = False, self._process, None
            self._values.update(ActiveState="inactive", SubState="dead", StatusText="")
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @property
    def pid(self) -> int | None:
        """Of the unit's main process."""
        with self._changed:
            return None if self._process is None else self._process.pid

    def terminate(self) -> int:
        """As `systemctl stop`: SIGTERM to the main process; its exit code."""
        with self._changed:
            self._wanted, process = False, self._process
        assert process is not None
        process.terminate()
        return process.wait(30)

    def restart(self, wait: bool = True) -> bool:
        """As `systemctl restart`; whether it became ready."""
        self.power_off()
        with self._changed:
            self._wanted = True
            self._start()
            self._values["Result"] = "success"
            if wait:
                self._changed.wait_for(
                    lambda: self._values["SubState"] != "start", self.patience_s.get(self.program.resolve().parents[1].name, READY_S)
                )
                if self._values["SubState"] == "start":
                    self._values.update(ActiveState="failed", SubState="failed", Result="timeout")
                    self._wanted = False
            return self._values["ActiveState"] == "active"

    def _start(self) -> None:
        run = uuid.uuid4().hex
        self._values.update(ActiveState="activating", SubState="start", InvocationID=run, StatusText="")
        environment = {"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": self._notify_path, "RUN": run, "INVOCATION_ID": run, **self.environment}
        try:
            with open(self._journal / run, "wb") as journal:
                self._process = subprocess.Popen(
                    [str(self.program)], env=environment, stdin=subprocess.DEVNULL, stdout=journal, stderr=journal, start_new_session=True
                )
        except OSError:
            self._ended(None, 203)
            return
        threading.Thread(target=self._wait, args=(self._process,), daemon=True).start()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        with self._changed:
            if self._process is process:
                self._ended(process, code)

    def _ended(self, process: subprocess.Popen[bytes] | None, code: int) -> None:
        with self._changed:
            self._values.update(ActiveState="activating", SubState="auto-restart", Result="exit-code", ExecMainStatus=str(code))
            self._changed.notify_all()
        timer = threading.Timer(RESTART_S, self._again, (process,))
        timer.daemon = True
        timer.start()

    def _again(self, process: subprocess.Popen[bytes] | None) -> None:
        with self._changed:
            if self._wanted and self._process is process:
                self._start()

    def _listen(self) -> None:
        while True:
            message = self._notify.recv(4096).decode()
            if not message:
                return
            self.heard.append(message)
            said = dict(line.partition("=")[::2] for line in message.splitlines())
            with self._changed:
                if said.get("RUN", self._values["InvocationID"]) != self._values["InvocationID"]:
                    continue
                if "STATUS" in said:
                    self._values["StatusText"] = said["STATUS"]
                if "READY" in said and self._values["SubState"] == "start":
                    self._values.update(ActiveState="active", SubState="running")
                self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._control.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(link,), daemon=True).start()

    def _answer(self, link: socket.socket) -> None:
        with link, contextlib.suppress(OSError):
            line = link.makefile().readline()
            if not line:  # who asked was killed before it said what
                return
            words = json.loads(line)
            self.calls.append(words)
            link.sendall(json.dumps(self._do(words)).encode() + b"\n")

    def _do(self, words: list[str]) -> tuple[int, str, str]:
        if words == ["daemon-reload"] or words == ["reset-failed", self.unit]:
            return 0, "", ""
        if words[-2:] == ["restart", self.unit] and words[:-2] in ([], ["--no-block"]):
            return (0, "", "") if self.restart(wait=len(words) == 2) or len(words) == 3 else (1, "", f"Job for {self.unit} failed.\n")
        if words[:2] == ["show", "--property"] and words[3:] == [self.unit]:
            with self._changed:
                return 0, "".join(f"{name}={self._values[name]}\n" for name in words[2].split(",")), ""
        return 1, "", f"Unknown command verb {words}.\n"

    def wait_for(self, what: Any, seconds: float = 20.0) -> None:
        """Until `what()` holds."""
        end_s = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end_s, "it never came"
            time.sleep(0.01)
