"""What strangers send, as plain values: JSON, and the single values of the wire.

What is no JSON is `NOT_JSON`, and what is no text, number, date or URL reads as None; nothing here
raises.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NoReturn, cast

import attrs

from kling_omni_async._models import TaskImage

MAX_DEPTH = 64
"""Levels of brackets; a real answer has 8."""

NOT_FOUND_WORD = "task_not_exist"
SECONDS_BELOW = 1e11
"""A time below this is in seconds, not ms; other routes of the API do that (seen)."""

_LONGEST_INT_BITS = 128  # Python refuses to write very long numbers
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?", re.ASCII)
_WEB_URL = re.compile(
    r"https?://[^\s/?#\x00-\x1f\x7f\ud800-\udfff]++[^\s\x00-\x1f\x7f\ud800-\udfff]*+", re.IGNORECASE
)
"""Possessive: going back over a long host would take time in the square of its length."""

_REQUEST_ID_AT_END = re.compile(r"\(request id:\s*([^()\s]{1,128})\s*\)\W*$", re.IGNORECASE)


class _NotJson:
    """The value of a body that is no JSON at all."""


NOT_JSON: Final = _NotJson()


@attrs.frozen
class Document:
    """The first JSON document of a body.

    Attributes:
        value: What it says, or `NOT_JSON`.
        more: Whether something else stands behind it.
    """

    value: Any = NOT_JSON
    more: bool = False


def parse(body: bytes) -> Document:
    """Read the first JSON document of a body.

    Some gateways write two objects into one body (source); the first is the one they meant.

    Args:
        body: UTF-8, with or without a byte order mark; other bytes become U+FFFD.
    """
    text = body.decode("utf-8-sig", "replace").strip(" \t\r\n")
    try:
        value, end = _DECODER.raw_decode(text)
        if _openers(body) > MAX_DEPTH:
            _require_shallow(value)
    except (ValueError, RecursionError):
        return Document()
    more = end < len(text)
    if more and not isinstance(value, dict):  # "404 page not found" is text, not the number 404
        return Document()
    return Document(value, more=more)


def an_object(value: object) -> dict[str, Any]:
    """Give a JSON object as it is, and an empty one for anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def an_array(value: object) -> list[Any]:
    """Give a JSON array as it is, and an empty one for anything else."""
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def _openers(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")


def _require_shallow(value: Any) -> None:
    """Refuse what later steps, such as pickling, could not walk."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _children(node: Any) -> list[Any]:
    children = (*an_object(node).values(), *an_array(node))
    return [child for child in children if isinstance(child, dict | list)]


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise ValueError("a number too large for a float")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant)


def text(value: object) -> str | None:
    """Give text that is not blank, its lone surrogates replaced, else None."""
    if not isinstance(value, str) or not value or value.isspace():
        return None
    if value.isascii():
        return value
    return value.encode("utf-8", "replace").decode()


def instant(value: object) -> datetime | None:
    """Read ms (or seconds) since the epoch as a UTC time."""
    number = _number(value)
    if number is None or number <= 0:
        return None
    ms = number * 1000 if number < SECONDS_BELOW else number
    try:
        return _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return None


def _number(value: object) -> int | float | None:
    if isinstance(value, str):
        digits = value.strip()
        return int(digits) if re.fullmatch(r"\d{1,20}", digits, re.ASCII) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def units(value: object) -> Decimal | None:
    """Read a decimal that comes as a string, now and then as a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT_BITS:
        return None
    digits = str(value).strip()
    return Decimal(digits) if _NUMBER.fullmatch(digits) else None


def request_id(envelope: Mapping[str, Any]) -> str | None:
    """Give the body's name for the request: a UUID, 18 digits or a short token."""
    value = envelope.get("request_id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if value.bit_length() <= _LONGEST_INT_BITS else None
    return text(value)


def request_id_in(message: str) -> str | None:
    """Give the X of a ``(request id: X)`` at the end of a message."""
    match = _REQUEST_ID_AT_END.search(message[-200:])
    return match and match[1]


def images(result: object) -> tuple[TaskImage, ...]:
    """Read both arrays of a result in order, without repeats of a URL."""
    by_url: dict[str, TaskImage] = {}
    arrays = an_object(result)
    for image in _array(arrays.get("images")) + _array(arrays.get("series_images")):
        by_url.setdefault(image.url, image)
    return tuple(by_url.values())


def _array(items: object) -> list[TaskImage]:
    """Read one array; its indices give the order if each is there once."""
    found = [image for image in map(_image, an_array(items)) if image]
    if len(found) > 1:
        indices = [image.index for image in found if image.index is not None]
        if len(set(indices)) == len(found):
            found.sort(key=lambda image: image.index or 0)
    return found


def _image(item: object) -> TaskImage | None:
    fields = an_object(item) or {"url": item}
    url = _url(fields.get("url"))
    if url is None:
        return None
    return TaskImage(
        url=url,
        index=_index(fields.get("index")),
        watermark_url=_url(fields.get("watermark_url")),
    )


def _url(value: object) -> str | None:
    """Give an absolute web URL byte for byte."""
    return value if isinstance(value, str) and _WEB_URL.fullmatch(value) else None


def _index(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**31 else None
