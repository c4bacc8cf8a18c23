"""Headless Chromium through chromedriver's HTTP interface, as far as the tests of the report need it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

NAMES = (("chromium", "chromium-browser", "google-chrome"), ("chromedriver", "chromium-driver"))


def missing() -> str:
    """What is not installed, as a reason to skip; empty if both are there."""
    lacking = [names[0] for names in NAMES if not any(map(shutil.which, names))]
    return (
        f"needs {' and '.join(lacking)} (Debian: apt-get install chromium chromium-driver)" if lacking else ""
    )


class Browser:
    """One session: ``run`` gives JavaScript's value, ``log`` what the console got since the last call."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        options = {
            "binary": next(p for p in map(shutil.which, NAMES[0]) if p),
            "args": [
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
            ],
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self.base += f"/session/{session}"

    def _call(self, how: str, where: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.base + where, data, {"Content-Type": "application/json"}, method=how)
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, file: Path) -> None:
        self._call("POST", "/url", {"url": file.resolve().as_uri()})

    def run(self, code: str, *arguments: Any) -> Any:
        return self._call("POST", "/execute/sync", {"script": code, "args": list(arguments)})

    def click(self, selector: str, which: int = 0) -> None:
        """A real click in the middle of an element, scrolled into view."""
        reply = self._call("POST", "/elements", {"using": "css selector", "value": selector})
        self._call("POST", f"/element/{next(iter(reply[which].values()))}/click", {})

    def type(self, selector: str, text: str) -> None:
        reply = self._call("POST", "/element", {"using": "css selector", "value": selector})
        self._call("POST", f"/element/{next(iter(reply.values()))}/value", {"text": text})

    def press(self, key: str) -> None:
        """A key to whatever has the focus."""
        keys = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": keys}]})

    def size(self, width: int, height: int) -> None:
        """The page's size in CSS pixels, as a phone reports it."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": size})

    def picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def log(self) -> Sequence[dict[str, Any]]:
        return self._call("POST", "/se/log", {"type": "browser"})

    def quit(self) -> None:
        self._call("DELETE", "")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for the length of the context."""
    driver = next(p for p in map(shutil.which, NAMES[1]) if p)
    process = subprocess.Popen(
        [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        port = next(
            int(m[1])
            for line in process.stdout
            if (m := re.search(r"started successfully on port (\d+)", line))
        )
        browser = Browser(port)
        try:
            yield browser
        finally:
            browser.quit()
    finally:
        process.terminate()
        process.wait(timeout=30)
