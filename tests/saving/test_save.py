"""`KlingOmniSession.save`: whole images or none, from public hosts only, with nothing of ours."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import math
import os
import shutil
import socket
import threading
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import aiohttp
import attrs
import pytest
from yarl import URL

from kling_omni_async import (
    AssetExpiredError,
    ConfigurationError,
    DownloadError,
    ImageTask,
    KlingOmniSession,
    NoImagesError,
    SavedImage,
    SessionClosedError,
    StorageError,
    TaskFailedError,
    TaskImage,
    TaskNotFoundError,
    TaskOutcome,
)
from kling_omni_async._saving.stores import Store, Stores
from kling_omni_async.simulator import ImageRequest, SimulatedCometAPI
from tests.saving.image_files import jpeg
from tests.simulator.client import client, fetch
from tests.support import all_of, now, open_session

pytestmark = pytest.mark.anyio

BACKOFF_S = (1.0, 2.0, 4.0, 8.0)

IMAGE = "https://images.example/1.png"


async def finished(session: KlingOmniSession, api: SimulatedCometAPI, **task: Any) -> ImageTask:
    """Create a task that is done at once, and ask for it."""
    return await session.query(api.create_task(duration=0.0, **task))


def names_in(folder: Path) -> list[str]:
    """Give the names of all files, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def bytes_of(saved: Iterable[SavedImage]) -> list[bytes]:
    """Read the files that records name."""
    return [Path(image.key).read_bytes() for image in saved]


def gaps_of(requests: Iterable[ImageRequest]) -> list[float]:
    """Give the pauses between requests, in s."""
    starts = [request.started for request in requests]
    return [later - earlier for earlier, later in pairwise(starts)]


async def test_every_byte_is_stored(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """The files hold what the host serves, and the records say so."""
    async with open_session(comet_api) as session, client(comet_api) as http:
        task = await finished(session, comet_api, images=3)
        saved = await session.save(task, tmp_path / "new" / "folder")
        served = [(await fetch(http, image.url))[1] for image in task.images]
    assert bytes_of(saved) == served
    for image, record, content in zip(task.images, saved, served, strict=True):
        assert record == SavedImage(
            key=str(tmp_path / "new" / "folder" / f"{task.task_id}-{image.index}.png"),
            url=image.url,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            content_type="image/png",
        )
    assert names_in(tmp_path / "new" / "folder") == [Path(image.key).name for image in saved]


async def test_a_large_image(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """An image of many pieces is whole."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api, image_bytes=5_000_001)
        (saved,) = await session.save(task, str(tmp_path))
    (content,) = bytes_of([saved])
    assert (saved.size, len(content)) == (5_000_001, 5_000_001)
    assert saved.sha256 == hashlib.sha256(content).hexdigest()


async def test_watermarked_copies_are_kept_apart(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Both versions of an image fit into one place, each under its own name."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api, watermarked=True)
        (plain,) = await session.save(task, tmp_path)
        (marked,) = await session.save(task, tmp_path, watermarked=True)
    assert names_in(tmp_path) == [
        f"{task.task_id}-0-watermarked.png",
        f"{task.task_id}-0.png",
    ]
    assert marked.url == task.images[0].watermark_url
    assert plain.sha256 != marked.sha256


async def test_no_watermarked_copy(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A copy that does not exist is an error that says how to get one, and nothing is asked."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        with pytest.raises(DownloadError, match="ask for one when the task is created") as caught:
            await session.save(task, tmp_path, watermarked=True)
    assert caught.value.reason == "no-watermark"
    assert comet_api.image_requests == ()


async def test_nothing_of_ours_goes_along(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """The hosts of images see no key, cookie or Referer, also none of the caller's own session."""
    headers = {"Referer": "https://mine.example/", "Authorization": "Basic bWluZTptaW5l"}
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(headers=headers, cookie_jar=jar) as http:
        jar.update_cookies({"mine": "secret"}, URL(comet_api.base_url))
        session = KlingOmniSession(comet_api.api_key, base_url=comet_api.base_url, http=http)
        async with session:
            task = await finished(session, comet_api)
            comet_api.fail_next_image(task.task_id, redirects=2)
            await session.save(task, tmp_path)
    assert len(comet_api.image_requests) == 3
    for request in comet_api.image_requests:
        assert not {"Authorization", "Cookie", "Referer"} & set(request.headers)
        assert comet_api.api_key not in str(dict(request.headers))


async def test_urls_are_used_byte_for_byte(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A signature with escapes in odd cases reaches the host as the API gave it."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api, signed=True)
        (saved,) = await session.save(task, tmp_path)
    (request,) = comet_api.image_requests
    assert comet_api.base_url + request.path == task.images[0].url == saved.url
    assert names_in(tmp_path) == [f"{task.task_id}-0.png"]


async def test_saved_twice_fetches_once(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """What is complete is left alone, and its record is the same."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api, images=2)
        first = await session.save(task, tmp_path)
        assert await session.save(task, tmp_path) == first
    async with open_session(comet_api) as session:
        assert await session.save(task, tmp_path) == first
    assert len(comet_api.image_requests) == 2


async def test_two_at_the_same_time(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """Two calls for the same task both succeed, and one file is there."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        first, second = await asyncio.gather(
            session.save(task, tmp_path), session.save(task, tmp_path)
        )
    assert first == second
    assert names_in(tmp_path) == [f"{task.task_id}-0.png"]


@pytest.mark.parametrize("content", [b"", b"my notes", b"\x89PNG\r\n\x1a\n and no end"])
async def test_other_content_is_not_overwritten(
    content: bytes, comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """What is no whole image is somebody else's: it stays, until `overwrite` is said."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        path = tmp_path / f"{task.task_id}-0.png"
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"pass overwrite=True") as caught:
            await session.save(task, tmp_path)
        assert path.read_bytes() == content
        assert (caught.value.reason, caught.value.task_id) == ("exists", task.task_id)
        assert comet_api.image_requests == ()
        (saved,) = await session.save(task, tmp_path, overwrite=True)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == saved.sha256


async def test_overwrite_fetches_anew(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """With `overwrite` even a whole image is replaced."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        await session.save(task, tmp_path)
        await session.save(task, tmp_path, overwrite=True)
    assert len(comet_api.image_requests) == 2
    assert names_in(tmp_path) == [f"{task.task_id}-0.png"]


async def test_a_directory_that_was_removed_is_made_again(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """A session that has saved to a directory before does not count on its being there."""
    folder = tmp_path / "images"
    async with open_session(comet_api) as session:
        for _ in range(2):
            task = await finished(session, comet_api)
            assert await session.save(task, folder)
            shutil.rmtree(folder)


async def test_a_store_is_opened_once(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """The same place, by whatever type it is named, is looked through for leftovers once."""
    left = tmp_path / ".1-0.0123abcd.kling-part"
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        await session.save(task, tmp_path)
        left.touch()
        os.utime(left, (0.0, 0.0))
        await session.save(task, str(tmp_path))
        assert left.name in names_in(tmp_path)
    async with open_session(comet_api) as session:
        await session.save(task, tmp_path)
        assert left.name not in names_in(tmp_path)


async def test_an_overwritten_image_leaves_no_other(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """If the new image has another ending, the old one goes: a later run finds the new one."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        comet_api.fail_next_image(body=jpeg())
        (old_one,) = await session.save(task, tmp_path)
        (new_one,) = await session.save(task, tmp_path, overwrite=True)
        assert (old_one.content_type, new_one.content_type) == ("image/jpeg", "image/png")
        assert names_in(tmp_path) == [f"{task.task_id}-0.png"]
        assert await session.save(task, tmp_path) == (new_one,)


# What can be saved.


async def test_outcomes_can_be_saved(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A successful outcome is as good as its task, also one whose saving failed before."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        for error in (None, DownloadError("cut off"), AssetExpiredError("gone")):
            outcome = TaskOutcome(task_id=task.task_id, task=task, error=error)
            (saved,) = await session.save(outcome, tmp_path)
            assert saved.size
            assert names_in(tmp_path) == [f"{task.task_id}-0.png"]


async def test_what_has_no_images_cannot_be_saved(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Each thing without images raises an error that says why."""
    async with open_session(comet_api) as session:
        failed = await finished(session, comet_api, fail="too dark")
        with pytest.raises(TaskFailedError, match="too dark"):
            await session.save(failed, tmp_path)
        imageless = await finished(session, comet_api, images=0)
        with pytest.raises(NoImagesError):
            await session.save(imageless, tmp_path)
        running = await session.query(comet_api.create_task(duration=math.inf))
        with pytest.raises(ConfigurationError, match=r"is submitted: wait for it"):
            await session.save(running, tmp_path)
        unknown = TaskOutcome(task_id="x", error=TaskNotFoundError("no such task"))
        with pytest.raises(TaskNotFoundError):
            await session.save(unknown, tmp_path)
        lost = TaskOutcome(task_id="x", error=DownloadError("but no task"))
        for given in (lost, "123", None, [running]):
            with pytest.raises(ConfigurationError, match="save takes an ImageTask or a TaskOut"):
                await session.save(given, tmp_path)  # type: ignore[arg-type]
    assert names_in(tmp_path) == []


async def test_a_store_that_is_none(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A store that cannot be used is told at the call."""
    (tmp_path / "file").write_text("mine")
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        with pytest.raises(ConfigurationError, match="it is no directory"):
            await session.save(task, tmp_path / "file")


async def test_a_folder_that_cannot_be_made(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A directory that something takes the place of is an error of the store, which names it."""
    folder = tmp_path / "images"
    async with open_session(comet_api) as session:
        first, second = [await finished(session, comet_api) for _ in range(2)]
        await session.save(first, folder)
        shutil.rmtree(folder)
        folder.touch()
        with pytest.raises(ConfigurationError, match="it is no directory"):
            await KlingOmniSession("k").save(first, folder)
        with pytest.raises(StorageError, match=r"cannot store in .*/images: Not a directory"):
            await session.save(second, folder)
    assert len(comet_api.image_requests) == 1


# Redirects and private networks.


@pytest.mark.parametrize("redirects", [1, 5])
async def test_some_redirects_are_followed(
    redirects: int, comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Up to five redirects lead to the image."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        comet_api.fail_next_image(task.task_id, redirects=redirects)
        (saved,) = await session.save(task, tmp_path)
    assert saved.url == task.images[0].url
    assert len(comet_api.image_requests) == redirects + 1


@pytest.mark.parametrize("redirects", [6, 10])
async def test_many_redirects_are_not(
    redirects: int, comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """The sixth redirect is not followed, and nothing is tried again."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        comet_api.fail_next_image(task.task_id, redirects=redirects)
        with pytest.raises(DownloadError, match="more than 5 redirects") as caught:
            await session.save(task, tmp_path)
    assert caught.value.reason == "redirects"
    assert len(comet_api.image_requests) == 6
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("https://10.0.0.1/x.png", "address"),
        ("https://169.254.169.254/latest/meta-data/", "address"),
        ("https://[::1]/x.png", "address"),
        ("https://[::ffff:192.168.0.1]/x.png", "address"),
        ("https://127.1/x.png", "address"),
        ("https://2130706433/x.png", "address"),
        ("https://localhost/x.png", "address"),
        ("http://images.example/x.png", "url"),
        ("ftp://images.example/x.png", "url"),
        ("file:///etc/passwd", "url"),
        ("https://", "url"),
        ("https://images.example:99999/x.png", "url"),
        ("https://[::1/x.png", "url"),
        ("http://bücher.example/x.png", "url"),
        ("https://\uff4cocalhost/x.png", "address"),
        ("https://[x@[::1]/x.png", "url"),
        ("https://[@[v1.example]/x.png", "url"),
        ("https://%31%32%37.0.0.1/x.png", "url"),
        ("https://\uff11\uff12\uff17.0.0.1/x.png", "address"),
        ("https://127\u30020\u30020\u30021/x.png", "address"),
        ("https://198.18.0.7/x.png", "address"),
        ("https://localhost%2e/x.png", "url"),
    ],
)
async def test_a_redirect_is_checked_like_the_first_url(
    target: str, reason: str, comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """No redirect leads into a private network, to plain http, or to what is no URL."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        comet_api.fail_next_image(task.task_id, redirect_to=target)
        with pytest.raises(DownloadError) as caught:
            await session.save(task, tmp_path)
        direct = attrs.evolve(task, images=(TaskImage(url=target),))
        with pytest.raises(DownloadError) as first:
            await session.save(direct, tmp_path)
    assert caught.value.reason == first.value.reason == reason
    assert len(comet_api.image_requests) == 1
    assert names_in(tmp_path) == []


async def test_only_the_very_port_of_a_local_api_is_exempt(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Another server of this machine is not asked, whatever its scheme."""
    async with SimulatedCometAPI(seed=2) as other, open_session(comet_api) as session:
        task = await finished(session, comet_api)
        for scheme, reason in (("http", "url"), ("https", "address")):
            url = f"{scheme}{other.base_url.removeprefix('http')}/assets/1-0.png"
            images = (TaskImage(url=url),)
            with pytest.raises(DownloadError) as caught:
                await session.save(attrs.evolve(task, images=images), tmp_path)
            assert caught.value.reason == reason
        assert other.image_requests == ()
        assert other.connections_opened == 0


# Faults.


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_expired(status: int, comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """403, 404 and 410 say that an older URL has expired; it is asked once."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api, signed=True)
        comet_api.expire_images(task.task_id, status=status)
        await asyncio.sleep(0.0 if status == 410 else 180.0)
        with pytest.raises(
            AssetExpiredError, match=f"HTTP {status}: the URL has expired"
        ) as caught:
            await session.save(task, tmp_path)
    error = caught.value
    assert (error.http_status, error.reason, error.transient) == (status, "expired", False)
    assert error.task_id == task.task_id
    assert error.url == task.images[0].url.partition("?")[0]
    assert "Signature" not in f"{error!r} {error} {vars(error)}"
    assert len(comet_api.image_requests) == 1


NOT_READY: list[dict[str, Any]] = [{"status": 404}, {"status": 403}, {"status": 202}, {"body": b""}]


@pytest.mark.parametrize("fault", NOT_READY, ids=str)
@pytest.mark.parametrize("age_s", [-90.0, 0.0, 3600.0, None])
async def test_an_image_that_is_not_there_yet_is_waited_for(
    fault: dict[str, Any], age_s: float | None, comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """A host that is not ready gets time, however far the API's clock is from ours."""
    async with open_session(comet_api, download_tries=1) as session:
        task = await finished(session, comet_api)
        at = None if age_s is None else datetime.now(UTC) - timedelta(seconds=age_s)
        comet_api.fail_next_image(task.task_id, times=2, **fault)
        (saved,) = await session.save(attrs.evolve(task, updated_at=at), tmp_path)
    assert hashlib.sha256(bytes_of([saved])[0]).hexdigest() == saved.sha256
    first, second = gaps_of(comet_api.image_requests)
    assert 1.0 <= first <= 1.6
    assert 2.0 <= second <= 3.1


@pytest.mark.parametrize("fault", NOT_READY, ids=str)
async def test_an_image_that_never_comes(
    fault: dict[str, Any], comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """It is given up three minutes after success was first seen, with few requests until then."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        seen = now()
        comet_api.fail_next_image(task.task_id, times=None, **fault)
        await asyncio.sleep(60.0)
        for _ in range(2):  # the second time at once
            with pytest.raises(DownloadError) as caught:
                await session.save(task, tmp_path)
            assert isinstance(caught.value, AssetExpiredError) is (fault.get("status", 0) > 400)
            assert not caught.value.transient
            assert 180.0 <= now() - seen <= 181.0
        before = len(comet_api.image_requests)
        stream = await all_of(session, [task.task_id], save_to=tmp_path)
        assert isinstance(stream[0].error, DownloadError)
        assert len(comet_api.image_requests) == before + 1
    assert 6 <= before <= 12
    assert names_in(tmp_path) == []


async def test_what_a_host_asks_for_is_kept(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """`Retry-After` of an image's host is a wait that is kept, as the API's, up to two minutes."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        for status, asked, kept in ((202, 20, 20.0), (429, 20, 20.0), (503, 9999, 120.0)):
            comet_api.fail_next_image(task.task_id, times=2, status=status, retry_after=asked)
            before = len(comet_api.image_requests)
            assert await session.save(task, tmp_path, overwrite=True)
            gaps = gaps_of(comet_api.image_requests[before:])
            assert gaps == [pytest.approx(kept, abs=0.1)] * 2
        comet_api.fail_next_image(task.task_id, times=None, status=503, retry_after=5)
        with pytest.raises(DownloadError) as caught:
            await session.save(task, tmp_path, overwrite=True)
    assert caught.value.retry_after == 5.0


@pytest.mark.parametrize("tries", [1, 3, 7])
async def test_the_policy_says_how_often(
    tries: int, comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """`download_tries` bounds the tries of an image whose host has faults."""
    async with open_session(comet_api, download_tries=tries) as session:
        task = await finished(session, comet_api)
        comet_api.fail_next_image(task.task_id, times=None, status=500)
        with pytest.raises(DownloadError):
            await session.save(task, tmp_path)
    assert len(comet_api.image_requests) == tries


async def test_a_redirect_with_a_raw_space(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A `Location` that is no whole URL is read as browsers read it."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        path = task.images[0].url.removeprefix(comet_api.base_url)
        comet_api.fail_next_image(task.task_id, redirect_to=f"{path}?a b=\u4efb")
        (saved,) = await session.save(task, tmp_path)
    assert saved.size
    assert comet_api.image_requests[1].path == f"{path}?a%20b=%E4%BB%BB"


@pytest.mark.parametrize(
    "fault",
    [
        {"cut_after": 0},
        {"cut_after": 1_000},
        {"content_length": 1_000_000},
        {"content_length": 1_000},
        {"status": 500},
        {"status": 429},
        {"status": 503},
        {"hang": True},
        {"reset": True},
        {"raw": b"what is this"},
        {"bytes_per_second": 1.0},
    ],
    ids=str,
)
async def test_what_may_pass_is_tried_again(
    fault: dict[str, Any], comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """After a passing fault the image is fetched whole; no half of it gets its name."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        comet_api.fail_next_image(task.task_id, times=2, **fault)
        (saved,) = await session.save(task, tmp_path)
    assert names_in(tmp_path) == [f"{task.task_id}-0.png"]
    (content,) = bytes_of([saved])
    assert hashlib.sha256(content).hexdigest() == saved.sha256
    assert len(comet_api.image_requests) == 3


@pytest.mark.parametrize(
    ("fault", "reason", "http_status"),
    [
        ({"cut_after": 1_000}, "cut-off", None),
        ({"content_length": 1_000}, "cut-off", 200),
        ({"status": 500}, "http", 500),
        ({"hang": True}, "stalled", None),
        ({"bytes_per_second": 1.0}, "stalled", None),
        ({"raw": b"what is this"}, "protocol", None),
    ],
    ids=str,
)
async def test_what_does_not_pass_is_given_up(
    fault: dict[str, Any],
    reason: str,
    http_status: int | None,
    comet_api: SimulatedCometAPI,
    tmp_path: Path,
) -> None:
    """Five tries with growing pauses, then an error; nothing is left behind."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        comet_api.fail_next_image(task.task_id, times=None, **fault)
        with pytest.raises(DownloadError) as caught:
            await session.save(task, tmp_path)
    error = caught.value
    assert (error.reason, error.http_status, error.transient) == (reason, http_status, True)
    requests = comet_api.image_requests
    assert len(requests) == 1 + len(BACKOFF_S)
    for (before, after), pause in zip(pairwise(requests), BACKOFF_S, strict=True):
        assert before.finished is not None
        # a server may hold a connection a little longer than its client
        assert pause - 0.11 <= after.started - before.finished <= 1.5 * pause + 0.2
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"html": True}, "not-an-image"),
        ({"status": 204}, "http"),
        ({"status": 401}, "http"),
        ({"status": 302}, "http"),
        ({"size": 1_000_000_000}, "too-long"),
    ],
    ids=str,
)
async def test_what_will_not_pass_is_not_tried_again(
    fault: dict[str, Any], reason: str, comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """A web page, a refusal or a gigabyte is told at once."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        comet_api.fail_next_image(task.task_id, **fault)
        with pytest.raises(DownloadError) as caught:
            await session.save(task, tmp_path)
    assert (caught.value.reason, caught.value.transient) == (reason, False)
    assert names_in(tmp_path) == []


async def test_a_gigabyte_is_not_read(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """What announces too many bytes is refused before its body is read."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        comet_api.fail_next_image(task.task_id, size=1_000_000_000)
        with pytest.raises(DownloadError, match=r"max_image_bytes allows no more"):
            await session.save(task, tmp_path)
    (request,) = comet_api.image_requests
    assert request.body_bytes < 10_000_000


async def test_a_body_that_grows_too_long(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """Without an honest announcement the limit holds while bytes come in."""
    async with open_session(comet_api, max_image_bytes=100_000) as session:
        task = await finished(session, comet_api, image_bytes=150_000)
        comet_api.fail_next_image(task.task_id, headers={"Transfer-Encoding": "chunked"})
        with pytest.raises(DownloadError, match="more than 100000 bytes"):
            await session.save(task, tmp_path)
        exact = await finished(session, comet_api, image_bytes=100_000)
        (saved,) = await session.save(exact, tmp_path)
    assert saved.size == 100_000
    assert len(names_in(tmp_path)) == 1


async def test_a_slow_image_ends_by_time_out(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """One byte a second stalls after 30 s; a steady trickle ends with the time for a try."""
    async with open_session(comet_api, download_timeout=100.0) as session:
        task = await finished(session, comet_api, image_bytes=1_000_000)
        for rate, limit, reason in ((1.0, 30.0, "stalled"), (2_000.0, 100.0, "timeout")):
            comet_api.fail_next_image(task.task_id, times=5, bytes_per_second=rate)
            before = len(comet_api.image_requests)
            with pytest.raises(DownloadError) as caught:
                await session.save(task, tmp_path)
            assert caught.value.reason == reason
            await asyncio.sleep(1.0)
            for request in comet_api.image_requests[before:]:
                assert request.finished is not None
                assert request.finished - request.started == pytest.approx(limit, abs=0.6)


async def test_one_bad_image_keeps_the_others(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """The good images of a task are stored although one of them is an error."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api, images=3)
        comet_api.fail_next_image(task.task_id, index=1, html=True)
        with pytest.raises(DownloadError):
            await session.save(task, tmp_path)
        assert names_in(tmp_path) == [f"{task.task_id}-0.png", f"{task.task_id}-2.png"]
        assert len(await session.save(task, tmp_path)) == 3
    assert len(comet_api.image_requests) == 4


async def test_only_so_many_at_a_time(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """`max_downloads` bounds the images on their way, over all calls."""
    async with open_session(comet_api, max_downloads=3) as session:
        tasks = [await finished(session, comet_api, images=4) for _ in range(4)]
        comet_api.fail_next_image(times=None, delay=1.0)
        await asyncio.gather(*(session.save(task, tmp_path) for task in tasks))
    assert comet_api.image_downloads_peak == 3
    assert len(names_in(tmp_path)) == 16


async def test_the_state_of_saving_in_one_line(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """The repr of what saves tells what it has to do."""
    async with open_session(comet_api, max_downloads=2) as session:
        saver = session._wings.saving_wing()._saver
        assert repr(session._wings.saving_wing()) == f"<Saving {saver!r}>"
        assert repr(saver) == "<Saver orders=0 workers=0>"
        tasks = [await finished(session, comet_api) for _ in range(3)]
        comet_api.fail_next_image(times=None, delay=1.0)
        saving = [asyncio.create_task(session.save(task, tmp_path)) for task in tasks]
        await comet_api.wait_for_image_requests(2)
        assert repr(saver) == "<Saver orders=3 workers=2>"
        await asyncio.gather(*saving)
        assert repr(saver) == "<Saver orders=0 workers=0>"


async def test_a_pause_keeps_no_place_busy(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """While one image waits for its next try, others are fetched."""
    async with open_session(comet_api, max_downloads=1) as session:
        bad, good = [await finished(session, comet_api) for _ in range(2)]
        comet_api.fail_next_image(bad.task_id, times=4, status=500)
        slow = asyncio.create_task(session.save(bad, tmp_path))
        await comet_api.wait_for_image_requests(1)
        began = now()
        await session.save(good, tmp_path)
        assert now() - began < 1.0
        assert not slow.done()
        assert await slow


async def test_a_record_made_by_hand(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """What no answer can hold is an error of that image, and harms nobody else."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        odd = attrs.evolve(task, images=(TaskImage(url=cast("str", 5)),))
        with pytest.raises(DownloadError) as caught:
            await session.save(odd, tmp_path)
        assert (caught.value.url, caught.value.transient) == ("5", True)
        comet_api.expire_images(task.task_id)
        with pytest.raises(AssetExpiredError):
            await session.save(attrs.evolve(task, updated_at=datetime(1, 1, 1)), tmp_path)  # noqa: DTZ001 - the point
        assert not session.closed


async def test_the_unforeseen_is_an_error_of_its_image(
    comet_api: SimulatedCometAPI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A defect of ours with one image ends neither the session nor other images."""

    def break_down(*_: object, **__: object) -> None:
        raise LookupError("https://images.example/?signature=secret")

    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        with monkeypatch.context() as patch:
            patch.setattr("kling_omni_async._saving.files.require_image", break_down)
            with pytest.raises(DownloadError, match="an unforeseen LookupError") as caught:
                await session.save(task, tmp_path)
        assert (caught.value.reason, caught.value.transient) == ("unforeseen", False)
        assert await session.save(task, tmp_path)
    # Of this logger alone: another test's garbage may be told here.
    (record,) = (each for each in caplog.records if each.name == "kling_omni_async.saver")
    assert record.getMessage().startswith("LookupError, unforeseen, with an image of task")
    assert "secret" not in caplog.text


# Lifetimes.


async def test_calls_are_served_in_turn(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """Of many calls the first is the first to end."""
    async with open_session(comet_api, max_downloads=1) as session:
        tasks = [await finished(session, comet_api) for _ in range(5)]
        ended: list[str] = []

        async def save(task: ImageTask) -> None:
            await session.save(task, tmp_path)
            ended.append(task.task_id)

        await asyncio.gather(*map(save, tasks))
    assert ended == [task.task_id for task in tasks]


async def test_closing_does_not_work_through_the_queue(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Also where every image is there already, so that no network would notice the end."""
    async with open_session(comet_api, max_downloads=1) as session:
        task = await finished(session, comet_api)
        await session.save(task, tmp_path)
        calls = [asyncio.create_task(session.save(task, tmp_path)) for _ in range(50)]
        await asyncio.wait([calls[0]])
        await session.aclose()
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, SessionClosedError) for result in results) >= 45


async def test_a_caller_lends_no_context(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """What a caller has set for its own task is not there where images are fetched."""
    seen: list[str] = []
    mine = ContextVar("mine", default="nothing")

    class Store:
        async def get_async(self, path: str, *, options: None = None) -> object:
            seen.append(mine.get())
            raise LookupError(path)

        async def put_async(self, path: str, file: Path) -> object:
            raise AssertionError(path, file)

    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        mine.set("a secret")
        with pytest.raises(StorageError):
            await session.save(task, Store())
    assert set(seen) == {"nothing"}


async def test_slow_names_keep_nobody_waiting(
    comet_api: SimulatedCometAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS of image hosts has threads of its own: those of the loop stay free."""
    answered = threading.Event()

    def wait(*_: Any, **__: Any) -> None:
        answered.wait(10.0)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    async with open_session(comet_api, max_rate=None) as session:  # while threads work, the
        task = await finished(session, comet_api)  # clock of these tests stands still
        images = tuple(TaskImage(url=f"https://{n}.example/1.png", index=n) for n in range(8))
        monkeypatch.setattr(socket, "getaddrinfo", wait)
        saving = asyncio.create_task(session.save(attrs.evolve(task, images=images), tmp_path))
        await asyncio.sleep(0)
        for _ in range(20):
            assert await asyncio.to_thread(int, 7) == 7
        assert not answered.is_set()
        assert (await session.query(task.task_id)).images
        answered.set()
        with pytest.raises(DownloadError, match="dns"):
            await saving


async def test_cancelling_leaves_nothing(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A cancelled call stops its downloads, also one that pauses, and leaves no file."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api, images=3)
        comet_api.fail_next_image(task.task_id, times=None, index=0, hang=True)
        comet_api.fail_next_image(task.task_id, times=None, index=1, status=500)
        comet_api.fail_next_image(task.task_id, times=None, index=2, bytes_per_second=900.0)
        saving = asyncio.create_task(session.save(task, tmp_path))
        await comet_api.wait_for_image_requests(4)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        await asyncio.sleep(600.0)
        assert len(comet_api.image_requests) == 4
        assert names_in(tmp_path) == []
        other = await finished(session, comet_api)
        assert await session.save(other, tmp_path)


async def test_closing_ends_a_call(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """`aclose` under a call raises in it, and leaves neither file nor task behind."""
    async with open_session(comet_api, max_downloads=2) as session:
        task = await finished(session, comet_api, images=5)
        comet_api.fail_next_image(times=None, bytes_per_second=2_000.0)
        saving = asyncio.create_task(session.save(task, tmp_path))
        await comet_api.wait_for_image_requests(2)
        await session.aclose()
        with pytest.raises(SessionClosedError) as caught:
            await saving
        assert caught.value.task_id == task.task_id
        with pytest.raises(SessionClosedError):
            await session.save(task, tmp_path)
    assert names_in(tmp_path) == []


async def test_an_outsider_ends_a_download(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A worker that somebody else cancels closes the session: nobody waits for ever."""
    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        comet_api.fail_next_image(times=None, hang=True)
        saving = asyncio.create_task(session.save(task, tmp_path))
        await comet_api.wait_for_image_requests(1)
        (worker,) = [each for each in asyncio.all_tasks() if "save" in each.get_name()]
        worker.cancel()
        with pytest.raises(SessionClosedError):
            await saving
        assert session.closed
    assert names_in(tmp_path) == []


# The first save of all.


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
        ImportError(f"_obstore.so: cannot open shared object file: {os.strerror(errno.EMFILE)}"),
    ],
    ids=["source", "library"],
)
@pytest.mark.parametrize("times", [2, 99])
async def test_what_saves_cannot_be_imported_for_now(
    error: Exception,
    times: int,
    comet_api: SimulatedCometAPI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no descriptor is left for the code of saving itself, it is tried again, too."""
    tries: list[float] = []
    opened = Stores.open

    def fail(stores: Stores, store: object) -> Store:
        tries.append(now())
        if len(tries) <= times:
            raise error
        return opened(stores, store)

    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        monkeypatch.setattr(Stores, "open", fail)
        if times == 2:
            assert await session.save(task, tmp_path)
        else:
            with pytest.raises(StorageError, match="no file descriptor is left") as caught:
                await session.save(task, tmp_path)
            assert caught.value.reason == "descriptors"
    assert [later - earlier for earlier, later in pairwise(tries)][:2] == [1.0, 2.0]


@pytest.mark.parametrize("error", [PermissionError("no"), ImportError("no such library")])
async def test_what_saves_cannot_be_imported_at_all(
    error: Exception,
    comet_api: SimulatedCometAPI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broken installation is told at once, as Python tells it."""

    def fail(*_: object) -> None:
        raise error

    async with open_session(comet_api) as session:
        task = await finished(session, comet_api)
        monkeypatch.setattr(Stores, "open", fail)
        with pytest.raises(type(error), match="no"):
            await session.save(task, tmp_path)
