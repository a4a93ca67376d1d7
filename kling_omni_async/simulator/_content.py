"""Bodies of answers, the big ones kept small in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from attrs import frozen


@frozen
class Runs:
    """Bytes as a run-length code: each piece, and how many times it comes in a row."""

    pieces: tuple[tuple[bytes, int], ...]

    def __len__(self) -> int:
        return sum(len(piece) * times for piece, times in self.pieces)

    def __iter__(self) -> Iterator[bytes]:
        for piece, times in self.pieces:
            for _ in range(times):
                yield piece


Content: TypeAlias = bytes | Runs


def slices(content: Content, size: int, start: int, stop: int) -> Iterator[memoryview]:
    """Cut a part of some content into slices, without copying any.

    Args:
        content: What to cut.
        size: The most bytes of a slice, at least 1.
        start: The first byte of the part.
        stop: The first byte after it.
    """
    at = 0
    for piece in (content,) if isinstance(content, bytes) else content:
        view = memoryview(piece)[max(0, start - at) : max(0, stop - at)]
        for begin in range(0, len(view), size):
            yield view[begin : begin + size]
        at += len(piece)


def first(content: Content, count: int) -> bytes:
    """Return the first bytes of some content."""
    return b"".join(slices(content, max(1, count), 0, count))
