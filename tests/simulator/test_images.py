"""The simulator serves images of any size, signed or gone, and remembers who asked for them."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import tracemalloc
from contextlib import AsyncExitStack
from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError
from yarl import URL

from kling_omni_async.simulator import ImageRequest, SimulatedCometAPI

from .client import ask, client, fetch, image_urls, say, status_word
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


async def test_remembers_what_and_when() -> None:
    """A record tells image, path, connection, times, status and bytes; it is no query."""
    async with SimulatedCometAPI() as api, client(api) as session:
        task_id = api.create_task(duration=0, task_id="a/b", images=2, watermarked=True)
        await asyncio.sleep(3.0)
        started = asyncio.get_running_loop().time()
        url = URL(f"{api.base_url}/assets/watermarked/a%2Fb-1.png?q=%7e+%3d", encoded=True)
        api.fail_next_image(delay=0.5)
        _, body, _ = await fetch(session, url)
        (request,) = api.image_requests
        assert request == ImageRequest(
            task_id=task_id,
            index=1,
            watermarked=True,
            path="/assets/watermarked/a%2Fb-1.png?q=%7e+%3d",
            headers=request.headers,
            connection=1,
            started=started,
            finished=started + 0.5,
            status=200,
            body_bytes=len(body),
        )
        assert api.image_requests_of(task_id) == api.image_requests
        assert api.image_requests_of("nobody") == ()
        assert api.queries == ()


async def test_remembers_headers() -> None:
    """Headers are found by any spelling of their names, and nothing of a record can be changed."""
    async with SimulatedCometAPI() as api, client(api) as session:
        await fetch(session, f"{api.base_url}/assets/x-0.png")
        (request,) = api.image_requests
        assert request.headers["AUTHORIZATION"] == f"Bearer {api.api_key}"
        assert request.headers["authorization"] == request.headers["Authorization"]
        changeable: Any = request
        with pytest.raises(TypeError):
            changeable.headers["Authorization"] = ""
        with pytest.raises(FrozenInstanceError):
            changeable.status = 200
        assert api.api_key not in repr(request)
        assert {request} == set(api.image_requests)


@pytest.mark.parametrize(
    "name",
    ["", "x", "x-.png", "-0.png", "x-a.png", "x-10000.png", "a/x-0.png", "hop-x/x-0.png"],
)
async def test_remembers_paths_of_no_image(name: str) -> None:
    """A path that names no image has neither task nor index, is 404 and meets no fault."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next_image(status=502)
        assert await fetch(session, f"{api.base_url}/assets/{name}") == (404, b"", "")
        (request,) = api.image_requests
        assert (request.task_id, request.index, request.watermarked) == (None, None, False)
        assert (request.path, request.status) == (f"/assets/{name}", 404)


async def test_remembers_the_last_ones_only() -> None:
    """The log is bounded by ``log_size``, apart from that of queries."""
    async with SimulatedCometAPI(log_size=2) as api, client(api) as session:
        await ask(api, "a")
        for name in "bcd":
            await fetch(session, f"{api.base_url}/assets/{name}-0.png")
        assert [request.task_id for request in api.image_requests] == ["c", "d"]
        assert [request.connection for request in api.image_requests] == [2, 2]
        assert [query.task_id for query in api.queries] == ["a"]


async def test_remembers_what_is_in_flight() -> None:
    """A download under way has no end and no status; one that was given up gets no status."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next_image("a", hang=True)
        hung = asyncio.ensure_future(fetch(session, f"{api.base_url}/assets/a-0.png"))
        await api.wait_for_image_requests(task_id="a")
        (request,) = api.image_requests
        assert (request.finished, request.status) == (None, None)
        await asyncio.sleep(5.0)
        hung.cancel()
        await asyncio.wait([hung])
        await asyncio.sleep(1.0)
        (request,) = api.image_requests
        assert (request.finished, request.status) == (request.started + 5.0, None)


async def test_counts_downloads_in_flight() -> None:
    """The highest number of downloads at the same time is kept; queries do not count."""
    async with SimulatedCometAPI(latency=1.0) as api, client(api) as session:
        api.fail_next_image(times=3, delay=1.0)
        url = f"{api.base_url}/assets/a-0.png"
        crowd = asyncio.gather(*(fetch(session, url) for _ in range(3)), ask(api, "a"))
        await api.wait_for_image_requests(3)
        await crowd
        await fetch(session, url)
        assert api.image_downloads_peak == 3
        assert api.in_flight_peak == 1


async def test_unread_big_images_are_in_flight() -> None:
    """An image beyond 64 KiB is in flight until its client has taken it."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0, image_bytes=50 * MB))
        async with session.get(url):
            assert [request.finished for request in api.image_requests] == [None]
            async with session.get(url):
                assert api.image_downloads_peak == 2


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
