"""Files that an image is written to before it gets its name, and the threads that write them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple

import anyio
import attrs

from kling_omni_async._http import out_of_descriptors
from kling_omni_async.errors import StorageError

from .formats import HEAD_BYTES, TAIL_BYTES

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Taker = Callable[[bytes], Awaitable[None]]
"""Takes the next piece of an image."""

STALE_S: Final = 86_400.0
"""A file that was not written to for so long, in s, was left behind by a process that died."""

_NAME = re.compile(r"\..+\.[0-9a-f]{8}\.kling-part")
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_CHUNK_BYTES: Final = 1_048_576
_MOST_THREADS: Final = 32


@attrs.frozen
class Content:
    """What is known of a file's bytes.

    Attributes:
        size: In bytes.
        sha256: In hexadecimal.
        head: The first `HEAD_BYTES`.
        tail: The last `TAIL_BYTES`.
    """

    size: int
    sha256: str
    head: bytes
    tail: bytes


@attrs.frozen
class Stored:
    """An image that is in a store, whole.

    Attributes:
        key: Its path or its object key.
        size: In bytes.
        sha256: In hexadecimal.
        content_type: As in HTTP.
    """

    key: str
    size: int
    sha256: str
    content_type: str


class Summary:
    """Gathers what is known of a file that is read piece by piece."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._size = 0
        self._head = self._tail = b""

    def add(self, piece: bytes) -> None:
        """Note the next piece."""
        self._digest.update(piece)
        self._size += len(piece)
        self._head = (self._head + piece[:HEAD_BYTES])[:HEAD_BYTES]
        self._tail = (self._tail + piece[-TAIL_BYTES:])[-TAIL_BYTES:]

    def content(self) -> Content:
        """Return what is known so far."""
        return Content(self._size, self._digest.hexdigest(), self._head, self._tail)


class PartialFile:
    """A file under a temporary name, its digest kept along. All of it blocks.

    Args:
        folder: Where it is made.
        stem: The beginning of its name.
        mode: Who may read and write it, before the umask.

    Raises:
        OSError: It cannot be made.

    Attributes:
        path: Its temporary name.
    """

    def __init__(self, folder: Path, stem: str, *, mode: int = 0o666) -> None:
        # O_EXCL: in a folder that many may write to, somebody could have laid a link there.
        self.path: Path = folder / f".{stem}.{secrets.token_hex(4)}.kling-part"
        # No buffer: what a full disk says must come out of `write`, not out of a later one.
        self._file = open(os.open(self.path, _FLAGS, mode), "wb", buffering=0)  # noqa: PTH123, SIM115 - Path.open knows no mode
        self._summary = Summary()

    def write(self, piece: bytes) -> None:
        """Append a piece.

        Raises:
            OSError: It cannot be written, such as on a full disk.
        """
        self._summary.add(piece)
        rest = memoryview(piece)
        while rest:  # without a buffer a write may take less than it was given
            rest = rest[self._file.write(rest) :]

    def content(self) -> Content:
        """Return what was written."""
        return self._summary.content()

    def seal(self) -> None:
        """Bring it to the disk and close it.

        Raises:
            OSError: The disk did not take it all.
        """
        # Before the name: a crash must not leave one with nothing behind it.
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Remove its temporary name; the name that it was given since stays."""
        with suppress(OSError):  # some file systems tell only now that the disk is full
            self._file.close()
        with suppress(OSError):  # one that stays is swept away later
            self.path.unlink(missing_ok=True)


def content_of(path: Path) -> Content:
    """Read a whole file for what is known of it.

    Raises:
        OSError: It cannot be read.
    """
    summary = Summary()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            summary.add(piece)
    return summary.content()


def sweep(folder: Path) -> None:
    """Remove the partial files of processes that died.

    Raises:
        OSError: The folder cannot be read.
    """
    # By their age alone: whether one of another machine on the same share lives cannot be known.
    oldest = time.time() - STALE_S
    with os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                _remove_if_stale(Path(entry.path), oldest)


def _remove_if_stale(path: Path, oldest: float) -> None:
    with suppress(OSError):  # another process was faster, or it is not ours to remove
        if path.stat().st_mtime < oldest:
            path.unlink()


@contextmanager
def translate_os_errors(target: str) -> Generator[None]:
    """Raise an error of the file system in our words."""
    try:
        yield
    except (OSError, ValueError) as error:  # the latter for what no path can hold
        text = getattr(error, "strerror", None) or error
        reason = "descriptors" if out_of_descriptors(error) else "store"
        raise StorageError(f"cannot store in {target}: {text}", reason=reason) from None


def not_ours(key: str) -> StorageError:
    """Return the error for a name that something else has."""
    return StorageError(
        f"{key} is there and is not this image, whole: move it away, or pass overwrite=True",
        reason="exists",
    )


class OwnThreads:
    """Threads for one kind of work, so that a slow disk or DNS holds up nothing else.

    They are made with the first work: a pool that was made before `os.fork` has no threads in the
    child, and would wait for them.

    Args:
        name: What their names begin with.
        most: How many there may be; `_MOST_THREADS` at the very most.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = min(most, _MOST_THREADS)
        self._pool: ThreadPoolExecutor | None = None

    @property
    def pool(self) -> Executor:
        """The threads."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._most, self._name)
        return self._pool

    def close(self) -> None:
        """Release them; work that still runs is not waited for, work that waits is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


own_threads: Final[ContextVar[OwnThreads | None]] = ContextVar("own_threads", default=None)
"""The threads of the running task; by default those of its loop."""


async def in_thread(
    work: Callable[[*Ts], T], *args: *Ts, undo: Callable[[T], object] | None = None
) -> T:
    """Run work in a thread, and wait for its end even if cancelled: it may hold a file.

    Args:
        work: What blocks.
        args: For it.
        undo: Takes a result that nobody can take any more.
    """
    # Not anyio's: a plain `task.cancel()` would leave its thread running, with the file in it.
    own = own_threads.get()
    pool = None if own is None else own.pool
    running = asyncio.get_running_loop().run_in_executor(pool, work, *args)
    try:
        await _ended(running)
    except asyncio.CancelledError:  # by a task's own `cancel`, which no scope keeps off
        await _ended(running)
        if running.exception() is None and undo is not None:
            undo(running.result())
        raise
    return running.result()


async def _ended(running: asyncio.Future[T]) -> None:
    with anyio.CancelScope(shield=True):
        await asyncio.wait([running])
