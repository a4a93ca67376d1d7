"""Chromium without a window, steered by its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import attrs

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
_START_S = 40.0
_LOOK_S = 0.05
_KEYS: dict[str, dict[str, Any]] = {
    "Tab": {"windowsVirtualKeyCode": 9},
    "Enter": {"windowsVirtualKeyCode": 13, "text": "\r"},
    "Escape": {"windowsVirtualKeyCode": 27},
    "ArrowLeft": {"windowsVirtualKeyCode": 37},
    "ArrowRight": {"windowsVirtualKeyCode": 39},
}


class Tab:
    """One page; its methods are those that a person at a browser has.

    Attributes:
        complaints: Errors of scripts, of the console, and of the security policy.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()

    async def read(self) -> None:
        """Take what the browser says until the tab is closed."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Page.loadEventFired":
                self._loaded.set()
            else:
                self._take(said["method"], said["params"])

    def _take(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(params["args"]))
        elif method in {"Log.entryAdded", "Audits.issueAdded"}:
            self.complaints.append(str(params))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        said = await asyncio.wait_for(answer, timeout=30)
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    async def open(
        self,
        url: str,
        *,
        width: int = 1400,
        height: int = 900,
        dark: bool = False,
        script: bool = True,
    ) -> None:
        """Open a page and wait until it is loaded."""
        for domain in ("Page", "Runtime", "Log", "Audits"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), timeout=30)

    async def ask(self, expression: str) -> Any:
        """Evaluate an expression in the page; a promise is awaited."""
        said = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until something is so: the browser tells of some changes a little later."""
        look = f"const look = () => ({condition}) ? done() : requestAnimationFrame(look); look()"
        await self.ask(f"new Promise((done) => {{ {look} }})")

    async def press(self, key: str) -> None:
        """Press a key."""
        event = {"key": key, "code": key, **_KEYS[key]}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **event)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def leave_by(self, key: str) -> None:
        """Press a key that leads to another page, and wait until that is loaded."""
        self._loaded.clear()
        await self.press(key)
        await asyncio.wait_for(self._loaded.wait(), timeout=30)

    async def type(self, text: str) -> None:
        """Type into what has the focus."""
        await self.call("Input.insertText", text=text)

    async def picture(self) -> bytes:
        """Give what the window shows, as PNG."""
        said = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(said["data"])


@attrs.frozen
class Chromium:
    """A running browser.

    Attributes:
        port: Where it listens on loopback.
    """

    port: int

    @asynccontextmanager
    async def tab(self) -> AsyncGenerator[Tab]:
        """Open an empty tab."""
        address = f"http://127.0.0.1:{self.port}/json/new?about:blank"
        async with aiohttp.ClientSession() as http:
            async with http.put(address) as answer:
                target = await answer.json(content_type=None)
            async with http.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                reading = asyncio.create_task(tab.read())
                try:
                    yield tab
                finally:
                    await tab.call("Page.close")
                    await reading


@contextmanager
def running(profile: Path) -> Generator[Chromium]:
    """Run the browser with an empty profile."""
    program = next(filter(None, map(shutil.which, PROGRAMS)))
    command = [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield Chromium(_port(profile / "DevToolsActivePort"))
        finally:
            process.terminate()


def _port(file: Path) -> int:
    """Wait for the file in which the browser says where it listens."""
    deadline = time.monotonic() + _START_S
    while not (file.exists() and "\n" in (said := file.read_text())):
        assert time.monotonic() < deadline, "the browser does not start"
        time.sleep(_LOOK_S)
    return int(said.partition("\n")[0])
