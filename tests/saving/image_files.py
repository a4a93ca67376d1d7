"""Small image files that are real, made with nothing but the standard library."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from random import Random

from kling_omni_async.simulator._images import draw

PIXEL_GIF = (
    b"GIF89a\1\0\1\0\x80\0\0\xff\xff\xff\0\0\0"  # one pixel, two colours
    b"!\xf9\4\1\0\0\0\0"
    b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
)
PIXEL_WEBP = (  # VP8L, one pixel
    b"RIFF\x1a\0\0\0WEBPVP8L\r\0\0\0/\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0"
)
_LUMINANCE_DC = bytes.fromhex("00010501010101010100000000000000000102030405060708090a0b")
_FRAME = bytes.fromhex("0800010001010111 00")
_SCAN = bytes.fromhex("010100003f00")


def png(name: str = "a") -> bytes:
    """Give the PNG that belongs to a name."""
    return draw(name)


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg(*, preview: bool = False, pixels: bytes = b"\x1f") -> bytes:
    """Give a grey pixel as a JPEG, with another one inside it as cameras do.

    `pixels` are what stands for the picture: no decoder looks at it here.
    """
    inside = _segment(0xE1, b"Exif\0\0" + jpeg()) if preview else b""
    tables = _segment(0xDB, b"\0" + b"\1" * 64) + _segment(0xC0, _FRAME)
    codes = _segment(0xC4, b"\0" + _LUMINANCE_DC) + _segment(0xC4, b"\x10" + b"\1" + bytes(16))
    return b"\xff\xd8" + inside + tables + codes + _segment(0xDA, _SCAN) + pixels + b"\xff\xd9"


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    """Give the first box of an ISO base media file."""
    brands = major + bytes(4) + b"".join(compatible)
    return struct.pack(">I", len(brands) + 8) + b"ftyp" + brands


def box(kind: bytes, content: bytes) -> bytes:
    """Give a box of an ISO base media file."""
    return struct.pack(">I", len(content) + 8) + kind + content


def avif() -> bytes:
    """Give the boxes of an AVIF file, with nothing in them."""
    return ftyp(b"avif", b"mif1", b"miaf") + box(b"meta", bytes(20)) + box(b"mdat", bytes(8))


def gif(pixels: bytes, *, colours: int = 0) -> bytes:
    """Give a GIF with a comment and two pictures, each of some bytes that stand for pixels."""
    flags, table = (0x80 | colours - 1, bytes(3 << colours)) if colours else (0, b"")
    blocks = [pixels[at : at + 255] for at in range(0, len(pixels), 255)]
    data = b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    picture = b",\0\0\0\0\1\0\1\0" + bytes([flags]) + table + b"\2" + data
    head = b"GIF89a\1\0\1\0" + bytes([flags]) + b"\0\0" + table
    return head + b"!\xfe\3abc\0" + picture + b"\0" + picture + b";"


def webp(*chunks: tuple[bytes, bytes], behind: int = 0) -> bytes:
    """Give a WebP of chunks; `behind` bytes are announced and do not come."""
    body = b"WEBP"
    for kind, content in chunks:
        body += kind + struct.pack("<I", len(content)) + content + bytes(len(content) & 1)
    return b"RIFF" + struct.pack("<I", len(body) + behind) + body


@cache
def big_png(size: int, *, seed: int = 0) -> bytes:
    """Give a PNG of grey noise that is at least so long."""
    side = 1024
    rows = size // side + 1
    random = Random(seed)
    pixels = b"".join(b"\0" + random.randbytes(side) for _ in range(rows))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", side, rows, 8, 0, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(pixels, 0)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check
