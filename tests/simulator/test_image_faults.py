"""What only happens to images: faults of one image, of sizes, lengths, pages and redirects."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from yarl import URL

from kling_omni_async.simulator import SimulatedCometAPI

from .client import client, fetch, image_urls, say
from .test_png import chunks

pytestmark = pytest.mark.anyio

MB = 1_000_000


async def test_spoils_one_image() -> None:
    """With ``index`` the other images of the task are left alone and do not count."""
    async with SimulatedCometAPI() as api, client(api) as session:
        task_id = api.create_task(duration=0, images=2, watermarked=True)
        urls = await image_urls(api, task_id)
        api.fail_next_image(task_id, times=2, index=1, status=502)
        assert [(await fetch(session, url))[0] for url in urls] == [200, 200, 502, 502]
        assert [(await fetch(session, url))[0] for url in urls] == [200] * 4


@pytest.mark.parametrize("size", [5_000, 3 * MB])
@pytest.mark.parametrize("sent", [0, 1_000])
async def test_cut_off_image(size: int | None, sent: int) -> None:
    """A small or big image that is cut off is noted with the bytes that were sent of it."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0, image_bytes=size))
        api.fail_next_image(cut_after=sent)
        async with session.get(url) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        (request,) = api.image_requests
        assert (request.status, request.body_bytes) == (200, sent)


async def test_cut_in_the_middle_of_a_big_image() -> None:
    """What comes before the cut is the image's own beginning, across repeated pieces too."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0, image_bytes=5 * MB))
        _, whole, _ = await fetch(session, url)
        api.fail_next_image(cut_after=3 * MB)
        request = f"GET {url.raw_path} HTTP/1.1\r\nHost: x\r\n\r\n"
        head, body = await say(api, request)
        assert b"Content-Length: 5000000" in head
        assert body == whole[: 3 * MB]


@pytest.mark.parametrize("size", [10_000, 2_000_000])
async def test_slow_image_comes_whole(size: int) -> None:
    """A slow image takes its length over the rate, however big it is, and under any success."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0, image_bytes=size))
        api.fail_next_image(bytes_per_second=size / 20, status=206)
        status, body, _ = await fetch(session, url)
        assert (status, len(body)) == (206, size)
        assert chunks(body)
        (request,) = api.image_requests
        assert request.finished == pytest.approx(request.started + 20.0)


async def test_client_that_leaves_a_slow_image() -> None:
    """Where a client leaves in the middle, status and the bytes sent so far are remembered."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0, image_bytes=10_000))
        api.fail_next_image(bytes_per_second=1_000)
        async with session.get(url) as response:
            await response.content.readexactly(4_000)
            response.close()
        await asyncio.sleep(1.0)
        (request,) = api.image_requests
        assert (request.status, request.body_bytes) == (200, 4_000)
        assert request.finished == pytest.approx(request.started + 4.0)


@pytest.mark.parametrize("size", [5_000, 3 * MB])
async def test_announces_more_than_it_sends(size: int) -> None:
    """With a ``content_length`` too large the body is whole, then the connection ends."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0, image_bytes=size))
        api.fail_next_image(content_length=size + 1)
        async with session.get(url) as response:
            assert response.content_length == size + 1
            assert len(await response.content.readexactly(size)) == size
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        assert api.image_requests[0].body_bytes == size


@pytest.mark.parametrize("told", [0, 1_000])
@pytest.mark.parametrize("size", [5_000, 3 * MB])
async def test_announces_less_than_it_sends(size: int, told: int) -> None:
    """With a ``content_length`` too small a client sees the beginning only; the rest comes too."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0, image_bytes=size))
        _, whole, _ = await fetch(session, url)
        api.fail_next_image(content_length=told, times=2)
        assert (await fetch(session, url))[:2] == (200, whole[:told])
        head, body = await say(api, f"GET {url.raw_path} HTTP/1.1\r\nHost: x\r\n\r\n")
        assert f"Content-Length: {told}\r\n".encode() in head
        assert body == whole


async def test_announcement_and_cut_go_together() -> None:
    """A body that is cut can announce any length."""
    async with SimulatedCometAPI() as api:
        (url,) = await image_urls(api, api.create_task(duration=0))
        api.fail_next_image(content_length=10**12, cut_after=7)
        head, body = await say(api, f"GET {url.raw_path} HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"Content-Length: 1000000000000\r\n" in head
        assert len(body) == 7


@pytest.mark.parametrize(("more", "status"), [({}, 200), ({"status": 403}, 403)])
async def test_web_page_instead(more: dict[str, Any], status: int) -> None:
    """A page of HTML comes under 200 unless another status is given."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0))
        api.fail_next_image(html=True, **more)
        answered, body, kind = await fetch(session, url)
        assert (answered, kind) == (status, "text/html")
        assert body.startswith(b"<!doctype html>")


@pytest.mark.parametrize("count", [1, 2, 10])
async def test_chain_of_redirects(count: int) -> None:
    """So many redirects, each to another path of this origin, come before the image."""
    async with SimulatedCometAPI() as api, client(api) as session:
        task_id = api.create_task(
            duration=0, task_id="a/b", watermarked=True, images=2, signed=True
        )
        url = (await image_urls(api, task_id))[3]
        _, image, _ = await fetch(session, url)
        api.fail_next_image(task_id, times=None, redirects=count)
        seen = [url]
        for _ in range(count):
            async with session.get(seen[-1], allow_redirects=False) as response:
                assert response.status == 302
                location = URL(response.headers["Location"], encoded=True)
            assert location.raw_path.startswith("/assets/")
            assert not location.absolute
            seen.append(URL(api.base_url + str(location), encoded=True))
        assert len({hop.raw_path for hop in seen}) == count + 1
        assert (await fetch(session, seen[-1]))[:2] == (200, image)
        requests = api.image_requests_of("a/b")[1:]
        assert [request.path for request in requests] == [hop.raw_path_qs for hop in seen]
        assert {(request.index, request.watermarked) for request in requests} == {(1, True)}


@pytest.mark.parametrize("count", [1, 10])
async def test_clients_follow_redirects(count: int) -> None:
    """A client that follows redirects by itself gets the image."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0))
        _, image, _ = await fetch(session, url)
        api.fail_next_image(redirects=count)
        api.fail_next_image(status=502)
        async with session.get(url, max_redirects=count + 1) as response:
            assert await response.read() == image
            assert len(response.history) == count
        assert (await fetch(session, url))[0] == 502


async def test_redirects_can_wait_and_be_of_one_image() -> None:
    """A redirect goes together with a delay, with headers and with one image."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0))
        api.fail_next_image(redirects=1, index=0, delay=2.0, headers={"X-Note": "a"})
        async with session.get(url) as response:
            assert [hop.headers["X-Note"] for hop in response.history] == ["a"]
        first, last = api.image_requests
        assert first.finished == first.started + 2.0
        assert (first.status, last.status) == (302, 200)


@pytest.mark.parametrize("to", ["https://10.0.0.1/x.png", "//other/%7e", "file:///etc/passwd"])
async def test_redirect_to_anywhere(to: str) -> None:
    """One 302 leads to the URL as it was spelt."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0))
        api.fail_next_image(redirect_to=to, headers={"X-Note": "a"})
        async with session.get(url, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (302, to)
            assert response.headers["X-Note"] == "a"
        assert (await fetch(session, url))[0] == 200


@pytest.mark.parametrize("size", [89, 3 * MB])
async def test_file_of_another_size(size: int) -> None:
    """``size`` sends a PNG of so many bytes, whatever is there, under any status."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0))
        api.fail_next_image(size=size)
        status, body, kind = await fetch(session, url)
        assert (status, len(body), kind) == (200, size, "image/png")
        assert chunks(body)
        api.fail_next_image(size=size, status=500)
        answer = await fetch(session, f"{api.base_url}/assets/nobody-7.png")
        assert (answer[0], len(answer[1])) == (500, size)
