"""Files: every byte is written and known, none is left behind; and threads that write them."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import threading
import time
import warnings
from pathlib import Path
from random import Random
from typing import IO

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async import StorageError
from kling_omni_async._saving.files import (
    STALE_S,
    Content,
    OwnThreads,
    PartialFile,
    content_of,
    in_thread,
    own_threads,
    sweep,
)
from kling_omni_async._saving.formats import HEAD_BYTES
from tests.support import now_waiting


class Disk:
    """A part's file on a disk with faults.

    Args:
        file: The real file.
        most: How many bytes one write takes.
        room: How many bytes there is room for.
        on_close: What closing it says, or 0.
    """

    def __init__(
        self, file: IO[bytes], *, most: int = 2**31, room: int = 2**31, on_close: int = 0
    ) -> None:
        self._file = file
        self._most = most
        self._room = room
        self._on_close = on_close

    def fileno(self) -> int:
        return self._file.fileno()

    def write(self, piece: bytes) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self._file.write(piece[: min(self._most, self._room)])
        self._room -= taken
        return taken

    def close(self) -> None:
        self._file.close()
        if self._on_close:
            raise OSError(self._on_close, os.strerror(self._on_close))


def on_disk(part: PartialFile, monkeypatch: pytest.MonkeyPatch, **faults: int) -> PartialFile:
    """Move a part to a disk with faults."""
    monkeypatch.setattr(part, "_file", Disk(part._file, **faults))
    return part


def require_known(content: Content, file: bytes) -> None:
    """Require that of a file is known what must be."""
    assert content.size == len(file)
    assert content.sha256 == hashlib.sha256(file).hexdigest()
    assert content.head == file[:HEAD_BYTES]


def names_in(folder: Path) -> list[str]:
    """Give the names of all that is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def make_old(path: Path, age_s: float = STALE_S + 60) -> None:
    """Let a file have been written to long ago."""
    then = time.time() - age_s
    os.utime(path, (then, then))


def test_a_part_holds_what_was_written(tmp_path: Path) -> None:
    """Its bytes are in the file at once, and its digest is theirs."""
    part = PartialFile(tmp_path, "1-0")
    part.write(b"abc")
    part.write(b"")
    part.write(b"def")
    assert part.path.read_bytes() == b"abcdef"
    require_known(part.content, b"abcdef")
    part.discard()


def test_short_writes_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes three bytes at a time gets all of them, in their order."""
    part = on_disk(PartialFile(tmp_path, "1-0"), monkeypatch, most=3)
    file = Random(1).randbytes(1000)
    part.write(file)
    assert part.path.read_bytes() == file
    require_known(part.content, file)
    part.discard()


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that does not fit raises, and what was written goes away with its name."""
    part = on_disk(PartialFile(tmp_path, "1-0"), monkeypatch, room=10)
    with pytest.raises(StorageError, match=f"cannot store in {tmp_path}: No space left"):
        part.write(bytes(11))
    assert part.path.stat().st_size == 10
    part.discard()
    assert names_in(tmp_path) == []


def test_a_disk_that_complains_late_stops_no_discard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error on closing does not come out of `discard`, nor does it keep the file."""
    part = on_disk(PartialFile(tmp_path, "1-0"), monkeypatch, on_close=errno.EDQUOT)
    part.discard()
    assert names_in(tmp_path) == []


def test_a_disk_that_complains_late_spoils_the_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error on closing is told by `seal`: the bytes may not be there."""
    part = on_disk(PartialFile(tmp_path, "1-0"), monkeypatch, on_close=errno.EDQUOT)
    with pytest.raises(OSError, match="quota"):
        part.seal()
    part.discard()


def test_seal_brings_the_bytes_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very file is synced while it is open, and closed then."""
    part = PartialFile(tmp_path, "1-0")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    part.seal()
    assert synced == [part.path.stat().st_ino]
    with pytest.raises(StorageError, match="closed"):
        part.write(b"x")
    part.discard()


def test_discard_may_come_twice(tmp_path: Path) -> None:
    """A part that was discarded, or moved away, is discarded without a word."""
    part = PartialFile(tmp_path, "1-0")
    part.discard()
    part.discard()
    assert names_in(tmp_path) == []


def test_a_name_that_stays_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that the system will not remove stays, without a word."""
    part = PartialFile(tmp_path, "1-0")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        part.discard()
    assert part.path.exists()


def refuse(*_: object, **__: object) -> None:
    """Do as a system that allows nothing."""
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_parts_of_one_image_have_files_of_their_own(tmp_path: Path) -> None:
    """Two processes that save the same image do not write into one file."""
    one, other = PartialFile(tmp_path, "1-0"), PartialFile(tmp_path, "1-0")
    assert one.path != other.path
    one.discard()
    other.discard()


def test_a_part_never_writes_into_a_file_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, or a link that somebody laid, under its name is refused and not touched."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "01234567")
    target = tmp_path / "target"
    (tmp_path / ".1-0.01234567.kling-part").symlink_to(target)
    with pytest.raises(FileExistsError):
        PartialFile(tmp_path, "1-0")
    assert not target.exists()


@pytest.mark.parametrize(("mode", "expected"), [(0o666, 0o640), (0o600, 0o600)])
def test_the_umask_holds(tmp_path: Path, mode: int, expected: int) -> None:
    """A part may be read by whom the caller and the umask let."""
    before = os.umask(0o027)
    try:
        part = PartialFile(tmp_path, "1-0", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE(part.path.stat().st_mode) == expected
    part.discard()


@given(st.lists(st.binary(max_size=2 * HEAD_BYTES)))
def test_pieces_do_not_matter(pieces: list[bytes]) -> None:
    """However a file is cut into pieces, the same is known of it."""
    content = Content()
    for piece in pieces:
        content.add(piece)
    require_known(content, b"".join(pieces))


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_536 + 1, 1_048_576, 2_500_000])
def test_reads_files_of_any_size(tmp_path: Path, size: int) -> None:
    """Digest, head and tail of a file on the disk are right, also over many reads."""
    file = Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(file)
    require_known(content_of(tmp_path / "file"), file)


def test_sweeps_stale_parts(tmp_path: Path) -> None:
    """What was left behind an hour ago goes; what is being written stays."""
    stale, fresh = PartialFile(tmp_path, "1-0"), PartialFile(tmp_path, "1-0")
    make_old(stale.path)
    make_old(fresh.path, STALE_S - 60)
    sweep(tmp_path)
    assert names_in(tmp_path) == [fresh.path.name]
    stale.discard()
    fresh.discard()


def test_sweeps_nothing_else(tmp_path: Path) -> None:
    """Images, and files of other programs, stay however old and alike they are."""
    names = [
        ".1-0.01234567.kling-part.bak",
        ".1-0.0123456.kling-part",
        ".1-0.012345678.kling-part",
        ".1-0.0123456G.kling-part",
        ".01234567.kling-part",
        "1-0.01234567.kling-part",
        "1-0.png",
        ".hidden",
    ]
    for name in names:
        (tmp_path / name).write_bytes(b"")
        make_old(tmp_path / name)
    sweep(tmp_path)
    assert names_in(tmp_path) == sorted(names)


def test_what_cannot_be_swept_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of such a name, and a file that is not ours to remove, stop no sweep."""
    folder = tmp_path / ".1-0.00000000.kling-part"
    folder.mkdir()
    part = PartialFile(tmp_path, "1-0")
    make_old(folder)
    make_old(part.path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        sweep(tmp_path)
    assert names_in(tmp_path) == sorted([folder.name, part.path.name])
    sweep(tmp_path)
    assert names_in(tmp_path) == [folder.name]
    part.discard()


def test_another_process_may_sweep_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that is gone before it is looked at is no error."""
    part = PartialFile(tmp_path, "1-0")
    make_old(part.path)

    def gone(path: Path) -> os.stat_result:
        part.discard()
        return os.stat(path)  # noqa: PTH116 - Path's own is this

    monkeypatch.setattr(Path, "stat", gone)
    sweep(tmp_path)
    assert not os.path.lexists(part.path)


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """`sweep` raises where there is no folder."""
    with pytest.raises(FileNotFoundError):
        sweep(tmp_path / "none")


# Threads.


@pytest.mark.anyio
async def test_gives_what_the_work_gave() -> None:
    """Arguments go in, the result comes out, and it is made in another thread."""
    assert await in_thread(divmod, 7, 2) == (3, 1)
    assert await in_thread(threading.get_ident) != threading.get_ident()


@pytest.mark.anyio
async def test_raises_what_the_work_raised() -> None:
    """An error of the work comes out as it is."""
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)


@pytest.mark.anyio
async def test_a_cancelled_scope_waits_for_the_end() -> None:
    """A scope that is cancelled meanwhile ends after the work, and nothing behind it is begun."""
    go_on, done = threading.Event(), list[str]()
    scope = anyio.CancelScope()

    def work() -> None:
        assert go_on.wait(30)
        done.append("work")

    async def run() -> None:
        with scope:
            await in_thread(work)
            await asyncio.sleep(0)
            done.append("more")

    running = asyncio.create_task(run())
    await now_waiting()
    scope.cancel()
    await now_waiting(20)
    assert not running.done()
    go_on.set()
    await running
    assert done == ["work"]


@pytest.mark.anyio
async def test_a_cancelled_task_waits_for_the_end() -> None:
    """A task's own cancellation, as of a time-out, comes out when the thread has let go."""
    go_on, undone = threading.Event(), list[int]()

    def work() -> int:
        assert go_on.wait(30)
        return 7

    running = asyncio.create_task(in_thread(work, undo=undone.append))
    await now_waiting()
    running.cancel()
    await now_waiting(20)
    assert not running.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert undone == [7]


@pytest.mark.anyio
async def test_an_error_of_work_that_was_cancelled() -> None:
    """Nobody is told of an error that comes after the cancellation, the loop's handler neither."""
    go_on = threading.Event()

    def work() -> None:
        assert go_on.wait(30)
        raise LookupError

    running = asyncio.create_task(in_thread(work))
    await now_waiting()
    running.cancel()
    await now_waiting()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.anyio
async def test_own_threads_are_made_with_the_first_work() -> None:
    """They have a name of their own, are as few as was said, and are released with the rest."""
    threads = OwnThreads("kling_omni_async.test", 2)
    threads.close()  # nothing was made: nothing to release
    assert "kling_omni_async.test" not in str(threading.enumerate())
    meeting, names = threading.Barrier(2), set[str]()

    def work() -> None:
        meeting.wait(30)
        names.add(threading.current_thread().name)

    own_threads.set(threads)
    await asyncio.gather(*(in_thread(work) for _ in range(6)))
    assert names == {"kling_omni_async.test_0", "kling_omni_async.test_1"}
    threads.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        await in_thread(work)


def test_own_threads_are_never_very_many() -> None:
    """However many images may be on their way, 32 threads are enough for a disk."""
    threads = OwnThreads("kling_omni_async.test", 1000)
    assert threads.pool._max_workers == 32  # type: ignore[attr-defined]
    assert threads.pool is threads.pool
    threads.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_own_threads_work_behind_a_fork() -> None:
    """Made before a fork and used behind it, in parent and child, they work in both."""
    threads = OwnThreads("kling_omni_async.test", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests may be left
        child = os.fork()
    if not child:
        os._exit(threads.pool.submit(int, "7").result(30))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert threads.pool.submit(int, "8").result(30) == 8
    threads.close()
