"""An exclusive lock on an open file, for as long as it is open."""

from __future__ import annotations

import sys

if sys.platform == "win32":  # pragma: no cover - not run on other systems
    import msvcrt
    import os

    def lock(fd: int) -> None:
        """Take the lock, or raise OSError at once if another process has it."""
        os.lseek(fd, 1 << 40, os.SEEK_SET)  # a locked byte cannot be read: lock one past the end
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)

    IS_LOCKED = PermissionError

else:
    import fcntl

    def lock(fd: int) -> None:
        """Take the lock, or raise OSError at once if another process has it."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    IS_LOCKED = BlockingIOError
