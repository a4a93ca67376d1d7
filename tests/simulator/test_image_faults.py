"""The simulator spoils downloads of images on demand."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from yarl import URL

from kling_omni_async.simulator import SimulatedCometAPI

from .client import client, fetch, image_urls, say, url_of
from .test_png import chunks

pytestmark = pytest.mark.anyio

MB = 1_000_000


async def statuses(api: SimulatedCometAPI, urls: list[URL]) -> list[int]:
    """Ask one after the other, and return the HTTP statuses."""
    async with client(api) as session:
        return [(await fetch(session, url))[0] for url in urls]


async def test_spoils_the_next_downloads_only() -> None:
    """A fault happens as often as it was told: a 404 at first, then the image."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=0)
        (url,) = await image_urls(api, task_id)
        api.fail_next_image(task_id, times=2, status=404)
        assert await statuses(api, [url] * 4) == [404, 404, 200, 200]


async def test_spoils_one_task_or_any() -> None:
    """Faults of one task come before those of any, and leave the other tasks alone."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=0)
        (first,) = await image_urls(api, task_id)
        (second,) = await image_urls(api, api.create_task(duration=0))
        api.fail_next_image(status=500)
        api.fail_next_image(task_id, status=502)
        assert await statuses(api, [second, second, first, first]) == [500, 200, 502, 200]


async def test_spoils_one_image() -> None:
    """With ``index`` the other images of the task are left alone and do not count."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=0, images=2, watermarked=True)
        urls = await image_urls(api, task_id)
        api.fail_next_image(task_id, times=2, index=1, status=502)
        assert await statuses(api, urls) == [200, 200, 502, 502]
        assert await statuses(api, urls) == [200] * 4


async def test_standing_faults_last_until_cleared() -> None:
    """With ``times=None`` a fault lasts until faults of its task, or all, are cleared."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=0)
        (url,) = await image_urls(api, task_id)
        api.fail_next_image(times=None, status=503)
        api.fail_next_image(task_id, times=None, status=502)
        assert await statuses(api, [url] * 2) == [502] * 2
        api.clear_image_faults(task_id)
        assert await statuses(api, [url] * 2) == [503] * 2
        api.clear_image_faults()
        assert await statuses(api, [url] * 2) == [200] * 2


async def test_queries_and_images_have_faults_of_their_own() -> None:
    """A fault of images spoils no query, and one of queries no image."""
    async with SimulatedCometAPI() as api, client(api) as session:
        task_id = api.create_task(duration=0)
        (url,) = await image_urls(api, task_id)
        api.fail_next(task_id, status=502)
        api.fail_next_image(task_id, status=503)
        assert (await fetch(session, url))[0] == 503
        assert (await fetch(session, url))[0] == 200
        assert (await fetch(session, url_of(api, task_id)))[0] == 502
        api.fail_next(task_id, status=502)
        api.clear_image_faults()
        assert (await fetch(session, url_of(api, task_id)))[0] == 502


@pytest.mark.parametrize(
    ("fault", "status", "body", "kind"),
    [
        ({"status": 429}, 429, b"", ""),
        ({"retry_after": 7}, 429, b"", ""),
        ({"status": 204}, 204, b"", ""),
        ({"body": b"\x89PNG"}, 200, b"\x89PNG", "text/plain"),
        (
            {"body": b"GIF89a", "headers": {"Content-Type": "image/gif"}, "status": 203},
            203,
            b"GIF89a",
            "image/gif",
        ),
        ({"body": b"", "content_length": 0}, 200, b"", ""),
    ],
)
async def test_any_status_body_and_headers(
    fault: dict[str, Any], status: int, body: bytes, kind: str
) -> None:
    """Status, body and headers are sent as they are given, or as they usually come together."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0))
        api.fail_next_image(**fault)
        assert await fetch(session, url) == (status, body, kind)
        (request,) = api.image_requests
        assert (request.status, request.body_bytes) == (status, len(body))


@pytest.mark.parametrize("size", [None, 3 * MB])
async def test_success_keeps_the_true_image(size: int | None) -> None:
    """A success without a body of its own carries the image, small or big, with other headers."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0, image_bytes=size))
        _, image, _ = await fetch(session, url)
        api.fail_next_image(status=206, headers={"X-Note": "a", "content-type": "image/webp"})
        async with session.get(url) as response:
            assert (response.status, response.headers["X-Note"]) == (206, "a")
            assert response.content_type == "image/webp"
            assert await response.read() == image


@pytest.mark.parametrize("size", [None, 5_000, 3 * MB])
@pytest.mark.parametrize("sent", [0, 1_000])
async def test_cut_off_image(size: int | None, sent: int) -> None:
    """A cut-off image announces more than it sends, then the connection ends."""
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
    """A slow image takes its length over the rate, by the loop's clock."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0, image_bytes=size))
        api.fail_next_image(bytes_per_second=size / 20)
        _, body, _ = await fetch(session, url)
        assert len(body) == size
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


async def test_reset() -> None:
    """A reset reaches the client as a reset; the second one, as aiohttp asks once more."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0))
        api.fail_next_image(reset=True, times=2)
        with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
            await fetch(session, url)
        assert [(each.status, each.body_bytes) for each in api.image_requests] == [(None, 0)] * 2


async def test_raw_bytes() -> None:
    """Any bytes at all can be the answer; they have no status."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0))
        api.fail_next_image(raw=b"HTTP/1.0 200 Fine\r\n\r\nhello")
        assert (await fetch(session, url))[:2] == (200, b"hello")
        assert api.image_requests[0].status is None


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


async def test_gigabyte_at_once() -> None:
    """``size`` can be 1 GB too: its client leaves after a few MB."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0))
        api.fail_next_image(size=1_000 * MB)
        async with session.get(url) as response:
            assert response.content_length == 1_000 * MB
            assert len(await response.content.readexactly(3 * MB)) == 3 * MB
            response.close()
        await asyncio.sleep(1.0)
        (request,) = api.image_requests
        assert 3 * MB <= request.body_bytes < 100 * MB


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({}, ValueError, "say what goes wrong"),
        ({"index": 1}, ValueError, "say what goes wrong"),
        ({"redirects": 0}, ValueError, "say what goes wrong"),
        ({"status": 502, "times": 0}, ValueError, "times"),
        ({"status": 199}, ValueError, "status"),
        ({"status": 502, "index": -1}, ValueError, "index"),
        ({"status": 502, "index": "1"}, TypeError, "index"),
        ({"content_length": -1}, ValueError, "content_length"),
        ({"content_length": 1.5}, TypeError, "content_length"),
        ({"redirects": -1}, ValueError, "redirects"),
        ({"redirects": True}, TypeError, "redirects"),
        ({"redirect_to": ""}, ValueError, "redirect_to must be a URL on one line"),
        ({"redirect_to": "/x\r\nA: b"}, ValueError, "redirect_to must be a URL on one line"),
        ({"redirect_to": b"/x"}, TypeError, "redirect_to"),
        ({"size": 88}, ValueError, "size must be at least 89, got 88"),
        ({"size": 1e9}, TypeError, "size"),
        ({"hang": True, "html": True}, ValueError, "do not go together: hang, html"),
        ({"raw": b"", "content_length": 1}, ValueError, "together: raw, content_length"),
        ({"html": True, "size": 100, "body": ""}, ValueError, "together: body, html, size"),
        ({"redirects": 1, "redirect_to": "/"}, ValueError, "together: redirect_to, redirects"),
        ({"redirects": 1, "status": 301}, ValueError, "together: redirects, status"),
        ({"redirect_to": "/", "cut_after": 0}, ValueError, "together: cut_after, redirect_to"),
    ],
)
async def test_bad_faults_are_named(
    arguments: dict[str, Any], error: type[Exception], named: str
) -> None:
    """A fault that makes no sense is refused by the names of its arguments."""
    api = SimulatedCometAPI()
    with pytest.raises(error, match=named):
        api.fail_next_image(**arguments)
