"""Images are known by their bytes, and their names are safe wherever files or objects are kept."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kling_omni_async import DownloadError, TaskImage
from kling_omni_async._ids import MAX_ID_LENGTH
from kling_omni_async._saving.files import PartialFile
from kling_omni_async._saving.formats import (
    AVIF,
    GIF,
    HEAD_BYTES,
    JPEG,
    KINDS,
    PNG,
    WEBP,
    ImageKind,
    image_stem,
    image_stems,
    kind_of,
    require_image,
)

from .image_files import PIXEL_GIF, PIXEL_WEBP, avif, ftyp, jpeg, png


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (png(), PNG),
        (jpeg(), JPEG),
        (jpeg(preview=True), JPEG),
        (PIXEL_WEBP, WEBP),
        (PIXEL_GIF, GIF),
        (b"GIF87a" + PIXEL_GIF[6:], GIF),
        (avif(), AVIF),
        (ftyp(b"avis"), AVIF),
        (ftyp(b"mif1", b"miaf", b"avif"), AVIF),
        (ftyp(b"mif1", b"avif", b"miaf"), AVIF),
        (ftyp(b"msf1", b"avis"), AVIF),
    ],
)
def test_knows_each_kind_by_its_first_bytes(file: bytes, kind: ImageKind) -> None:
    """The first bytes alone tell the kind, also where AVIF is only a compatible brand."""
    assert kind_of(file[:HEAD_BYTES]) is kind


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"<!doctype html><html></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xef\xbb\xbf" + png(),
        b"\r\n" + png(),
        b'{"error": "gone"}',
        b"RIFF\x1a\0\0\0WAVEfmt ",
        b"BM" + bytes(60),
        ftyp(b"mp42", b"isom", b"mp42"),
        ftyp(b"heic", b"mif1", b"heic"),
        ftyp(b"mif1") + b"avif",  # behind the box
        b"\0\0\0\1ftyp" + b"mif1" + bytes(12) + b"avif",
        b"\0\0\0\x18ftypmif1avif" + b"miafmiaf",  # where the version stands
        b"\0\0\0\x18ftypmif1\0\0\0\0" + b"\0avif\0\0\0",  # across two brands
        b"\0\0\0\x18abcdavif" + bytes(12),
    ],
)
def test_knows_what_is_no_image(file: bytes) -> None:
    """Web pages, drawings, other media and boxes that only mention AVIF are none of the kinds."""
    assert kind_of(file[:HEAD_BYTES]) is None


@pytest.mark.parametrize(
    ("file", "length"),
    [(png(), 8), (jpeg(), 3), (PIXEL_GIF, 6), (PIXEL_WEBP, 12), (ftyp(b"avif"), 12)],
)
def test_needs_a_whole_signature(file: bytes, length: int) -> None:
    """No shorter head is taken for the kind that it begins like."""
    assert [kind_of(file[:cut]) for cut in range(length)] == [None] * length
    assert kind_of(file[:length]) is not None


@pytest.mark.parametrize("file", [png(), jpeg(), PIXEL_WEBP, PIXEL_GIF, avif()])
def test_what_came_is_an_image(file: bytes) -> None:
    """One that is whole is called by its first bytes, whatever its host calls it."""
    assert require_image(file[:HEAD_BYTES], whole=True) is kind_of(file)


@pytest.mark.parametrize("file", [b"", b"<!doctype html>" + bytes(100)])
@pytest.mark.parametrize("whole", [False, True])
def test_what_came_is_none(file: bytes, *, whole: bool) -> None:
    """What does not begin like an image is refused, and its begin shown."""
    with pytest.raises(DownloadError) as caught:
        require_image(file[:HEAD_BYTES], whole=whole)
    assert str(caught.value) == f"what came is no image; it begins with {file[:24]!r}"
    assert (caught.value.http_status, caught.value.reason) == (200, "not-an-image")
    assert not caught.value.transient


def test_what_came_is_cut_off() -> None:
    """An image without its end may come whole the next time."""
    with pytest.raises(DownloadError) as caught:
        require_image(png()[:HEAD_BYTES], whole=False)
    assert str(caught.value) == "the end of the image is missing"
    assert (caught.value.http_status, caught.value.reason) == (200, "cut-off")
    assert caught.value.transient


IDS = st.one_of(
    st.text(min_size=1, max_size=MAX_ID_LENGTH),
    st.text(alphabet="aA01-_.% ~:/\\\u00e9\u00c9\u0301\u212a", min_size=1, max_size=12),
    st.sampled_from(
        ["con", "NUL", "com1", "COM\u00b9", "aux.png", "..", ".", "-rf", "$mft", "lpt1 ", "a."]
    ),
    st.from_regex(r"[0-9]{18}", fullmatch=True),
)
NUMBERS = st.integers(min_value=0, max_value=2**31 - 1)
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$)", re.IGNORECASE)
SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*[A-Za-z0-9]", re.ASCII)


@given(task_id=IDS, number=NUMBERS, watermarked=st.booleans(), ending=st.sampled_from(KINDS))
@example(task_id="x" * MAX_ID_LENGTH, number=2**31 - 1, watermarked=True, ending=JPEG)
@example(task_id="x" * 120, number=2**31 - 1, watermarked=True, ending=JPEG)
@example(task_id="\ud800", number=0, watermarked=False, ending=PNG)
def test_names_are_safe_anywhere(
    task_id: str, number: int, ending: ImageKind, *, watermarked: bool
) -> None:
    """Any id gives one segment that Linux, macOS and Windows take, of letters that all keep."""
    name = f"{image_stem(task_id, number, watermarked=watermarked)}.{ending.ending}"
    assert SAFE.fullmatch(name)
    assert not DEVICES.fullmatch(name.partition(".")[0])
    assert PurePosixPath(name).name == PureWindowsPath(name).name == name
    assert len(name) <= 255


@given(task_id=IDS, number=NUMBERS, watermarked=st.booleans())
@example(task_id="x" * MAX_ID_LENGTH, number=2**31 - 1, watermarked=True)
@example(task_id="x" * 120, number=2**31 - 1, watermarked=True)
def test_temporary_names_are_safe_too(
    task_id: str, number: int, tmp_path_factory: pytest.TempPathFactory, *, watermarked: bool
) -> None:
    """The hidden name that an image has at first is one that can be made, and no longer."""
    stem = image_stem(task_id, number, watermarked=watermarked)
    part = PartialFile(Path(tmp_path_factory.getbasetemp()), stem)
    part.discard()
    assert part.path.name.startswith(f".{stem}.")
    assert len(part.path.name) <= 255


@given(one=IDS, other=IDS, number=NUMBERS, another=NUMBERS, marks=st.tuples(*[st.booleans()] * 2))
@example(one="1-0", other="1", number=1, another=0, marks=(False, False))
@example(one="1-0-watermarked", other="1", number=0, another=0, marks=(False, True))
@example(one="a", other="A", number=0, another=0, marks=(False, False))
@example(one="\u00e9", other="e\u0301", number=0, another=0, marks=(False, False))
@example(one="\u212a", other="k", number=0, another=0, marks=(False, False))
@example(one="a/b", other="a_b", number=0, another=0, marks=(False, False))
def test_no_two_images_share_a_name(
    one: str, other: str, number: int, another: int, marks: tuple[bool, bool]
) -> None:
    """Names of different images differ, also to systems that fold case or normalise letters."""
    name = image_stem(one, number, watermarked=marks[0])
    second = image_stem(other, another, watermarked=marks[1])
    assert (folded(name) == folded(second)) == (
        (one, number, marks[0]) == (other, another, marks[1])
    )


def folded(name: str) -> str:
    """Give what a system that sees the least differences makes of a name."""
    return unicodedata.normalize("NFKC", name).casefold()


STEM = re.compile(r"(?P<id>.+)-(?P<number>[0-9]+)(?P<mark>-watermarked)?")


@given(
    task_id=st.from_regex(r"[a-z0-9_][a-z0-9_-]{0,119}", fullmatch=True),
    number=NUMBERS,
    watermarked=st.booleans(),
)
@example(task_id="1-0", number=1, watermarked=False)
@example(task_id="1-0-watermarked", number=1, watermarked=True)
@example(task_id="1-", number=1, watermarked=True)
def test_a_name_can_be_read_back(task_id: str, number: int, *, watermarked: bool) -> None:
    """A plain id stands in the name as it is: the last number is the image's, so no two meet."""
    read = STEM.fullmatch(image_stem(task_id, number, watermarked=watermarked))
    assert read
    assert read["id"] == task_id
    assert int(read["number"]) == number
    assert bool(read["mark"]) is watermarked


@given(task_id=st.from_regex(r"[0-9]{18}", fullmatch=True), number=NUMBERS)
def test_usual_ids_stand_in_the_name(task_id: str, number: int) -> None:
    """The API's own ids give the name that the documentation tells, and their marked copies."""
    assert image_stem(task_id, number, watermarked=False) == f"{task_id}-{number}"
    assert image_stem(task_id, number, watermarked=True) == f"{task_id}-{number}-watermarked"


@pytest.mark.parametrize(
    ("task_id", "beginning"),
    [
        ("Task_1", "Task_1_."),
        ("a/b", "a_b_."),
        ("../../etc", "etc_."),
        ("-rf", "rf_."),
        ("XA/X", "XA_X_."),
        ("\u4efb\u52a1", "id_."),
        ("x" * 121, "x" * 60 + "_."),
    ],
)
def test_odd_ids_stay_readable(task_id: str, beginning: str) -> None:
    """Of an id that is no safe name what is safe stands before its digest."""
    stem = image_stem(task_id, 3, watermarked=False)
    assert re.fullmatch(re.escape(beginning) + r"[0-9a-f]{32}-3", stem)


def test_the_longest_id_that_stands_in_a_name() -> None:
    """Up to 120 characters an id is not shortened."""
    assert image_stem("x" * 120, 3, watermarked=False) == "x" * 120 + "-3"


def test_names_are_the_same_in_each_version() -> None:
    """A name never changes, or what an earlier release saved would be saved again."""
    digest = "559aead08264d5795d3909718cdd05ab"
    assert image_stem("A", 0, watermarked=False) == f"A_.{digest}-0"


@pytest.mark.parametrize(
    ("indices", "numbers"),
    [
        ([], []),
        ([0], [0]),
        ([None], [0]),
        ([4, 2], [4, 2]),
        ([1, 1], [0, 1]),
        ([None, 0], [0, 1]),
        ([5, None], [0, 1]),
        ([None, None, None], [0, 1, 2]),
    ],
)
def test_numbers_are_indices_where_these_tell(
    indices: list[int | None], numbers: list[int]
) -> None:
    """Each image has its index as its number; where one misses or is twice, its place."""
    images = [TaskImage(url=f"https://a/{n}", index=index) for n, index in enumerate(indices)]
    for watermarked in (False, True):
        stems = image_stems("a/b", images, watermarked=watermarked)
        expected = [(n, image_stem("a/b", n, watermarked=watermarked)) for n in numbers]
        assert list(stems.items()) == expected
