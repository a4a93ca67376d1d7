"""How a reader shows that its process lives: by a lock of the system, which needs no clock."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import attrs

from .contract import Member
from .memory import READER_S

if sys.platform == "win32":  # pragma: no cover - not run on other systems

    def _lock(fd: int, offset: int) -> None: ...

    def _unlock(fd: int, offset: int) -> None: ...

    def _is_locked(fd: int, offset: int) -> bool: ...

else:
    import fcntl

    def _lock(fd: int, offset: int) -> None:
        """Lock one byte, or raise where another process has it."""
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)

    def _unlock(fd: int, offset: int) -> None:
        """Let a byte go."""
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset)

    def _is_locked(fd: int, offset: int) -> bool:
        """Return whether another process has locked a byte."""
        try:
            # Shared, so that two who look at once do not take each other for the reader.
            fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, offset)
        except OSError:
            return True
        _unlock(fd, offset)
        return False


class _Inode(NamedTuple):
    pid: int  # a fork inherits what is known here, but no lock
    device: int
    number: int


@attrs.define(eq=False)
class _LockFile:
    """One descriptor for all books of a process: closing any other would drop all its locks."""

    inode: _Inode
    fd: int
    users: int = 0
    names: set[str] = attrs.field(factory=set[str])


_files: Final[dict[_Inode, _LockFile]] = {}
_guard: Final = threading.Lock()


class Lives(Protocol):
    """Tells which readers may still come back for what they have."""

    def hold(self, name: str) -> None:
        """Show from now on that a reader lives; once more does no harm."""

    def release(self, name: str) -> None:
        """Let others know that a reader has gone."""

    def is_gone(self, reader: Member, now: float) -> bool:
        """Return whether nothing shows that a reader lives."""
        ...

    def close(self) -> None:
        """Release all readers of this book object."""


class ReaderSilence:
    """Tells by how long a reader was not heard of, where there are no locks."""

    def hold(self, name: str) -> None:
        """Do nothing."""

    def release(self, name: str) -> None:
        """Do nothing."""

    def is_gone(self, reader: Member, now: float) -> bool:
        return reader.heard < now - READER_S

    def close(self) -> None:
        """Do nothing."""


class ReaderLocks:
    """The locks of the readers of one book object.

    Args:
        path: Of the file in which a byte is locked for each reader; nothing is written there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: _LockFile | None = None
        self._names: set[str] = set()

    def hold(self, name: str) -> None:
        with _guard:
            file = self._current()
            if name not in file.names:
                _lock(file.fd, _offset(name))
                file.names.add(name)
            self._names.add(name)

    def release(self, name: str) -> None:
        with _guard:
            _let_go(self._current(), self._names & {name})
            self._names.discard(name)

    def is_gone(self, reader: Member, now: float) -> bool:  # noqa: ARG002 - no clock is needed
        """Return whether no process has its lock, however long it stands still."""
        with _guard:
            file, name = self._current(), reader.name
            return name not in file.names and not _is_locked(file.fd, _offset(name))

    def close(self) -> None:
        with _guard:
            self._leave()
            self._names.clear()

    def _current(self) -> _LockFile:
        """Return the file that has the name now, with all locks of ours: it may be a new one."""
        if self._file is None or _inode(self._path) != self._file.inode:
            self._leave()
            self._file = file = _opened(self._path)
            file.users += 1
            for name in self._names - file.names:
                _lock(file.fd, _offset(name))
            file.names |= self._names
        return self._file

    def _leave(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        _let_go(file, self._names)
        file.users -= 1
        if not file.users:
            del _files[file.inode]
            os.close(file.fd)


def _opened(path: Path) -> _LockFile:
    """Return the file, opened if this process has not done so yet."""
    found = _inode(path)
    if found is not None and found in _files:
        return _files[found]
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    status = os.fstat(fd)
    inode = _Inode(os.getpid(), status.st_dev, status.st_ino)
    return _files.setdefault(inode, _LockFile(inode, fd))


def _let_go(file: _LockFile, names: set[str]) -> None:
    for name in names & file.names:
        _unlock(file.fd, _offset(name))
    file.names -= names


def _inode(path: Path) -> _Inode | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _Inode(os.getpid(), status.st_dev, status.st_ino)


def _offset(name: str) -> int:
    """Return the byte of a reader: of so many that no two readers share one."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")


def lives_of(book: Path) -> Lives:
    """Return what tells of the readers of a book in a file."""
    if sys.platform == "win32":  # pragma: no cover - not run on other systems
        return ReaderSilence()
    return ReaderLocks(book.with_name(book.name + "-readers"))
