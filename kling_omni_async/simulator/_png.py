"""Real PNG files drawn from a name, with nothing but the standard library."""

from __future__ import annotations

import colorsys
import functools
import hashlib
import struct
import zlib

from ._content import Content, Runs, first

SIDE = 256
"""Width and height in pixels."""

LEAST_BYTES = 89
"""What :func:`draw_sized` needs: one pixel and one empty chunk of padding."""

_CELL = 32
_MARK_ROWS = 24
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RAMP = bytes(i // 2 for i in range(2 * SIDE))
_INVERTED = bytes(range(255, -1, -1))
_CHUNK_FRAME = 12  # length, type and checksum
_LARGEST_PADDING = 2**20
_LARGEST_IN_MEMORY = 2**16


def draw(name: str, *, marked: bool = False) -> bytes:
    """Draw the picture that belongs to a name: the same bytes each time, other bytes for others.

    Args:
        name: Anything; it decides colours and pattern.
        marked: Whether a light bar at the bottom stands for a watermark.

    Returns:
        A PNG file of 256 by 256 pixels, some kilobytes long.
    """
    return b"".join(_picture(_digest(name), marked=marked))


def draw_sized(name: str, size: int, *, marked: bool = False) -> Content:
    """Draw the picture that belongs to a name as a file of a given size.

    Private chunks fill the file up. Where the usual picture does not fit in, there is one pixel.

    Args:
        name: Anything; it decides colours and pattern.
        size: Bytes of the file, at least :data:`LEAST_BYTES`.
        marked: Whether the picture is that of the watermarked copy.

    Returns:
        A PNG file whose memory does not grow with its size.
    """
    head, tail = _picture(_digest(name), marked=marked)
    if len(head) + len(tail) + _CHUNK_FRAME > size:
        head, tail = _pixel(_digest(name), marked=marked)
    padding = _padding(size - len(head) - len(tail))
    content = Runs(((head, 1), *padding, (tail, 1)))
    return first(content, size) if size <= _LARGEST_IN_MEMORY else content


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def _picture(digest: bytes, *, marked: bool) -> tuple[bytes, bytes]:
    """Draw a file in two parts, between which other chunks may come."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 3, 0, 0, 0)
    pixels = b"".join(b"\0" + _row(y, digest, marked=marked) for y in range(SIDE))
    head = _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"PLTE", _palette(digest))
    return head, _image_data(pixels, level=6)


def _pixel(digest: bytes, *, marked: bool) -> tuple[bytes, bytes]:
    """Draw the smallest file that still differs from name to name: 64 bits of colour."""
    header = struct.pack(">IIBBBBB", 1, 1, 16, 6, 0, 0, 0)
    colour = digest[:8].translate(_INVERTED) if marked else digest[:8]
    return _SIGNATURE + _chunk(b"IHDR", header), _image_data(b"\0" + colour, level=0)


def _image_data(pixels: bytes, *, level: int) -> bytes:
    return _chunk(b"IDAT", zlib.compress(pixels, level)) + _chunk(b"IEND", b"")


def _padding(size: int) -> tuple[tuple[bytes, int], ...]:
    """Fill ``size`` bytes with chunks, all but the last of them the same."""
    times, rest = divmod(size, _LARGEST_PADDING)
    if rest < _CHUNK_FRAME and times:  # too little for a chunk of its own
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
    shades = (
        round(255 * (a + (b - a) * i / 255))
        for i in range(256)
        for a, b in zip(dark, light, strict=True)
    )
    return bytes(shades)


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
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )
