"""The simulator's pictures are real PNG files."""

from __future__ import annotations

import struct
import zlib

import pytest

from kling_omni_async.simulator._png import SIDE, draw


def chunks(png: bytes) -> dict[bytes, bytes]:
    """Take a PNG apart, checking each chunk's checksum."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    found: dict[bytes, bytes] = {}
    at = 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", png[at + 8 + length : at + 12 + length])
        assert checksum == zlib.crc32(kind + content)
        found[kind] = content
        at += 12 + length
    return found


def pixels(png: bytes) -> list[bytes]:
    """Return the rows of palette indexes, without their filter bytes."""
    data = zlib.decompress(chunks(png)[b"IDAT"])
    assert len(data) == SIDE * (SIDE + 1)
    rows = [data[at : at + SIDE + 1] for at in range(0, len(data), SIDE + 1)]
    assert all(row[0] == 0 for row in rows)
    return [row[1:] for row in rows]


def test_is_a_complete_file() -> None:
    """Header, palette, pixels and end are there, in this order, with the right sizes."""
    parts = chunks(draw("a"))
    assert list(parts) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", parts[b"IHDR"]) == (SIDE, SIDE, 8, 3, 0, 0, 0)
    assert len(parts[b"PLTE"]) == 3 * 256


def test_same_name_same_picture() -> None:
    """A name decides every byte."""
    assert draw("7/1/0") == draw("7/1/0")


def test_other_name_other_picture() -> None:
    """A hundred names give a hundred pictures."""
    assert len({draw(str(n)) for n in range(100)}) == 100


def test_is_not_of_one_colour() -> None:
    """There is something to see: many shades, and more than one kind of row."""
    rows = pixels(draw("a"))
    assert len(set(b"".join(rows))) > 200
    assert len(set(rows)) > 100


def test_mark_changes_only_the_bottom() -> None:
    """A watermarked copy is the same picture with a light bar at the bottom."""
    plain, marked = pixels(draw("a")), pixels(draw("a", marked=True))
    assert plain[:-24] == marked[:-24]
    assert set(b"".join(marked[-24:])) == {255}


@pytest.mark.parametrize("name", ["", "\ud800", "图像" * 500])
def test_any_name_will_do(name: str) -> None:
    """Empty, broken and long names have pictures too."""
    assert chunks(draw(name))
