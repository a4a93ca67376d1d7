"""Callbacks: what a URL of this machine is told of a task's changes, and how unreliably."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from kling_omni_async.simulator import SimulatedCometAPI

from .client import ask
from .test_create import create

pytestmark = pytest.mark.anyio

Heard = list[tuple[float, dict[str, Any]]]


@asynccontextmanager
async def listening(status: int = 200) -> AsyncGenerator[tuple[str, Heard]]:
    """Listen on loopback; gives the URL and what is heard there, with its times."""
    heard: Heard = []

    async def hear(request: web.Request) -> web.Response:
        assert request.content_type == "application/json"
        heard.append((asyncio.get_running_loop().time(), await request.json()))
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/hook", hear)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", heard
    finally:
        await runner.cleanup()


def words(heard: Heard) -> list[str]:
    """Give the status words in the order in which they came."""
    return [body["task_status"] for _, body in heard]


@pytest.mark.parametrize("status", [200, 500])
async def test_each_change_is_told(status: int) -> None:
    """The bare ``data`` of an answer, at the time of the change, whatever the listener says."""
    async with listening(status) as (url, heard), SimulatedCometAPI() as api:
        body = {"prompt": "a cat", "callback_url": url, "external_task_id": "mine"}
        _, answer = await create(api, body)
        task_id = answer["data"]["task_id"]
        await asyncio.sleep(50)
        assert words(heard) == ["submitted", "processing", "succeed"]
        times = [at for at, _ in heard]
        assert times[0] == 0
        assert 2.4 <= times[1] <= 4.1
        assert 24 <= times[2] <= 41
        last = heard[-1][1]
        _, answer = await ask(api, task_id)
        assert last == answer["data"]
        assert last["task_info"] == {"external_task_id": "mine"}


async def test_a_scripted_task_tells_too() -> None:
    """Also of a failure, and by the simulated clock."""
    async with listening() as (url, heard), SimulatedCometAPI(time_scale=10) as api:
        api.create_task(duration=30, fail="bad pixel", callback_url=url)
        await asyncio.sleep(10)
        assert words(heard) == ["submitted", "processing", "failed"]
        assert heard[-1][0] == pytest.approx(3)
        assert heard[-1][1]["task_status_msg"] == "bad pixel"


@pytest.mark.parametrize(
    ("callbacks", "said"),
    [
        ("once", "submitted processing succeed"),
        ("repeated", "submitted submitted processing processing succeed succeed"),
        ("shuffled", "succeed processing submitted submitted processing succeed"),
        ("none", ""),
    ],
)
async def test_manners(callbacks: Any, said: str) -> None:
    """Once, twice, out of their order, or not at all."""
    async with listening() as (url, heard), SimulatedCometAPI(callbacks=callbacks) as api:
        api.create_task(callback_url=url)
        await asyncio.sleep(50)
        assert words(heard) == said.split()


async def test_a_task_that_is_finished_by_hand() -> None:
    """It tells so at once, also one that would never have ended; one that is gone says nothing."""
    async with listening() as (url, heard), SimulatedCometAPI() as api:
        endless = api.create_task(duration=math.inf, callback_url=url)
        gone = api.create_task(duration=60, callback_url=url)
        await asyncio.sleep(20)
        assert words(heard) == ["submitted", "submitted", "processing", "processing"]
        api._handler.callbacks.changed(endless)  # a look that finds it as it was says nothing
        await asyncio.sleep(0)
        api.finish(endless)
        api.expire(gone)
        await asyncio.sleep(100)
        assert words(heard)[4:] == ["succeed"]
        assert heard[-1][0] == 20
        api.finish(endless)


@pytest.mark.parametrize(
    "url", ["https://hooks.example/", "http://10.0.0.1/", "http://[", "nonsense", "file:///x"]
)
async def test_nobody_else_is_called(url: str) -> None:
    """Only this machine is, and by its very name."""
    async with SimulatedCometAPI() as api:
        before = asyncio.all_tasks()
        api.create_task(callback_url=url)
        assert asyncio.all_tasks() == before


async def test_a_listener_that_is_not_there() -> None:
    """It does no harm, and neither does the end of the simulator before that of the task."""
    async with SimulatedCometAPI() as api:
        api.create_task(callback_url="http://127.0.0.1:9/")
        await asyncio.sleep(50)
        api.create_task(callback_url="http://127.0.0.1:9/")
        await asyncio.sleep(1)
        api.create_task(callback_url="http://127.0.0.1:9/")
    names = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
    assert not any("CallbackSender" in name for name in names)


async def test_json_as_it_is() -> None:
    """A body is JSON that reads back, with the words as they are."""
    async with listening() as (url, heard), SimulatedCometAPI() as api:
        api.create_task(duration=0, fail="像素无效", callback_url=url)
        await asyncio.sleep(1)
        assert json.loads(json.dumps(heard[0][1]))["task_status_msg"] == "像素无效"
