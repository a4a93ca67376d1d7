"""A process that creates into a book in a file, and dies at a point that matters."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kling_omni_async import ImageOrder, KlingOmniSession, PollPolicy, TaskBook
from kling_omni_async._api.client import Client
from kling_omni_async._book import intents
from kling_omni_async._book.own import OwnReader
from kling_omni_async._book.sqlite import SqliteStore

DIED = 9
ORDERS = [ImageOrder("a fox", key=f"row-{each}") for each in range(3)]
MANY = [ImageOrder("a fox", key=f"many-{each}") for each in range(30)]

POINTS: dict[str, tuple[type, str, bool]] = {
    "before the intent": (SqliteStore, "intend", False),
    "behind the intent": (SqliteStore, "intend", True),
    "behind the answer": (Client, "post", True),
    "behind the created task": (SqliteStore, "created", True),
    "before the acknowledgement": (OwnReader, "try_to_tell", False),
    "behind the acknowledgement": (OwnReader, "try_to_tell", True),
}
"""At which step, and whether before or behind it."""


def shorten_leases(patch: pytest.MonkeyPatch) -> None:
    """Let an intent be looked for soon after its process has died."""
    patch.setattr(intents, "CONNECT_S", 0.0)
    patch.setattr(intents, "LOOKS_S", 0.5)


def new_session(base_url: str, key: str) -> KlingOmniSession:
    """Give a session that polls often."""
    policy = PollPolicy(interval=(0.2, 0.3), create_timeout=1.5, query_timeout=5.0)
    return KlingOmniSession(key, base_url=base_url, policy=policy)


def arm(point: str) -> None:
    """Let the process die at a point."""
    kind, name, is_behind = POINTS[point]
    inner: Callable[..., Awaitable[Any]] = getattr(kind, name)

    async def step(*args: Any) -> None:
        if is_behind:
            await inner(*args)
        os._exit(DIED)

    setattr(kind, name, step)


async def use(verb: str, book: TaskBook, session: KlingOmniSession) -> None:
    """Use one of the verbs, and die when it has returned, or has handed out two outcomes."""
    if verb == "create":
        await session.create(ORDERS[0], book=book, note=1)
    elif verb == "generate":
        await session.generate(ORDERS[0], book=book, note=1)
    elif verb == "generate_many":
        async with session.generate_many(ORDERS, book=book, note=1) as outcomes:
            say((await anext(outcomes)).task_id)
            say((await anext(outcomes)).task_id)
            os._exit(DIED)
    else:
        await say_all(book, session)
    os._exit(DIED)


async def say_all(book: TaskBook, session: KlingOmniSession) -> None:
    """Generate many, and say the id of each outcome once it is acknowledged."""
    say("ready")
    before = "begun"
    async with session.generate_many(MANY, book=book, note=1) as outcomes:
        async for outcome in outcomes:
            say(before)
            before = outcome.task_id
    say(before)


def say(text: str) -> None:
    """Write a line that the parent reads."""
    print(text, flush=True)  # noqa: T201


async def main(verb: str, point: str, path: str, base_url: str, key: str) -> None:
    """Do what is asked for."""
    shorten_leases(pytest.MonkeyPatch())
    if point in POINTS:
        arm(point)
    async with TaskBook(path) as book, new_session(base_url, key) as session:
        await use(verb, book, session)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
