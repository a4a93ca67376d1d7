"""What ``POST /kling/v1/images/omni-image`` accepts (CometAPI docs). Pure: bytes in, fields out."""

from __future__ import annotations

import json
from typing import Any

from kling_omni_async._api.create import fault_in
from kling_omni_async._api.values import an_object

_UNREADABLE = 1200
_BAD_VALUE = 1201

_UNITS = {"4k": 16}  # for an image; 8 of every other size (CometAPI docs)
_AUTO_AMOUNT = 4  # the API chooses; any number of a series would do


class BadOrderError(Exception):
    """Raised when a create request is refused, with a code of the vendor and a text."""


def external_id_in(content: bytes) -> str | None:
    """Return what a create request names its task, if it does."""
    name = an_object(_parsed(content)).get("external_task_id")
    return name if isinstance(name, str) else None


def _parsed(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def read_order(content: bytes) -> dict[str, Any]:
    """Return the fields of a simulated task that a create request decides."""
    body = _parsed(content)
    order = an_object(body)
    if not isinstance(body, dict):
        raise BadOrderError(_UNREADABLE, "the body must be a JSON object")
    if (fault := fault_in(order)) is not None:
        raise BadOrderError(_BAD_VALUE, fault)
    series = order.get("result_type") == "series"
    amount = order.get("series_amount") or "auto" if series else order.get("n") or 1
    images = _AUTO_AMOUNT if amount == "auto" else amount
    return {
        "images": images,
        "units": str(images * _UNITS.get(order.get("resolution") or "", 8)),
        "slots": order.get("n") or 1,
        "series": series,
        "watermarked": bool(an_object(order.get("watermark_info")).get("enabled")),
        "external_task_id": order.get("external_task_id"),
        "callback_url": order.get("callback_url"),
    }
