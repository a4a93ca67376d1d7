"""Images in S3 over its real wire: whole under their keys or not there, whatever happens."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
from aiohttp import web
from obstore import sign_async

from kling_omni_async import (
    ConfigurationError,
    ImageTask,
    KlingOmniSession,
    PollPolicy,
    SavedImage,
    StorageError,
    TaskImage,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._config import make_settings
from kling_omni_async._saving.copies import copy_images
from kling_omni_async._saving.download import Downloader
from kling_omni_async._saving.files import LocalStore, Stored
from kling_omni_async._saving.formats import KINDS
from kling_omni_async._saving.object_store import RemoteStore
from kling_omni_async._saving.saver import Fetcher, Saver
from kling_omni_async._saving.stores import SavePlan
from kling_omni_async._saving.threads import in_thread
from kling_omni_async.simulator import SimulatedCometAPI
from tests.saving.image_files import big_png, png
from tests.saving.places import find, put
from tests.support import all_of, open_session

from .bucket import KEY_ID, SECRET, Bucket
from .relay import Gate, Relay, Rule, cutting, let_through, refusing, without_list

pytestmark = pytest.mark.anyio

QUICK: dict[str, Any] = {"interval": (0.05, 0.1), "max_rate": None}
LARGE = 12 * 1_048_576


class LargeImages:
    """A fetcher that brings the same large image from everywhere.

    Args:
        inner: Is closed with it.
    """

    def __init__(self, inner: Fetcher) -> None:
        self._inner = inner

    async def fetch(self, url: str, write: Callable[[bytes], object]) -> bytes:
        image = big_png(LARGE)
        await in_thread(write, image[: 2**20])
        return image[2**20 :]

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def session_for(
    api: SimulatedCometAPI, *, large: bool = False
) -> AsyncGenerator[KlingOmniSession]:
    """Give a session for the simulator; its images may be large ones."""
    async with open_session(api, **QUICK) as session:
        saver = session._wings.saving_wing()._saver
        if large:
            saver._fetcher = LargeImages(saver._fetcher)
        yield session


def check(bucket: Bucket, saved: SavedImage | Stored) -> bytes:
    """Check an object against its record; gives its bytes."""
    image, content_type, digest = bucket.read(saved.key)
    assert content_type == saved.content_type == "image/png"
    assert digest == saved.sha256 == hashlib.sha256(image).hexdigest()
    assert len(image) == saved.size
    return image


def require_no_secret(error: BaseException | None) -> StorageError:
    """Require an error of the store whose text tells neither key nor signature."""
    assert isinstance(error, StorageError)
    assert error.reason == "store"
    text = f"{error} {error!r} {error.__cause__!r}"
    assert not [word for word in (SECRET, KEY_ID, "SignatureProvided", "?") if word in text]
    assert not re.search("[0-9a-f]{64}", text)
    return error


async def test_saves_by_url(
    comet_api: SimulatedCometAPI, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL and the environment are enough: bytes, type and digest are in S3 under whole keys."""
    for name, text in bucket.environment.items():
        monkeypatch.setenv(name, text)
    task_id = comet_api.create_task(duration=0, images=3)
    async with session_for(comet_api) as session:
        task = await session.wait(task_id)
        saved = await session.save(task, f"s3://{bucket.name}/run/7")
    assert [image.key for image in saved] == [f"run/7/{task_id}-{n}.png" for n in range(3)]
    assert bucket.keys == {image.key for image in saved}
    assert len({check(bucket, image) for image in saved}) == 3


async def test_copies_what_another_store_has(
    comet_api: SimulatedCometAPI, bucket: Bucket, tmp_path: Path
) -> None:
    """From a directory into a bucket, to another prefix and back, the images stay what they are."""
    (outcome,) = await all_of_one(comet_api, tmp_path / "one")
    there: LocalStore | RemoteStore = LocalStore(tmp_path / "one")
    for here in (
        RemoteStore(bucket.store(prefix="run")),
        RemoteStore(bucket.store(prefix="other")),
        LocalStore(tmp_path / "two"),
    ):
        saved = await copy_images(outcome, there, SavePlan(here))
        assert [each.sha256 for each in saved] == [each.sha256 for each in outcome.saved]
        outcome, there = attrs.evolve(outcome, saved=saved), here
    names = {f"{outcome.task_id}-{number}.png" for number in range(2)}
    assert bucket.keys == {f"{prefix}/{name}" for prefix in ("run", "other") for name in names}
    for name in names:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


async def all_of_one(api: SimulatedCometAPI, folder: Path) -> list[TaskOutcome]:
    """Poll a task with two images into a directory."""
    task_id = api.create_task(duration=0, images=2)
    async with session_for(api) as session:
        return await all_of(session, [task_id], save_to=folder)


async def test_saves_while_it_polls(
    comet_api: SimulatedCometAPI, bucket: Bucket, relay: Relay
) -> None:
    """Thirty images come out saved, eight at a time and no more."""
    gate = Gate("PUT", ".png", at_once=8)
    relay.rule = gate
    task_ids = [comet_api.create_task(duration=0) for _ in range(30)]
    async with session_for(comet_api) as session:
        outcomes = await all_of(session, task_ids, save_to=bucket.store(prefix="run"))
    assert gate.most == 8
    assert all(outcome.ok for outcome in outcomes)
    assert bucket.keys == {f"run/{task_id}-0.png" for task_id in task_ids}
    assert len({check(bucket, image) for outcome in outcomes for image in outcome.saved}) == 30
    assert relay.count("PUT", ".png") == 30


def elsewhere(task: ImageTask) -> ImageTask:
    """Give a task whose image cannot be fetched any more."""
    return attrs.evolve(task, images=(TaskImage(url="https://gone.invalid/a.png", index=0),))


async def test_saves_once(comet_api: SimulatedCometAPI, bucket: Bucket, relay: Relay) -> None:
    """What is in S3 is neither uploaded nor fetched again: its host is not even asked."""
    task_id = comet_api.create_task(duration=0)
    async with session_for(comet_api) as session:
        task = await session.wait(task_id)
        (saved,) = await session.save(task, bucket.store())
        (again,) = await session.save(elsewhere(task), bucket.store())
    assert attrs.evolve(again, url=saved.url) == saved
    assert relay.count("PUT") == 1
    assert relay.count("GET") == 0


async def test_overwrites_when_it_is_told_to(
    comet_api: SimulatedCometAPI, bucket: Bucket, relay: Relay
) -> None:
    """With `overwrite` the image is uploaded once more."""
    task_id = comet_api.create_task(duration=0)
    async with session_for(comet_api) as session:
        task = await session.wait(task_id)
        (saved,) = await session.save(task, bucket.store())
        (again,) = await session.save(task, bucket.store(), overwrite=True)
    check(bucket, saved)
    assert again == saved
    assert relay.count("PUT") == 2
    assert relay.count("HEAD") == len(KINDS)  # the second time nothing is looked for


async def test_large_images_go_up_in_pieces(bucket: Bucket, relay: Relay) -> None:
    """An image of 12 MiB goes up in three pieces, and its type and digest with it."""
    stored = await put(RemoteStore(bucket.store(prefix="run")), big_png(LARGE))
    assert check(bucket, stored) == big_png(LARGE)
    assert stored.key == "run/1-0.png"
    assert relay.count("PUT", "partNumber=") == 3
    assert bucket.pending == []
    assert await find(RemoteStore(bucket.store(prefix="run"))) == stored


FAULTS = {
    "not-begun": refusing(403, "AccessDenied", "POST", "uploads"),
    "refused": refusing(403, "AccessDenied", "PUT", "partNumber=2"),
    "cut": cutting("PUT", "partNumber=2"),
    "not-completed": refusing(403, "AccessDenied", "POST", "uploadId="),
    "completion-cut": cutting("POST", "uploadId="),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_an_upload_that_fails_leaves_no_object(
    comet_api: SimulatedCometAPI, bucket: Bucket, relay: Relay, fault: Rule
) -> None:
    """An upload that fails in its middle is told with its task; the next run saves the image."""
    task_id = comet_api.create_task(duration=0)
    relay.rule = fault
    async with session_for(comet_api, large=True) as session:
        (outcome,) = await all_of(session, [task_id], save_to=bucket.store())
        error = require_no_secret(outcome.error)
        assert error.task_id == task_id
        assert outcome.task
        assert outcome.saved == ()
        assert bucket.keys == set()
        assert bucket.pending == []  # obstore has aborted it
        relay.rule = let_through
        (saved,) = await session.save(outcome, bucket.store())
    assert check(bucket, saved) == big_png(LARGE)


async def test_a_cancelled_upload_leaves_no_object(
    comet_api: SimulatedCometAPI, bucket: Bucket, relay: Relay
) -> None:
    """A call that is cancelled in the middle of an upload leaves nothing under the key."""
    relay.rule = gate = Gate("PUT", "partNumber=2")
    task_id = comet_api.create_task(duration=0)
    async with session_for(comet_api, large=True) as session:
        task = await session.wait(task_id)
        saving = asyncio.create_task(session.save(task, bucket.store()))
        await gate.reached.wait()
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        gate.open()
        assert (await session.query(task_id)).images == task.images
    assert bucket.keys == set()
    assert relay.count("POST", "uploadId=") == 0


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (refusing(401, "Unauthorized", "HEAD"), "401"),
        (refusing(403, "SignatureDoesNotMatch", "PUT", ".png"), "403"),
        (refusing(500, "InternalError", "PUT", ".png"), "500"),
        (cutting("HEAD"), "HEAD"),
        (cutting("PUT", ".png"), "PUT"),
    ],
    ids=["look-401", "put-403", "put-500", "look-cut", "put-cut"],
)
async def test_small_uploads_fail_in_words(
    comet_api: SimulatedCometAPI, bucket: Bucket, relay: Relay, rule: Rule, words: str
) -> None:
    """Wrong credentials and a broken S3 are told without key and signature; then all is saved."""
    relay.rule = rule
    task_ids = [comet_api.create_task(duration=0) for _ in range(3)]
    async with session_for(comet_api) as session:
        outcomes = await all_of(session, task_ids, save_to=bucket.store())
        for outcome in outcomes:
            error = require_no_secret(outcome.error)
            assert words in str(error)
            assert outcome.task
        assert bucket.keys == set()
        relay.rule = let_through
        again = await all_of(session, task_ids, save_to=bucket.store())
    assert all(outcome.ok for outcome in again)
    assert len(bucket.keys) == 3


async def test_a_bucket_that_is_not_there(comet_api: SimulatedCometAPI, bucket: Bucket) -> None:
    """A wrong bucket is told when the image is to be uploaded."""
    bucket.name = "no-such-bucket"
    task_id = comet_api.create_task(duration=0)
    async with session_for(comet_api) as session:
        task = await session.wait(task_id)
        with pytest.raises(StorageError) as caught:
            await session.save(task, bucket.store())
    assert require_no_secret(caught.value).task_id == task_id


async def test_a_server_that_is_down(comet_api: SimulatedCometAPI, bucket: Bucket) -> None:
    """A server that nobody runs is told with its task, which is there all the same."""
    task_id = comet_api.create_task(duration=0)
    async with session_for(comet_api) as session:
        task = await session.wait(task_id)
        with pytest.raises(StorageError) as caught:
            await session.save(task, bucket.store(endpoint="http://127.0.0.1:1"))
    assert require_no_secret(caught.value).task_id == task_id


# Before the first query.


async def test_a_try_leaves_nothing(
    comet_api: SimulatedCometAPI, bucket: Bucket, relay: Relay
) -> None:
    """A store is tried with one request that can write nothing, once for each name of it."""
    async with session_for(comet_api) as session:
        store = bucket.store(prefix="run")
        for _ in range(2):
            async with session.poll([], save_to=store):
                assert bucket.keys == set()
    assert relay.asked == [f"PUT /{bucket.name}/run/.kling-omni-try"] * 2


@pytest.mark.parametrize("code", ["NotImplemented", "AccessDenied"])
async def test_stores_without_conditions(
    comet_api: SimulatedCometAPI, bucket: Bucket, relay: Relay, code: str
) -> None:
    """Where no condition is known or allowed, a file without bytes is written and removed."""

    async def rule(request: web.Request) -> web.Response | None:
        if "If-Match" not in request.headers:
            return None
        return await refusing(501 if code == "NotImplemented" else 403, code, "PUT")(request)

    relay.rule = rule
    async with session_for(comet_api) as session, session.poll([], save_to=bucket.store()):
        assert bucket.keys == set()
    assert (relay.count("PUT"), relay.count("POST", "?delete")) == (
        3 if code == "NotImplemented" else 2,
        1,
    )


async def test_a_store_in_trouble_is_no_wrong_set_up(
    comet_api: SimulatedCometAPI,
    bucket: Bucket,
    relay: Relay,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server that has faults when it is tried may have none when the first image comes."""
    relay.rule = refusing(503, "SlowDown", "PUT", "try")
    task_id = comet_api.create_task(duration=0)
    async with session_for(comet_api) as session:
        (outcome,) = await all_of(session, [task_id], save_to=bucket.store())
    assert outcome.ok
    assert "the store could not be tried" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        (let_through, {"bucket": "no-such-bucket"}, "NoSuchBucket"),
        (refusing(403, "InvalidAccessKeyId", "PUT"), {}, "403 Forbidden: InvalidAccessKeyId"),
        (refusing(403, "SignatureDoesNotMatch", "PUT"), {}, "Forbidden: SignatureDoesNotMatch"),
        (
            refusing(403, "AccessDenied", "PUT"),
            {},
            "AccessDenied; the credentials may lack the right to do so (s3:PutObject)",
        ),
        (let_through, {"endpoint": "http://127.0.0.1:1"}, "error sending request"),
    ],
    ids=["bucket", "key", "secret", "right", "endpoint"],
)
async def test_a_wrong_store_is_told_before_the_first_query(
    comet_api: SimulatedCometAPI,
    bucket: Bucket,
    relay: Relay,
    wrong: tuple[Rule, dict[str, Any], str],
) -> None:
    """Nobody waits an hour for a typo: entering the stream says what is wrong, and asks nothing."""
    relay.rule, given, words = wrong
    changes = dict(given)
    bucket.name = changes.pop("bucket", bucket.name)
    task_id = comet_api.create_task(duration=0)
    async with session_for(comet_api) as session:
        stream = session.poll([task_id], save_to=bucket.store(**changes))
        with pytest.raises(ConfigurationError) as caught:
            await anext(stream)
        assert set(stream.pending) == {task_id}
    text = str(caught.value)
    assert text.startswith("nothing can be written to the store: ")
    assert words in text
    assert not [word for word in (SECRET, KEY_ID, "SignatureProvided", "?") if word in text]
    assert comet_api.queries == ()


# A policy without the right to list.


@pytest.mark.parametrize("large", [False, True])
async def test_a_bucket_that_may_not_be_listed(
    comet_api: SimulatedCometAPI, bucket: Bucket, relay: Relay, *, large: bool
) -> None:
    """Put and Get are enough: where a missing key is 403, nothing that is there is replaced."""
    relay.rule = without_list(bucket)
    task_ids = [comet_api.create_task(duration=0) for _ in range(3)]
    async with session_for(comet_api, large=large) as session:
        outcomes = await all_of(session, task_ids, save_to=bucket.store())
        assert [outcome.error for outcome in outcomes] == [None] * 3
        for outcome in outcomes:
            (saved,) = outcome.saved
            check(bucket, saved)
        assert relay.conditions == [None, "*", "*", "*"]  # the first is the try
        again = await all_of(session, task_ids, save_to=bucket.store())
    assert {outcome.saved for outcome in again} == {outcome.saved for outcome in outcomes}
    assert len(relay.conditions) == 5


async def test_a_bucket_that_may_not_be_read(
    comet_api: SimulatedCometAPI, bucket: Bucket, relay: Relay
) -> None:
    """Without Get what is there cannot be known: it stays, and the error names the right."""
    relay.rule = without_list(bucket, get=False)
    task_id = comet_api.create_task(duration=0)
    async with session_for(comet_api) as session:
        (first,) = await all_of(session, [task_id], save_to=bucket.store())
        assert first.ok
        (second,) = await all_of(session, [task_id], save_to=bucket.store())
        (third,) = await all_of(session, [task_id], save_to=bucket.store(), overwrite=True)
    assert isinstance(second.error, StorageError)
    assert second.error.reason == "exists"
    assert "without the right to read it (s3:GetObject)" in str(second.error)
    assert third.ok
    check(bucket, first.saved[0])


async def test_a_bucket_that_may_not_be_written_to(
    comet_api: SimulatedCometAPI, bucket: Bucket, relay: Relay
) -> None:
    """`save`, which tries nothing beforehand, names the right that is missing, too."""
    relay.rule = refusing(403, "AccessDenied", "PUT")
    task_id = comet_api.create_task(duration=0)
    async with session_for(comet_api) as session:
        task = await session.wait(task_id)
        with pytest.raises(StorageError, match=r"may lack the right to do so \(s3:PutObject\)"):
            await session.save(task, bucket.store())


# What comes behind the upload.


async def refuse_each_key(request: web.Request) -> web.Response | None:
    """Refuse to delete as S3 does where the request is fine and a key is not."""
    if "?delete" not in request.raw_path:
        return None
    (key,) = re.findall("<Key>(.*?)</Key>", await request.text())
    error = f"<Key>{key}</Key><Code>AccessDenied</Code><Message>Access Denied</Message>"
    text = f"<DeleteResult><Error>{error}</Error></DeleteResult>"
    return web.Response(text=text, content_type="application/xml")


@pytest.mark.parametrize(
    "rule",
    [refusing(403, "AccessDenied", "POST", "?delete"), refuse_each_key],
    ids=["request", "key"],
)
async def test_an_older_image_that_may_not_be_removed(
    comet_api: SimulatedCometAPI,
    bucket: Bucket,
    relay: Relay,
    rule: Rule,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without the right to delete a replaced image is stored all the same, with a warning."""
    relay.rule = rule
    task_id = comet_api.create_task(duration=0)
    async with session_for(comet_api) as session:
        task = await session.wait(task_id)
        (saved,) = await session.save(task, bucket.store(), overwrite=True)
    check(bucket, saved)
    warned = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    (told,) = warned
    assert told == (
        "images that were replaced may stay under another ending; the credentials may lack the "
        "right to do so (s3:DeleteObject)"
    )


# S3 as the host of images.


@pytest.mark.parametrize("listed", [True, False])
async def test_an_image_that_is_not_in_s3_yet(
    bucket: Bucket, relay: Relay, tmp_path: Path, *, listed: bool
) -> None:
    """A key that is not there, told as 404 or as 403, is waited for, and comes whole."""
    relay.rule = let_through if listed else without_list(bucket)
    store = bucket.store()
    url = await sign_async(store, "GET", "made.png", timedelta(minutes=5))
    settings = make_settings("k", relay.url, PollPolicy(download_tries=1), allow_http=False)
    saver = Saver(Downloader(settings), most=1, tries=1, rng=Random(1))
    workers: list[asyncio.Task[None]] = []
    saver.open(lambda: workers.append(asyncio.create_task(saver.work())))
    task = ImageTask(task_id="1", status=TaskStatus.SUCCEED, images=(TaskImage(url=url),))
    saving = asyncio.create_task(saver.save(task, SavePlan(LocalStore(tmp_path))))
    await relay.was_asked.wait()
    await store.put_async("made.png", png())
    (saved,) = await saving
    assert saved.sha256 == hashlib.sha256(png()).hexdigest()
    assert relay.count("GET") == 2
    await asyncio.gather(*workers)
    await saver.aclose()
