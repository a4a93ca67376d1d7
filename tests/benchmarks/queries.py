"""Where the queries of this process go: looked on, or answered from memory.

All goes through the one method by which the library sends a query, and nothing else of its inside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Final

from kling_omni_async import KlingOmniError, KlingOmniSession
from kling_omni_async._api.answers import Answer
from kling_omni_async._api.client import Client

from .answers import Answers

Reply = Answer | KlingOmniError

send: Final = Client.fetch
"""What sends a query, whatever :func:`sent_by` has put in its place."""


@contextmanager
def sent_by(fetch: Callable[[Client, str], Awaitable[Reply]]) -> Generator[None]:
    """Let this send every query of every session of the process."""

    # a function, as a bound method would not be told which client it is for
    async def sent(self: Client, task_id: str) -> Reply:
        return await fetch(self, task_id)

    Client.fetch = sent  # type: ignore[method-assign]
    try:
        yield
    finally:
        Client.fetch = send  # type: ignore[method-assign]


class Canned:
    """Answers without a network; each is bytes of its own, as from a socket."""

    def __init__(self) -> None:
        self.fetched = 0
        self._answers = Answers()

    async def fetch(self, _: Client | None, task_id: str) -> Answer:
        """Answer at the loop's next pass."""
        await asyncio.sleep(0)
        self.fetched += 1
        return Answer(200, self._answers.body(task_id.encode()))


async def until(condition: Callable[[], bool]) -> None:
    """Look some times a second whether something has come about."""
    while not condition():
        await asyncio.sleep(0.05)


async def all_added(session: KlingOmniSession, count: int) -> None:
    """Wait until a session watches so many ids; looked for in each pass of the loop."""
    # Not by the stream: a list is known as a whole before any of its ids is watched.
    while session.stats().watched < count:
        await asyncio.sleep(0)
