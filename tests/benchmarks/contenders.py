"""The clients that are compared: each asks for ids of finished tasks and makes our records of them.

All decode with the library's decoder and hold no more than its byte bound, so that only the way
from an id to the bytes differs.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final

import aiohttp

from kling_omni_async import ImageTask, KlingOmniSession, PollPolicy
from kling_omni_async._api.answers import Answer, read_answer

from .answers import API_KEY, DONE, ROUTE, task_ids

IN_FLIGHT: Final = 64
MOST_BYTES: Final = PollPolicy().max_response_bytes
HEADERS: Final = {"Authorization": f"Bearer {API_KEY}", "Accept": "application/json"}
WARM_UP: Final = 500

Run = Callable[[Sequence[str]], Awaitable[None]]
Fetch = Callable[[str], Awaitable[ImageTask]]


def optional(name: str) -> Any | None:
    """Import a rival, if it is installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def decoded(status: int, body: bytes, task_id: str) -> ImageTask:
    """Make our record of an answer."""
    if len(body) > MOST_BYTES:
        raise ValueError("too long an answer")
    task = read_answer(Answer(status, body), task_id, wall_s=time.time())
    assert isinstance(task, ImageTask)
    return task


async def by_aiohttp(http: aiohttp.ClientSession, url: str, task_id: str) -> ImageTask:
    """Ask once, as the documentation of aiohttp shows it."""
    async with http.get(url, headers=HEADERS) as response:
        body = await response.content.read(MOST_BYTES + 1)
        while len(body) <= MOST_BYTES and not response.content.at_eof():
            body += await response.content.read(MOST_BYTES + 1)
        return decoded(response.status, body, task_id)


async def in_workers(ids: Sequence[str], fetch: Fetch) -> None:
    """Ask for all ids by as many workers as may be in flight."""
    source = iter(ids)
    await asyncio.gather(*(_work(source, fetch) for _ in range(IN_FLIGHT)))


async def _work(source: Iterator[str], fetch: Fetch) -> None:
    for task_id in source:
        await fetch(task_id)


@asynccontextmanager
async def library(base_url: str) -> AsyncGenerator[Run]:
    """Poll by this library."""
    policy = PollPolicy(max_rate=None, max_concurrency=IN_FLIGHT)
    async with KlingOmniSession(API_KEY, base_url=base_url, policy=policy) as session:

        async def run(ids: Sequence[str]) -> None:
            async with session.poll(ids) as outcomes:
                async for outcome in outcomes:
                    outcome.result()

        yield run


@asynccontextmanager
async def floor(base_url: str) -> AsyncGenerator[Run]:
    """Rival (a), the floor: N workers over one aiohttp session."""
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def fetch(task_id: str) -> ImageTask:
            return await by_aiohttp(http, f"{base_url}{ROUTE}{task_id}", task_id)

        yield lambda ids: in_workers(ids, fetch)


@asynccontextmanager
async def coroutines(base_url: str) -> AsyncGenerator[Run]:
    """Rival (b): a coroutine for each id, which sleeps between its queries."""
    rng = Random()
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def follow(task_id: str) -> ImageTask:
            while True:
                task = await by_aiohttp(http, f"{base_url}{ROUTE}{task_id}", task_id)
                if task.status.is_terminal:
                    return task
                await asyncio.sleep(rng.uniform(20, 30))

        async def run(ids: Sequence[str]) -> None:
            await asyncio.gather(*map(follow, ids))

        yield run


@asynccontextmanager
async def httpx(base_url: str) -> AsyncGenerator[Run]:
    """Rival (c): N workers over one httpx client."""
    module: Any = optional("httpx")
    limits = module.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    async with module.AsyncClient(headers=HEADERS, limits=limits, trust_env=False) as client:

        async def fetch(task_id: str) -> ImageTask:
            response = await client.get(f"{base_url}{ROUTE}{task_id}")
            return decoded(response.status_code, response.content, task_id)

        yield lambda ids: in_workers(ids, fetch)


@asynccontextmanager
async def cometapi(base_url: str) -> AsyncGenerator[Run]:
    """Rival (c): N workers over the official client."""
    module: Any = optional("cometapi")
    response_type: Any = getattr(optional("httpx"), "Response", None)
    async with module.AsyncCometAPI(api_key=API_KEY, base_url=base_url) as client:

        async def fetch(task_id: str) -> ImageTask:
            response = await client.get(f"{ROUTE}{task_id}", cast_to=response_type)
            return decoded(response.status_code, response.content, task_id)

        yield lambda ids: in_workers(ids, fetch)


Contender = Callable[[str], Any]


def cpu_us_each(contender: Contender, base_url: str, count: int) -> float:
    """Give the CPU time of this process for each query, over connections that are open."""
    return asyncio.run(cpu_us_each_in(contender, base_url, count))


async def cpu_us_each_in(contender: Contender, base_url: str, count: int) -> float:
    """Give the same in a loop that runs."""
    ids = task_ids(DONE, count, first=WARM_UP)
    async with contender(base_url) as run:
        await run(task_ids(DONE, WARM_UP))
        began = time.process_time()
        await run(ids)
        return (time.process_time() - began) / count * 1e6
