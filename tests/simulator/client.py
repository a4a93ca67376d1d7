"""How tests talk to the simulator: plain aiohttp, nothing of the library."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from kling_omni_async.simulator import SimulatedCometAPI

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
