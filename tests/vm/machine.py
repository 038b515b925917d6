"""A running machine: QEMU without a network, and a shell in it that takes commands over a virtio port.

with Machine(boot, [disk, stick], console) as machine:
    machine.sh("systemctl is-active sage-edge.service")
"""

from __future__ import annotations

import base64
import secrets
import select
import socket
import subprocess
import time
from pathlib import Path

from image import CORES, CPU, MEMORY_MB, Boot
from report import Failure

PORT = "e2e"
"""The name of the virtio port; the guest finds it as /dev/virtio-ports/e2e."""


class Machine:
    """What the guest's console says goes to the file `console`. Left while it runs, the power is cut: what the guest has not written is lost."""

    def __init__(self, boot: Boot, disks: list[Path], console: Path) -> None:
        self._console = console
        self._socket_path = console.with_suffix(".sock")
        self._socket_path.unlink(missing_ok=True)
        self._command = [
            *("qemu-system-aarch64", "-M", "virt", "-cpu", CPU, "-smp", str(CORES), "-m", str(MEMORY_MB), "-accel", "tcg,thread=multi"),
            *("-display", "none", "-monitor", "none", "-serial", f"file:{self._console}", "-no-reboot", "-nic", "none"),
            *("-kernel", str(boot.kernel), "-initrd", str(boot.initrd), "-dtb", str(boot.device_tree)),
            *("-append", "console=ttyAMA0 root=/dev/vda rw loglevel=1 mitigations=off systemd.show_status=0"),
            *("-chardev", f"socket,id=shell,path={self._socket_path},server=on,wait=off"),
            *("-device", "virtio-serial-pci", "-device", f"virtserialport,chardev=shell,name={PORT}"),
        ]
        for number, disk in enumerate(disks):
            self._command += ["-drive", f"if=none,id=disk{number},format=raw,cache=unsafe,file={disk}"]
            self._command += ["-device", f"virtio-blk-pci,drive=disk{number}"]

    def __enter__(self) -> Machine:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._shell = socket.socket(socket.AF_UNIX)
        end_s = time.monotonic() + 20
        while True:
            try:
                self._shell.connect(str(self._socket_path))
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end_s:
                    self._process.kill()
                    assert self._process.stderr is not None
                    raise Failure(f"QEMU did not start: {self._process.stderr.read().strip()}") from None
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self._shell.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._socket_path.unlink(missing_ok=True)

    @property
    def command(self) -> str:
        """As it would be typed."""
        return " ".join(self._command)

    def sh(self, command: str, seconds: float = 180, check: bool = True) -> str:
        """What bash in the guest, root, prints for `command` to stdout and stderr. Raises Failure after `seconds`, or when it fails and `check`."""
        code, output = self.try_sh(command, seconds)
        if check and code:
            raise Failure(f"{command!r} failed with exit code {code}: {output.strip()[-500:]}")
        return output

    def try_sh(self, command: str, seconds: float = 180) -> tuple[int, str]:
        """Exit code and output."""
        mark = secrets.token_hex(8)
        self._shell.sendall(f"{mark} {base64.b64encode(command.encode()).decode()}\n".encode())
        begin, end = f"<{mark}>".encode(), f"<{mark} ".encode()
        received, end_s = b"", time.monotonic() + seconds
        while end not in received or not received.endswith(b">\n"):
            ready, _, _ = select.select([self._shell], [], [], max(0.0, end_s - time.monotonic()))
            if not ready:
                raise Failure(f"the machine has not answered {command!r} for {seconds:g} s: {self.last_words()}")
            data = self._shell.recv(1 << 16)
            if not data:
                raise Failure(f"the machine went away while it did {command!r}: {self.last_words()}")
            received += data
        output, _, code = received.partition(begin)[2].rpartition(end)
        return int(code.strip(b">\n ")), output.decode(errors="replace")

    def last_words(self) -> str:
        """The last line of the console."""
        lines = self._console.read_text(errors="replace").split("\n") if self._console.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "the console is empty")

    def wait_off(self, seconds: float) -> None:
        """Raises Failure when it has not switched itself off after `seconds`, or not cleanly."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"still on after {seconds:g} s: {self.last_words()}") from None
        if code:
            raise Failure(f"QEMU ended with exit code {code}: {self.last_words()}")
