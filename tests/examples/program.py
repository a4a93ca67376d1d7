"""An example as its user runs it: a process of its own, where a warning is an error."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import pytest

from kling_omni_async.simulator import SimulatedCometAPI

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
LOOK_S = 0.02
PATIENCE_S = 50.0  # shorter than pytest's, so that a test that fails still cleans up
_ADDRESS = re.compile(r"[Rr]unning on (http://127\.0\.0\.1:\d+)")
_SIGNS_OF_DIRT = (
    "Exception ignored",
    "Traceback",
    "Unclosed",
    "Warning",
    "never awaited",
    "never retrieved",
    "was destroyed but it is pending",
)


async def until(happened: Callable[[], object]) -> None:
    """Wait until something has happened outside of this process."""
    async with asyncio.timeout(PATIENCE_S):
        while not happened():  # noqa: ASYNC110 - nobody sets an Event for us
            await asyncio.sleep(LOOK_S)


@attrs.frozen
class Program:
    """A running example.

    Attributes:
        process: It.
        log: Where it writes to, stderr and stdout alike.
    """

    process: asyncio.subprocess.Process
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8")

    async def says(self, text: str) -> None:
        """Wait until it has written something."""
        await until(lambda: text in self.output or self.process.returncode is not None)
        assert text in self.output, self.output

    async def address(self) -> str:
        """Wait until it serves, and give its URL."""
        await self.says("unning on http://")
        found = _ADDRESS.search(self.output)
        assert found, self.output
        return found[1]

    async def ends(self, dirt: Collection[str] = (), *, patience: float = PATIENCE_S) -> int:
        """Wait for its end, check that it left nothing undone, and give its exit code.

        Args:
            dirt: What it may have written all the same, such as the traceback of trouble.
            patience: How long its end may take, in s. If it takes longer, the test fails with
                what each of its threads was doing.
        """
        try:
            code = await asyncio.wait_for(self.process.wait(), patience)
        except TimeoutError:
            self.process.send_signal(signal.SIGABRT)  # faulthandler writes where it is held up
            await self.process.wait()
            pytest.fail(f"it did not end:\n{self.output}")
        found = {sign for sign in _SIGNS_OF_DIRT if sign in self.output}
        assert found <= set(dirt), self.output
        return code

    async def stop(self, by: signal.Signals = signal.SIGTERM, *, dirt: Collection[str] = ()) -> int:
        """Stop it as a service manager does, or by another signal."""
        self.process.send_signal(by)
        return await self.ends(dirt)

    async def kill(self) -> None:
        """End it without a last word."""
        self.process.kill()
        assert await self.process.wait() == -signal.SIGKILL


def environment(api: SimulatedCometAPI) -> dict[str, str]:
    """Give what leads an example to the simulator."""
    return {"COMETAPI_BASE_URL": api.base_url, "COMETAPI_KEY": api.api_key}


@contextmanager
def inherited(*, in_background: bool) -> Generator[None]:
    """Let a program begin with Ctrl-C as a terminal or as a shell script's ``&`` gives it.

    What this process ignores stays ignored in another program; what it handles does not. So no
    test depends on whether pytest itself was started in the background.
    """
    handler = signal.SIG_IGN if in_background else signal.default_int_handler
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@asynccontextmanager
async def running(
    name: str,
    *arguments: str,
    env: Mapping[str, str],
    folder: Path,
    in_background: bool = False,
) -> AsyncGenerator[Program]:
    """Start an example, and leave nothing of it behind."""
    # util-linux's, where it is: if pytest is killed, so is what it started
    leash = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
    log = folder / f"{name}.log"
    with log.open("wb") as file, inherited(in_background=in_background):
        process = await asyncio.create_subprocess_exec(
            *(*leash, sys.executable, "-W", "error", str(EXAMPLES / name), *arguments),
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
        )
    try:
        yield Program(process, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
