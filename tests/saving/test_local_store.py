"""Images in a local directory: whole or not there, and nobody else's file is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from kling_omni_async import ConfigurationError, StorageError
from kling_omni_async._saving.files import (
    LocalStore,
    Mishaps,
    PartialFile,
    Stored,
    sync_folder,
    try_folder,
)
from kling_omni_async._saving.stores import Store
from tests.support import now_waiting

from .image_files import jpeg, png
from .places import begin, find, names_in, put

pytestmark = pytest.mark.anyio

NO_LINKS = [errno.EPERM, errno.ENOTSUP, errno.EXDEV]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Give a store whose folder is there."""
    return LocalStore(tmp_path)


@pytest.fixture(params=[None, *NO_LINKS], ids=["links", *map(errno.errorcode.get, NO_LINKS)])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take file systems with hard links, and without them."""
    if request.param is not None:
        monkeypatch.setattr(os, "link", failing(request.param))


def failing(number: int) -> Callable[..., None]:
    """Give a system call that fails."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


async def refusal_of(store: Store, file: bytes, *, overwrite: bool = False) -> StorageError:
    """Bring an image into a store that must refuse it, and give the refusal."""
    with pytest.raises(StorageError) as caught:
        await put(store, file, overwrite=overwrite)
    return caught.value


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("overwrite", [False, True])
async def test_an_image_gets_its_name(store: LocalStore, *, overwrite: bool) -> None:
    """With hard links and without them a kept image is there, and nothing else is."""
    stored = await put(store, png(), overwrite=overwrite)
    assert (store.folder / "1-0.png").read_bytes() == png()
    assert names_in(store.folder) == ["1-0.png"]
    assert await find(store) == stored


async def test_makes_its_folder(tmp_path: Path) -> None:
    """The folder and those above it are made with the first image, and not before."""
    store = LocalStore(tmp_path / "a" / "b")
    assert names_in(tmp_path) == []
    assert await find(store) is None
    await put(store, png())
    assert names_in(tmp_path / "a" / "b") == ["1-0.png"]


@pytest.mark.parametrize("below", ["file", "file/below"])
async def test_a_file_is_no_folder(tmp_path: Path, below: str) -> None:
    """A file where the folder should be, or above it, is told in our words."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        await begin(LocalStore(tmp_path / below))
    assert caught.value.reason == "store"
    assert str(tmp_path / below) in str(caught.value)


def lay_file(content: bytes) -> Callable[[Path], object]:
    """Give what lays a file under a name."""
    return lambda path: path.write_bytes(content)


def lay_dangling(path: Path) -> None:
    """Lay a link to nothing under a name."""
    path.symlink_to(path.with_name("nothing"))


def lay_loop(path: Path) -> None:
    """Lay a link to itself under a name."""
    path.symlink_to(path)


NOT_IMAGES = {
    "cut": lay_file(png()[:-1]),
    "empty": lay_file(b""),
    "page": lay_file(b"<!doctype html>"),
    "folder": Path.mkdir,
    "dangling": lay_dangling,
    "loop": lay_loop,
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("lay", NOT_IMAGES.values(), ids=NOT_IMAGES)
async def test_what_is_not_an_image_is_not_found(
    store: LocalStore, lay: Callable[[Path], object]
) -> None:
    """Something under the name that is no whole image is told, neither used nor waited for."""
    path = store.folder / "1-0.png"
    lay(path)
    with pytest.raises(StorageError) as caught:
        await find(store)
    assert caught.value.reason == "exists"
    assert str(path) in str(caught.value)
    assert "overwrite=True" in str(caught.value)


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("lay", NOT_IMAGES.values(), ids=NOT_IMAGES)
async def test_what_has_the_name_keeps_it(store: LocalStore, lay: Callable[[Path], object]) -> None:
    """Without `overwrite` nothing that has the name is replaced, whatever it is."""
    path = store.folder / "1-0.png"
    lay(path)
    before = path.lstat().st_ino, path.lstat().st_mode
    assert (await refusal_of(store, png())).reason == "exists"
    assert (path.lstat().st_ino, path.lstat().st_mode) == before
    assert names_in(store.folder) == ["1-0.png"]


@pytest.mark.parametrize(
    "lay",
    [lay for name, lay in NOT_IMAGES.items() if name != "folder"],
    ids=[name for name in NOT_IMAGES if name != "folder"],
)
async def test_overwrite_replaces_it(store: LocalStore, lay: Callable[[Path], object]) -> None:
    """With `overwrite` the image gets the name of anything but a folder."""
    path = store.folder / "1-0.png"
    lay(path)
    stored = await put(store, png(), overwrite=True)
    assert stat.S_ISREG(path.lstat().st_mode)
    assert path.read_bytes() == png()
    assert await find(store) == stored
    assert names_in(store.folder) == ["1-0.png"]


async def test_overwrite_never_removes_a_folder(store: LocalStore) -> None:
    """A folder under the name stays, with what is in it, and that is told."""
    folder = store.folder / "1-0.png"
    folder.mkdir()
    (folder / "file").write_bytes(b"x")
    refusal = await refusal_of(store, png(), overwrite=True)
    assert refusal.reason == "store"
    assert str(folder) in str(refusal)
    assert names_in(store.folder) == ["1-0.png"]
    assert names_in(folder) == ["file"]


async def test_overwrite_leaves_the_target_of_a_link(store: LocalStore, tmp_path: Path) -> None:
    """With `overwrite` a link is replaced, not what it points to."""
    target = store.folder / "target"
    target.write_bytes(b"x")
    (store.folder / "1-0.png").symlink_to(target)
    await put(store, png(), overwrite=True)
    assert target.read_bytes() == b"x"
    assert (store.folder / "1-0.png").read_bytes() == png()


async def test_a_link_to_an_image_is_an_image(store: LocalStore) -> None:
    """An image that was moved and linked to is found, and the link is left alone."""
    (store.folder / "moved").write_bytes(png())
    path = store.folder / "1-0.png"
    path.symlink_to("moved")
    found = await find(store)
    assert found
    assert found.key == str(path)
    assert await put(store, png()) == found
    assert path.is_symlink()


async def test_a_cancelled_search_leaves_the_image(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is cancelled while an image is found takes nothing away."""
    await put(store, png())
    go_on, lexists = threading.Event(), os.path.lexists

    def wait(path: Path) -> bool:
        assert go_on.wait(30)
        return lexists(path)

    monkeypatch.setattr(os.path, "lexists", wait)
    searching = asyncio.create_task(find(store))
    await now_waiting()
    searching.cancel()
    await now_waiting()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await searching
    assert names_in(store.folder) == ["1-0.png"]


@pytest.mark.usefixtures("links")
async def test_another_image_keeps_the_name(store: LocalStore) -> None:
    """Another image that is whole is not replaced without `overwrite`, and is with it."""
    path = store.folder / "1-0.png"
    await put(store, png("a"))
    refusal = await refusal_of(store, png("b"))
    assert refusal.reason == "exists"
    assert refusal.__cause__ is None
    assert path.read_bytes() == png("a")
    await put(store, png("b"), overwrite=True)
    assert path.read_bytes() == png("b")
    assert names_in(store.folder) == ["1-0.png"]


@pytest.mark.usefixtures("links")
async def test_the_same_image_is_kept_once(store: LocalStore) -> None:
    """An image that is there already is as good as kept; its file stays the same."""
    stored = await put(store, png())
    before = (store.folder / "1-0.png").stat().st_ino
    assert await put(store, png()) == stored
    assert (store.folder / "1-0.png").stat().st_ino == before


@pytest.mark.usefixtures("links")
async def test_two_may_keep_one_image_at_a_time(tmp_path: Path) -> None:
    """Sixteen stores that keep the same image at the same time all succeed, with one file."""
    stored = await asyncio.gather(*(put(LocalStore(tmp_path), png()) for _ in range(16)))
    assert len(set(stored)) == 1
    assert names_in(tmp_path) == ["1-0.png"]
    assert (tmp_path / "1-0.png").read_bytes() == png()


async def test_one_of_two_images_wins(tmp_path: Path) -> None:
    """Of different images that come at the same time one is there and all others are refused."""
    puts = (put(LocalStore(tmp_path), png(str(number))) for number in range(8))
    results = await asyncio.gather(*puts, return_exceptions=True)
    (stored,) = (result for result in results if isinstance(result, Stored))
    assert all(isinstance(result, StorageError) for result in results if result is not stored)
    found = await find(LocalStore(tmp_path))
    assert found == stored
    assert names_in(tmp_path) == ["1-0.png"]


def recorded(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, link_fails: bool = False
) -> list[str]:
    """Record the system calls that decide what a crash leaves behind."""
    calls: list[str] = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def told_fsync(fd: int) -> None:
        is_folder = os.path.samestat(os.fstat(fd), folder.stat())
        calls.append("sync folder" if is_folder else f"sync {os.fstat(fd).st_size}")
        fsync(fd)

    def told_link(part: Path, path: Path) -> None:
        if link_fails:
            raise OSError(errno.EPERM, "no links")
        link(part, path)
        calls.append(f"link {path.name}")

    def told_replace(part: Path, path: Path) -> None:
        replace(part, path)
        calls.append(f"replace {path.name}")

    monkeypatch.setattr(os, "fsync", told_fsync)
    monkeypatch.setattr(os, "link", told_link)
    monkeypatch.setattr(os, "replace", told_replace)
    return calls


@pytest.mark.parametrize(
    ("overwrite", "link_fails", "named"),
    [(False, False, "link"), (False, True, "replace"), (True, False, "replace")],
)
async def test_a_crash_leaves_no_half_image(
    store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
    *,
    overwrite: bool,
    link_fails: bool,
    named: str,
) -> None:
    """All bytes are on the disk before the name appears, and the name before it is told."""
    calls = recorded(monkeypatch, store.folder, link_fails=link_fails)
    await put(store, png(), overwrite=overwrite)
    assert calls == [f"sync {len(png())}", f"{named} 1-0.png", "sync folder"]


async def test_the_name_of_another_process_is_on_the_disk_too(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that another process has just named is told only when its name is on the disk."""
    await put(store, png())
    calls = recorded(monkeypatch, store.folder)
    await put(store, png())
    assert calls == [f"sync {len(png())}", "sync folder"]


def folders_fail(number: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the system refuse to sync folders; gives those that it was asked to."""
    fds: list[int] = []
    fsync = os.fsync

    def fail(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            fds.append(fd)
            raise OSError(number, os.strerror(number))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fail)
    return fds


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
async def test_systems_that_cannotsync_folders(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A file system that knows no such thing is no reason to fail; nothing stays open."""
    fds = folders_fail(number, monkeypatch)
    assert await put(store, png()) == await find(store)
    assert len(fds) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fds[0])


BEHIND = [errno.EIO, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EMFILE, errno.ESTALE]


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Give what was warned of."""
    return lambda: [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


@pytest.mark.parametrize("number", BEHIND, ids=errno.errorcode.get)
async def test_what_fails_behind_the_name_loses_no_image(
    store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
    number: int,
) -> None:
    """An image that has its name is stored, though its folder cannot be synced: warned of once."""
    fds = folders_fail(number, monkeypatch)
    stored = await put(store, png())
    assert stored == await find(store)
    await put(store, png("b"), overwrite=True)
    assert names_in(store.folder) == ["1-0.png"]
    told = (
        []
        if number == errno.ENOSYS
        else [f"names in {store.folder} may be lost if the power fails now: {os.strerror(number)}"]
    )
    assert warnings() == told
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fds[0])


@pytest.mark.parametrize("number", BEHIND, ids=errno.errorcode.get)
async def test_a_folder_that_cannot_be_opened_loses_no_image(
    store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
    number: int,
) -> None:
    """So it is where the system does not even open the folder to sync it."""
    part, opened = await begin(store), os.open

    def fail(path: Path, flags: int, *mode: int) -> int:
        if path == store.folder:
            raise OSError(number, os.strerror(number))
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", fail)
    part.write(png())
    stored = await store.keep(part, b"", "1-0", overwrite=False)
    assert names_in(store.folder) == ["1-0.png"]
    assert stored.size == len(png())
    assert len(warnings()) == 1


async def test_an_older_image_that_stays(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    """An image that was replaced and cannot be removed makes the new one no failure."""
    await put(store, jpeg())
    unlink = Path.unlink

    def fail(path: Path, *, missing_ok: bool = False) -> None:
        if path.suffix == ".jpg":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", fail)
    stored = await put(store, png(), overwrite=True)
    assert stored.content_type == "image/png"
    assert names_in(store.folder) == ["1-0.jpg", "1-0.png"]
    path = store.folder / "1-0.jpg"
    assert warnings() == [f"{path}, which was replaced, cannot be removed: Permission denied"]


async def test_the_folders_above_are_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    """A folder that was made is used, also where those above it cannot be synced."""
    folders_fail(errno.EIO, monkeypatch)
    store = LocalStore(tmp_path / "a" / "b")
    await put(store, png())
    assert len(warnings()) == 3  # for each folder


async def test_a_folder_that_cannot_be_listed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    """Where one may write but not look, images are kept, and what dead processes left stays."""
    monkeypatch.setattr(os, "scandir", failing(errno.EACCES))
    for name in ("a", "b"):
        await put(store, png(name), overwrite=True)
    (told,) = warnings()
    assert told == f"what dead processes may have left in {store.folder} stays: Permission denied"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP])
async def test_systems_that_cannot_sync_files(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A file system that knows no sync at all keeps images as well as it can."""
    monkeypatch.setattr(os, "fsync", failing(number))
    assert await put(store, png()) == await find(store)


def test_mishaps_do_not_grow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is warned of is remembered within bounds."""
    mishaps = Mishaps()
    for number in range(3000):
        with mishaps.survived(f"{tmp_path}/{number}"):
            raise OSError(errno.EIO, "no")
    assert len(caplog.records) == 1000
    with mishaps.survived("x"):
        raise OSError("in words")


PASSING = [errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT]


@pytest.mark.parametrize("number", PASSING, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "fsync", "scandir", "stat"])
async def test_what_may_pass_says_so(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    """What a file system may do a moment later is told as that; then it does."""
    with monkeypatch.context() as patch:
        if call == "stat":  # of a look for the image
            await put(store, png())
            patch.setattr(Path, "is_file", failing(number))
            with pytest.raises(StorageError) as caught:
                await find(store)
        else:
            patch.setattr(os, call, failing(number))
            with pytest.raises(StorageError) as caught:
                await put(store, png())
    assert (caught.value.reason, caught.value.transient) == ("busy", True)
    assert await put(store, png()) == await find(store)


# Before the first image.


async def test_a_folder_is_tried(tmp_path: Path) -> None:
    """Once, and nothing is left of it; those above it that were made for it go, too."""
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "a" / "b"):
        store = LocalStore(folder)
        for _ in range(2):
            await store.try_out()
            assert names_in(tmp_path) == ["there"]
            assert names_in(tmp_path / "there") == []
    await put(store, png())
    assert names_in(tmp_path / "a" / "b") == ["1-0.png"]


async def test_a_folder_is_tried_by_many_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No try takes away what another one has made, and none of them says a word."""
    for number in range(20):
        store = LocalStore(tmp_path / str(number) / "images")
        await asyncio.gather(*[store.try_out() for _ in range(20)])
    assert names_in(tmp_path) == []
    assert caplog.messages == []


@pytest.mark.parametrize(("removals", "fails"), [(9, False), (10, True)])
async def test_a_folder_that_another_process_removes(
    tmp_path: Path, *, removals: int, fails: bool
) -> None:
    """It is made again, as that one has tried it, too; but not for ever."""
    folder, left = tmp_path / "images", [removals]

    def prepare() -> None:
        folder.mkdir()
        if left[0]:
            left[0] -= 1
            folder.rmdir()

    with pytest.raises(ConfigurationError) if fails else nullcontext():
        assert try_folder(prepare, folder, "choose another one")
    assert left == [0]


async def test_a_folder_that_is_gone_is_not_swept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of dead processes can be in it, so there is nothing to warn of."""
    Mishaps().sweep(tmp_path / "gone")
    assert caplog.messages == []


async def test_a_folder_that_others_use_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody puts there while it is tried stays."""
    store, write = LocalStore(tmp_path / "a"), PartialFile.write

    def put_beside(part: PartialFile, piece: bytes) -> None:
        (tmp_path / "a" / "other").touch()
        write(part, piece)

    monkeypatch.setattr(PartialFile, "write", put_beside)
    await store.try_out()
    assert names_in(tmp_path / "a") == ["other"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG])
@pytest.mark.parametrize("call", ["open", "mkdir"])
async def test_a_folder_that_may_not_be_written_to_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """It is an error of the set-up, and says what to do."""
    store = LocalStore(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(number))
        with pytest.raises(ConfigurationError) as caught:
            await store.try_out()
    assert str(caught.value) == (
        f"cannot store in {tmp_path}/a: {os.strerror(number)}; choose another directory, or make "
        "this one writable"
    )
    await store.try_out()


async def test_a_full_disk_is_told_at_once(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte is written for a try, and nothing is left of it where that fails."""

    def fail(*_: object) -> None:
        raise StorageError("No space left on device", reason="store")

    monkeypatch.setattr(PartialFile, "write", fail)
    with pytest.raises(ConfigurationError, match="No space left"):
        await store.try_out()
    assert names_in(store.folder) == []


@pytest.mark.parametrize("number", [errno.EMFILE, *PASSING], ids=errno.errorcode.get)
async def test_what_may_pass_is_no_wrong_set_up(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Images are tried again; so is the folder, when it is asked for next."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(number))
        await store.try_out()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(errno.EACCES))
        with pytest.raises(ConfigurationError):
            await store.try_out()


async def test_windows_syncs_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where folders cannot be opened they are not."""
    monkeypatch.setattr(os, "open", failing(errno.EACCES))
    with pytest.raises(PermissionError):
        sync_folder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        sync_folder(tmp_path)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_bytes_that_the_disk_did_not_take(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """An image whose bytes are not on the disk never gets its name."""
    monkeypatch.setattr(os, "fsync", failing(number))
    refusal = await refusal_of(store, png())
    assert refusal.reason == "store"
    assert os.strerror(number) in str(refusal)
    assert names_in(store.folder) == []


async def test_a_disk_that_takes_no_name(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk on which neither linking nor renaming works is told, and no part is left."""
    monkeypatch.setattr(os, "link", failing(errno.EROFS))
    monkeypatch.setattr(os, "replace", failing(errno.EROFS))
    refusal = await refusal_of(store, png())
    assert refusal.reason == "store"
    assert os.strerror(errno.EROFS) in str(refusal)
    assert names_in(store.folder) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
async def test_a_folder_that_may_not_be_written_to(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A part that cannot be made is told with the folder's name."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(number))
        refusal = await refusal_of(store, png())
    assert refusal.reason == "store"
    assert str(store.folder) in str(refusal)
    assert os.strerror(number) in str(refusal)


async def test_a_folder_that_was_removed(store: LocalStore) -> None:
    """A folder that goes away after it was used is made again: a session may live for weeks."""
    assert await find(store) is None
    store.folder.rmdir()
    await put(store, png())
    assert names_in(store.folder) == ["1-0.png"]


async def test_a_folder_that_cannot_be_made_again(store: LocalStore) -> None:
    """Where something else has its place by then, that is told."""
    assert await find(store) is None
    store.folder.rmdir()
    store.folder.touch()
    assert (await refusal_of(store, png())).reason == "store"


async def test_an_image_that_cannot_be_read(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the system will not open is told as the store's trouble."""
    await put(store, png())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing(errno.EACCES))
        with pytest.raises(StorageError) as caught:
            await find(store)
    assert caught.value.reason == "store"
    assert "1-0.png" in str(caught.value)


def test_is_shown_with_its_folder(store: LocalStore) -> None:
    """Its repr tells where images go."""
    assert repr(store) == f"<LocalStore {store.folder}>"
