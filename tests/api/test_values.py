"""JSON from strangers is read, or it is none, and so are the single values of the wire."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling_omni_async import TaskImage
from kling_omni_async._api.values import (
    MAX_DEPTH,
    NO_KEY,
    NOT_JSON,
    Secret,
    an_array,
    an_object,
    images,
    instant,
    parse,
    request_id,
    request_id_in,
    text,
    units,
)
from tests.plans import share_of
from tests.support import plain


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b"[1, 2.5, null, true]", [1, 2.5, None, True]),
        (b'"text"', "text"),
        (b"null", None),
        (b"0", 0),
        (b"\xef\xbb\xbf{}", {}),
        (b" \r\n\t{} \n", {}),
        ('"任务"'.encode(), "任务"),
        (b'"\xff"', "\ufffd"),
        (rb'"\ud800"', "\ud800"),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"878106242831892487", 878106242831892487),
        (b'"' + b"[" * 100 + b'"', "[" * 100),
    ],
)
def test_reads_json(body: bytes, value: Any) -> None:
    """JSON is read, also behind a byte order mark, with broken UTF-8 and in white space."""
    read, more = parse(body)
    assert (read, more) == (value, False)
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"\xef\xbb\xbf",
        b"<!doctype html>",
        b"502 Bad Gateway",
        b"404 page not found",
        b'"a" "b"',
        b"[1] [2]",
        b"null null",
        b"{",
        b'{"a"',
        b"{'a': 1}",
        b"\x0c{}",
        b"\xc2\xa0{}",
        b"X{}",
        b"NaN",
        b"-Infinity",
        b"1e400",
        b"1" * 5000,
        b'"\n"',
        b'"' + b"\x00" + b'"',
        '{"a": 1}'.encode("utf-16"),
    ],
    ids=plain,
)
def test_what_is_no_json(body: bytes) -> None:
    """Text, half a document, what is no JSON number, and a scalar with more behind it are none."""
    assert parse(body) == (NOT_JSON, False)


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (b"NaN", None),
        (b"Infinity", None),
        (b"-Infinity", None),
        (b"1e400", None),
        (b"-1e400", None),
        (b"1" * 4300 + b".5", None),
        (b"1" * 4300, int("1" * 4300)),
        (b"-" + b"1" * 4300, -int("1" * 4300)),
        (b"1" * 4301, None),
        (b"-" + b"1" * 100_000, None),
        (b"1e308", 1e308),
    ],
    ids=lambda value: f"{value[:9]!r} {len(value)}" if isinstance(value, bytes) else "",
)
def test_numbers_that_are_none(number: bytes, value: object) -> None:
    """What is no number, or is too long to be written again, is null; all else is read."""
    read = {"a": [value, 7, {"b": value}], "c": "x", "d": 2}
    assert parse(b'{"a": [%b, 7, {"b": %b}], "c": "x", "d": 2}' % (number, number)) == (read, False)
    assert parse(b'{"a": %b]' % number) == (NOT_JSON, False)


@pytest.mark.parametrize(
    "tail", [b'{"b": 2}', b' \n{"b": 2}', b"<html>", b"X", b"\x0c", b"\x00", b"}"]
)
def test_first_of_two_documents(tail: bytes) -> None:
    """Of two documents in one body the first object is read, and that there is more is said."""
    assert parse(b'{"a": 1}' + tail) == ({"a": 1}, True)


def nested(depth: int, leaf: bytes, *, opener: bytes, closer: bytes) -> bytes:
    """Put a leaf into so many brackets."""
    return opener * depth + leaf + closer * depth


@pytest.mark.parametrize("leaf", [b"", b"1"])
def test_depth_of_arrays(leaf: bytes) -> None:
    """So many levels of arrays are read, whatever is in the innermost, and not one more."""
    good = nested(MAX_DEPTH, leaf, opener=b"[", closer=b"]")
    assert parse(good)[0] is not NOT_JSON
    assert parse(b"[" + good + b"]")[0] is NOT_JSON


def test_depth_of_objects() -> None:
    """Objects count as arrays do."""
    good = nested(MAX_DEPTH - 1, b"{}", opener=b'{"a":', closer=b"}")
    assert parse(good)[0] is not NOT_JSON
    assert parse(b'{"a":' + good + b"}")[0] is NOT_JSON


def test_width_is_free() -> None:
    """Any number of brackets beside each other is shallow."""
    assert parse(json.dumps([[], {}] * 5000).encode())[0] == [[], {}] * 5000


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "text", NOT_JSON])
def test_neither_object_nor_array(value: object) -> None:
    """What is no object reads as an empty one, and so for arrays."""
    assert an_object(value) == {}
    assert an_array(value) == []


def test_object_and_array() -> None:
    """An object and an array are given as they are; neither is the other."""
    assert an_object({"a": 1}) == {"a": 1}
    assert an_array([1]) == [1]
    assert an_object([1]) == {}
    assert an_array({"a": 1}) == []


FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers() | FINITE | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=share_of(100), deadline=None)
@given(VALUES, st.booleans())
def test_reads_what_json_writes(value: Any, ascii_only: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever Python writes as JSON is read back."""
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert parse(body) == (value, False)


NO_TEXT: list[Any] = [None, 0, 1.5, True, False, [], {}, ["a"]]


@pytest.mark.parametrize("value", ["a", " a ", "任务", "\u200b"])
def test_text(value: str) -> None:
    """Text is given byte for byte."""
    assert text(value) == value


@pytest.mark.parametrize("value", [*NO_TEXT, "", " ", "\n\t", "\u3000"])
def test_no_text(value: object) -> None:
    """What is blank or no text reads as None."""
    assert text(value) is None


def test_lone_surrogates_are_replaced() -> None:
    """Text can always be written as UTF-8."""
    assert text("a\ud800b") == "a?b"


MS = 1782450245512
THEN = datetime(2026, 6, 26, 5, 4, 5, 512000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (MS, THEN),
        (float(MS), THEN),
        (str(MS), THEN),
        (f" {MS} ", THEN),
        (1782450245, THEN.replace(microsecond=0)),
        (1782450245.5, THEN.replace(microsecond=500000)),
        ("1782450245", THEN.replace(microsecond=0)),
        (1, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        (99_999_999_999, datetime(5138, 11, 16, 9, 46, 39, tzinfo=UTC)),
        (100_000_000_000, datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
    ],
)
def test_instant(value: object, expected: datetime) -> None:
    """A time is ms since the epoch, below 1e11 seconds, also as digits; it is aware and UTC."""
    found = instant(value)
    assert found == expected
    assert found is not None
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [*[v for v in NO_TEXT if v != 1.5], "", "soon", "1e12", "-5", -MS, 10**15, 10**400, 1e308,
     "9" * 20, "9" * 21, "1782450245512 ms", "١٧٨٢٤٥٠٢٤٥", "2026-06-26T05:04:05Z"],
)  # fmt: skip
def test_no_instant(value: object) -> None:
    """0, negative, absurd and wordy times read as None."""
    assert instant(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("8", "8"),
        ("0.5", "0.5"),
        ("0", "0"),
        (" 8 ", "8"),
        ("-1.50", "-1.50"),
        ("+3", "3"),
        (".5", "0.5"),
        ("5.", "5"),
        ("1e3", "1E+3"),
        (8, "8"),
        (0, "0"),
        (0.1, "0.1"),
        (1e22, "1E+22"),
        (2**128 - 1, str(2**128 - 1)),
        ("9" * 40, "9" * 40),
    ],
    ids=plain,
)
def test_units(value: object, expected: str) -> None:
    """A price is an exact decimal, as text or as a number."""
    found = units(value)
    assert found == Decimal(expected)
    assert str(found) == str(Decimal(expected))


@pytest.mark.parametrize(
    "value",
    [None, "", " ", True, False, [], {}, "NaN", "Infinity", "-inf", "sNaN", "free", "8 units",
     "1,5", "1_000", "0x10", "٨", "1e9999", "9" * 41, 2**128, 10**5000, "-", "."],
    ids=plain,
)  # fmt: skip
def test_no_units(value: object) -> None:
    """What is no finite number of a sane length reads as None."""
    assert units(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5d3e6f0c-1b2a-4c3d-8e9f-0a1b2c3d4e5f", "5d3e6f0c-1b2a-4c3d-8e9f-0a1b2c3d4e5f"),
        ("878106242831892487", "878106242831892487"),
        (878106242831892487, "878106242831892487"),
        ("b63503f4", "b63503f4"),
        (2**128 - 1, str(2**128 - 1)),
        *((value, None) for value in [*NO_TEXT[2:], "", " ", 2**128, 10**5000]),
    ],
    ids=plain,
)
def test_request_id(value: object, expected: str | None) -> None:
    """A body's request id is text, or a whole number that is meant as text."""
    assert request_id({"request_id": value}) == expected


def test_no_request_id() -> None:
    """A body need not have one."""
    assert request_id({}) is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Invalid token (request id: 2026EhrY8AZW)", "2026EhrY8AZW"),
        ("无效的令牌 (request id: a1)", "a1"),
        ("x (Request ID: a1).", "a1"),
        ("x (request id:a1) ", "a1"),
        ("x" * 5000 + " (request id: a1)", "a1"),
        ("(request id: a1) (request id: b2)", "b2"),
        ("(request id: a1)" + "." * 184, "a1"),
        ("(request id: a1)" + "." * 185, None),
        ("(request id: a1) was refused", None),
        ("(request id: )", None),
        ("(request id: a b)", None),
        ("(request id: " + "x" * 129 + ")", None),
        ("", None),
    ],
    ids=plain,
)
def test_request_id_at_the_end_of_a_message(message: str, expected: str | None) -> None:
    """Gateways write their request id behind the message; the last 200 characters are looked at."""
    assert request_id_in(message) == expected


A, B, C = (f"https://a.example/{name}.png" for name in "abc")


def found(result: Any) -> tuple[TaskImage, ...]:
    """Return the usable images of a result."""
    return images(result)[0]


def urls(result: Any) -> list[str]:
    """Return their URLs."""
    return [image.url for image in found(result)]


def test_full_image() -> None:
    """An image has its URL, its index and its watermarked copy."""
    item = {"url": A, "index": 2, "watermark_url": B}
    assert found({"images": [item]}) == (TaskImage(url=A, index=2, watermark_url=B),)


def test_bare_image() -> None:
    """An item may hold only a URL, or be one."""
    assert found({"images": [{"url": A}, B]}) == (TaskImage(url=A), TaskImage(url=B))


@pytest.mark.parametrize("index", [None, "0", 0.0, True, -1, 2**31, [0]])
def test_odd_index(index: object) -> None:
    """An index that is no small whole number reads as None."""
    assert found({"images": [{"url": A, "index": index}]}) == (TaskImage(url=A),)


@pytest.mark.parametrize("index", [0, 1, 62, 2**31 - 1])
def test_index(index: int) -> None:
    """An index is a whole number from 0 on that fits into 32 bits."""
    assert found({"images": [{"url": A, "index": index}]}) == (TaskImage(url=A, index=index),)


def test_index_gives_the_order() -> None:
    """Images with an index each come in its order."""
    items = [{"url": A, "index": 2}, {"url": B, "index": 0}, {"url": C, "index": 1}]
    assert urls({"images": items}) == [B, C, A]


@pytest.mark.parametrize("indices", [(2, 0, None), (2, 0, 0), (None, None, 0)])
def test_array_gives_the_order(indices: tuple[int | None, ...]) -> None:
    """With an index missing or repeated the array's own order is kept."""
    items = [{"url": url, "index": index} for url, index in zip((A, B, C), indices, strict=True)]
    assert urls({"images": items}) == [A, B, C]


def test_unusable_item_does_not_spoil_the_order() -> None:
    """An item that is left out has no say in whether the indices are whole."""
    items = [{"url": B, "index": 1}, {"index": 1}, {"url": A, "index": 0}]
    assert urls({"images": items}) == [A, B]


@pytest.mark.parametrize(
    ("plain", "series", "expected"),
    [
        ([], [A, B], [A, B]),
        ([A, B], [], [A, B]),
        (None, [A, B], [A, B]),
        ([A], [B, C], [A, B, C]),
        ([A, B], [B, A, C], [A, B, C]),
        ([A, A], None, [A]),
    ],
)
def test_both_arrays(plain: object, series: object, expected: list[str]) -> None:
    """Both arrays are read, and repeats of a URL are dropped."""
    assert urls({"images": plain, "series_images": series}) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example/x.png?Expires=1&Signature=a%2Fb+c~#part",
        "http://127.0.0.1:8000/1.png",
        "HTTPS://A.EXAMPLE/1.PNG",
        "https://例え.jp/図.png",
        "https://a.example",
        "https://u:p@a.example/",
        "https://a.example/\ufeff",
    ],
)
def test_usable_url(url: str) -> None:
    """An absolute web URL is given byte for byte."""
    assert urls({"images": [{"url": url}]}) == [url]


UNUSABLE: list[Any] = [
    *(None, "", " ", 5, True, [], {}, "x.png", "/x.png", "ftp://a.example/x"),
    *("data:image/png;base64,AA==", "javascript:alert(1)", "https://", "https:///x", "https://?x"),
    *("https:/a.example", "https:a.example", "//", "///x", "// a.example/x", "//?x"),
    *("https://a b.example/", "https://a\u3000b.example/", "https://a\x00b.example/x"),
    *("https:// a.example/", "see https://a.example/", "https://\ud800/"),
]


@pytest.mark.parametrize("url", UNUSABLE)
def test_unusable_url(url: object) -> None:
    """Everything else is no image, and no watermark either; images that are not there count."""
    assert images({"images": [{"url": url, "index": 0}]}) == ((), 1)
    assert images({"images": [{"url": A, "watermark_url": url}]}) == ((TaskImage(url=A),), 0)
    assert images({"images": [A, url, B, {"url": url}]}) == (
        (TaskImage(url=A), TaskImage(url=B)),
        2,
    )


@pytest.mark.parametrize(
    ("url", "mended"),
    [
        (" https://a.example/1.png", "https://a.example/1.png"),
        ("https://a.example/1.png ", "https://a.example/1.png"),
        ("\ufeffhttps://a.example/1.png\u3000\r\n", "https://a.example/1.png"),
        ("\x00https://a.example/\x1f", "https://a.example/"),
        ("https://a.exa\nmple/a\tb\r.png", "https://a.example/ab.png"),
        ("https://a.example/a b.png", "https://a.example/a%20b.png"),
        ("https://a.example?a b#c d", "https://a.example?a%20b#c%20d"),
        ("https://a.example/a\x00\x7fb", "https://a.example/a%00%7Fb"),
        ("https://a.example/图\u3000a", "https://a.example/图%E3%80%80a"),
        ("https://a.example/\ud800x", "https://a.example/%EF%BF%BDx"),
        ("https://a.example/\udfff", "https://a.example/%EF%BF%BD"),
        ("//a.example/1.png", "https://a.example/1.png"),
        (" //a.example:8443?a b ", "https://a.example:8443?a%20b"),
        ("//a.example", "https://a.example"),
        ("HTTP://A.example/a b%20c%2F", "HTTP://A.example/a%20b%20c%2F"),
    ],
)
def test_mended_url(url: str, mended: str) -> None:
    """What is plainly meant as a URL is mended as browsers do, of a watermark too."""
    expected = TaskImage(url=mended, watermark_url=mended)
    assert images({"images": [{"url": url, "watermark_url": url}]}) == ((expected,), 0)


@pytest.mark.parametrize(
    ("plain", "series", "count"),
    [
        ([None], [None], 1),
        ([None, None], [None], 2),
        ([None], ["x", "y"], 3),
        (["x", A, "y"], ["y", A, "x"], 2),
        ([{"url": "x"}], ["x"], 1),
        ([A, A, f" {A}"], [A], 0),
        ("x", {"url": "y"}, 0),
    ],
)
def test_unusable_images_of_both_arrays(plain: object, series: object, count: int) -> None:
    """An image without a usable URL that stands in both arrays counts once; repeats are none."""
    assert images({"images": plain, "series_images": series})[1] == count


@pytest.mark.parametrize(
    "result",
    [None, {}, [], "x", 5, {"images": None}, {"images": {}}, {"images": "x"}, {"images": []},
     {"images": [None, 5, [], {}, ["x"], "x", {"index": 0}]}],
)  # fmt: skip
def test_no_images(result: object) -> None:
    """A result without one usable URL has no images."""
    assert found(result) == ()


@pytest.mark.parametrize("around", ["https://%s", "//%s /", "%s", "https://a.example/%s", " %s"])
@pytest.mark.parametrize("filling", ["a", " ", "\n", "\x00", "https://", "\u3000", "/"])
def test_a_long_url_takes_no_time(around: str, filling: str) -> None:
    """A hostile URL of a whole answer's length is read in time linear in its length."""
    began = time.process_time()
    images({"images": [around % (filling * (1_000_000 // len(filling)))]})
    assert time.process_time() - began < 2.0


KEY = "sk-a/b\\%c+0123"
NAMES = ["code", "external_task_id", "request_id", "status", "task_id", "task_status"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("nothing of it: sk-a/b", "nothing of it: sk-a/b"),
        (f"<{KEY}|{KEY}>", "<[redacted]|[redacted]>"),
        (json.dumps(f"a {KEY} b"), '"a [redacted] b"'),
        (KEY.replace("/", r"\/"), "[redacted]"),
        ("".join(f"\\u{ord(char):04x}" for char in KEY), "[redacted]"),
        ("".join(f"\\u{ord(char):04X}" for char in KEY), "[redacted]"),
        ("?k=sk-a%2Fb%5C%25c%2b0123&x=%20", "?k=[redacted]&x=%20"),
        ("".join(f"%{ord(char):02x}" for char in KEY), "[redacted]"),
        (KEY.upper(), KEY.upper()),
    ],
    ids=plain,
)
def test_the_key_is_redacted(text: str, shown: str) -> None:
    """The key is taken out of a text, as it is and as JSON or a URL would escape it."""
    assert Secret(KEY).redact(text) == shown
    assert NO_KEY.redact(text) == text


@pytest.mark.parametrize(
    ("body", "is_in"),
    [
        (b"", False),
        (b'{"a": "sk-a/b"}', False),
        (b"sk-a/b\\%c+0123", True),
        (json.dumps(KEY).encode(), True),
        (rb'"sk-a\/b\\%c+0123"', True),
        ("".join(f"\\u{ord(char):04x}" for char in KEY).encode(), True),
        ("".join(f"\\u{ord(char):04X}" for char in KEY).encode(), True),
        ("".join(f"\\u{ord(char) + 256:04x}" for char in KEY).encode(), False),
        (json.dumps(KEY[:-1]).encode(), False),
    ],
)
def test_the_key_is_found_in_a_body(body: bytes, *, is_in: bool) -> None:
    """The key is found in JSON, as it is and with each escape that JSON has for it."""
    assert Secret(KEY).is_in(body) is is_in


@pytest.mark.parametrize("length", [1, 4, 7, 8, 9])
def test_a_short_key_may_be_in_a_name_by_chance(length: int) -> None:
    """A key of fewer than 8 characters is taken out of texts, but not out of names."""
    key = "abcdefghi"[:length]
    secret = Secret(key)
    name = f"x-{key}" if length < 8 else "x-[redacted]"
    assert secret.redact_name(f"x-{key}") == name
    assert secret.redact_json({f"x-{key}": f"x-{key}"}) == {name: "x-[redacted]"}
    for field in NAMES:
        assert secret.redact_json({field: f"x-{key}"}) == {field: name}


def test_the_key_is_redacted_in_json() -> None:
    """Texts and names at each level are redacted, and nothing else is changed or shared."""
    value = {"a": [KEY, {KEY: [f"<{KEY}>", 1, None, True, 0.5]}], "n": 10123}
    shown = Secret(KEY).redact_json(value)
    assert shown == {
        "a": ["[redacted]", {"[redacted]": ["<[redacted]>", 1, None, True, 0.5]}],
        "n": 10123,
    }
    assert Secret("1").redact_json(value) is not value
    assert value["n"] == 10123


def test_a_secret_shows_nothing() -> None:
    """The repr of what holds the key does not."""
    assert repr(Secret(KEY)) == "<Secret>"
