"""Whether an image has its end: told by its parts, in whatever pieces it comes."""

from __future__ import annotations

import struct
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async._saving import wholeness
from kling_omni_async._saving.wholeness import Wholeness

from .image_files import (
    PIXEL_GIF,
    PIXEL_WEBP,
    avif,
    big_png,
    box,
    ftyp,
    gif,
    jpeg,
    png,
    webp,
)

NOISE = Random(1).randbytes(200_000)
STUFFED = NOISE.replace(b"\xff", b"\xff\0")
"""What may stand for the pixels of a JPEG: no mark is in it."""

SMALL = {
    "png": png(),
    "jpeg": jpeg(),
    "camera": jpeg(preview=True),
    "restarts": jpeg(pixels=b"a\xff\xd0b\xff\xd7c\xff\0\xff\xff\xff\x01"),
    "progressive": jpeg()[:-2] + jpeg()[2:],
    "gif": PIXEL_GIF,
    "gif-depth": gif(b"abc").replace(b"GIF89a\1\0\1\0\0", b"GIF89a\1\0\1\0\7"),
    "gif-colours": gif(NOISE[:700], colours=3),
    "webp": PIXEL_WEBP,
    "webp-extended": webp((b"VP8X", bytes(10)), (b"ICCP", b"abc"), (b"VP8 ", bytes(31))),
    "webp-odd": webp(*((kind, b"abc") for kind in (b"VP8X", b"ICCP", b"EXIF", b"XMP ", b"VP8 "))),
    "webp-empty": webp((b"VP8X", bytes(10)), (b"VP8 ", b"")),
    "webp-animated": webp((b"VP8X", bytes(10)), (b"ANIM", bytes(6)), (b"ANMF", bytes(40))),
    "avif": avif(),
    "avif-long": ftyp(b"avif")
    + b"\0\0\0\1meta"
    + struct.pack(">Q", 20)
    + b"1234"
    + box(b"mdat", b"ab"),
    "avis": ftyp(b"avis") + box(b"moov", b"abc") + box(b"free", b"") + box(b"mdat", b"abc"),
}


def judged(*pieces: bytes) -> bool:
    """Judge whether a file is whole that comes in pieces."""
    made = Wholeness()
    for piece in pieces:
        made.add(piece)
    return made.is_whole


@pytest.mark.parametrize("file", SMALL.values(), ids=SMALL)
def test_a_cut_is_noticed_at_every_place(file: bytes) -> None:
    """A file that ends too soon is not whole, wherever it was cut, though a preview is in it."""
    assert judged(file)
    assert [cut for cut in range(len(file)) if judged(file[:cut])] == []


@pytest.mark.parametrize("behind", [b"\0", b"\n", b"<!-- host -->" * 5400, NOISE[:70_000]])
@pytest.mark.parametrize("file", SMALL.values(), ids=SMALL)
def test_data_behind_the_end_is_tolerated(file: bytes, behind: bytes) -> None:
    """What some hosts add behind an image does not make it a cut one, however much it is."""
    assert judged(file + behind)
    assert judged(file, behind)


@given(st.sampled_from(sorted(SMALL)), st.lists(st.integers(min_value=1, max_value=40)))
def test_pieces_do_not_matter(name: str, sizes: list[int]) -> None:
    """In whatever pieces a file comes, the same is told of it, and of it without its last byte."""
    for file, whole in ((SMALL[name], True), (SMALL[name][:-1], False)):
        at, pieces = 0, list[bytes]()
        for size in sizes:
            pieces.append(file[at : at + size])
            at += size
        assert judged(*pieces, file[at:]) is whole
        assert judged(*(file[at : at + 1] for at in range(len(file)))) is whole


LARGE = {
    "png": big_png(300_000),
    "jpeg": jpeg(preview=True, pixels=STUFFED),
    "gif": gif(NOISE),
    "webp": webp((b"VP8X", bytes(10)), (b"VP8 ", NOISE)),
    "avif": ftyp(b"avif") + box(b"meta", bytes(300)) + box(b"mdat", NOISE),
}


@pytest.mark.parametrize("file", LARGE.values(), ids=LARGE)
def test_a_cut_in_large_files_is_noticed(file: bytes) -> None:
    """Cut at a thousand places by chance, none passes for whole."""
    assert judged(file)
    for size in (32_768, 100_000):
        assert judged(*(file[at : at + size] for at in range(0, len(file), size)))
    random = Random(2)
    cuts = (random.randrange(len(file)) for _ in range(1000))
    assert [cut for cut in cuts if judged(file[:cut])] == []


def test_a_preview_of_a_camera_is_no_end() -> None:
    """A JPEG whose preview fills a segment, cut behind it, is not whole."""
    preview = jpeg(pixels=STUFFED[:60_000])
    segment = b"\xff\xe1" + struct.pack(">H", len(preview) + 8) + b"Exif\0\0" + preview
    file = jpeg()[:2] + segment + jpeg(pixels=STUFFED)[2:]
    assert len(segment) < 66_000 < len(file)
    assert judged(file)
    assert not judged(file[:66_000])


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"<!doctype html><html></html>" * 10,
        b"BM" + bytes(60),
        PIXEL_WEBP[:4] + b"\xff\xff\xff\xff" + PIXEL_WEBP[8:],
        PIXEL_WEBP[:4] + b"\x10\0\0\0" + PIXEL_WEBP[8:],
        PIXEL_WEBP[:4] + b"\0\0\0\0" + PIXEL_WEBP[8:],
        webp((b"VP8X", bytes(10)), (b"ICCP", b"abc")),
        webp((b"VP8 ", bytes(10)), behind=9),
        b"RIFF\x0c\0\0\0WEBPVP8 \xff\xff\xff\xff",
        PIXEL_GIF[:-1] + b"x;",
        ftyp(b"avif") + box(b"mdat", bytes(8)),
        ftyp(b"avif") + box(b"mdat", b"idat" + bytes(4)),
        ftyp(b"avif") + box(b"meta", bytes(8)) + b"\0\0\0\7mdat" + bytes(8),
        ftyp(b"avif") + b"\0\0\0\0mdat" + bytes(8),
    ],
)
def test_what_is_not_whole(file: bytes) -> None:
    """Promises that are not kept, chunks that lead out of the file, and what is no image."""
    assert not judged(file)
    assert not judged(file, b"more")


def test_fillings_that_are_missing() -> None:
    """A last chunk of odd length need not be filled up, if the file says so; junk is passed."""
    file = webp((b"VP8L", bytes(13)))
    shorter = file[:4] + struct.pack("<I", len(file) - 9) + file[8:-1]
    assert judged(shorter)
    assert not judged(shorter[:-1])
    assert judged(webp((b"VP8L", bytes(12)), behind=3))


def test_a_box_without_a_length() -> None:
    """The last box of an AVIF may go on to the end of the file, wherever that is."""
    file = ftyp(b"avif") + box(b"meta", bytes(8)) + b"\0\0\0\0mdat" + bytes(8)
    assert judged(file)
    assert judged(file[:-16] + box(b"mdat", b"a") + b"\0\0\0\0free")


def test_what_describes_a_picture_may_hold_it() -> None:
    """An AVIF may have its picture beside the description; what is elsewhere has to come, too."""
    inside = ftyp(b"avif") + box(b"meta", box(b"idat", b"abc"))
    assert judged(inside)
    assert not judged(inside[:-1])
    assert judged(inside + box(b"mdat", b"abc"))
    assert not judged((inside + box(b"mdat", b"abc"))[:-1])
    assert not judged(ftyp(b"avif") + box(b"meta", bytes(8)))
    large = ftyp(b"avif") + box(b"meta", bytes(1_100_000))
    assert not judged(large)
    assert judged(large, box(b"mdat", b"abc"))


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"\x89PNG\r\n\x1a\n", bytes(12)),
        (b"\xff\xd8", b"\xff\xe0\0\2"),
        (b"GIF89a" + bytes(7), b"\0"),
        (b"RIFF\xff\xff\xff\xffWEBP", b"VP8 \0\0\0\0"),
        (ftyp(b"avif"), box(b"free", b"")),
    ],
    ids=["png", "jpeg", "gif", "webp", "avif"],
)
def test_very_many_parts_are_not_followed(
    head: bytes, part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that sends a great many small parts costs no more than the first of them."""
    monkeypatch.setattr(wholeness, "MOST_PARTS", 100)
    made = Wholeness()
    made.add(head + part * 90)
    assert made._steps is not None
    made.add(part * 20)
    assert made._steps is None


def test_nothing_is_held_of_what_was_passed() -> None:
    """However large a file is, of it no more is held than the last piece."""
    made = Wholeness()
    for at in range(0, len(LARGE["jpeg"]), 1000):
        made.add(LARGE["jpeg"][at : at + 1000])
        assert len(made._held) < 1100
    assert made.is_whole
    made.add(NOISE)
    assert made._held == b""
