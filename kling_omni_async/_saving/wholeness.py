"""Whether an image has come as a whole: its parts are followed up to its end. Pure.

HTTP cannot show a cut where the announced length is too short. A search for an end mark would find
that of a preview inside, or one that stands in the pixels by chance, so each part is passed over by
the length that it tells.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from struct import unpack
from typing import Final, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Waits for more bytes at each step."""

MOST_PARTS: Final = 1_000_000
"""How many parts of an image are followed; a host could send very many small ones."""

_HEAD_BYTES: Final = 12
"""What tells the walks apart, and no image is shorter."""

_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
"""A mark of a JPEG with a length, or its end: not in pixels, no restart, no filling."""

_END_OF_JPEG: Final = 0xD9
_WEBP_IMAGES: Final = frozenset({b"VP8 ", b"VP8L", b"ANMF"})
_LARGEST_META: Final = 1_048_576
_DESCRIPTIONS: Final = frozenset({b"meta", b"moov"})
_DONE: Final = object()


class Wholeness:
    """Follows the parts of an image as its bytes pass.

    Attributes:
        is_whole: Whether its end has come; what comes behind it, such as what some hosts add, does
            not count.
    """

    def __init__(self) -> None:
        self.is_whole = False
        self._held = b""
        self._at = 0  # of the first byte held that was not passed
        self._steps: Steps[None] | None = self._walk()
        next(self._steps)

    def add(self, piece: bytes) -> None:
        """Follow the next piece."""
        if self._steps is not None:
            self._held = self._held[self._at :] + piece
            self._at = 0
            if next(self._steps, _DONE) is _DONE:
                self._steps, self._held = None, b""

    def _walk(self) -> Steps[None]:
        while len(self._held) < _HEAD_BYTES:
            yield
        head = self._held
        if head.startswith(b"\x89PNG"):
            yield from self._png()
        elif head.startswith(b"\xff\xd8"):
            yield from self._jpeg()
        elif head.startswith(b"GIF8"):
            yield from self._gif()
        elif head.startswith(b"RIFF"):
            yield from self._webp()
        elif head[4:8] == b"ftyp":
            yield from self._boxes()

    def _png(self) -> Steps[None]:
        """Follow chunks up to IEND, each with its length before it and its check behind it."""
        yield from self._skip(8)
        for _ in range(MOST_PARTS):
            size, kind = unpack(">I4s", (yield from self._take(8)))
            yield from self._skip(size + 4)
            if kind == b"IEND":
                self.is_whole = True
                return

    def _jpeg(self) -> Steps[None]:
        """Follow segments, whose previews are inside of them, and pixels, which have no length."""
        yield from self._skip(2)
        for _ in range(MOST_PARTS):
            if (yield from self._next_marker()) == _END_OF_JPEG:
                self.is_whole = True
                return
            size = int.from_bytes((yield from self._take(2)))
            yield from self._skip(max(0, size - 2))

    def _next_marker(self) -> Steps[int]:
        while (found := _MARKER.search(self._held, self._at)) is None:
            # A marker may lie across two pieces.
            self._at = max(self._at, len(self._held) - self._held.endswith(b"\xff"))
            yield
        self._at = found.end()
        return self._held[found.end() - 1]

    def _gif(self) -> Steps[None]:
        """Follow images and extensions up to the trailer."""
        flags = (yield from self._take(13))[10]
        yield from self._skip(_colour_bytes(flags))
        for _ in range(MOST_PARTS):
            kind = yield from self._take(1)
            if kind == b";":
                self.is_whole = True
                return
            if kind == b",":
                flags = (yield from self._take(9))[8]
                yield from self._skip(_colour_bytes(flags) + 1)
                yield from self._skip_blocks()
            elif kind == b"!":
                yield from self._skip(1)
                yield from self._skip_blocks()
            elif kind != b"\0":  # some programs write empty blocks too many
                return

    def _skip_blocks(self) -> Steps[None]:
        """Pass blocks of up to 255 bytes each, up to an empty one."""
        while True:
            # A GIF of 100 MB has 400,000 of them: no generator for each.
            held, at, end = self._held, self._at, len(self._held)
            while at < end and held[at]:
                at += held[at] + 1
            if at < end:
                self._at = at + 1
                return
            self._at = end
            yield from self._skip(at - end)
            while self._at >= len(self._held):
                yield

    def _webp(self) -> Steps[None]:
        """Follow chunks as far as the file says that it goes."""
        left = int.from_bytes((yield from self._take(12))[4:8], "little") - 4
        found = False
        for _ in range(MOST_PARTS):
            if left < 8:  # noqa: PLR2004 - bytes of a chunk's head
                break
            kind, size = unpack("<4sI", (yield from self._take(8)))
            left -= 8 + size
            if left < 0:
                return
            # What fills it up to an even length may be missing behind the last one.
            fill = min(size & 1, left)
            left -= fill
            yield from self._skip(size + fill)
            found = found or kind in _WEBP_IMAGES
        self.is_whole = found

    def _boxes(self) -> Steps[None]:
        """Follow the boxes of an AVIF (ISO/IEC 14496-12, 4.2): it must have what it describes."""
        seen: set[bytes] = set()
        has_inside = False
        for _ in range(MOST_PARTS):
            size, kind = unpack(">I4s", (yield from self._take(8)))
            self.is_whole = self.is_whole and b"mdat" in seen
            head = 8
            if size == 1:
                size, head = int.from_bytes((yield from self._take(8))), 16
            if size == 0:  # it goes on to the end of the file, wherever that is
                self.is_whole = self.is_whole or bool(seen & _DESCRIPTIONS)
                return
            if size < head:  # what is behind the end is no box
                return
            if kind == b"meta" and size <= _LARGEST_META:
                # What describes the picture may hold it, too.
                has_inside = b"idat" in (yield from self._take(size - head))
            else:
                yield from self._skip(size - head)
            seen.add(kind)
            self.is_whole = has_inside or (b"mdat" in seen and bool(seen & _DESCRIPTIONS))

    def _take(self, size: int) -> Steps[bytes]:
        while len(self._held) - self._at < size:
            yield
        self._at += size
        return self._held[self._at - size : self._at]

    def _skip(self, size: int) -> Steps[None]:
        while (have := len(self._held) - self._at) < size:
            size -= have
            self._at += have
            yield
        self._at += size


def _colour_bytes(flags: int) -> int:
    """Return the size of a GIF's colour table, by the flags that announce it."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
