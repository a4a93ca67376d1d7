"""Small helpers of the session's tests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from kling_omni_async import KlingOmniSession, PollPolicy, TaskOutcome
from kling_omni_async._ids import quoted
from kling_omni_async.simulator import SimulatedCometAPI

WEB_PAGE = "<!doctype html><html><body>Welcome</body></html>"


def new_session(api: SimulatedCometAPI, **policy: Any) -> KlingOmniSession:
    """Give a session for the simulator with some fields of its policy changed."""
    return KlingOmniSession(api.api_key, base_url=api.base_url, policy=PollPolicy(**policy))


@asynccontextmanager
async def open_session(api: SimulatedCometAPI, **policy: Any) -> AsyncGenerator[KlingOmniSession]:
    """Open a session for the simulator, and prove on leaving that it left no task behind."""
    before = asyncio.all_tasks()
    session = new_session(api, **policy)
    async with session:
        yield session
    left = {task for task in asyncio.all_tasks() - before if "kling" in task.get_name()}
    assert not left


async def all_of(
    session: KlingOmniSession, task_ids: Iterable[str] | AsyncIterable[str], **kwargs: Any
) -> list[TaskOutcome]:
    """Poll ids to the end of their stream."""
    async with session.poll(task_ids, **kwargs) as outcomes:
        return [outcome async for outcome in outcomes]


async def now_waiting(count: int = 3) -> None:
    """Let other tasks run until they wait."""
    for _ in range(count):
        await asyncio.sleep(0)


def now() -> float:
    """Give the virtual time in s."""
    return asyncio.get_running_loop().time()


def freeze(seconds: float) -> None:
    """Let time pass while nothing runs, as for a process that was stopped or a loop that stood."""
    loop: Any = asyncio.get_running_loop()
    loop.freeze(seconds)


def plain(value: object) -> str:
    """Name a case so that pytest, which escapes a name once more each time it collects, leaves it.

    Mutants find their tests by these names in processes that have collected before.
    """
    return ascii(quoted(value)).replace("\\", "/")[1:-1]


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
