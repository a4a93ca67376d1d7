"""JSON from strangers: bounded in depth, finite in its numbers, never an exception."""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn, cast

import attrs

MAX_DEPTH = 64
"""Levels of brackets; a real answer has 8."""


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
