"""A headless Chromium that tests drive by its own protocol over a pipe: no driver is needed."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# The browser reads commands from file 3 and answers on file 4.
PUT_IN_PLACE = (
    "import os, sys; r, w, *c = sys.argv[1:]; os.dup2(int(r), 3); os.dup2(int(w), 4); os.execv(c[0], c)"
)
PATIENCE = 300


def browser() -> str | None:
    """Return where a browser of this kind is."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page in the browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._received = b""
        self._numbers = itertools.count(1)
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def open(self, address: str) -> None:
        """Go to an address, and wait until it is loaded."""
        self._call("Page.navigate", url=address)
        self.wait_for(f"location.href.startsWith({address!r}) && document.readyState == 'complete'")

    def value(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < end, expression
            time.sleep(0.05)

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Choose files in an input, as a person does in the dialogue."""
        found = self._call("Runtime.evaluate", expression=f"document.querySelector({selector!r})")
        names = [str(file) for file in files]
        self._call("DOM.setFileInputFiles", files=names, objectId=found["result"]["objectId"])

    def press(self, key: str) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=9)

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the window, and which colours the person prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """Write what is on the page as a PNG, all of its height."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self._call("Browser.close")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:  # events come in between
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            assert select.select([self._answers], [], [], PATIENCE)[0], "the browser does not answer"
            chunk = os.read(self._answers, 1 << 16)
            assert chunk, "the browser has ended"
            self._received += chunk
        first, _, self._received = self._received.partition(b"\0")
        return json.loads(first)


@contextmanager
def headless_page(folder: Path) -> Iterator[Page]:
    """Give a page of a browser whose profile is in a folder."""
    program = browser()
    assert program is not None
    to_read, commands = os.pipe()
    answers, to_write = os.pipe()
    options = [
        "--headless=new",
        "--remote-debugging-pipe",
        f"--user-data-dir={folder}",
        *("--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"),
        *(["--no-sandbox"] if os.geteuid() == 0 else []),  # root has none
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", PUT_IN_PLACE, str(to_read), str(to_write), program, *options],
        pass_fds=(to_read, to_write),
        stderr=subprocess.DEVNULL,
    )
    try:
        os.close(to_read)
        os.close(to_write)
        page = Page(commands, answers)
        yield page
        page.close()
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(commands)
        os.close(answers)
