"""Where images are to be saved is understood or refused at once; what became of each is kept."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore, S3Store

from kling_omni_async import (
    ConfigurationError,
    DownloadError,
    ImageTask,
    KlingOmniError,
    SavedImage,
    SessionClosedError,
    StorageError,
    TaskImage,
    TaskStatus,
)
from kling_omni_async._saving.files import Stored
from kling_omni_async._saving.object_store import RemoteStore
from kling_omni_async._saving.rules import redact_url
from kling_omni_async._saving.saver import SaveOrder
from kling_omni_async._saving.stores import LocalStore, SavePlan, Stores
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import all_of, open_session

TASK_ID = "878106242831892487"


class OwnStore:
    async def get_async(self, path: str, *, options: None = None) -> object:
        raise NotImplementedError

    async def put_async(self, path: str, file: Path) -> object:
        raise NotImplementedError


class OwnPath:
    """A path of another library.

    Args:
        text: What it stands for.
    """

    def __init__(self, text: object) -> None:
        self._text = text

    def __fspath__(self) -> Any:
        return self._text


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ("images", "images"),
        ("a/./b", "a/b"),
        ("C:\\images", "C:\\images"),
        ("C:/images", "C:/images"),
        ("a/s3:/b", "a/s3:/b"),
        ("file:images", "file:images"),
        (Path("images"), "images"),
        (OwnPath("images"), "images"),
        ("file:///none/of%20these", "/none/of these"),
        ("FILE:///none", "/none"),
        ("file://localhost/none", "/none"),
        ("file:///none/of?these#all", "/none/of?these#all"),
    ],
)
def test_takes_folders(given: object, folder: str) -> None:
    """A path, in whatever form, is a local folder, which is not made yet."""
    store = Stores().open(given)
    assert isinstance(store, LocalStore)
    assert str(store.folder) == folder
    assert not store.folder.exists()


def test_takes_a_folder_that_is_there(tmp_path: Path) -> None:
    """A folder, or a link to one, is taken as it is."""
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("", "link"):
        store = Stores().open(tmp_path / name)
        assert isinstance(store, LocalStore)
        assert store.folder == tmp_path / name


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("memory:///", "MemoryStore "),
        ("s3://bucket/a/b", "S3Store a/b/"),
        ("S3://bucket", "S3Store "),
        (MemoryStore(), "MemoryStore "),
        (S3Store("bucket", prefix="a"), "S3Store a/"),
        (OwnStore(), "OwnStore "),
    ],
)
def test_takes_object_stores(given: object, shown: str) -> None:
    """A URL, a store of obstore and one with its methods are object stores."""
    store = Stores().open(given)
    assert isinstance(store, RemoteStore)
    assert repr(store) == f"<RemoteStore {shown}>"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "not to a NoneType"),
        (b"images", "not to a bytes"),
        (7, "not to a int"),
        (["images"], "not to a list"),
        (S3Store, "not to a type"),
        (OwnStore, "not to a type"),
        (SimpleNamespace(put_async=1), "not to a SimpleNamespace"),
        ("", "saved to '': give the path of a directory"),
        (" \n", r"saved to ' \n': give the path of a directory"),
        ("a\0b", r"saved to 'a\x00b': give the path of a directory"),
        (OwnPath(b"images"), "saved to b'images': give the path of a directory, as text"),
        ("\ud800", "no path of this system"),
        ("file:///a%00b", "no path of this system"),
        ("x" * 5000, "File name too long"),
        ("file://host/images", "write file:///path, with three slashes"),
        ("file://images", "write file:///path, with three slashes"),
        ("file://", "write file:///path, with three slashes"),
        ("file://[x", "write file:///path, with three slashes"),
        (Path("s3://bucket/a"), "give a URL as text"),
        ("s3:/bucket", "give a URL as text"),
        ("file:/images", "give a URL as text"),
        ("s3:\\bucket", "give a URL as text"),
        ("s3://[x", "the store cannot be opened by its URL"),
        ("nonsense://x", "the store cannot be opened by its URL"),
    ],
)
def test_refuses_the_rest(given: object, words: str) -> None:
    """What is no place for images is refused in words, before anything is fetched."""
    with pytest.raises(ConfigurationError) as caught:
        Stores().open(given)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("below", "words"),
    [("file", "it is no directory"), ("file/below", "Not a directory"), ("loop", "symbolic links")],
)
def test_refuses_what_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str, words: str
) -> None:
    """A file where the folder should be, or above it, is refused at once."""
    monkeypatch.chdir(tmp_path)  # its own name may be too long for a message
    Path("file").write_bytes(b"")
    Path("loop").symlink_to("loop")
    with pytest.raises(ConfigurationError, match=words) as caught:
        Stores().open(below)
    assert below in str(caught.value)


def test_leaves_to_the_store_what_cannot_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that may not be looked at is taken; the first image tells what is wrong with it."""

    def refuse(_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        store = Stores().open(tmp_path / "images")
    assert isinstance(store, LocalStore)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/a.png", "https://host/a.png"),
        ("https://host/a.png?X-Amz-Signature=1", "https://host/a.png"),
        ("https://host/a.png#x?y", "https://host/a.png"),
        ("https://host?x=1/2@3", "https://host"),
        ("https://user:pass@host:8/a@b.png", "https://host:8/a@b.png"),
        ("https://a@b@host/", "https://host/"),
        ("https://host", "https://host"),
        ("", ""),
    ],
)
def test_urls_are_shown_bare(url: str, expected: str) -> None:
    """Of a URL everything stays but the query, the fragment and the user info."""
    assert redact_url(url) == expected


@given(
    st.from_regex(r"https://([a-z]*:?[A-Z]*@)?host(:80)?/[a-z@/]*([?#][A-Z@/?=]*)?", fullmatch=True)
)
def test_no_secret_is_left_in_a_bare_url(url: str) -> None:
    """Capitals stand only where secrets are in these URLs, and none is left."""
    assert redact_url(url) == redact_url(url).lower()
    assert redact_url(url).startswith("https://host")


def task_of(*images: TaskImage) -> ImageTask:
    """Give a task that has succeeded."""
    return ImageTask(task_id=TASK_ID, status=TaskStatus.SUCCEED, images=images)


IMAGES = (
    TaskImage(url="https://host/a?sig=1", index=3, watermark_url="https://host/m?sig=2"),
    TaskImage(url="https://host/b?sig=3", index=1),
)


def order_for(tmp_path: Path, *, watermarked: bool = False) -> SaveOrder:
    """Give the order to save two images."""
    plan = SavePlan(LocalStore(tmp_path), watermarked=watermarked)
    return SaveOrder(task_of(*IMAGES), plan, done=lambda _: None, abort=lambda _: None)


def test_an_order_has_a_job_for_each_image(tmp_path: Path) -> None:
    """Each image has its URL byte for byte, the name that its index gives, and no result yet."""
    order = order_for(tmp_path)
    assert [(job.url, job.stem) for job in order.jobs] == [
        ("https://host/a?sig=1", f"{TASK_ID}-3"),
        ("https://host/b?sig=3", f"{TASK_ID}-1"),
    ]
    assert not order.is_complete
    assert order.saved == ()
    assert order.error is None
    assert repr(order) == "<SaveOrder 0 of 2 images>"


def test_a_watermarked_copy_may_be_missing(tmp_path: Path) -> None:
    """Copies have names of their own; an image that has none is given up before any fetch."""
    first, second = (order := order_for(tmp_path, watermarked=True)).jobs
    assert (first.url, first.stem) == ("https://host/m?sig=2", f"{TASK_ID}-3-watermarked")
    assert first.result is None
    assert isinstance(second.result, DownloadError)
    assert second.result.reason == "no-watermark"
    assert second.result.task_id == TASK_ID
    assert "image 1" in str(second.result)
    assert order.error is second.result
    assert not order.is_complete


def test_an_order_tells_what_became_of_it(tmp_path: Path) -> None:
    """What is saved keeps the images' order, the first error counts, and it ends with the last."""
    order = order_for(tmp_path)
    first, second = order.jobs
    saved = second.stored(Stored("key", 7, "digest", "image/png"))
    assert saved == SavedImage(
        key="key", url="https://host/b?sig=3", size=7, sha256="digest", content_type="image/png"
    )
    second.result = saved
    assert not order.is_complete
    first.result = first.failed(StorageError("full"))
    assert order.is_complete
    assert order.saved == (saved,)
    assert order.error is first.result
    assert repr(order) == "<SaveOrder 1 of 2 images>"


@pytest.mark.parametrize("error", [DownloadError("x"), StorageError("x"), SessionClosedError("x")])
def test_an_error_says_what_it_is_about(tmp_path: Path, error: KlingOmniError) -> None:
    """Every error gets the id of its task, and that of a download the image's redact_url URL."""
    job = order_for(tmp_path).jobs[0]
    assert job.failed(error) is error
    assert error.task_id == TASK_ID
    if isinstance(error, DownloadError):
        assert error.url == "https://host/a"
    else:
        assert not hasattr(error, "url")


@pytest.mark.anyio
async def test_cancelling_stops_all_of_it(tmp_path: Path) -> None:
    """A job under way is cancelled, one that pauses is not tried again, one that waits is left."""
    order = order_for(tmp_path)
    first, second = order.jobs
    first.scope = anyio.CancelScope()
    second.retry = asyncio.get_running_loop().call_later(1, pytest.fail, "tried again")
    order.cancel()
    assert order.cancelled
    assert first.scope.cancel_called
    assert second.retry.cancelled()


@pytest.mark.anyio
async def test_a_store_that_refuses_stops_nobody_else(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Something else under an image's name is told with its task, and all others are saved."""
    taken, free = (comet_api.create_task(duration=0) for _ in range(2))
    (tmp_path / f"{taken}-0.png").write_bytes(b"")
    async with open_session(comet_api) as session:
        outcomes = {o.task_id: o for o in await all_of(session, [taken, free], save_to=tmp_path)}
        task = await session.wait(taken)
        with pytest.raises(StorageError) as caught:
            await session.save(task, tmp_path)
        (saved,) = await session.save(task, tmp_path, overwrite=True)
    assert caught.value.reason == "exists"
    assert isinstance(outcomes[taken].error, StorageError)
    assert outcomes[taken].task
    assert outcomes[free].ok
    assert saved.size == (tmp_path / f"{taken}-0.png").stat().st_size
