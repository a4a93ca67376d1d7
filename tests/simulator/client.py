"""How tests talk to the simulator: plain aiohttp, nothing of the library."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from attrs import frozen
from yarl import URL

from kling_omni_async.simulator import ImageRequest, Query, SimulatedCometAPI

COLLECTION = "/kling/v1/images/omni-image"


@contextlib.asynccontextmanager
async def client(api: SimulatedCometAPI, **settings: Any) -> AsyncGenerator[aiohttp.ClientSession]:
    """Open a session that sends the right key."""
    headers = {"Authorization": f"Bearer {api.api_key}"}
    async with aiohttp.ClientSession(headers=headers, **settings) as session:
        yield session


def url_of(api: SimulatedCometAPI, task_id: str) -> URL:
    """Spell the URL of a query, every character of the id escaped that needs it."""
    return URL(f"{api.base_url}{COLLECTION}/{quote(task_id, safe='')}", encoded=True)


def image_of(api: SimulatedCometAPI, task_id: str) -> URL:
    """Spell the URL of a task's first image, every character escaped that needs it."""
    return URL(f"{api.base_url}/assets/{quote(task_id, safe='')}-0.png", encoded=True)


async def fetch(session: aiohttp.ClientSession, url: URL | str) -> tuple[int, bytes, str]:
    """Ask once, and return status, body and content type."""
    async with session.get(url, allow_redirects=False) as response:
        return response.status, await response.read(), response.headers.get("Content-Type", "")


async def ask(api: SimulatedCometAPI, task_id: str) -> tuple[int, Any]:
    """Query once, on a connection of its own."""
    async with client(api) as session:
        status, body, _ = await fetch(session, url_of(api, task_id))
        return status, json.loads(body)


async def status_word(api: SimulatedCometAPI, task_id: str) -> str:
    """Ask for the status word of a task."""
    _, body = await ask(api, task_id)
    word: str = body["data"]["task_status"]
    return word


async def image_urls(api: SimulatedCometAPI, task_id: str) -> list[URL]:
    """Ask for the URLs of a task's images as they are spelt, watermarked copies too."""
    _, body = await ask(api, task_id)
    result = body["data"]["task_result"]
    return [
        URL(image[key], encoded=True)
        for image in result.get("series_images") or result["images"]
        for key in ("url", "watermark_url")
        if key in image
    ]


async def say(api: SimulatedCometAPI, request: str) -> tuple[bytes, bytes]:
    """Send a request as it is, and return head and body of all that comes until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(api.base_url).port)
    writer.write(request.encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return head, body


@frozen
class Kind:
    """One kind of request, and what the simulator offers for it.

    Attributes:
        name: How parametrised tests call it.
        url: The URL to ask, by task id.
        mark: What is in the true answer of a task that has succeeded, and in nothing else.
        fail_next: Plans a fault.
        clear: Drops faults.
        seen: The log, as it stands.
        seen_of: The log of one task.
        arrived: Waits for entries of the log.
        peak: How many were in flight together, at most.
    """

    name: str
    url: Callable[[SimulatedCometAPI, str], URL]
    mark: bytes
    fail_next: Callable[..., None]
    clear: Callable[..., None]
    seen: Callable[[SimulatedCometAPI], tuple[Query | ImageRequest, ...]]
    seen_of: Callable[[SimulatedCometAPI, str], tuple[Query | ImageRequest, ...]]
    arrived: Callable[..., Awaitable[None]]
    peak: Callable[[SimulatedCometAPI], int]


QUERY = Kind(
    "query",
    url_of,
    b'"task_status": "succeed"',
    SimulatedCometAPI.fail_next,
    SimulatedCometAPI.clear_faults,
    lambda api: api.queries,
    SimulatedCometAPI.queries_of,
    SimulatedCometAPI.wait_for_queries,
    lambda api: api.in_flight_peak,
)
IMAGE = Kind(
    "image",
    image_of,
    b"\x89PNG",
    SimulatedCometAPI.fail_next_image,
    SimulatedCometAPI.clear_image_faults,
    lambda api: api.image_requests,
    SimulatedCometAPI.image_requests_of,
    SimulatedCometAPI.wait_for_image_requests,
    lambda api: api.image_downloads_peak,
)

each_kind = pytest.mark.parametrize("kind", [QUERY, IMAGE], ids=lambda kind: kind.name)


async def statuses(api: SimulatedCometAPI, kind: Kind, task_id: str, count: int = 1) -> list[int]:
    """Ask one after the other on one connection, and return the HTTP statuses."""
    async with client(api) as session:
        return [(await fetch(session, kind.url(api, task_id)))[0] for _ in range(count)]
