"""Ids are opaque text: good ones become one path segment, bad ones are never sent."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from kling_omni_async import InvalidTaskIdError
from kling_omni_async._ids import (
    MAX_ID_LENGTH,
    describe,
    id_fault,
    not_text,
    path_segment,
    quoted,
    require_id,
    trimmed,
)
from tests.plans import share_of


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    ("task_id", "segment"),
    [
        ("878106242831892487", "878106242831892487"),
        ("task_0123456789abcdefghijklmnopqrstuv", "task_0123456789abcdefghijklmnopqrstuv"),
        ("aGVsbG8/d29ybGQ+eg==", "aGVsbG8%2Fd29ybGQ%2Beg%3D%3D"),
        ("a/b", "a%2Fb"),
        ("/a", "%2Fa"),
        ("100%", "100%25"),
        ("%2e%2e", "%252e%252e"),
        ("a\\b", "a%5Cb"),
        ("a.b", "a.b"),
        ("...", "..."),
        ("任务", "%E4%BB%BB%E5%8A%A1"),
        ("a&b=c;d:e@f", "a%26b%3Dc%3Bd%3Ae%40f"),
        ("x" * MAX_ID_LENGTH, "x" * MAX_ID_LENGTH),
    ],
)
def test_good_id(task_id: str, segment: str) -> None:
    """A good id is kept as it is and percent-encoded as one segment."""
    assert require_id(task_id) == task_id
    assert id_fault(task_id) is None
    assert path_segment(task_id) == segment


WHITE = "holds white space or control characters; give it without them"
DOTS = "as a path segment, which would leave the route"
URLISH = "looks like a URL; give the bare task_id"


@pytest.mark.parametrize(
    ("task_id", "advice"),
    [
        ("", "is empty; give the task_id of the create answer"),
        (" \t\n", "is empty; give the task_id of the create answer"),
        ("\u3000", "is empty; give the task_id of the create answer"),
        ("x" * (MAX_ID_LENGTH + 1), f"has 513 characters; a task id has at most {MAX_ID_LENGTH}"),
        ("https://api.cometapi.com/kling/v1/images/omni-image/1", URLISH),
        ("1?key=2", URLISH),
        ("1#2", URLISH),
        ("1 2", WHITE),
        (" 1", WHITE),
        ("1\n", WHITE),
        ("1\x00", WHITE),
        ("1\x7f", WHITE),
        ("1\u00a02", WHITE),
        ("1\u200b2", WHITE),
        ("1\u20282", WHITE),
        ("\ufeff1", WHITE),
        ("\ud800", WHITE),
        (".", DOTS),
        ("..", DOTS),
        ("../1", DOTS),
        ("1/..", DOTS),
        ("1/./2", DOTS),
        ("1\\..\\2", DOTS),
    ],
)
def test_bad_id(task_id: str, advice: str) -> None:
    """A bad id is refused with the id itself, what is wrong with it and what to give instead."""
    error = id_fault(task_id)
    assert error is not None
    assert error.task_id == task_id
    assert str(error).startswith(f"task id {quoted(task_id)} ")
    assert str(error).endswith(advice)
    if task_id != trimmed(task_id):
        return  # `require_id` mends it
    with pytest.raises(InvalidTaskIdError) as caught:
        require_id(task_id)
    assert str(caught.value) == str(error)


@pytest.mark.parametrize("around", [" ", "\n", "\r\n", "\t", "\ufeff", "\u3000"])
def test_white_space_around_an_id_is_trimmed(around: str) -> None:
    """Lines of a file, its byte order mark too, are ids as they are."""
    assert require_id(f"{around}a-1{around}") == "a-1"
    assert trimmed(f"{around}a 1{around}") == "a 1"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (878106242831892487, "not int: write str(878106242831892487) if that is the id"),
        (10**5000, "not int: write str(…) if that is the id"),
        (b"878", "not bytes: write b'878'.decode() if that is the id"),
        (None, "not NoneType: give the task_id of the create answer"),
        (8.7e17, "not float: give the task_id of the create answer"),
        (["878"], "not list: give the task_id of the create answer"),
        (Unshowable(), "not Unshowable: give the task_id of the create answer"),
    ],
    ids=quoted,
)
def test_no_text(value: Any, text: str) -> None:
    """What is no text is refused with its type and, where it may hold the id, what to write."""
    with pytest.raises(InvalidTaskIdError) as caught:
        require_id(value)
    assert str(caught.value) == f"a task id is text, {text}"
    named = not_text(value, "its name")
    assert str(named) == str(caught.value)
    assert named.task_id == "its name"


def test_what_is_no_text_has_a_name_that_no_id_has() -> None:
    """A number comes out of a stream under a name that tells it from the same digits as text."""
    assert describe(17) == "17 (int)"
    assert id_fault(describe(17)) is not None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("abc", "'abc'"),
        ("任\n", r"'\u4efb\n'"),
        ("x" * 60, "'" + "x" * 60 + "'"),
        ("x" * 61, "'" + "x" * 60 + "'…"),
        (["y" * 100], "['" + "y" * 58),
        (Unshowable(), "…"),
    ],
)
def test_shown(value: object, text: str) -> None:
    """An id in a message is short, printable ASCII in quotes."""
    assert quoted(value) == text


@settings(max_examples=share_of(300), deadline=None)
@given(st.text(max_size=40) | st.text("./\\%?#: a", max_size=12))
def test_no_id_leaves_its_segment(task_id: str) -> None:
    """Any text is refused, or it adds exactly one path segment from which it can be read back."""
    if id_fault(task_id) is not None:
        return
    base = "https://api.example/kling/v1/images/omni-image/"
    url = URL(base + path_segment(task_id), encoded=True)
    assert str(url) == base + path_segment(task_id)
    assert (url.raw_host, url.raw_query_string, url.raw_fragment) == ("api.example", "", "")
    assert url.raw_path.count("/") == 5
    assert url.raw_name not in {"", ".", ".."}
    assert unquote(url.raw_name) == task_id
