"""A session whose answers come from memory: what it holds for an id is then all that grows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kling_omni_async import KlingOmniError, KlingOmniSession, OutcomeStream, PollPolicy
from kling_omni_async._api.answers import Answer

from .answers import API_KEY, Answers


class CannedTransport:
    """A transport without a network; each answer is bytes of its own, as from a socket."""

    def __init__(self) -> None:
        self.fetched = 0
        self._answers = Answers()

    async def open(self) -> int | None:
        """Need nothing."""
        return None

    async def fetch(self, task_id: str) -> Answer | KlingOmniError:
        """Answer at the loop's next pass."""
        await asyncio.sleep(0)
        self.fetched += 1
        return Answer(200, self._answers.body(task_id.encode()))

    async def aclose(self) -> None:
        """Need nothing."""


def new_session(policy: PollPolicy, transport: CannedTransport) -> KlingOmniSession:
    """Make a session that uses this transport and is otherwise like any other."""
    session = KlingOmniSession(API_KEY, base_url="http://127.0.0.1:9", policy=policy)
    session._poller._transport = transport
    return session


async def until(condition: Callable[[], bool]) -> None:
    """Look some times a second whether something has come about."""
    while not condition():
        await asyncio.sleep(0.05)


async def all_added(stream: OutcomeStream, count: int) -> None:
    """Wait until a stream has read all its ids; looked for in each pass of the loop."""
    while stream.progress.total < count:
        await asyncio.sleep(0)
