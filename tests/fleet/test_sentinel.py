"""A book by Sentinel's client: it goes on at the replica that takes the place of the primary."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel

from kling_omni_async import BookError, TaskBook
from tests.faults.processes import HOST, S, Server, free_port

from .server import RedisServer, program_of

pytestmark = [pytest.mark.anyio]

SETTINGS = """\
port {port}
bind {host}
sentinel monitor main {host} {primary} 1
sentinel down-after-milliseconds main 500
sentinel failover-timeout main 5000
"""


@pytest.fixture
async def primary(tmp_path: Path) -> AsyncGenerator[RedisServer]:
    """Run a Redis that others follow."""
    folder = tmp_path / "primary"
    folder.mkdir()
    async with AsyncExitStack() as ends:
        yield await started(RedisServer(folder), ends)


@pytest.fixture
async def sentinel(primary: RedisServer, tmp_path: Path) -> AsyncGenerator[Sentinel]:
    """Run its replica and a Sentinel that watches both; give a client of that."""
    for name in ("replica", "sentinel"):
        (tmp_path / name).mkdir()
    port, settings = free_port(), tmp_path / "sentinel" / "sentinel.conf"
    settings.write_text(SETTINGS.format(port=port, host=HOST, primary=primary.port))
    async with AsyncExitStack() as ends:
        following = ("--replicaof", f"{HOST} {primary.port}")
        replica = await started(RedisServer(tmp_path / "replica", *following), ends)
        async with replica.client() as client:
            while (await client.info("replication"))["master_link_status"] != "up":
                pass
        command = [program_of(), str(settings), "--sentinel"]
        await started(Server(command, folder=settings.parent, port=port), ends)
        new: Any = Sentinel  # its own types say nothing of this
        sentinel: Sentinel = new([(HOST, port)], socket_timeout=5.0)
        yield sentinel
        for each in sentinel.sentinels:
            await each.aclose()


async def started(server: S, ends: AsyncExitStack) -> S:
    """Start a server that ends with a stack."""
    await server.start()
    ends.callback(server.kill)
    return server


async def test_a_failover(primary: RedisServer, sentinel: Sentinel) -> None:
    """What the replica has got is there; meanwhile a step says that it may be made again."""
    while not await sentinel.discover_slaves("main"):
        pass
    client: Redis = sentinel.master_for("main", retry=None)
    async with client, TaskBook(client, name="shop") as book:
        assert await book.add("a")
        assert await client.wait(1, 0) == 1
        primary.kill()
        with pytest.raises(BookError) as caught:
            await book.add("b")
        assert caught.value.transient
        while not await could_add(book, "b"):
            pass
        assert await book.get("a") is not None


async def could_add(book: TaskBook, task_id: str) -> bool:
    """Whether an id could be added."""
    with suppress(BookError):
        await book.add(task_id)
        return True
    return False
