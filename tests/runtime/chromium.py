"""A real browser for tests of the page: headless Chromium, driven by the DevTools protocol.

with Chromium(folder) as browser:
    tab = browser.open("http://127.0.0.1:8080/", width=1280, height=900)
    tab.until("document.title === 'sage-edge'")
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

BINARY = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
MISSING = "needs a browser: apt-get install -y --no-install-recommends chromium"
PATIENCE_S = 60.0


class Chromium:
    """One browser process with its profile in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tabs: list[Tab] = []

    def __enter__(self) -> Chromium:
        assert BINARY is not None
        self._process = subprocess.Popen(
            [
                BINARY,
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--mute-audio"),
                *("--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={self._folder}", "about:blank"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(self._folder)},
            start_new_session=True,
        )
        where = self._folder / "DevToolsActivePort"
        end = time.monotonic() + PATIENCE_S
        while not (where.exists() and len(where.read_text().splitlines()) == 2):
            assert self._process.poll() is None, "chromium ended at once"
            assert time.monotonic() < end, "chromium does not answer"
            time.sleep(0.02)
        self._port = int(where.read_text().splitlines()[0])
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close_tabs()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):  # a folder of its own in /tmp, which it would have removed itself
            shutil.rmtree((self._folder / "SingletonSocket").readlink().parent)

    def open(self, url: str, **screen: Any) -> Tab:
        """A new tab at `url`; see `Tab`."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            tab = Tab(json.load(answer)["webSocketDebuggerUrl"], **screen)
        self._tabs.append(tab)
        tab.go(url)
        return tab

    def close_tabs(self) -> None:
        """Close all pages."""
        while self._tabs:
            self._tabs.pop().close()


class Tab:
    """One page. `errors` is what went wrong in it (exceptions, console errors, refused loads), `requests` every address it asked for."""

    def __init__(self, address: str, width: int = 1280, height: int = 900, dark: bool = False, still: bool = False, phone: bool = False) -> None:
        from websockets.sync.client import connect

        self._open = contextlib.ExitStack()
        self._socket = self._open.enter_context(connect(address, max_size=None, max_queue=None, ping_interval=None, close_timeout=0.1))
        self._last = 0
        self.errors: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        features = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce" if still else "no-preference"}
        self.call("Emulation.setEmulatedMedia", features=[{"name": name, "value": value} for name, value in features.items()])

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one DevTools command."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE_S))
            if message.get("id") == self._last:
                assert "error" not in message, (method, message["error"])
                result: dict[str, Any] = message["result"]
                return result
            self._note(message.get("method"), message.get("params"))

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("exception", {}).get("description", params["exceptionDetails"]["text"])))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str([argument.get("value") for argument in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(params["url"])

    def go(self, url: str) -> None:
        """Load `url` into the new tab."""
        self.call("Page.navigate", url=url)
        self.until("location.protocol === 'http:' && document.readyState === 'complete'")

    def js(self, expression: str) -> Any:
        """The value of `expression` in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until `expression` is true in the page."""
        end = time.monotonic() + patience_s
        while not self.js(expression):
            assert time.monotonic() < end, f"still not true: {expression}; errors {self.errors}; text {self.js('document.body.innerText')[:3000]}"
            time.sleep(0.03)

    def key(self, key: str) -> None:
        """Press and release a key ("Tab", "Enter", " ")."""
        more = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " ")}[key]
        for kind in ("keyDown", "keyUp"):
            text = {"text": more[1]} if more[1] and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code="Space" if key == " " else key, windowsVirtualKeyCode=more[0], **text)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """A PNG of what is seen, or of the `whole` page."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]))

    def close(self) -> None:
        """Close it in the browser, too."""
        self.call("Page.close")
        self._open.close()
