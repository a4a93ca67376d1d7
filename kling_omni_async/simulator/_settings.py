"""What a simulator is set to, and the checks of arguments that all rooms share."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

from attrs import Attribute, field, frozen
from attrs.validators import instance_of

Validator: TypeAlias = Callable[[object, "Attribute[Any]", object], None]

# A 1xx is no final answer: a client would go on waiting for one.
_LEAST_STATUS = 200
_HIGHEST_STATUS = 999


def whole(least: int) -> Validator:
    """Require an ``int`` that is no ``bool``, from ``least`` up."""

    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        # by exact type: `True` would pass for 1
        if type(value) is not int:
            raise TypeError(f"{attribute.name} must be an int, got {value!r}")
        if value < least:
            raise ValueError(f"{attribute.name} must be at least {least}, got {value}")

    return check


def http_status(_: object, attribute: Attribute[Any], status: object) -> None:
    """Require the status of a final answer."""
    whole(_LEAST_STATUS)(_, attribute, status)
    if status not in range(_LEAST_STATUS, _HIGHEST_STATUS + 1):
        raise ValueError(
            f"{attribute.name} must be from {_LEAST_STATUS} to {_HIGHEST_STATUS}, got {status}"
        )


def not_negative(_: object, attribute: Attribute[Any], value: object) -> None:
    """Require a number from 0 up; infinity is one."""
    # not `< 0`: NaN is refused too
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


def _aware(_: object, attribute: Attribute[datetime], value: datetime) -> None:
    if value.tzinfo is None:
        raise ValueError(f"{attribute.name} must have a time zone, got {value!r}")


def _not_blank(_: object, attribute: Attribute[str], value: str) -> None:
    if not value or value != value.strip():
        raise ValueError(f"{attribute.name} must not be blank or begin or end with a space")


@frozen(kw_only=True)
class Settings:
    """The arguments of the simulator, checked."""

    seed: int = field(validator=whole(0))
    time_scale: float = field(validator=positive)
    api_key: str = field(validator=[instance_of(str), _not_blank], repr=False)
    host: str = field(validator=[instance_of(str), _not_blank])
    port: int = field(validator=whole(0))
    latency: float = field(validator=not_negative)
    wrapped: bool = field(validator=instance_of(bool))
    epoch: datetime = field(validator=[instance_of(datetime), _aware])
    log_size: int = field(validator=whole(1))

    @property
    def epoch_ms(self) -> int:
        """The date at the start, in milliseconds since the epoch."""
        return round(self.epoch.timestamp() * 1000)


def drawn_key(seed: int) -> str:
    """Make up a key that nobody takes for a real one."""
    digits = random.Random(f"key {seed}").getrandbits(128)
    return f"sk-simulated-{digits:032x}"
