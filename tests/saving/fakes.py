"""A store and a fetcher without disk and network, whose faults are said beforehand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kling_omni_async import DownloadError, KlingOmniError, StorageError
from kling_omni_async._saving.files import Content, Stored
from kling_omni_async._saving.threads import in_thread

# A small PNG that is whole.
PNG: Final = b"\x89PNG\r\n\x1a\n" + bytes(36) + b"\0\0\0\0IEND\xaeB\x60\x82"
MOMENT_S: Final = 0.01
"""How long all takes that a thread does."""


class DefectError(Exception):
    """A bug in what the saver calls."""


class Defect(BaseException):
    """A bug that no ``except Exception`` sees."""


def url_of(task_id: str, index: int) -> str:
    """Give the URL of an image, which tells whose it is."""
    return f"https://img.example/{task_id}/{index}.png"


class FakePartialFile:
    """A temporary file in memory."""

    def __init__(self, stem: str, parts: set[FakePartialFile]) -> None:
        self.path = Path(f"/nowhere/{stem}")
        self._content = Content()
        self._parts = parts
        parts.add(self)

    def write(self, piece: bytes) -> None:
        if self not in self._parts:
            raise ValueError("write to a part that was discarded")
        self._content.add(piece)

    def stored(self, rest: bytes) -> Stored:
        self.write(rest)
        size, digest = self._content.size, self._content.sha256
        return Stored(self.path.name, size, digest, "image/png")

    def discard(self) -> None:
        self._parts.discard(self)


class FakeStore:
    """A store in memory.

    Attributes:
        there: What is in it.
        parts: Temporary files that are not discarded.
        looked: How often an image was looked for.
        fails: Whether it takes nothing.
    """

    def __init__(self) -> None:
        self.there: dict[str, Stored] = {}
        self.parts: set[FakePartialFile] = set()
        self.looked = 0
        self.fails = False

    async def try_out(self) -> None:
        await in_thread(self.parts.copy)

    async def begin(self, stem: str, *, look: bool) -> Stored | FakePartialFile:
        return await in_thread(self._begin, stem, look, undo=self._undo)

    def _begin(self, stem: str, look: bool) -> Stored | FakePartialFile:  # noqa: FBT001 - threads take no keywords
        self.looked += look
        if look and stem in self.there:
            return self.there[stem]
        return FakePartialFile(stem, self.parts)

    def _undo(self, begun: Stored | FakePartialFile) -> None:
        if isinstance(begun, FakePartialFile):
            begun.discard()

    async def keep(
        self, part: FakePartialFile, rest: bytes, stem: str, *, overwrite: bool
    ) -> Stored:
        del overwrite
        assert part in self.parts
        stored = await in_thread(part.stored, rest)
        if self.fails:
            raise StorageError("the disk is full", reason="store")
        part.discard()
        return self.there.setdefault(stem, stored)


def resets() -> DownloadError:
    """Fail in a way that may pass."""
    return DownloadError("reset", reason="reset")


def has_no_descriptor() -> DownloadError:
    """Fail for want of file descriptors."""
    return DownloadError("Too many open files", reason="descriptors")


def is_no_image() -> DownloadError:
    """Fail for good."""
    return DownloadError("no image", http_status=200, reason="not-an-image")


FAULTS: Final[dict[str, Callable[[], BaseException] | None]] = {
    "good": None,
    "resets": resets,
    "no image": is_no_image,
    "descriptors": has_no_descriptor,
    "slow disk": None,
    "defect": DefectError,
    "base defect": Defect,
}


class FakeFetcher:
    """Brings images after a while.

    Attributes:
        says: What comes next, each once: a fault and the time for it.
        running: The URLs on their way.
        peak: The most there ever were.
        defect: The class of the bug that was raised.
        closed: How often it was closed.
    """

    def __init__(self) -> None:
        self.says: deque[tuple[str, float]] = deque()
        self.running: list[str] = []
        self.peak = 0
        self.defect: type[BaseException] | None = None
        self.closed = 0

    async def fetch(self, url: str, write: Callable[[bytes], object]) -> bytes:
        assert not self.closed
        fault, delay = self.says.popleft() if self.says else ("good", 0.5)
        self.running.append(url)
        self.peak = max(self.peak, len(self.running))
        try:
            await asyncio.sleep(delay)
            limit = asyncio.timeout(MOMENT_S / 2 if fault == "slow disk" else None)
            try:
                async with limit:
                    await in_thread(write, PNG[:20])
            except TimeoutError:
                raise resets() from None
            make = FAULTS[fault]
            if make is not None:
                error = make()
                if not isinstance(error, KlingOmniError) and self.defect is None:
                    self.defect = type(error)
                raise error
            return PNG[20:]
        finally:
            self.running.remove(url)

    async def aclose(self) -> None:
        self.closed += 1
