"""The simulator serves images of any size, signed or gone."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import tracemalloc
from contextlib import AsyncExitStack
from typing import Any

import pytest
from yarl import URL

from kling_omni_async.simulator import SimulatedCometAPI

from .client import client, fetch, image_urls, say, status_word
from .test_png import chunks

pytestmark = pytest.mark.anyio

MB = 1_000_000


@pytest.mark.parametrize("size", [89, 5_000, 65_536, 65_537, 3 * MB])
async def test_images_have_the_size_asked_for(size: int) -> None:
    """Each image and each watermarked copy is a PNG of its own of exactly so many bytes."""
    async with SimulatedCometAPI() as api, client(api) as session:
        ids = [
            api.create_task(duration=0, images=2, watermarked=True, image_bytes=size)
            for _ in range(2)
        ]
        bodies: set[bytes] = set()
        for url in [url for task_id in ids for url in await image_urls(api, task_id)]:
            async with session.get(url) as response:
                assert response.headers["Content-Length"] == str(size)
                assert response.content_type == "image/png"
                bodies.add(await response.read())
        assert len(bodies) == 8
        assert all(len(body) == size and chunks(body) for body in bodies)
        assert {request.body_bytes for request in api.image_requests} == {size}


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"image_bytes": 88}, ValueError, "image_bytes must be at least 89, got 88"),
        ({"image_bytes": 1e6}, TypeError, "image_bytes must be an int"),
        ({"signed": "yes"}, TypeError, "signed"),
    ],
)
async def test_bad_images_are_named(
    arguments: dict[str, Any], error: type[Exception], named: str
) -> None:
    """A size that no PNG has, or a setting of a wrong type, is refused, and no task is made."""
    async with SimulatedCometAPI() as api:
        with pytest.raises(error, match=named):
            api.create_task(**arguments)
        assert "0 tasks" in repr(api)


async def test_gigabyte_takes_no_memory() -> None:
    """A client that reads 20 MB of 1 GB and leaves costs neither side memory, and ends it."""
    async with SimulatedCometAPI() as api, client(api) as session:
        task_id = api.create_task(duration=0, image_bytes=1_000 * MB)
        (url,) = await image_urls(api, task_id)
        tracemalloc.start()
        try:
            async with session.get(url) as response:
                assert response.content_length == 1_000 * MB
                read = 0
                while read < 20 * MB:
                    read += len(await response.content.readany())
                response.close()
            await asyncio.sleep(1.0)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 10 * MB
        (request,) = api.image_requests
        assert (request.status, request.finished) == (200, request.started)
        assert read <= request.body_bytes < 100 * MB


async def test_crowd_of_big_images_takes_little_memory() -> None:
    """Thirty downloads that nobody reads hold 64 KiB each, and one piece of padding for all."""
    async with SimulatedCometAPI() as api, AsyncExitStack() as stack:
        (url,) = await image_urls(api, api.create_task(duration=0, image_bytes=50 * MB))
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for _ in range(30):
            crowd = stack.enter_context(socket.create_connection((url.host, url.port)))
            crowd.sendall(f"GET {url.raw_path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await api.wait_for_image_requests(30)
        await asyncio.sleep(1.0)
        assert api.image_downloads_peak == 30
        assert tracemalloc.get_traced_memory()[1] < 8 * MB


async def test_signed_urls_must_arrive_as_they_are() -> None:
    """A signed image comes for its own query only, to the byte; for others it is 403 and XML."""
    async with SimulatedCometAPI() as api, client(api) as session:
        task_id = api.create_task(duration=0, images=2, watermarked=True, signed=True)
        urls = await image_urls(api, task_id)
        assert len({url.raw_query_string for url in urls}) == 4
        assert {(await fetch(session, url))[0] for url in urls} == {200}
        true = str(urls[0])
        path, _, query = true.partition("?")
        wrong = [
            path,
            f"{path}?",
            f"{true}&",
            true.replace("%3d", "%3D"),
            true.replace("+", "%20"),
            str(URL(true)),
            f"{path}?{urls[1].raw_query_string}",
        ]
        assert len({true, *wrong}) == 8
        for spelt in wrong:
            status, body, kind = await fetch(session, URL(spelt, encoded=True))
            assert (status, kind) == (403, "application/xml"), spelt
            assert body.startswith(b"<?xml")
        assert re.search(r"%[0-9A-F]*[A-F]", query)
        assert re.search(r"%[0-9a-f]*[a-f]", query)


async def signed_urls(seed: int) -> list[str]:
    """Collect the paths and queries that a seed gives to one id."""
    async with SimulatedCometAPI(seed=seed) as api:
        urls = await image_urls(api, api.create_task(duration=0, task_id="a/b", signed=True))
        return [url.raw_path_qs for url in urls]


async def test_seed_decides_signatures() -> None:
    """The same seed signs alike, another one otherwise."""
    assert await signed_urls(7) == await signed_urls(7)
    assert await signed_urls(7) != await signed_urls(8)


async def test_other_images_take_any_query() -> None:
    """Without a signature a query changes nothing."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0))
        assert url.raw_query_string == ""
        plain = await fetch(session, url)
        assert plain[0] == 200
        assert await fetch(session, url.with_query("x=1")) == plain


@pytest.mark.parametrize("status", [403, 404, 410, 451])
async def test_images_expire_for_good(status: int) -> None:
    """Images that are gone answer so again and again, 403 in XML; their task still answers."""
    async with SimulatedCometAPI() as api, client(api) as session:
        task_id, other = (api.create_task(duration=0, watermarked=True) for _ in range(2))
        urls = await image_urls(api, task_id)
        assert [(await fetch(session, url))[0] for url in urls] == [200, 200]
        api.expire_images(task_id, status=status)
        for url in urls * 2:
            answered, body, kind = await fetch(session, url)
            assert answered == status
            assert (kind, body[:5]) == (
                ("application/xml", b"<?xml") if status == 403 else ("", b"")
            )
        assert await image_urls(api, task_id) == urls
        assert [(await fetch(session, url))[0] for url in await image_urls(api, other)] == [200] * 2


async def test_all_images_expire_at_once() -> None:
    """Without an id the images of every task expire, finished or not, but not those to come."""
    async with SimulatedCometAPI() as api, client(api) as session:
        ids = [api.create_task(duration=0), api.create_task(duration=40.0)]
        api.expire_images(status=410)
        ids.append(api.create_task(duration=0))
        urls = [f"{api.base_url}/assets/{task_id}-0.png" for task_id in ids]
        assert [(await fetch(session, url))[0] for url in urls] == [410, 410, 200]
        await asyncio.sleep(40.0)
        assert [(await fetch(session, url))[0] for url in urls] == [410, 410, 200]
        assert {await status_word(api, task_id) for task_id in ids} == {"succeed"}


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"task_id": "nobody"}, KeyError, "nobody"),
        ({"status": 199}, ValueError, "status must be at least 200"),
        ({"status": "404"}, TypeError, "status must be an int"),
    ],
)
async def test_bad_expiry_is_named(
    arguments: dict[str, Any], error: type[Exception], named: str
) -> None:
    """An unknown task or a status that cannot be is refused."""
    with pytest.raises(error, match=named):
        SimulatedCometAPI().expire_images(**arguments)


@pytest.mark.parametrize("method", ["HEAD", "POST"])
async def test_images_are_only_got(method: str) -> None:
    """Any other method than GET is refused, and uses no fault up."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0))
        api.fail_next_image(status=502)
        async with session.request(method, url) as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET")
        assert (await fetch(session, url))[0] == 502


async def test_never_finished_tasks_have_no_images() -> None:
    """A hop of a redirect to an image that is not there ends at 404 as well."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=math.inf)
        for hops, status in ((1, b"302"), (0, b"404")):
            path = f"/assets/hop-{hops}/{task_id}-0.png"
            head, _ = await say(api, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert head.split()[1] == status
