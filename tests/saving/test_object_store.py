"""Images in an object store, against obstore's own stores in memory and on the disk."""

from __future__ import annotations

import asyncio
import atexit
import errno
import os
import stat
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from obstore.exceptions import PermissionDeniedError
from obstore.store import LocalStore, MemoryStore, S3Store

from kling_omni_async import ConfigurationError, StorageError
from kling_omni_async._saving import object_store
from kling_omni_async._saving.formats import KINDS, PNG
from kling_omni_async._saving.object_store import (
    RemoteStore,
    Runtime,
    _exit_after_obstore,
    open_url,
)
from tests.support import now_waiting

from .image_files import big_png, png
from .places import begin, find, names_in, put

pytestmark = pytest.mark.anyio

SIGNED = "https://user:pass@host/1-0.png?X-Amz-Signature=5ec2e7"


@pytest.fixture
def anyio_backend() -> str:
    """Take asyncio's own clock: obstore works in threads that no virtual clock knows."""
    return "asyncio"


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the place for temporary files."""
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def cloud() -> MemoryStore:
    """Give a store that keeps attributes, as clouds do."""
    return MemoryStore()


class Spy:
    """A store of the caller's own, which notes what it was asked."""

    def __init__(self, store: MemoryStore | LocalStore) -> None:
        self._store = store
        self.calls: list[str] = []
        self.options: dict[str, Any] = {}

    async def get_async(self, path: str, *, options: Any = None) -> object:
        self.calls.append(f"{'head' if options else 'get'} {path}")
        return await self._store.get_async(path, options=options)

    async def put_async(self, path: str, file: Path, **options: Any) -> object:
        self.calls.append(f"put {path}")
        self.options = options
        return await self._store.put_async(path, file, **options)


class Broken:
    """A store that fails each time.

    Args:
        error: Why.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def get_async(self, path: str, *, options: Any = None) -> object:
        raise self._error

    async def put_async(self, path: str, file: Path, **options: Any) -> object:
        raise self._error


def files_in(folder: Path) -> list[Path]:
    """Give what is in a folder."""
    return list(folder.iterdir())


async def test_type_and_digest_go_along(cloud: MemoryStore, spool: Path) -> None:
    """What reads the object by other means is told its type, and a later run its digest."""
    stored = await put(RemoteStore(cloud), png())
    result = await cloud.get_async("1-0.png", options={"head": True})
    assert result.attributes == {"Content-Type": "image/png", "klingsha256": stored.sha256}
    assert names_in(spool) == []


async def test_an_upload_holds_little(cloud: MemoryStore) -> None:
    """Of an image on its way up no more than two pieces are held, each the least that S3 takes."""
    spy = Spy(cloud)
    await put(RemoteStore(spy), png())
    assert spy.options["chunk_size"] == 5 * 2**20
    assert spy.options["max_concurrency"] == 2


async def test_a_digest_that_is_told_is_not_reckoned(cloud: MemoryStore) -> None:
    """Finding an image of ours takes one question for each ending and moves no byte of it."""
    spy = Spy(cloud)
    store = RemoteStore(spy)
    await put(store, png())
    spy.calls.clear()
    assert await find(store)
    assert sorted(spy.calls) == sorted(f"head 1-0.{kind.ending}" for kind in KINDS)


async def test_a_part_is_for_nobody_else(spool: Path) -> None:
    """What waits for its upload in a folder that all share may be read by its owner only."""
    part = await begin(RemoteStore(MemoryStore()))
    assert part.path.parent == spool
    assert stat.S_IMODE(part.path.stat().st_mode) == 0o600
    part.discard()


async def test_no_place_for_parts_is_told(spool: Path) -> None:
    """Without a folder for temporary files nothing is begun, and that is told in our words."""
    used, fresh = RemoteStore(MemoryStore()), RemoteStore(MemoryStore())
    assert await find(used) is None
    os.rmdir(spool)  # noqa: PTH106 - blocks no longer than Path's own
    for store in (used, fresh):
        with pytest.raises(StorageError) as caught:
            await begin(store)
        assert caught.value.reason == "store"
        assert str(spool) in str(caught.value)


ERRORS: list[tuple[Exception, str]] = [
    (Exception(f"PUT {SIGNED} failed\n\nDebug source: secret"), "PUT https://host/1-0.png failed"),
    (Exception(f'at "{SIGNED}" and {SIGNED}'), 'at "https://host/1-0.png and https://host/1-0.png'),
    (Exception("x" * 1000), "x" * 400),
    (Exception(f"PUT: <?xml version='1'?>\n<Error><Code>Denied</Code>{SIGNED}"), "PUT: Denied"),
    (Exception("PUT: 403: <Error><Signature>5ec2e7</Signature></Error>"), "PUT: 403"),
    (Exception(), "Exception"),
    (PermissionError(13, "denied"), "[Errno 13] denied"),
    (NotImplementedError("attributes"), "attributes"),
]


@pytest.mark.parametrize(("error", "text"), ERRORS)
async def test_errors_are_told_without_secrets(error: Exception, text: str) -> None:
    """Whatever a store raises is a `StorageError` with its first line, of URLs host and path."""
    store = RemoteStore(Broken(error))
    for work in (find(store), put(store, png())):
        with pytest.raises(StorageError) as caught:
            await work
        assert caught.value.reason == "store"
        assert str(caught.value).partition(": ")[2] == text
        assert str(caught.value).startswith("cannot store 1-0.")
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "error",
    [
        Exception("Unable to open file a#1: Too many open files (os error 24)"),
        Exception("error sending request\n\nDebug source:\n  Os {\n    code: 23,\n    kind: Other"),
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
        PermissionError(errno.ENFILE, "Too many open files"),
    ],
    ids=["text", "source", "python", "class"],
)
async def test_descriptors_that_ran_out_are_told(error: Exception) -> None:
    """However obstore says that no file could be opened, it may pass."""
    with pytest.raises(StorageError) as caught:
        await find(RemoteStore(Broken(error)))
    assert (caught.value.reason, caught.value.transient) == ("descriptors", True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"Unable to sync: Stale file handle (os error {errno.ESTALE})", "busy"),
        (f"error\n\nDebug source:\n  Os {{\n    code: {errno.EAGAIN},\n", "busy"),
        (f"No space left on device (os error {errno.ENOSPC})", "store"),
        ("status code: 404", "store"),
    ],
)
async def test_what_a_file_system_below_says(text: str, reason: str) -> None:
    """What may pass of the file system of an obstore is told as that of our own."""
    with pytest.raises(StorageError) as caught:
        await find(RemoteStore(Broken(Exception(text))))
    assert caught.value.reason == reason


async def test_a_failed_search_leaves_nothing_running() -> None:
    """When `find` raises, the questions for all other endings have been answered too."""
    answered: list[str] = []

    class Uneven(Broken):
        async def get_async(self, path: str, *, options: Any = None) -> object:
            if not path.endswith(PNG.ending):
                await now_waiting(5)
            answered.append(path)
            return await super().get_async(path, options=options)

    with pytest.raises(StorageError, match=r"1-0\.png: no$"):
        await find(RemoteStore(Uneven(Exception("no"))))
    assert len(answered) == len(KINDS)


async def test_a_cancelled_upload_is_no_storage_error() -> None:
    """Cancelling comes through as it is."""

    class Slow(Broken):
        async def put_async(self, path: str, file: Path, **options: Any) -> object:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await put(RemoteStore(Slow(Exception())), png())


@pytest.mark.parametrize(
    ("prefix", "key"), [(None, "1-0.png"), ("", "1-0.png"), ("a/b", "a/b/1-0.png"), (7, "1-0.png")]
)
async def test_the_prefix_of_a_store_is_told(cloud: MemoryStore, prefix: object, key: str) -> None:
    """The key that is told is the whole one; the store itself puts its prefix before."""
    spy = Spy(cloud)
    spy.prefix = prefix  # type: ignore[attr-defined]  # what some stores have
    stored = await put(RemoteStore(spy), png())
    found = await find(RemoteStore(spy))
    assert stored.key == key
    assert found == stored
    assert spy.calls[0] == "put 1-0.png"


async def test_errors_tell_the_whole_key() -> None:
    """The prefix is in the text of an error too."""
    broken = Broken(Exception("no"))
    broken.prefix = "a/b"  # type: ignore[attr-defined]  # what some stores have
    with pytest.raises(StorageError, match=r"^cannot store a/b/1-0\.png: no$"):
        await put(RemoteStore(broken), png())


def test_is_shown_without_secrets() -> None:
    """The repr tells the kind of a store and its prefix, nothing of its URL or keys."""
    store = S3Store("bucket", prefix="a/b", secret_access_key="s3cr3t", access_key_id="id")
    assert repr(RemoteStore(store)) == "<RemoteStore S3Store a/b/>"
    shown = repr(open_url("https://user:pass@host/x?sig=s3cr3t"))
    assert shown == "<RemoteStore HTTPStore >"


@pytest.mark.parametrize(
    ("url", "prefix"),
    [("s3://bucket", ""), ("s3://bucket/", ""), ("s3://bucket/a/b/", "a/b/"), ("memory:///", "")],
)
def test_opens_urls(url: str, prefix: str) -> None:
    """The path of a URL is the prefix of its keys."""
    assert open_url(url)._prefix == prefix


@pytest.mark.parametrize(
    "url",
    [
        "foo://user:s3cr3t@host/x?sig=s3cr3t",
        "s3://",
        "s3://[x?sig=s3cr3t",
        "abfs://x?sig=s3cr3t",
        "az://user:s3cr3t@/x",
        "://",
    ],
)
def test_refuses_urls(url: str) -> None:
    """A URL that obstore cannot open is told in one line, without what may be secret in it."""
    with pytest.raises(
        ConfigurationError, match=r"^the store cannot be opened by its URL: ."
    ) as told:
        open_url(url)
    assert "\n" not in str(told.value)
    assert "s3cr3t" not in str(told.value)
    assert told.value.__suppress_context__


def test_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without obstore a URL is refused with the command that brings it."""
    for name in ("obstore", "obstore.store"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError) as caught:
        open_url("s3://bucket")
    assert "in the checkout, pip install '.[storage]'" in str(caught.value)


class Lacking:
    """A finder that knows of no module.

    Args:
        missing: The name that it says is missing.
    """

    def __init__(self, missing: str | None) -> None:
        self._missing = missing

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        raise ModuleNotFoundError(f"no {name}", name=self._missing)


@pytest.mark.parametrize("missing", ["typing_extensions", None])
def test_a_broken_obstore_is_no_missing_extra(
    monkeypatch: pytest.MonkeyPatch, missing: str | None
) -> None:
    """An obstore that is there and lacks something itself raises what Python raises."""
    monkeypatch.delitem(sys.modules, "obstore.store")
    monkeypatch.setattr(sys, "meta_path", [Lacking(missing)])
    with pytest.raises(ModuleNotFoundError):
        open_url("s3://bucket")


async def test_a_store_that_cannot_remove(cloud: MemoryStore) -> None:
    """A class of the caller's own without `delete_async` keeps what it has."""
    remote = RemoteStore(Spy(cloud))
    kept = await put(remote, png(), overwrite=True)
    assert await find(remote) == kept


# Before the first image.


@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_a_store_is_tried(kind: str, tmp_path: Path, spool: Path) -> None:
    """Whether it knows conditions or not, nothing is left in it, nor where images wait."""
    target = MemoryStore() if kind == "memory" else LocalStore(tmp_path / "disk", mkdir=True)
    store = RemoteStore(target)
    await store.try_out()
    await store.try_out()
    assert target.list().collect() == []
    assert names_in(spool) == []


async def test_a_store_of_the_callers_own_is_not_tried(cloud: MemoryStore) -> None:
    """Nobody knows what it would do."""
    spy = Spy(cloud)
    await RemoteStore(spy).try_out()
    assert spy.calls == []


async def test_no_place_for_parts_is_told_at_once(spool: Path, cloud: MemoryStore) -> None:
    """Where images cannot wait for their upload, nothing is asked."""
    store = RemoteStore(cloud)
    os.rmdir(spool)  # noqa: PTH106 - blocks no longer than Path's own
    with pytest.raises(ConfigurationError) as caught:
        await store.try_out()
    assert str(caught.value) == (
        f"cannot store in {spool}: No such file or directory; set TMPDIR to a directory that may "
        "be written to"
    )


def test_no_temporary_directory_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without one is a wrong set-up, in words."""

    def fail() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    with pytest.raises(ConfigurationError, match="there is no place for temporary files"):
        RemoteStore(MemoryStore())


class Careless(MemoryStore):
    """A store of obstore that heeds no condition."""

    async def put_async(self, path: Any, file: Any, **options: Any) -> Any:
        return await super().put_async(path, file)


async def test_a_store_that_heeds_no_condition() -> None:
    """What it has written is removed."""
    store = Careless()
    await RemoteStore(store).try_out()
    assert store.list().collect() == []


class Moody(MemoryStore):
    """A store of obstore that fails to write.

    Attributes:
        error: Why, or None to write nothing for ever.
    """

    error: Exception | None = None

    async def put_async(self, *_: Any, **__: Any) -> Any:
        if self.error is None:
            await asyncio.Event().wait()
        raise self.error or AssertionError


async def test_a_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for within bounds."""
    monkeypatch.setattr(object_store, "TRIAL_S", 0.01)
    with pytest.raises(ConfigurationError, match=r"no answer within 0\.01 s"):
        await RemoteStore(Moody()).try_out()


async def test_a_store_that_refuses() -> None:
    """It is a wrong set-up, and the right that may be missing is named."""
    moody = Moody()
    moody.error = PermissionDeniedError("403 Forbidden: <Error><Code>AccessDenied</Code>")
    with pytest.raises(ConfigurationError) as caught:
        await RemoteStore(moody).try_out()
    assert str(caught.value) == (
        "nothing can be written to the store: 403 Forbidden: AccessDenied; the credentials may "
        "lack the right to do so (s3:PutObject)"
    )


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "no"), Exception("Server returned status code: 503 Busy")]
)
async def test_a_store_with_passing_faults(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """They are no wrong set-up: images are tried again anyway."""
    moody = Moody()
    moody.error = error
    await RemoteStore(moody).try_out()
    assert "the store could not be tried" in caplog.text


# The runtime.


async def test_the_runtime_waits_for_descriptors(
    cloud: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would never start again is not started while too few are left; later it is."""
    monkeypatch.setattr(Runtime, "is_started", False)
    opened, left = os.open, [10]

    def few(path: Any, *rest: Any) -> int:
        left[0] -= path == os.devnull
        if left[0] < 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(path, *rest)

    store = RemoteStore(cloud)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", few)
        await store.try_out()
        with pytest.raises(StorageError) as caught:
            await begin(store)
    assert (caught.value.reason, caught.value.transient) == ("descriptors", True)
    assert not Runtime.is_started
    await put(store, png())
    assert Runtime.is_started


async def test_a_panic_is_an_error_of_its_image() -> None:
    """What obstore throws as no exception at all does not end the session."""
    panic = type("PanicException", (BaseException,), {})("Os { code: 24, kind: TooMany }")
    with pytest.raises(StorageError) as caught:
        await put(RemoteStore(Broken(panic)), png())
    assert caught.value.reason == "descriptors"
    with pytest.raises(SystemExit):
        await put(RemoteStore(Broken(SystemExit())), png())


# Without the right to list.


class Unlisted:
    """A store that answers 403 for what is not there.

    Args:
        store: What it has.
        readable: Whether it does not so for everything.
    """

    def __init__(self, store: MemoryStore, *, readable: bool = True) -> None:
        self._store = store
        self.readable = readable

    async def get_async(self, path: str, *, options: Any = None) -> object:
        if not self.readable:
            raise PermissionDeniedError("403 Forbidden")
        try:
            return await self._store.get_async(path, options=options)
        except FileNotFoundError:
            raise PermissionDeniedError("403 Forbidden") from None

    async def put_async(self, path: str, file: Path, **options: Any) -> object:
        return await self._store.put_async(path, file, **options)


async def test_another_process_was_faster(cloud: MemoryStore) -> None:
    """The same image that came meanwhile is as good as ours; another one stays, and is told."""
    store = RemoteStore(Unlisted(cloud))
    assert await find(store) is None
    stored = await put(store, png())
    assert await put(store, png()) == stored
    with pytest.raises(StorageError, match="is not this image") as caught:
        await put(store, png("b"))
    assert caught.value.reason == "exists"
    assert await find(store) == stored
    assert await put(store, png("b"), overwrite=True) != stored


async def test_what_may_not_be_looked_at_stays(cloud: MemoryStore) -> None:
    """Without the right to read, a name that is taken is told with that right."""
    unlisted = Unlisted(cloud, readable=False)
    store = RemoteStore(unlisted)
    assert await find(store) is None
    stored = await put(store, png())
    with pytest.raises(StorageError, match=r"without the right to read it \(s3:GetObject\)"):
        await put(store, png())
    unlisted.readable = True
    assert await find(store) == stored


async def test_large_images_one_at_a_time(cloud: MemoryStore) -> None:
    """What obstore has to hold as a whole it holds once."""
    store = RemoteStore(Unlisted(cloud))
    assert await find(store) is None
    results = await asyncio.gather(*(put(store, big_png(6 * 2**20)) for _ in range(3)))
    assert len(set(results)) == 1


async def test_an_older_image_that_stays(
    cloud: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that does not remove makes the new image no failure, and is told of once."""

    class Keeps(Spy):
        async def delete_async(self, path: str) -> None:
            raise PermissionDeniedError(f"403 for {path}")

    store = RemoteStore(Keeps(cloud))
    for name in ("a", "b"):
        await put(store, png(name), overwrite=True)
    (told,) = (each for each in caplog.records if each.name == "kling_omni_async.saver")
    assert told.getMessage() == (
        "images that were replaced may stay under another ending; the credentials may lack the "
        "right to do so (s3:DeleteObject)"
    )


def test_the_end_of_python_waits_for_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that used an object store rests once before it ends, however many there were."""
    registered: list[tuple[object, ...]] = []
    monkeypatch.setattr(atexit, "register", lambda *call: registered.append(call))
    _exit_after_obstore.cache_clear()
    for _ in range(3):
        RemoteStore(MemoryStore())
    assert registered == [(time.sleep, 0.05)]
