"""Headless Chromium with real keys and clicks, driven by its own protocol, as a person would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "chrome"])), None)
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-port=0"
)
#: Key codes that a page may ask for.
_CODES = {"ArrowLeft": 37, "ArrowRight": 39, "Escape": 27}


class Tab:
    """One page; `requests` are the addresses that it asked for, `said` what its console showed."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._calls = 0
        self.requests: list[str] = []
        self.said: list[str] = []
        self.finished_downloads = 0
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer of the browser; what happens meanwhile is noted."""
        self._calls += 1
        self._connection.send(json.dumps({"id": self._calls, "method": method, "params": params}))
        while True:
            message = self._receive()
            if message.get("id") == self._calls:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def open(self, page: Path) -> None:
        """Loads a file and waits until it is whole."""
        self.call("Page.navigate", url=page.as_uri())
        while self._receive().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is in the page; the page's own policy does not bind us."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, *keys: str) -> None:
        """Presses keys one after another, as a keyboard does."""
        for key in keys:
            text = key if len(key) == 1 else ""
            # The code of a punctuation mark would be that of another key.
            code = _CODES.get(key) or (ord(key.upper()) if key.isalnum() and key.isascii() else 0)
            shared = {"key": key, "windowsVirtualKeyCode": code}
            kind = "keyDown" if text else "rawKeyDown"
            self.call("Input.dispatchKeyEvent", type=kind, text=text, **shared)
            self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    def click(self, selector: str) -> None:
        """Clicks in the middle of an element."""
        box = self.value(
            f"""(() => {{
              const found = document.querySelector({selector!r});
              found.scrollIntoView({{ block: "center" }});
              const box = found.getBoundingClientRect();
              return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        shared = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **shared)

    def download(self, selector: str, folder: Path) -> Path:
        """The one file that a click brings."""
        folder.mkdir()
        self.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(folder),
            eventsEnabled=True,
        )
        before = self.finished_downloads
        self.click(selector)
        while self.finished_downloads == before:
            self._receive()
        (path,) = folder.iterdir()
        return path

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._connection.recv(timeout=60))
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.said.append(str([item.get("value") for item in params["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.said.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.said.append(params["entry"]["text"])
        elif method == "Browser.downloadProgress" and params["state"] == "completed":
            self.finished_downloads += 1
        return message


@contextmanager
def browser_tab(folder: Path) -> Iterator[Tab]:
    """A browser of its own, with its profile below `folder`."""
    profile = folder / "profile"
    process = subprocess.Popen(
        [str(CHROMIUM), *_FLAGS.split(), f"--user-data-dir={profile}", "about:blank"],
        stderr=subprocess.PIPE,
        env={**os.environ, "HOME": str(folder)},
        text=True,
    )
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("DevTools listening on "))
        address = line.split()[-1]
        with connect(address, max_size=None, proxy=None) as browser:
            browser.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
            targets = json.loads(browser.recv(timeout=60))["result"]["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        host = address.split("/devtools/")[0]
        with connect(f"{host}/devtools/page/{page}", max_size=None, proxy=None) as connection:
            yield Tab(connection)
    finally:
        process.terminate()
        process.wait(timeout=30)
