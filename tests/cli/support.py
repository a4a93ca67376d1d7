"""What the tests of the command line share: a simulator beside them, and the real program."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from anyio.from_thread import BlockingPortal, start_blocking_portal

from kling_omni_async import ImageTask, KlingOmniError, TaskImage, TaskOutcome, TaskStatus
from kling_omni_async._cli.gallery import NAME, outcomes_of, write_outcomes
from kling_omni_async.simulator import SimulatedCometAPI

PROGRAM = (sys.executable, "-W", "error", "-m", "kling_omni_async")
FAST = ("--interval", "0.05", "0.1")


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

    @property
    def env(self) -> dict[str, str]:
        return {"COMETAPI_BASE_URL": self.api.base_url, "COMETAPI_KEY": self.api.api_key}


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
    """Give what a terminal got without what steers it."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Give the exit code and what the program wrote."""
    with process:
        stdout, stderr = process.communicate(timeout=30)
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
    """Give the ids below the heading."""
    lines = stderr.splitlines()
    at = next(number for number, line in enumerate(lines) if line.endswith("still pending:"))
    return lines[at + 1 :]


def ids_in(journal: Path) -> list[str]:
    """Give the id of each line."""
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
