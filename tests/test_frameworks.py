"""Inside the programs that people have: a web framework's lifespan, another event loop."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kling_omni_async import KlingOmniSession, PollPolicy, PollTimeoutError
from kling_omni_async.simulator import SimulatedCometAPI

pytestmark = pytest.mark.anyio

POLICY = PollPolicy(interval=(0.1, 0.15))


@pytest.fixture
def anyio_backend() -> str:
    """Take asyncio as it comes: a web server watches the real clock."""
    return "asyncio"


def make_app(api: SimulatedCometAPI) -> Starlette:
    """Give an application that holds one session for its whole life."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        session = KlingOmniSession(api.api_key, base_url=api.base_url, policy=POLICY)
        async with session:
            app.state.session = session
            yield

    async def show(request: Request) -> JSONResponse:
        session: KlingOmniSession = request.app.state.session
        try:
            task = await session.wait(request.path_params["task_id"], timeout=10)
        except PollTimeoutError:
            return JSONResponse({}, status_code=202)
        return JSONResponse({"images": [image.url for image in task.images]})

    return Starlette(routes=[Route("/tasks/{task_id}", show)], lifespan=lifespan)


@asynccontextmanager
async def serving(app: Any) -> AsyncGenerator[str]:
    """Run an application under uvicorn in this loop; gives its base URL."""
    config = uvicorn.Config(app, port=0, lifespan="on", log_level="error", ws="none")
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn gives no event
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


async def test_a_lifespan_holds_the_session(comet_api: SimulatedCometAPI) -> None:
    """A web backend's lifespan opens and closes a session that many requests share."""
    task_id = comet_api.create_task(duration=2.0, images=2)
    async with serving(make_app(comet_api)) as url, aiohttp.ClientSession() as client:

        async def ask() -> Any:
            async with client.get(f"{url}/tasks/{task_id}") as answer:
                return await answer.json()

        answers = await asyncio.gather(*[ask() for _ in range(50)])
    assert all(len(answer["images"]) == 2 for answer in answers)
    assert min(comet_api.gaps(task_id)) >= 0.1
    assert "kling" not in repr(asyncio.all_tasks())


async def test_a_client_that_goes_away_drops_its_wait(comet_api: SimulatedCometAPI) -> None:
    """Requests that are given up leave the backend able to serve the next one."""
    task_id = comet_api.create_task(duration=0.6)
    async with serving(make_app(comet_api)) as url, aiohttp.ClientSession() as client:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await client.get(
                    f"{url}/tasks/{task_id}", timeout=aiohttp.ClientTimeout(total=0.05)
                )
        async with client.get(f"{url}/tasks/{task_id}") as answer:
            assert len((await answer.json())["images"]) == 1
    assert min(comet_api.gaps(task_id)) >= 0.1


UNDER_UVLOOP = """
import asyncio, uvloop
from kling_omni_async import KlingOmniSession, PollPolicy
from kling_omni_async.simulator import SimulatedCometAPI

async def main():
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
    policy = PollPolicy(interval=(0.1, 0.15))
    async with SimulatedCometAPI() as api:
        ids = [api.create_task(duration=0.3) for _ in range(20)]
        api.fail_next(ids[0], reset=True, times=2)
        api.fail_next(ids[1], status=502, times=2)  # so that one has gaps, however slow all is
        async with KlingOmniSession(api.api_key, base_url=api.base_url, policy=policy) as session:
            await session.query(ids[2])
            async with session.poll(ids) as outcomes:
                seen = [outcome.task_id async for outcome in outcomes if outcome.ok]
            stream = session.poll([api.create_task(duration=100), api.create_task(duration=0)])
            await anext(stream)
        assert sorted(seen) == sorted(ids)
        # Of the first one aiohttp itself sends again what was reset, however much later.
        assert min(gap for task_id in ids[1:] for gap in api.gaps(task_id)) >= 0.1

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")
def test_everything_works_under_uvloop() -> None:
    """A batch with a reset connection, and a stream left behind, run without a warning."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", UNDER_UVLOOP],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
