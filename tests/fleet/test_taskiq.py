"""The recipe for taskiq: its own worker process, a real Redis, the simulator."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from kling_omni_async import TaskBook
from kling_omni_async.simulator import SimulatedCometAPI
from tests.faults.processes import ROOT

from .compose import Part, in_time, path
from .server import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.many]

EXAMPLES: Final = ROOT / "docs" / "examples"
KEYS: Final = ("invoice-1", "invoice-2", "invoice-3")
WORKER: Final = ("taskiq", "worker", "taskiq_recipe:broker", "--workers", "1")


@pytest.fixture
def comet_api_options() -> dict[str, Any]:
    """Let tasks end when the test says so."""
    return {"durations": lambda _: math.inf}


@attrs.define
class Starter:
    """Starts programs that share a Redis and a simulator."""

    environment: dict[str, str]
    folder: Path
    ends: AsyncExitStack
    number: int = 0

    def start(self, *command: str) -> Part:
        """Start one."""
        self.number += 1
        own = self.folder / str(self.number)
        own.mkdir()
        part = Part(command, folder=own, port=0, cwd=EXAMPLES, environment=self.environment)
        part.begin()
        self.ends.callback(part.kill)
        return part

    def send(self, key: str) -> Part:
        """Send a task to taskiq as the recipe's client."""
        return self.start(sys.executable, "taskiq_recipe.py", key, f"a fox for {key}")


@pytest.fixture
async def programs(
    server: RedisServer, comet_api: SimulatedCometAPI, tmp_path: Path
) -> AsyncGenerator[Starter]:
    """Start programs, and leave nothing of them behind."""
    environment = {
        "PATH": path(),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "BOOK_URL": server.url,
        "COMETAPI_KEY": comet_api.api_key,
        "COMETAPI_BASE_URL": comet_api.base_url,
        "IDLE": "0.5",
    }
    async with AsyncExitStack() as ends:
        yield Starter(environment, tmp_path, ends)


async def test_tasks_of_a_worker_that_is_killed_are_paid_for_once(
    server: RedisServer, comet_api: SimulatedCometAPI, programs: Starter
) -> None:
    """They are delivered again, find the tasks that were created, and bring their images."""
    work = programs.start(
        *("kling-omni", "work", "env:BOOK_URL", "--name", "shop", "--interval", "0.5s-1s")
    )
    async with TaskBook(server.url, name="shop") as book:
        while not (await book.progress()).workers:  # from then on its pauses are the book's
            pass
    first = programs.start(*WORKER)
    await first.says("Listening started.")
    clients = [programs.send(key) for key in KEYS]
    await in_time(lambda: len(polled(comet_api)) == len(KEYS))
    first.kill()
    async with server.client() as redis:  # as workers before 1.2.3 left it when they were killed
        await redis.set("autoclaim:taskiq:images", "held")
    second = programs.start(*WORKER)
    await second.says("Listening started.")
    clients.append(programs.send(KEYS[0]))  # only beside new messages old ones are looked for
    await second.says("Executing task", len(clients))
    for task in comet_api.billed:
        comet_api.finish(task.task_id)
    for client, key in zip(clients, (*KEYS, KEYS[0]), strict=True):
        await client.says(f"{key} ['http")
    (urls,) = {re.sub(r"^\S+ ", "", clients[at].said) for at in (0, -1)}
    assert urls
    assert len(comet_api.billed) == len(KEYS)
    await second.stop()
    await work.stop()


def polled(api: SimulatedCometAPI) -> set[str]:
    """Give the ids that were asked for; who creates asks for none."""
    return {query.task_id for query in api.queries if query.task_id is not None}
