"""Images in S3 over its real wire: whole under their keys or not there, whatever happens."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

from kling_omni_async import (
    ImageTask,
    KlingOmniSession,
    SavedImage,
    StorageError,
    TaskImage,
)
from kling_omni_async._saving.files import Stored, in_thread
from kling_omni_async._saving.formats import KINDS
from kling_omni_async._saving.object_store import RemoteStore
from kling_omni_async._saving.saver import Fetcher
from kling_omni_async.simulator import SimulatedCometAPI
from tests.saving.image_files import big_png
from tests.saving.places import find, put
from tests.support import all_of, open_session

from .bucket import KEY_ID, SECRET, Bucket
from .relay import Gate, Relay, Rule, cutting, let_through, refusing

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
        saver = session._saving_wing()._saver
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


async def test_saves_while_it_polls(
    comet_api: SimulatedCometAPI, bucket: Bucket, relay: Relay
) -> None:
    """Thirty images come out saved, eight at a time and no more."""
    gate = Gate("PUT", at_once=8)
    relay.rule = gate
    task_ids = [comet_api.create_task(duration=0) for _ in range(30)]
    async with session_for(comet_api) as session:
        outcomes = await all_of(session, task_ids, save_to=bucket.store(prefix="run"))
    assert gate.most == 8
    assert all(outcome.ok for outcome in outcomes)
    assert bucket.keys == {f"run/{task_id}-0.png" for task_id in task_ids}
    assert len({check(bucket, image) for outcome in outcomes for image in outcome.saved}) == 30
    assert relay.count("PUT") == 30


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
        (refusing(403, "SignatureDoesNotMatch", "HEAD"), "403"),
        (refusing(403, "SignatureDoesNotMatch", "PUT"), "403"),
        (refusing(500, "InternalError", "PUT"), "500"),
        (cutting("HEAD"), "HEAD"),
        (cutting("PUT"), "PUT"),
    ],
    ids=["look-403", "put-403", "put-500", "look-cut", "put-cut"],
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
    """A server that nobody runs is told, and the task is there all the same."""
    task_id = comet_api.create_task(duration=0)
    async with session_for(comet_api) as session:
        store = bucket.store(endpoint="http://127.0.0.1:1")
        (outcome,) = await all_of(session, [task_id], save_to=store)
    assert require_no_secret(outcome.error).task_id == task_id
    assert outcome.task
    assert outcome.task.images
