"""A real MQTT broker, mosquitto, on a free port of 127.0.0.1: `start`, `stop`, `freeze`, and somebody who listens."""

from __future__ import annotations

import getpass
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

MOSQUITTO = shutil.which("mosquitto", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin:/sbin")
NEEDS = "needs mosquitto: apt-get install mosquitto"
DEADLINE_S = 60.0


class Broker:
    """`with Broker(folder) as broker:`; `user` and `password` where it should ask for them, `certificate` (and key beside it) for TLS."""

    def __init__(self, folder: Path, user: str | None = None, password: str = "", certificate: Path | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        lines = [f"listener {self.port} 127.0.0.1", "persistence false", f"allow_anonymous {'true' if user is None else 'false'}"]
        if user is not None:
            passwords = folder / "passwords"
            subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), user, password], check=True, capture_output=True)
            lines.append(f"password_file {passwords}")
        if certificate is not None:
            lines += [f"certfile {certificate}", f"keyfile {certificate.with_suffix('.key')}"]
        self._log = folder / "mosquitto.log"
        lines += [
            f"log_dest file {self._log}",
            "log_type all",
            f"user {getpass.getuser()}",
        ]  # as root, it would become somebody who may not read here
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it, until it takes connections."""
        assert MOSQUITTO is not None
        self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + DEADLINE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            except OSError:
                assert self._process.poll() is None, "mosquitto does not start"
                assert time.monotonic() < end, "mosquitto takes no connections"
                time.sleep(0.01)

    def stop(self) -> None:
        """End it; again does nothing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(DEADLINE_S)
            self._process = None

    def kill(self) -> None:
        """What a power cut is to its clients."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(DEADLINE_S)
        self._process = None

    def received(self, topic: str) -> int:
        """How many messages of this topic it has got, in all its runs."""
        return sum("Received PUBLISH" in line and f"'{topic}', " in line for line in self._log.read_text().splitlines())

    def freeze(self, frozen: bool) -> None:
        """Let it hang, or go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def make_certificate(path: Path) -> Path:
    """A certificate of 127.0.0.1 that only trusts itself; its key is beside it."""
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(["openssl", *words.split(), "-keyout", str(path.with_suffix(".key")), "-out", str(path)], check=True, capture_output=True)
    return path


class Listener:
    """Subscribes to everything below `topic` with paho; `got` holds (last part of the topic, payload, retained)."""

    def __init__(self, broker: Broker, topic: str, user: str | None = None, password: str | None = None) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.got: list[tuple[str, str, bool]] = []
        self._subscribed = False
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        if user is not None:
            self._client.username_pw_set(user, password)

        def on_connect(client: Any, *_: Any) -> None:
            client.subscribe(f"{topic}/#")

        def on_subscribe(*_: Any) -> None:
            self._subscribed = True

        def on_message(client: Any, userdata: Any, message: Any) -> None:
            self.got.append((message.topic.removeprefix(f"{topic}/"), message.payload.decode(), bool(message.retain)))

        self._client.on_connect, self._client.on_subscribe, self._client.on_message = on_connect, on_subscribe, on_message
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        end = time.monotonic() + DEADLINE_S
        while not self._subscribed:
            assert time.monotonic() < end, "no subscription"
            time.sleep(0.005)

    def of(self, part: str) -> list[str]:
        """The payloads that came below TOPIC/`part`."""
        return [payload for name, payload, _ in self.got if name == part]

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
