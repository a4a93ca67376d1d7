"""The simulator's pictures are real PNG files."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import pytest

from kling_omni_async.simulator._images import (
    LEAST_BYTES,
    SIDE,
    Content,
    Runs,
    draw,
    draw_sized,
    first,
)


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


MIB = 2**20
USUAL = len(draw("a"))


def whole(content: Content) -> bytes:
    """Return the bytes of a file of moderate size."""
    return first(content, len(content))


@pytest.mark.parametrize(
    "size",
    [
        *(LEAST_BYTES, LEAST_BYTES + 1, 1000),
        *(USUAL, USUAL + 11, USUAL + 12, USUAL + 13),
        *(2**16, 2**16 + 1),
        *(USUAL + MIB + rest for rest in (-1, 0, 1, 11, 12, 13)),
        *(USUAL + 3 * MIB + rest for rest in (0, 5, 12)),
    ],
)
@pytest.mark.parametrize("marked", [False, True])
def test_any_size_to_the_byte(size: int, marked: bool) -> None:  # noqa: FBT001 - from pytest
    """A file can have any size from the least on, and is complete with all checksums right."""
    content = draw_sized("a", size, marked=marked)
    png = whole(content)
    assert len(content) == len(png) == size
    parts = chunks(png)
    assert next(iter(parts)) == b"IHDR"
    assert list(parts)[-3:] == [b"kpAd", b"IDAT", b"IEND"]
    if len(draw("a", marked=marked)) + 12 <= size:
        assert pixels(png) == pixels(draw("a", marked=marked))
    else:
        assert struct.unpack(">IIBBBBB", parts[b"IHDR"]) == (1, 1, 16, 6, 0, 0, 0)
        assert len(zlib.decompress(parts[b"IDAT"])) == 1 + 4 * 2


@pytest.mark.parametrize("size", [LEAST_BYTES, 20_000, MIB])
def test_files_of_one_size_differ(size: int) -> None:
    """A hundred names give a hundred files of one size, and a watermark one more each."""
    files = {
        whole(draw_sized(str(n), size, marked=marked))
        for n in range(50)
        for marked in (False, True)
    }
    assert len(files) == 100


def test_gigabyte_takes_no_memory() -> None:
    """A file of 1 GB is four pieces of whole chunks, one of them sent a thousand times."""
    tracemalloc.start()
    try:
        content = draw_sized("a", 1_000_000_000)
        assert isinstance(content, Runs)
        different = {id(piece): piece for piece in content}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(content) == sum(map(len, content)) == 1_000_000_000
    assert len(different) == 4
    assert peak < 5 * MIB
    assert chunks(b"".join(different.values()))


def test_padding_is_made_once() -> None:
    """Files of all names share the piece that fills them up."""
    one, other = draw_sized("a", 10 * MIB), draw_sized("b", 20 * MIB)
    assert isinstance(one, Runs)
    assert isinstance(other, Runs)
    (filler,) = (piece for piece, times in one.pieces if times > 1)
    assert any(piece is filler for piece in other)
