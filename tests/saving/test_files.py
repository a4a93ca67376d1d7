"""Files: every byte is written and known, and none is left behind."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from pathlib import Path
from random import Random
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async import StorageError
from kling_omni_async._saving.files import (
    STALE_S,
    Content,
    PartialFile,
    content_of,
    sweep,
)
from kling_omni_async._saving.formats import HEAD_BYTES


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
