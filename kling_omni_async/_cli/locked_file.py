"""A file that one process at a time appends to; each piece is written by one call."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable
from typing import BinaryIO, Final

from .exit import Exit, OutputError, UsageError
from .terminal import note

if sys.platform == "win32":  # pragma: no cover - not run on other systems
    import msvcrt

    def lock(fd: int) -> None:
        """Lock a file while it is open, or raise OSError at once if another process has."""
        os.lseek(fd, 1 << 40, os.SEEK_SET)  # a locked byte cannot be read: lock one past the end
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)

    IS_LOCKED = PermissionError

else:
    import fcntl

    def lock(fd: int) -> None:
        """Lock a file while it is open, or raise OSError at once if another process has."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    IS_LOCKED = BlockingIOError

_SYNC_EVERY_S: Final = 1.0
_FLAGS: Final = os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
_NO_LOCKS: Final = frozenset(
    {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
)
"""What file systems answer that have no locks, as Lustre and NFS may."""


class LockedFile:
    """A file that is appended to, and locked while it is open.

    What is no regular file (``/dev/full``, a pipe) is only written to.
    """

    def __init__(self, path: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._fd, self.is_regular = _open(path)
        self._synced_at = clock()
        self._size = 0
        try:
            if self.is_regular:
                self._lock()
        except BaseException:
            self.release()
            raise

    def _lock(self) -> None:
        try:
            lock(self._fd)
            # Who had the lock until now may have given the file another name: it is his.
            is_ours = self._is_in_place(os.fstat(self._fd))
        except IS_LOCKED:
            is_ours = False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise OutputError(self.path, error, code=Exit.USAGE) from None
            note(
                f"warning: {self.path} cannot be locked ({error.strerror}): see that no other "
                "run writes to it"
            )
            return
        if not is_ours:
            raise UsageError(f"{self.path} is in use by another process")

    def open_to_read(self) -> BinaryIO:
        """Open it once more, to be read from its beginning."""
        os.lseek(self._fd, 0, os.SEEK_SET)  # where it is written does not depend on that
        return open(self._fd, "rb", closefd=False)

    def cut(self, size: int) -> int:
        """Cut off what is behind a size in bytes, and return how much that was."""
        rest = os.fstat(self._fd).st_size - size
        if rest:
            os.ftruncate(self._fd, size)
        self._size = size
        return rest

    def append(self, data: bytes, *, at_once: bool = False) -> None:
        """Append a piece by one write, or raise `OutputError`; `at_once` sees it on the disk."""
        try:
            self._require_place()
            while data:  # once, but where a disk fills up or a signal comes
                written = os.write(self._fd, data)
                self._size += written
                data = data[written:]
            if at_once or self._clock() - self._synced_at >= _SYNC_EVERY_S:
                self._sync()
        except OSError as error:
            raise OutputError(self.path, error) from None

    def _require_place(self) -> None:
        """Raise an OSError if what is written would be found nowhere."""
        if not self.is_regular:
            return
        here = os.fstat(self._fd)
        if not self._is_in_place(here):
            raise FileNotFoundError("it was deleted or replaced while it was in use")
        if here.st_size < self._size:
            raise OSError("it was emptied or cut while it was in use")

    def _is_in_place(self, here: os.stat_result) -> bool:
        try:
            return os.path.samestat(here, os.stat(self.path))  # noqa: PTH116 - as in `_open`
        except FileNotFoundError:
            return False

    def _sync(self) -> None:
        if self.is_regular:
            os.fsync(self._fd)
        self._synced_at = self._clock()

    def close(self, *, failed: bool = False) -> None:
        """Bring it to the disk and close it; unless something failed, see that it is there."""
        try:
            self.keep(failed=failed)
        finally:
            self.release()

    def keep(self, *, failed: bool = False) -> None:
        """Bring it to the disk; unless something failed, see that it is there."""
        # Some systems tell only now that something which was written before is lost.
        try:
            if not failed:
                self._require_place()
            self._sync()
        except OSError as error:
            raise OutputError(self.path, error) from None

    def release(self) -> None:
        """Close it as it is."""
        os.close(self._fd)


def _open(path: str) -> tuple[int, bool]:
    try:
        # A pipe that is opened for reading too would never tell that its reader has gone.
        regular = not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH110, PTH116
        return os.open(path, _FLAGS | (os.O_RDWR if regular else os.O_WRONLY), 0o666), regular
    except OSError as error:
        raise OutputError(path, error, code=Exit.USAGE) from None
