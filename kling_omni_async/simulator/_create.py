"""What ``POST /kling/v1/images/omni-image`` accepts (CometAPI docs). Pure: bytes in, fields out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from ._settings import Fits

_UNREADABLE = 1200
_BAD_VALUE = 1201

_LONGEST_PROMPT = 2_500
_MOST_REFERENCES = 10
_AUTO_AMOUNT = 4  # the API chooses; any number of a series would do
_MODELS = ("kling-image-o1", "kling-v3-omni")
_RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9", "auto")


class BadOrderError(Exception):
    """Raised when a create request is refused, with a code of the vendor and a text."""


def read_order(content: bytes) -> dict[str, Any]:
    """Return the fields of a simulated task that a create request decides."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    order = _mapping(body)
    if not isinstance(body, dict):
        raise BadOrderError(_UNREADABLE, "the body must be a JSON object")
    _check(order)
    series = order.get("result_type") == "series"
    amount = order.get("series_amount") or "auto" if series else order.get("n") or 1
    return {
        "images": _AUTO_AMOUNT if amount == "auto" else amount,
        "series": series,
        "watermarked": bool(_mapping(order.get("watermark_info")).get("enabled")),
        "external_task_id": order.get("external_task_id"),
    }


def _check(order: Mapping[str, Any]) -> None:
    # null is the same as missing, but for the one field that must be there
    for name, fits, wanted in _RULES:
        if (name == "prompt" or order.get(name) is not None) and not fits(order.get(name)):
            raise BadOrderError(_BAD_VALUE, f"{name} must be {wanted}")
    references = [*(order.get("image_list") or ()), *(order.get("element_list") or ())]
    if len(references) > _MOST_REFERENCES:
        raise BadOrderError(_BAD_VALUE, "image_list and element_list hold more than 10 together")


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _prompt(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= _LONGEST_PROMPT


def _one_of(*words: str) -> Fits:
    return lambda value: isinstance(value, str) and value in words


def _count(least: int, most: int, *words: str) -> Fits:
    # bool is an int in Python, but not in JSON
    return lambda value: value in words or (type(value) is int and least <= value <= most)


def _holds(key: str, kind: type) -> Fits:
    return lambda value: type(_mapping(value).get(key)) is kind


def _list_of(fits: Fits) -> Fits:
    return lambda value: isinstance(value, list) and all(map(fits, cast("list[object]", value)))


_RULES: tuple[tuple[str, Fits, str], ...] = (
    ("prompt", _prompt, "a text of 1 to 2500 characters"),
    ("model_name", _one_of(*_MODELS), " or ".join(_MODELS)),
    ("image_list", _list_of(_holds("image", str)), 'a list of {"image": URL or base64}'),
    ("element_list", _list_of(_holds("element_id", int)), 'a list of {"element_id": integer}'),
    ("resolution", _one_of("1k", "2k", "4k"), "1k, 2k or 4k"),
    ("result_type", _one_of("single", "series"), "single or series"),
    ("n", _count(1, 9), "an integer from 1 to 9"),
    ("series_amount", _count(2, 9, "auto"), "an integer from 2 to 9, or auto"),
    ("aspect_ratio", _one_of(*_RATIOS), f"one of {', '.join(_RATIOS)}"),
    ("watermark_info", _holds("enabled", bool), '{"enabled": true or false}'),
    ("callback_url", lambda value: isinstance(value, str), "a text"),
    ("external_task_id", lambda value: isinstance(value, str), "a text"),
)
