"""What ``POST /kling/v1/images/omni-image`` accepts (CometAPI docs). Pure: bytes in, fields out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

Fits: TypeAlias = Callable[[Any], bool]

_UNREADABLE = 1200
_BAD_VALUE = 1201

_LONGEST_PROMPT = 2_500
_MOST_REFERENCES = 10
_AUTO_AMOUNT = 4  # the API chooses; any number of a series would do
_RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9", "auto")


class BadOrderError(Exception):
    """Raised when a create request is refused, with a code of the vendor and a text."""


def read_order(content: bytes) -> dict[str, Any]:
    """Return the fields of a simulated task that a create request decides."""
    try:
        body = _mapping(json.loads(content))
    except (ValueError, RecursionError):
        body = None
    if body is None:
        raise BadOrderError(_UNREADABLE, "the body must be a JSON object")
    _check(body)
    series = body.get("result_type") == "series"
    amount = body.get("series_amount") or "auto" if series else body.get("n") or 1
    watermark = _mapping(body.get("watermark_info")) or {}
    return {
        "images": _AUTO_AMOUNT if amount == "auto" else amount,
        "series": series,
        "watermarked": bool(watermark.get("enabled")),
        "external_task_id": body.get("external_task_id"),
    }


def _check(body: Mapping[str, Any]) -> None:
    # null is the same as missing, but for the one field that must be there
    for name, fits, wanted in _RULES:
        if (name == "prompt" or body.get(name) is not None) and not fits(body.get(name)):
            raise BadOrderError(_BAD_VALUE, f"{name} must be {wanted}")
    references = [*(body.get("image_list") or ()), *(body.get("element_list") or ())]
    if len(references) > _MOST_REFERENCES:
        raise BadOrderError(_BAD_VALUE, "image_list and element_list hold more than 10 together")


def _mapping(value: object) -> Mapping[str, Any] | None:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else None


def _prompt(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= _LONGEST_PROMPT


def _text(value: object) -> bool:
    return isinstance(value, str)


def _one_of(*words: str) -> Fits:
    return lambda value: isinstance(value, str) and value in words


def _count(least: int, most: int) -> Fits:
    # bool is an int in Python, but not in JSON
    return lambda value: type(value) is int and least <= value <= most


def _list_of(key: str, kind: type) -> Fits:
    def fits(value: object) -> bool:
        items = cast("list[object]", value) if isinstance(value, list) else [None]
        return all(type((_mapping(item) or {}).get(key)) is kind for item in items)

    return fits


def _amount(value: object) -> bool:
    return value == "auto" or _count(2, 9)(value)


def _watermark(value: object) -> bool:
    return type((_mapping(value) or {}).get("enabled")) is bool


_RULES: tuple[tuple[str, Fits, str], ...] = (
    ("prompt", _prompt, "a text of 1 to 2500 characters"),
    (
        "model_name",
        _one_of("kling-image-o1", "kling-v3-omni"),
        "kling-image-o1 or kling-v3-omni",
    ),
    ("image_list", _list_of("image", str), 'a list of {"image": URL or base64}'),
    ("element_list", _list_of("element_id", int), 'a list of {"element_id": integer}'),
    ("resolution", _one_of("1k", "2k", "4k"), "1k, 2k or 4k"),
    ("result_type", _one_of("single", "series"), "single or series"),
    ("n", _count(1, 9), "an integer from 1 to 9"),
    ("series_amount", _amount, "an integer from 2 to 9, or auto"),
    ("aspect_ratio", _one_of(*_RATIOS), f"one of {', '.join(_RATIOS)}"),
    ("watermark_info", _watermark, '{"enabled": true or false}'),
    ("callback_url", _text, "a text"),
    ("external_task_id", _text, "a text"),
)
