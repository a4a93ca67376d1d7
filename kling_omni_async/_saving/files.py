"""Temporary files: an image is written to one, and gets its name only when it is whole."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

from .formats import HEAD_BYTES, TAIL_BYTES

Taker = Callable[[bytes], Awaitable[None]]
"""Takes the next piece of an image."""

STALE_S: Final = 86_400.0
"""A part that was not written to for so long, in s, was left behind by a process that died."""

_NAME = re.compile(r"\..+\.[0-9a-f]{8}\.kling-part")
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_CHUNK_BYTES: Final = 1_048_576


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


class Summary:
    """Gathers what is known of a file that is read piece by piece."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._size = 0
        self._head = self._tail = b""

    def add(self, piece: bytes) -> None:
        """Take the next piece in."""
        self._digest.update(piece)
        self._size += len(piece)
        self._head = (self._head + piece[:HEAD_BYTES])[:HEAD_BYTES]
        self._tail = (self._tail + piece[-TAIL_BYTES:])[-TAIL_BYTES:]

    def content(self) -> Content:
        """Tell what is known."""
        return Content(self._size, self._digest.hexdigest(), self._head, self._tail)


class Part:
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
        self.path: Path = folder / f".{stem}.{secrets.token_hex(4)}.kling-part"
        self._file = open(os.open(self.path, _FLAGS, mode), "wb", buffering=0)  # noqa: PTH123, SIM115 - Path.open knows no mode
        self._summary = Summary()

    def write(self, piece: bytes) -> None:
        """Append a piece.

        Raises:
            OSError: It cannot be written, such as on a full disk.
        """
        self._summary.add(piece)
        rest = memoryview(piece)
        while rest:
            rest = rest[self._file.write(rest) :]

    def content(self) -> Content:
        """Tell what was written."""
        return self._summary.content()

    def seal(self) -> None:
        """Bring it to the disk and close it.

        Raises:
            OSError: The disk did not take it all.
        """
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Take its temporary name away; the name that it was given since stays."""
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
    """Remove the parts of processes that died.

    Raises:
        OSError: The folder cannot be read.
    """
    oldest = time.time() - STALE_S
    with os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                _remove_if_stale(Path(entry.path), oldest)


def _remove_if_stale(path: Path, oldest: float) -> None:
    with suppress(OSError):  # another process was faster, or it is not ours to remove
        if path.stat().st_mtime < oldest:
            path.unlink()
