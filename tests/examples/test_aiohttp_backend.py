"""The web backend with aiohttp.web and a book: what it answers, and what a restart costs."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from kling_omni_async.simulator import SimulatedCometAPI

from .program import LOOK_S, Program, environment, running, until

pytestmark = pytest.mark.anyio

PAUSE_S = 0.2


def started(
    api: SimulatedCometAPI, folder: Path, **env: str
) -> AbstractAsyncContextManager[Program]:
    """Start the example; one that is started in the same folder goes on with the same book."""
    env = {**environment(api), "PORT": "0", "POLL_INTERVAL": str(PAUSE_S), "WAIT": "1", **env}
    return running("aiohttp_backend.py", env=env, folder=folder)


@pytest.fixture
async def backend(comet_api: SimulatedCometAPI, tmp_path: Path) -> AsyncGenerator[Program]:
    """Give the running example; a request waits for at most 1 s."""
    async with started(comet_api, tmp_path) as program:
        yield program


async def order(client: aiohttp.ClientSession, url: str, **wish: Any) -> tuple[int, Any]:
    """Order, and give the status and the JSON of the answer."""
    async with client.post(f"{url}/tasks", json=wish) as answer:
        return answer.status, await answer.json()


async def get(client: aiohttp.ClientSession, url: str, task_id: str) -> tuple[int, Any]:
    """Give the status and the JSON of an answer."""
    async with client.get(f"{url}/tasks/{quote(task_id, safe='')}") as answer:
        return answer.status, await answer.json()


async def test_each_end_of_a_wait_has_its_answer(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, backend: Program
) -> None:
    """200 is a result, good or bad, 202 the last status, 404 an id that was not created here."""
    url = await backend.address()
    status, told = await order(client, url, prompt="a fox", n=2)
    task_id = told["task_id"]
    assert (status, [task.task_id for task in comet_api.billed]) == (201, [task_id])
    answers = await asyncio.gather(*[get(client, url, task_id) for _ in range(20)])
    assert [status for status, _ in answers] == [202] * 20
    assert {told["status"] for _, told in answers} <= {"submitted", "processing"}
    comet_api.finish(task_id)
    status, told = await get(client, url, task_id)
    assert (status, told["status"], len(told["images"])) == (200, "succeed", 2)
    stranger = comet_api.create_task()
    for name in ("with space", "no/body", stranger):
        assert (await get(client, url, name))[0] == 404
    assert not comet_api.queries_of(stranger)
    assert min(comet_api.gaps()) >= PAUSE_S
    async with client.get(f"{url}/healthz") as answer:
        assert (answer.status, (await answer.json())["succeeded"]) == (200, 1)


async def test_what_is_wrong_with_an_order_is_told(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, backend: Program
) -> None:
    """422 names the field; 502 is trouble that a client cannot mend, and is in the log."""
    url = await backend.address()
    assert (await order(client, url, prompt="a fox", n=12))[0] == 422
    assert (await order(client, url))[0] == 422
    async with client.post(f"{url}/tasks", data=b"{") as answer:
        assert answer.status == 422
    comet_api.fail_next_create(status=400, body={"code": 1102, "message": "balance"})
    assert (await order(client, url, prompt="a fox"))[0] == 502
    await backend.says("AccountError")
    assert comet_api.api_key not in backend.output
    assert not comet_api.billed


async def test_a_key_is_paid_for_once_by_all_servers(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, backend: Program, tmp_path: Path
) -> None:
    """Two servers on one book give one task for one wish, and each answers for it."""
    folder = tmp_path / "other"
    folder.mkdir()
    async with started(comet_api, folder, BOOK=str(tmp_path / "tasks.db")) as other:
        urls = [await backend.address(), await other.address()]
        told = [await order(client, url, prompt="a fox", key="42/1") for url in urls]
        (task,) = comet_api.billed
        assert told == [(201, {"task_id": task.task_id})] * 2
        comet_api.finish(task.task_id)
        answers = [await get(client, url, task.task_id) for url in urls]
        assert [status for status, _ in answers] == [200, 200]
        assert await other.stop() == 0


async def test_a_restart_in_the_middle_loses_nothing(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """200 browsers wait for 50 ids over a SIGKILL: all get them, and each is paid for once.

    No query comes too early, and none after a final word but what was under way at the kill.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    async def browse(number: int) -> str:
        """Order and wait as a browser does that asks again when it is cut off."""
        key = f"browser/{number % 50}"
        task_id = (await asked("POST", "/tasks", {"prompt": f"fox {key}", "key": key}))["task_id"]
        told = await asked("GET", f"/tasks/{task_id}", None)
        assert told["status"] == "succeed"
        return str(task_id)

    async def asked(method: str, path: str, body: Any) -> Any:
        while True:
            try:
                async with client.request(method, f"{url}{path}", json=body) as answer:
                    if answer.status in {200, 201}:
                        return await answer.json()
                    assert answer.status == 202, await answer.text()
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                await asyncio.sleep(LOOK_S)

    async with asyncio.TaskGroup() as group:
        async with started(comet_api, tmp_path, PORT=str(port)) as first:
            await first.address()
            browsers = [group.create_task(browse(number)) for number in range(200)]
            await comet_api.wait_for_queries(100)
            early = [task.task_id for task in comet_api.billed[:20]]
            for task_id in early:
                comet_api.finish(task_id)
            finished = asyncio.get_running_loop().time()
            await until(lambda: sum(browser.done() for browser in browsers) >= 40)
            await first.kill()
        async with started(comet_api, tmp_path, PORT=str(port)) as second:
            await second.address()
            await until(lambda: len(comet_api.billed) == 50)
            for task in comet_api.billed:
                comet_api.finish(task.task_id)
            counts = Counter([await browser for browser in browsers])
            assert await second.stop() == 0
    assert set(counts.values()) == {4}
    assert len(comet_api.billed) == len(counts) == 50
    assert min(comet_api.gaps()) >= PAUSE_S
    for task_id in early:
        late = [each for each in comet_api.queries_of(task_id) if each.started > finished]
        assert len(late) in {1, 2}


def free_port() -> int:
    """Give a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_it_stops_cleanly_while_a_client_waits(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, backend: Program
) -> None:
    """SIGTERM lets the wait end, closes the session and the book, and leaves with code 0."""
    url = await backend.address()
    task_id = (await order(client, url, prompt="a fox"))[1]["task_id"]
    assert comet_api.billed
    waiting = asyncio.create_task(client.get(f"{url}/tasks/{task_id}"))
    await comet_api.wait_for_queries(2)
    assert await backend.stop() == 0
    async with await waiting as answer:
        assert answer.status == 202
