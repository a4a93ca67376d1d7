"""The synchronous web backend with Flask: one portal under a server of many threads."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, suppress
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
    async with started(comet_api, tmp_path, wait_s=1) as program:
        yield program


def started(
    api: SimulatedCometAPI, folder: Path, *, wait_s: float
) -> AbstractAsyncContextManager[Program]:
    """Start the example."""
    settings = {"PORT": "0", "POLL_INTERVAL": str(PAUSE_S), "WAIT": str(wait_s)}
    return running("flask_backend.py", env={**environment(api), **settings}, folder=folder)


async def test_each_end_of_a_wait_has_its_answer(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, backend: Program
) -> None:
    """200 is a result, good or bad, 202 the last status, 404 an unknown id, 502 trouble.

    Twenty threads wait for one id at once, in the first requests of all, and share its queries.
    Ctrl-C closes the session in its loop and leaves with code 0.
    """
    url = await backend.address()

    async def get(task_id: str) -> tuple[int, Any]:
        async with client.get(f"{url}/tasks/{quote(task_id, safe='')}") as answer:
            return answer.status, await answer.json()

    done = comet_api.create_task(task_id="AbC/d+e=", duration=0.0, images=2)
    failed = comet_api.create_task(duration=0.0, fail="Image pixel is invalid")
    running = comet_api.create_task(duration=math.inf)
    answers = await asyncio.gather(*[get(running) for _ in range(20)])
    assert [status for status, _ in answers] == [202] * 20
    assert {told["status"] for _, told in answers} <= {"submitted", "processing"}
    status, told = await get(done)
    assert (status, told["status"], len(told["images"])) == (200, "succeed", 2)
    assert await get(failed) == (200, {"status": "failed", "reason": "Image pixel is invalid"})
    assert (await get("with space"))[0] == 404
    comet_api.fail_next("refused", status=403)
    assert (await get("refused"))[0] == 502
    assert comet_api.api_key not in backend.output
    assert min(comet_api.gaps()) >= PAUSE_S
    assert await backend.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_stops_while_a_client_waits(
    number: signal.Signals,
    comet_api: SimulatedCometAPI,
    client: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    """Ctrl-C and a service manager end it in good order, however long a request would wait."""
    task_id = comet_api.create_task(duration=math.inf)
    async with started(comet_api, tmp_path, wait_s=3600) as patient:
        url = await patient.address()
        waiting = asyncio.create_task(client.get(f"{url}/tasks/{task_id}"))
        await comet_api.wait_for_queries(1, task_id)
        assert await patient.stop(number) == 0
    with suppress(aiohttp.ClientError):  # it is told so, or the connection ends
        async with await waiting as answer:
            assert answer.status == 502
