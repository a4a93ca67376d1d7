"""The web backend with aiohttp.web alone."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from kling_omni_async.simulator import SimulatedCometAPI

from .program import Program, environment, running

pytestmark = pytest.mark.anyio

PAUSE_S = 0.2


@pytest.fixture
async def backend(comet_api: SimulatedCometAPI, tmp_path: Path) -> AsyncGenerator[Program]:
    """Give the running example; a request waits for at most 1 s."""
    env = {**environment(comet_api), "PORT": "0", "POLL_INTERVAL": str(PAUSE_S), "WAIT": "1"}
    async with running("aiohttp_backend.py", env=env, folder=tmp_path) as program:
        yield program


async def test_each_end_of_a_wait_has_its_answer(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, backend: Program
) -> None:
    """200 is a result, good or bad, 202 the last status, 404 an unknown id, 502 trouble."""
    url = await backend.address()

    async def get(task_id: str) -> tuple[int, Any]:
        async with client.get(f"{url}/tasks/{quote(task_id, safe='')}") as answer:
            return answer.status, await answer.json()

    done = comet_api.create_task(task_id="AbC/d+e=", duration=0.0, images=2)
    failed = comet_api.create_task(duration=0.0, fail="Image pixel is invalid")
    running = comet_api.create_task(duration=math.inf)
    status, told = await get(done)
    assert (status, told["status"], len(told["images"])) == (200, "succeed", 2)
    assert await get(failed) == (200, {"status": "failed", "reason": "Image pixel is invalid"})
    answers = await asyncio.gather(*[get(running) for _ in range(20)])
    assert [status for status, _ in answers] == [202] * 20
    assert {told["status"] for _, told in answers} <= {"submitted", "processing"}
    assert (await get("with space"))[0] == 404
    comet_api.fail_next("refused", status=403)
    assert (await get("refused"))[0] == 502
    assert comet_api.api_key not in backend.output
    assert min(comet_api.gaps()) >= PAUSE_S


async def test_it_stops_cleanly_while_a_client_waits(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, backend: Program
) -> None:
    """SIGTERM lets the wait end, closes the session, and leaves with code 0."""
    url = await backend.address()
    task_id = comet_api.create_task(duration=math.inf)
    waiting = asyncio.create_task(client.get(f"{url}/tasks/{task_id}"))
    await comet_api.wait_for_queries()
    assert await backend.stop() == 0
    async with await waiting as answer:
        assert answer.status == 202


async def test_a_callback_makes_it_ask_and_says_nothing(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """The right one ends the pause at its least; wrong, huge, forged ones get the same 204."""
    env = {**environment(comet_api), "PORT": "0", "POLL_INTERVAL": "1e6"}
    env["CALLBACK_SECRET"] = "s3cret"
    async with running("aiohttp_backend.py", env=env, folder=tmp_path) as program:
        url = await program.address()
        task_id = comet_api.create_task(duration=math.inf)
        waiting = asyncio.create_task(client.get(f"{url}/tasks/{task_id}"))
        await comet_api.wait_for_queries()

        async def health() -> dict[str, Any]:
            async with client.get(f"{url}/healthz") as answer:
                assert answer.status == 200
                return dict(await answer.json())

        async def call_back(secret: str, body: bytes) -> None:
            async with client.post(f"{url}/callbacks/{secret}", data=body) as answer:
                assert (answer.status, await answer.read()) == (204, b"")

        told = json.dumps({"task_id": task_id, "task_status": "succeed"}).encode()
        for body in (b"{}", b"x" * 900_000, told.replace(b'"task_id"', b'"id"')):
            await call_back("s3cret", body)
        await call_back("wrong", told)
        while (await health())["in_flight"]:
            pass
        assert (await health())["next_query"] > 1e6
        await call_back("s3cret", told)
        after = await health()
        assert 1e6 - 60 < after["next_query"] <= 1e6
        assert (after["watched"], after["queries"]) == (1, 1)
        waiting.cancel()
        await asyncio.wait([waiting])
