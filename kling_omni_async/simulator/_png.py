"""Real PNG files drawn from a name, with nothing but the standard library."""

from __future__ import annotations

import colorsys
import hashlib
import struct
import zlib

SIDE = 256
"""Width and height in pixels."""

_CELL = 32
_MARK_ROWS = 24
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RAMP = bytes(i // 2 for i in range(2 * SIDE))
_INVERTED = bytes(range(255, -1, -1))


def draw(name: str, *, marked: bool = False) -> bytes:
    """Draw the picture that belongs to a name: the same bytes each time, other bytes for others.

    Args:
        name: Anything; it decides colours and pattern.
        marked: Whether a light bar at the bottom stands for a watermark.

    Returns:
        A PNG file of 256 by 256 pixels, some kilobytes long.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 3, 0, 0, 0)
    pixels = b"".join(b"\0" + _row(y, digest, marked=marked) for y in range(SIDE))
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", _palette(digest)),
            _chunk(b"IDAT", zlib.compress(pixels, 6)),
            _chunk(b"IEND", b""),
        )
    )


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
