"""Sessions that share a book in Redis, beside the simulator: what the API and the user see."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final

import pytest

from kling_omni_async import TaskBook, TaskOutcome
from kling_omni_async.simulator import SimulatedCometAPI
from tests.book.test_place import test_redis_needs_its_extra
from tests.support import new_session

from .relay import Relay
from .server import RedisServer

pytestmark = pytest.mark.anyio

QUICK: Final[dict[str, Any]] = {"interval": (0.2, 0.3), "max_rate": None}

__all__ = ["test_redis_needs_its_extra"]


async def test_two_workers_and_two_readers(
    server: RedisServer, comet_api: SimulatedCometAPI
) -> None:
    """Each id comes out once, with its note, no pause is cut short, and who waits gets its task."""
    ids = [comet_api.create_task(duration=1.0) for _ in range(40)]
    found: list[TaskOutcome] = []
    async with TaskBook(server.url) as one, TaskBook(server.url) as other:
        await one.add_many((task_id, {"n": number}) for number, task_id in enumerate(ids))

        async def read(book: TaskBook) -> None:
            async with (
                new_session(comet_api, **QUICK) as session,
                session.poll(book, until_empty=True) as outcomes,
            ):
                found.extend([outcome async for outcome in outcomes])

        await asyncio.gather(read(one), read(other), one.wait(ids[-1], timeout=20.0))
        assert (await other.progress()).unread == 0
    assert Counter(outcome.task_id for outcome in found) == Counter(ids)
    assert all(outcome.ok and outcome.note is not None for outcome in found)
    assert min(comet_api.gaps()) >= 0.2


async def test_all_comes_out_though_each_tenth_answer_is_lost(
    server: RedisServer, comet_api: SimulatedCometAPI
) -> None:
    """Turns and takes whose answers are lost are sent again, and nothing is doubled or lost."""
    ids = [comet_api.create_task(duration=0.5) for _ in range(20)]
    async with Relay(server.port) as relay, TaskBook(relay.url) as book:
        await book.add_many(ids)
        relay.each, relay.words = 10, b"EVALSHA"
        async with (
            new_session(comet_api, **QUICK) as session,
            session.poll(book, until_empty=True) as outcomes,
        ):
            found = [outcome.task_id async for outcome in outcomes]
    assert sorted(found) == sorted(ids)
    assert relay.was_cut.is_set()
    assert min(comet_api.gaps()) >= 0.2
