"""The clients that are compared: each asks for ids of finished tasks and makes records of them.

The floor is the cheapest loop that a good engineer would write, with nothing of this library in
it: one session that has the headers, ``read()``, ``json`` and a record by cattrs. The rivals make
the same record in the same way, so that only the way from an id to the bytes differs.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final

import aiohttp
import attrs
from cattrs import Converter
from yarl import URL

from kling_omni_async import KlingOmniSession, PollPolicy
from kling_omni_async._api.answers import Answer, read_answer
from kling_omni_async._api.client import Client
from kling_omni_async._config import make_settings

from .answers import API_KEY, DONE, ROUTE, task_ids

IN_FLIGHT: Final = 64
POLICY: Final = PollPolicy(max_rate=None, max_concurrency=IN_FLIGHT)
HEADERS: Final = {"Authorization": f"Bearer {API_KEY}", "Accept": "application/json"}
OK: Final = 200
WARM_UP: Final = 500

Run = Callable[[Sequence[str]], Awaitable[None]]
Fetch = Callable[[str], Awaitable[object]]


def optional(name: str) -> Any | None:
    """Import a rival, if it is installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


@attrs.frozen
class Image:
    """An image, as a loop without this library would keep it."""

    url: str
    index: int = 0


@attrs.frozen
class Result:
    """What a task has made."""

    images: list[Image] = attrs.field(factory=list[Image])


@attrs.frozen
class Task:
    """A task, as a loop without this library would keep it."""

    task_id: str
    task_status: str
    task_result: Result
    created_at: int
    updated_at: int

    @property
    def is_over(self) -> bool:
        """Whether it needs to be asked for no more."""
        return self.task_status in {"succeed", "failed"}


RECORDS: Final = Converter()


def task_in(status: int, body: bytes) -> Task:
    """Make a record of an answer."""
    if status != OK:
        raise ValueError(f"HTTP {status}")
    return RECORDS.structure(json.loads(body)["data"], Task)


async def in_workers(ids: Sequence[str], fetch: Fetch) -> None:
    """Ask for all ids by as many workers as may be in flight."""
    source = iter(ids)
    await asyncio.gather(*(_work(source, fetch) for _ in range(IN_FLIGHT)))


async def _work(source: Iterator[str], fetch: Fetch) -> None:
    for task_id in source:
        await fetch(task_id)


@attrs.frozen
class BareLoop:
    """N workers over one aiohttp session; as it stands the floor.

    Attributes:
        plain_cookies: Whether aiohttp's cookie jar stays.
        url: How a URL is made of a str.
        headers: What is handed over with each request, instead of once to the session.
    """

    plain_cookies: bool = True
    url: Callable[[str], str | URL] = str
    headers: Any = None

    @asynccontextmanager
    async def __call__(self, base_url: str) -> AsyncGenerator[Run]:
        """Open the session; gives the loop."""
        async with self.session(base_url) as fetch:
            yield lambda ids: in_workers(ids, fetch)

    @asynccontextmanager
    async def session(self, base_url: str) -> AsyncGenerator[Callable[[str], Awaitable[Task]]]:
        """Open the session; gives what asks for one id."""
        http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=IN_FLIGHT),
            cookie_jar=None if self.plain_cookies else aiohttp.DummyCookieJar(),
            headers=HEADERS if self.headers is None else None,
        )

        async def fetch(task_id: str) -> Task:
            url = self.url(f"{base_url}{ROUTE}{task_id}")
            async with http.get(url, headers=self.headers) as response:
                return task_in(response.status, await response.read())

        async with http:
            yield fetch


floor: Final = BareLoop()


@asynccontextmanager
async def transport(base_url: str) -> AsyncGenerator[Run]:
    """Ask as the floor does, but by this library's client and decoder."""
    client = Client(make_settings(API_KEY, base_url, POLICY, allow_http=False), None)
    await client.open()

    async def fetch(task_id: str) -> None:
        answer = await client.fetch(task_id)
        assert isinstance(answer, Answer)
        assert not isinstance(read_answer(answer, task_id, wall_s=time.time()), Exception)

    try:
        yield lambda ids: in_workers(ids, fetch)
    finally:
        await client.aclose()


@asynccontextmanager
async def library(base_url: str) -> AsyncGenerator[Run]:
    """Poll by this library."""
    async with KlingOmniSession(API_KEY, base_url=base_url, policy=POLICY) as session:

        async def run(ids: Sequence[str]) -> None:
            async with session.poll(ids) as outcomes:
                async for outcome in outcomes:
                    outcome.result()

        yield run


@asynccontextmanager
async def coroutines(base_url: str) -> AsyncGenerator[Run]:
    """Rival (b): a coroutine for each id, which sleeps between its queries."""
    rng = Random()
    async with floor.session(base_url) as fetch:

        async def follow(task_id: str) -> Task:
            while not (task := await fetch(task_id)).is_over:
                await asyncio.sleep(rng.uniform(20, 30))
            return task

        async def run(ids: Sequence[str]) -> None:
            await asyncio.gather(*map(follow, ids))

        yield run


@asynccontextmanager
async def httpx(base_url: str) -> AsyncGenerator[Run]:
    """Rival (c): N workers over one httpx client."""
    module: Any = optional("httpx")
    limits = module.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    async with module.AsyncClient(headers=HEADERS, limits=limits, trust_env=False) as client:

        async def fetch(task_id: str) -> Task:
            response = await client.get(f"{base_url}{ROUTE}{task_id}")
            return task_in(response.status_code, response.content)

        yield lambda ids: in_workers(ids, fetch)


@asynccontextmanager
async def cometapi(base_url: str) -> AsyncGenerator[Run]:
    """Rival (c): N workers over the official client."""
    module: Any = optional("cometapi")
    response_type: Any = getattr(optional("httpx"), "Response", None)
    async with module.AsyncCometAPI(api_key=API_KEY, base_url=base_url) as client:

        async def fetch(task_id: str) -> Task:
            response = await client.get(f"{ROUTE}{task_id}", cast_to=response_type)
            return task_in(response.status_code, response.content)

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
