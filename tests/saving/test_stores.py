"""What every store promises, whatever it is; and which arguments name one."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from obstore.store import MemoryStore, S3Store

from kling_omni_async import ConfigurationError, StorageError
from kling_omni_async._saving.files import STALE_S, LocalStore, Stored
from kling_omni_async._saving.formats import KINDS, ImageKind
from kling_omni_async._saving.object_store import RemoteStore
from kling_omni_async._saving.stores import MAX_OPEN, Stores
from tests.support import now_waiting

from .image_files import big_png, jpeg, png
from .places import FILES, Place, begin, find, names_in, place_of, put

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Take asyncio's own clock: obstore works in threads that no virtual clock knows."""
    return "asyncio"


@pytest.fixture(params=["folder", "cloud", "disk"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Take every kind of store in turn."""
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    return place_of(request.param, tmp_path)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.ending)
@pytest.mark.parametrize("overwrite", [False, True])
async def test_an_image_gets_its_name(place: Place, kind: ImageKind, *, overwrite: bool) -> None:
    """A kept image is there byte for byte, nothing else is, and it is found as it was kept."""
    store, file, name = place.store(), FILES[kind], f"1-0.{kind.ending}"
    stored = await put(store, file, overwrite=overwrite)
    digest = hashlib.sha256(file).hexdigest()
    assert stored == Stored(place.key(name), len(file), digest, kind.content_type)
    assert await place.read(name) == file
    assert await place.names() == [name]
    assert [each for each in names_in(place.partials) if each.startswith(".")] == []
    for fresh in (store, place.store()):
        assert await find(fresh) == stored
        assert await find(fresh, "1-1") is None


@pytest.mark.parametrize("size", [5 * 1_048_576 - 3000, 12 * 1_048_576], ids=["one", "pieces"])
async def test_large_images_arrive_whole(place: Place, size: int) -> None:
    """An image that goes there in one piece or in several is the same."""
    file = big_png(size)
    stored = await put(place.store(), file)
    assert await place.read("1-0.png") == file
    assert (stored.size, stored.sha256) == (len(file), hashlib.sha256(file).hexdigest())
    assert await find(place.store()) == stored


async def test_the_same_image_may_be_kept_twice(place: Place) -> None:
    """An image that is there already is as good as kept."""
    stored = await put(place.store(), png())
    assert await put(place.store(), png()) == stored
    assert await place.names() == ["1-0.png"]


async def test_images_of_others_are_found(place: Place) -> None:
    """An image that somebody else put there is used when it is whole."""
    await place.lay("1-0.jpg", jpeg())
    found = await find(place.store())
    digest = hashlib.sha256(jpeg()).hexdigest()
    assert found == Stored(place.key("1-0.jpg"), len(jpeg()), digest, "image/jpeg")


@pytest.mark.parametrize("content", [b"", b"<!doctype html>", png()[:-1]])
async def test_what_is_no_image_is_not_found(place: Place, content: bytes) -> None:
    """Something under the name that is no whole image is told, until it is to be replaced."""
    await place.lay("1-0.png", content)
    store = place.store()
    with pytest.raises(StorageError) as caught:
        await find(store)
    assert (caught.value.reason, caught.value.transient) == ("exists", False)
    assert str(caught.value) == (
        f"{place.key('1-0.png')} is there and is not this image, whole; move it away, "
        "or pass overwrite=True"
    )
    assert await place.read("1-0.png") == content
    stored = await put(store, png(), overwrite=True)
    assert await find(store) == stored
    assert await place.read("1-0.png") == png()


async def test_the_first_kind_that_is_there_is_found(place: Place) -> None:
    """An image is found under any ending, and the likelier one goes first."""
    store = place.store()
    kept = await put(store, jpeg())
    assert await find(store) == kept
    likelier = await put(store, png())
    assert await find(store) == likelier


async def test_an_overwritten_image_leaves_no_other(place: Place) -> None:
    """If the new image has another ending, the old one goes: a later look finds the new one."""
    store = place.store()
    await put(store, jpeg())
    kept = await put(store, png(), overwrite=True)
    assert await find(store) == kept
    assert await place.names() == ["1-0.png"]


async def test_is_opened_once(place: Place) -> None:
    """The first image removes stale partial files from the local disk; those behind it do not."""
    store, name = place.store(), ".1-0.01234567.kling-part"
    for left in ([], [name]):
        (place.partials / name).write_bytes(b"")
        then = time.time() - 2 * STALE_S
        os.utime(place.partials / name, (then, then))
        part = await begin(store)
        part.discard()
        assert names_in(place.partials) == left


async def test_a_cancelled_beginning_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is cancelled while it begins an image takes its temporary file away again."""
    go_on, scandir = threading.Event(), os.scandir

    def wait(path: str) -> Any:
        assert go_on.wait(30)
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", wait)
        beginning = asyncio.create_task(begin(place.store()))
        await now_waiting()
        beginning.cancel()
        await now_waiting()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await beginning
    assert [each for each in names_in(place.partials) if each.startswith(".")] == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("call", ["scandir", "open"])
async def test_no_file_descriptor_is_left(
    place: Place, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """Where no file can be opened for want of descriptors, it says that this may pass."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    store = place.store()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StorageError) as caught:
            await store.begin("1-0", look=False)
        assert (caught.value.reason, caught.value.transient) == ("descriptors", True)
        assert os.strerror(number) in str(caught.value)
    assert await put(store, png()) == await find(store)


# Which arguments name a store.


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
def test_takes_folders(
    given: object, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path, in whatever form, is a local folder, which is not made yet."""
    monkeypatch.chdir(tmp_path)
    store = Stores().open(given)
    assert isinstance(store, LocalStore)
    assert str(store.folder) == folder
    assert not store.folder.exists()


@pytest.mark.parametrize("given", ["~/x", Path("~/x"), "~"])
def test_a_home_is_meant(given: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tilde is read as shells do, so that no directory gets its name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    store = Stores().open(given)
    assert isinstance(store, LocalStore)
    assert store.folder == (tmp_path if given == "~" else tmp_path / "x")


@pytest.mark.parametrize("given", ["./~", "a/~/b", "file:///~"])
def test_a_tilde_elsewhere_is_a_name(given: str) -> None:
    """Only at the beginning of a path it is a home."""
    store = Stores().open(given)
    assert isinstance(store, LocalStore)
    assert "~" in str(store.folder)


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
        (None, "not to NoneType"),
        (b"images", "not to bytes"),
        (7, "not to int"),
        (["images"], "not to list"),
        (S3Store, "not to type"),
        (OwnStore, "not to type"),
        (SimpleNamespace(put_async=1), "not to SimpleNamespace"),
        ("", "saved to '': give the path of a directory"),
        (" \n", r"saved to ' \n': give the path of a directory"),
        ("a\0b", r"saved to 'a\x00b': give the path of a directory"),
        (OwnPath(b"images"), "saved to b'images': give the path of a directory, as text"),
        ("~nobody-of-this-name/x", "there is no such home; write ./~"),
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
        ("s3:/key:secret@bucket/a?sig=secret", "saved to 's3:/bucket/a': give a URL as text"),
        ("s3:\\key:secret@bucket", r"saved to 's3:\\bucket': give a URL as text"),
        ("file://key:secret@host/a?sig=secret", "saved to 'file://host/a': write file:///"),
        ("s3://[x", "the store cannot be opened by its URL"),
        ("nonsense://x", "the store cannot be opened by its URL"),
    ],
)
def test_refuses_the_rest(given: object, words: str) -> None:
    """What is no place for images is refused in words, before anything is fetched."""
    with pytest.raises(ConfigurationError) as caught:
        Stores().open(given)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
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


def test_a_name_is_opened_once(tmp_path: Path) -> None:
    """The same name, of whatever type, gives the same store; after very many it is let go."""
    stores = Stores()
    store = stores.open(tmp_path)
    for number in range(MAX_OPEN - 1):
        stores.open(tmp_path / str(number))
    assert stores.open(str(tmp_path)) is store
    for number in range(MAX_OPEN):
        stores.open(tmp_path / str(number))
    assert stores.open(tmp_path) is not store
