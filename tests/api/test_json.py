"""JSON from strangers is read, or it is no JSON; it is never an exception."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling_omni_async._api.json import MAX_DEPTH, NOT_JSON, Document, an_array, an_object, parse


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
    document = parse(body)
    assert document == Document(value, more=False)
    assert type(document.value) is type(value)


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
        b'{"a": NaN}',
        b'{"a": [Infinity]}',
        b'{"a": -Infinity}',
        b'{"a": 1e400}',
        b'{"a": -1e400}',
        b"1" * 5000,
        b'"\n"',
        b'"' + b"\x00" + b'"',
        '{"a": 1}'.encode("utf-16"),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_json(body: bytes) -> None:
    """Text, half a document, what is no JSON number, and a scalar with more behind it are none."""
    assert parse(body) == Document()
    assert parse(body).value is NOT_JSON


@pytest.mark.parametrize(
    "tail", [b'{"b": 2}', b' \n{"b": 2}', b"<html>", b"X", b"\x0c", b"\x00", b"}"]
)
def test_first_of_two_documents(tail: bytes) -> None:
    """Of two documents in one body the first object is read, and that there is more is said."""
    assert parse(b'{"a": 1}' + tail) == Document({"a": 1}, more=True)


def nested(depth: int, leaf: bytes, *, opener: bytes, closer: bytes) -> bytes:
    """Put a leaf into so many brackets."""
    return opener * depth + leaf + closer * depth


@pytest.mark.parametrize("leaf", [b"", b"1"])
def test_depth_of_arrays(leaf: bytes) -> None:
    """So many levels of arrays are read, whatever is in the innermost, and not one more."""
    good = nested(MAX_DEPTH, leaf, opener=b"[", closer=b"]")
    assert parse(good).value is not NOT_JSON
    assert parse(b"[" + good + b"]").value is NOT_JSON


def test_depth_of_objects() -> None:
    """Objects count as arrays do."""
    good = nested(MAX_DEPTH - 1, b"{}", opener=b'{"a":', closer=b"}")
    assert parse(good).value is not NOT_JSON
    assert parse(b'{"a":' + good + b"}").value is NOT_JSON


def test_width_is_free() -> None:
    """Any number of brackets beside each other is shallow."""
    assert parse(json.dumps([[], {}] * 5000).encode()).value == [[], {}] * 5000


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


@settings(max_examples=100, deadline=None)
@given(VALUES, st.booleans())
def test_reads_what_json_writes(value: Any, ascii_only: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever Python writes as JSON is read back."""
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert parse(body) == Document(value, more=False)
