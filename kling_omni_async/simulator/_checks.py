"""Validators of attrs fields whose complaints name the argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from attrs import Attribute

_LEAST_STATUS = 200  # after a 1xx a client waits for the real answer

Validator: TypeAlias = Callable[[object, "Attribute[Any]", object], None]


def whole(least: int) -> Validator:
    """Require an ``int`` that is no ``bool``, from ``least`` up."""

    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        if type(value) is not int:
            raise TypeError(f"{attribute.name} must be an int, got {value!r}")
        if value < least:
            raise ValueError(f"{attribute.name} must be at least {least}, got {value}")

    return check


def http_status(_: object, attribute: Attribute[Any], status: object) -> None:
    """Require the status of a final answer."""
    whole(_LEAST_STATUS)(_, attribute, status)
    if status not in range(_LEAST_STATUS, 1000):
        raise ValueError(f"{attribute.name} must be from {_LEAST_STATUS} to 999, got {status}")


def not_negative(_: object, attribute: Attribute[Any], value: object) -> None:
    """Require a number from 0 up; infinity is one."""
    if not _number(attribute, value) >= 0:
        raise ValueError(f"{attribute.name} must be 0 or more, got {value!r}")


def positive(_: object, attribute: Attribute[Any], value: object) -> None:
    """Require a finite number above 0."""
    if not 0 < _number(attribute, value) < math.inf:
        raise ValueError(f"{attribute.name} must be above 0 and finite, got {value!r}")


def _number(attribute: Attribute[Any], value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{attribute.name} must be a number, got {value!r}")
    return value
