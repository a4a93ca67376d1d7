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
    id_fault,
    path_segment,
    quoted,
    require_id,
    require_str,
)


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
    with pytest.raises(InvalidTaskIdError) as caught:
        require_id(task_id)
    assert str(caught.value) == str(error)


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
    for require in (require_str, require_id):
        with pytest.raises(InvalidTaskIdError) as caught:
            require(value)
        assert str(caught.value) == f"a task id is text, {text}"


def test_text_passes_unchecked() -> None:
    """`require_str` asks for text alone: a malformed one becomes an outcome later."""
    assert require_str("a b") == "a b"


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


@settings(max_examples=300, deadline=None)
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
