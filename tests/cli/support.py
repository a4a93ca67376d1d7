"""What the tests of the command line share.

Most call a command in this process, with a simulator on the same virtual clock: nothing there
depends on how fast the machine is. Where the process is the point, the program is started beside a
simulator in a thread; what such a test waits for is something that happens, never a time.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from kling_omni_async import ImageTask, KlingOmniError, TaskImage, TaskOutcome, TaskStatus
from kling_omni_async._cli.gallery import NAME, outcomes_of, write_outcomes
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import now_waiting
from tests.virtual_clock import VirtualClockLoop

T = TypeVar("T")
PROGRAM = (sys.executable, "-W", "error", "-m", "kling_omni_async")
# Calls a command; returns its exit code, and what it wrote to stdout and stderr.
Call = Callable[..., tuple[int, str, str]]
# Calls a command on a terminal; returns its exit code and all that the terminal got.
OnScreen = Callable[..., tuple[int, str]]
FAST = ("--interval", "0.05", "0.1")


@contextmanager
def on_virtual_clock(server: AbstractAsyncContextManager[T]) -> Generator[T]:
    """Run a server, and the loop of each command that is called here, on one virtual clock."""
    with (
        asyncio.Runner(loop_factory=VirtualClockLoop) as runner,
        pytest.MonkeyPatch.context() as patched,
    ):
        stack = AsyncExitStack()
        patched.setattr(asyncio, "run", runner.run)
        yield runner.run(stack.enter_async_context(server))
        runner.run(stack.aclose())


@contextmanager
def simulated(**options: Any) -> Generator[SimulatedCometAPI]:
    """Run a simulator on the virtual clock of the commands, and let the environment lead to it."""
    with (
        on_virtual_clock(SimulatedCometAPI(**options)) as api,
        pytest.MonkeyPatch.context() as patched,
    ):
        for name, value in environment_of(api).items():
            patched.setenv(name, value)
        yield api


def environment_of(api: SimulatedCometAPI) -> dict[str, str]:
    """Return the variables that lead the program to a simulator."""
    return {"COMETAPI_BASE_URL": api.base_url, "COMETAPI_KEY": api.api_key}


def create(api: SimulatedCometAPI, count: int = 1, **task: Any) -> list[str]:
    """Create tasks, and return their ids."""
    return [api.create_task(**task) for _ in range(count)]


class Screen(io.TextIOWrapper):
    """A terminal that takes everything at once, and keeps it."""

    def __init__(self, path: Path, encoding: str = "utf-8") -> None:
        super().__init__(path.open("wb", buffering=0), encoding, write_through=True)
        self._path = path

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return self._path.read_text(self.encoding)


@attrs.frozen
class Neighbour:
    """A simulator in a loop and thread of its own, so that a test may block."""

    portal: BlockingPortal
    api: SimulatedCometAPI

    def create(self, count: int = 1, **task: Any) -> list[str]:
        make = partial(self.api.create_task, **task)
        return [self.portal.call(make) for _ in range(count)]

    def fail_next(self, task_id: str | None = None, **fault: Any) -> None:
        self.portal.call(partial(self.api.fail_next, task_id, **fault))

    def wait_for_queries(self, count: int, task_id: str | None = None) -> None:
        self.portal.call(self.api.wait_for_queries, count, task_id)

    def catch_up(self) -> None:
        """Let the simulator read whatever programs have sent so far, those that are dead too."""
        self.portal.call(now_waiting, 50)  # more passes of its loop than accept, read and log take

    @property
    def env(self) -> dict[str, str]:
        return environment_of(self.api)


@contextmanager
def neighbour(**options: Any) -> Generator[Neighbour]:
    """Run a simulator beside the test."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(SimulatedCometAPI(**options)) as api,
    ):
        yield Neighbour(portal, api)


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start the program with pipes unless options say otherwise; ``env`` is added to ours."""
    env = {**os.environ, **options.pop("env", {})}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*PROGRAM, *arguments], env=env, text=True, **{**pipes, **options})


@contextmanager
def running(*arguments: str, **options: Any) -> Generator[subprocess.Popen[str]]:
    """Start the program and leave none behind, however the test ends."""
    with start(*arguments, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def terminal_of(
    *arguments: str, env: dict[str, str], columns: int = 80, **options: Any
) -> tuple[int, str]:
    """Run the program on a terminal; give its exit code and all that the terminal got."""
    import pty  # noqa: PLC0415 - Windows has neither
    import termios  # noqa: PLC0415 - as above

    screen, terminal = pty.openpty()
    try:
        termios.tcsetwinsize(terminal, (24, columns))
        env = {"TERM": "xterm", **env}
        process = start(*arguments, env=env, **{"stderr": terminal, "stdout": terminal, **options})
        os.close(terminal)
        with process:
            text = read_all(screen)
        return process.returncode, text
    finally:
        os.close(screen)


def read_all(screen: int) -> str:
    """Read what a terminal got, until its last writer has gone."""
    pieces: list[bytes] = []
    while True:
        try:
            piece = os.read(screen, 65536)
        except OSError:  # this is how Linux says it
            piece = b""
        if not piece:
            return b"".join(pieces).decode()
        pieces.append(piece)


def bare(text: str) -> str:
    """Return what a terminal got without what steers it."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the program; return its exit code and what it wrote."""
    with process:
        try:
            stdout, stderr = process.communicate()
        except BaseException:
            process.kill()  # else the end of the block would wait for it
            raise
    return process.returncode, stdout, stderr


def wait_for_handlers(process: subprocess.Popen[str]) -> None:
    """Wait until the program has taken SIGTERM over: before that it is Python that starts."""
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
        if caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)


def pending_in(stderr: str) -> list[str]:
    """Return the ids below the heading."""
    lines = stderr.splitlines()
    at = next(number for number, line in enumerate(lines) if line.endswith("still pending:"))
    return lines[at + 1 :]


def ids_in(journal: Path) -> list[str]:
    """Return the id of each line."""
    return [json.loads(line)["task_id"] for line in journal.read_bytes().splitlines()]


def write_gallery(
    folder: Path, journals: Sequence[Path] | None = None, *, overwrite: bool = False
) -> Path:
    """Write the gallery of a folder from its journals, and give its page; prints nothing."""
    write_outcomes(folder, outcomes_of(folder, journals), overwrite=overwrite)
    return folder / NAME


def success(task_id: str = "a", *urls: str) -> TaskOutcome:
    """Make the outcome of a task that succeeded."""
    images = tuple(TaskImage(url=url) for url in urls or ("https://images.test/1.png",))
    task = ImageTask(task_id=task_id, status=TaskStatus.SUCCEED, images=images)
    return TaskOutcome(task_id=task_id, task=task, queries=2, elapsed=24.5)


def trouble(error: KlingOmniError, task_id: str = "a") -> TaskOutcome:
    """Make the outcome of an id that was given up."""
    return TaskOutcome(task_id=task_id, error=error, queries=1, elapsed=1.0)
