"""The images: real PNG files drawn from a name, and under which path each is found. Pure."""

from __future__ import annotations

import base64
import colorsys
import functools
import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from itertools import repeat
from typing import TypeAlias
from urllib.parse import quote, unquote

from attrs import frozen

SIDE = 256  # pixels, width and height
LEAST_BYTES = 89  # of a file: one pixel and one empty chunk of padding
PREFIX = "/assets/"  # of every image's path

_CELL = 32
_MARK_ROWS = 24
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RAMP = bytes(i // 2 for i in range(2 * SIDE))
_INVERTED = bytes(range(255, -1, -1))
_CHUNK_FRAME = 12  # bytes of length, type and checksum
# bytes of one chunk; all but the last are one object, sent again and again
_LARGEST_PADDING = 2**20
_LARGEST_IN_MEMORY = 2**16  # bytes; a file up to here is sent as a whole

_MARKED = "watermarked/"
# A signed URL is full of what a URL library would rewrite: escapes in lower case, needless ones,
# a plus for a space. Whoever does not pass it on byte for byte is refused.
_QUERY = "?Expires=1780000000&Signature={}%2Fc%2B%3d~&x=a+b%7e"
_PLACE = re.compile(rf"(?:hop-([0-9]{{1,9}})/)?({_MARKED})?([^/]+)-([0-9]{{1,4}})\.png")


@frozen
class Runs:
    """Bytes as a run-length code: each piece, and how many times it comes in a row."""

    pieces: tuple[tuple[bytes, int], ...]

    def __len__(self) -> int:
        return sum(len(piece) * times for piece, times in self.pieces)

    def __iter__(self) -> Iterator[bytes]:
        for piece, times in self.pieces:
            yield from repeat(piece, times)


Content: TypeAlias = bytes | Runs


def slices(content: Content, size: int, start: int, stop: int) -> Iterator[memoryview]:
    """Cut the bytes from ``start`` to ``stop`` into slices of ``size``, without copying any."""
    at = 0
    for piece in (content,) if isinstance(content, bytes) else content:
        view = memoryview(piece)[max(0, start - at) : max(0, stop - at)]
        for begin in range(0, len(view), size):
            yield view[begin : begin + size]
        at += len(piece)


def first(content: Content, count: int) -> bytes:
    """Return the first bytes of some content."""
    return b"".join(slices(content, max(1, count), 0, count))


def draw(name: str, *, marked: bool = False) -> bytes:
    """Draw the picture that belongs to a name: a PNG file of some kilobytes, always the same."""
    return b"".join(_picture(_digest(name), marked=marked))


def draw_sized(name: str, size: int, *, marked: bool = False) -> Content:
    """Draw the picture of a name as a file of ``size`` bytes, whose memory does not grow."""
    head, tail = _picture(_digest(name), marked=marked)
    # private chunks fill a file up: there is always one, so that any size can be met to the byte
    if len(head) + len(tail) + _CHUNK_FRAME > size:
        head, tail = _pixel(_digest(name), marked=marked)
    padding = _padding(size - len(head) - len(tail))
    content = Runs(((head, 1), *padding, (tail, 1)))
    return first(content, size) if size <= _LARGEST_IN_MEMORY else content


def _digest(name: str) -> bytes:
    # an id can hold half of a surrogate pair: JSON allows it
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def _picture(digest: bytes, *, marked: bool) -> tuple[bytes, bytes]:
    """Draw a file in two parts, between which other chunks may come."""
    # 8 bits a pixel, 3: indexes of a palette
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 3, 0, 0, 0)
    pixels = b"".join(b"\0" + _row(y, digest, marked=marked) for y in range(SIDE))
    head = _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"PLTE", _palette(digest))
    return head, _image_data(pixels, level=6)


def _pixel(digest: bytes, *, marked: bool) -> tuple[bytes, bytes]:
    """Draw the smallest file that still differs from name to name: 64 bits of colour."""
    # 16 bits a channel, 6: red, green, blue and alpha
    header = struct.pack(">IIBBBBB", 1, 1, 16, 6, 0, 0, 0)
    colour = digest[:8].translate(_INVERTED) if marked else digest[:8]
    return _SIGNATURE + _chunk(b"IHDR", header), _image_data(b"\0" + colour, level=0)


def _image_data(pixels: bytes, *, level: int) -> bytes:
    return _chunk(b"IDAT", zlib.compress(pixels, level)) + _chunk(b"IEND", b"")


def _padding(size: int) -> tuple[tuple[bytes, int], ...]:
    """Fill ``size`` bytes with chunks, all but the last of them the same."""
    times, rest = divmod(size, _LARGEST_PADDING)
    # a rest too small for a chunk of its own makes the last chunk longer
    if rest < _CHUNK_FRAME and times:
        times, rest = times - 1, rest + _LARGEST_PADDING
    full = ((_filler(_LARGEST_PADDING), times),) if times else ()
    return (*full, (_filler(rest), 1))


@functools.lru_cache(maxsize=8)
def _filler(size: int) -> bytes:
    return _chunk(b"kpAd", bytes(size - _CHUNK_FRAME))


def _palette(digest: bytes) -> bytes:
    """Run from a dark shade of one hue to a light shade of another."""
    hue, turn = digest[0] / 256, 0.2 + digest[1] / 640
    dark = colorsys.hsv_to_rgb(hue, 0.9, 0.35)
    light = colorsys.hsv_to_rgb(hue + turn, 0.5, 1.0)
    return bytes(
        round(255 * (a + (b - a) * i / 255))
        for i in range(256)
        for a, b in zip(dark, light, strict=True)
    )


def _row(y: int, digest: bytes, *, marked: bool) -> bytes:
    """Cut a diagonal ramp into cells, some of them inverted, the right half a mirror."""
    if marked and y >= SIDE - _MARK_ROWS:
        return b"\xff" * SIDE
    rising = _RAMP[y : y + SIDE]
    falling = rising.translate(_INVERTED)
    bits = digest[2 + y // _CELL]
    cells = (0, 1, 2, 3, 3, 2, 1, 0)
    return b"".join(
        (rising if bits >> cell & 1 else falling)[i * _CELL : (i + 1) * _CELL]
        for i, cell in enumerate(cells)
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


@frozen
class Place:
    """One image, by what its URL names; ``hops`` is how many redirects come before it."""

    task_id: str
    index: int
    watermarked: bool = False
    query: str = ""
    hops: int | None = None

    @property
    def path(self) -> str:
        """The path of the image's own URL."""
        folder = _MARKED if self.watermarked else ""
        return f"{PREFIX}{folder}{quote(self.task_id, safe='')}-{self.index}.png"

    def via(self, hops: int) -> str:
        """Return the path and query from which so many redirects still follow."""
        return f"{PREFIX}hop-{hops}/{self.path.removeprefix(PREFIX)}{self.query}"


def read_place(raw_path: str) -> Place | None:
    """Read which image a path and query name, there or not; None if they name none."""
    path, mark, query = raw_path.partition("?")
    found = _PLACE.fullmatch(path.removeprefix(PREFIX))
    if found is None:
        return None
    hops, folder, task_id, index = found.groups()
    way = None if hops is None else int(hops)
    return Place(unquote(task_id), int(index), folder is not None, mark + query, way)


def signature(place: Place, seed: int) -> str:
    """Make the query without which the image of a signed URL is refused."""
    digest = hashlib.sha256(f"{seed}{place.path}".encode()).digest()
    return _QUERY.format(base64.urlsafe_b64encode(digest[:12]).decode())
