"""A headless Chromium, driven through its DevTools protocol over a pair of pipes: the standard library is enough."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
WAIT = 60.0
"""Seconds that anything may take on a busy machine."""

KEYS = {
    "Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, ""), "Home": (36, ""), "End": (35, ""),
    "ArrowLeft": (37, ""), "ArrowUp": (38, ""), "ArrowRight": (39, ""), "ArrowDown": (40, ""),
}  # fmt: skip
"""Key codes, and the text that a key types."""


def program() -> str | None:
    """Find the browser."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """A running browser; `page` opens a file in it."""

    def __init__(self, process: subprocess.Popen[bytes], reading: int, writing: int) -> None:
        self._process = process
        self._reading = reading
        self._writing = writing
        self._numbers = itertools.count(1)
        self._data = b""
        self._answers: dict[int, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Ask for something and wait for the answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._writing, data) :]
        end = time.monotonic() + WAIT
        while number not in self._answers:
            assert time.monotonic() < end, f"{method} was not answered"
            self._hear(1.0)
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer)
        found: dict[str, Any] = answer["result"]
        return found

    def _hear(self, seconds: float) -> None:
        ready, _, _ = select.select([self._reading], [], [], seconds)
        if not ready:
            return
        data = os.read(self._reading, 1 << 20)
        assert data, f"the browser ended: {self._process.wait()}"
        *messages, self._data = (self._data + data).split(b"\0")
        for each in map(json.loads, messages):
            if "id" in each:
                self._answers[each["id"]] = each
            else:
                self.events.append(each)

    def page(self, path: Path, *, width: int = 1400, height: int = 900, dark: bool = False) -> Page:
        """Open a file and wait until the page says that it is ready."""
        self.events.clear()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.size(width, height)
        page.dark(dark)
        page.call("Page.navigate", url=path.as_uri())
        page.wait("document.documentElement?.dataset.ready === 'true'")
        return page


class Page:
    """An open page."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask something of the page."""
        return self._browser.call(method, self._session, **params)

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (script, answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until an expression holds."""
        end = time.monotonic() + WAIT
        while not self.run(script):
            assert time.monotonic() < end, f"never: {script}; {self.complaints()}"
            time.sleep(0.02)

    def press(self, *keys: str, shift: bool = False) -> None:
        """Press keys one after the other: the names of `KEYS`, or single characters."""
        for key in keys:
            code, text = KEYS.get(key, (ord(key.upper()), key) if len(key) == 1 else (0, ""))
            about = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
            down = {"type": "keyDown" if text else "rawKeyDown", **({"text": text} if text else {})}
            self.call("Input.dispatchKeyEvent", **down, **about)
            self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Type text where the focus is."""
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click into the middle of an element with the mouse."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.mouse(x, y)

    def mouse(self, x: float, y: float) -> None:
        """Click at a point."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def text(self, selector: str) -> str:
        """Give what an element shows."""
        found: str = self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return found

    def size(self, width: int, height: int, *, scale: float = 1) -> None:
        """Make the window so large; a larger scale is what zooming in does."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=int(width / scale), height=int(height / scale), deviceScaleFactor=scale, mobile=False,
        )  # fmt: skip

    def dark(self, on: bool) -> None:
        """Let the system be dark or light."""
        value = "dark" if on else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as a PNG file."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self) -> list[str]:
        """List what the page's console has of errors and warnings, and every address that was asked for but files."""
        self.run("0")
        found = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            params = event["params"]
            match event["method"]:
                case "Runtime.exceptionThrown":
                    found.append(json.dumps(params["exceptionDetails"]))
                case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                    found.append(json.dumps(params["args"]))
                case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                    found.append(params["entry"]["text"])
                case "Network.requestWillBeSent" if not params["request"]["url"].startswith(("file:", "about:")):
                    found.append(params["request"]["url"])
                case _:
                    pass
        return found

    def close(self) -> None:
        """Close the page."""
        self._browser.call("Target.closeTarget", targetId=self._target)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Browser]:
    """Start the browser with a profile in `folder`, and end it."""
    command = program()
    assert command is not None, "there is no browser"
    options = [
        *("--headless=new", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--no-first-run"),
        *("--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-extensions"),
        *("--disable-component-update", "--no-default-browser-check", "--hide-scrollbars", "--mute-audio"),
        # Its sandbox cannot be had as root, and in most containers by nobody; the pages are our own.
        "--no-sandbox",
    ]
    their_end, ours = os.pipe()
    reading, their_other = os.pipe()
    # The browser reads from 3 and writes to 4; neither may be in the way of the other while they are put there.
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in (their_end, their_other)]

    def place() -> None:
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            [command, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            close_fds=False,
            preexec_fn=place,  # noqa: PLW1509 - there is no other thread yet
        )
    for each in (their_end, their_other, *high):
        os.close(each)
    browser = Browser(process, reading, ours)
    try:
        yield browser
    finally:
        with contextlib.suppress(OSError, AssertionError):
            browser.call("Browser.close")
        os.close(ours)
        os.close(reading)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
