"""The synchronous web backend with Flask: one portal under a server of many threads."""

from __future__ import annotations

import asyncio
import math
import signal
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
    async with running("flask_backend.py", env=env, folder=tmp_path) as program:
        yield program


async def test_each_end_of_a_wait_has_its_answer(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, backend: Program
) -> None:
    """200 is a result, good or bad, 202 the last status, 404 an unknown id, 502 trouble.

    Twenty threads wait for one id at once and share its queries. Ctrl-C closes the session in its
    loop and leaves with code 0.
    """
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
    backend.process.send_signal(signal.SIGINT)
    assert await backend.ends() == 0
