"""What a simulator is set to, and the checks of arguments that all rooms share."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any, Literal, TypeAlias

from attrs import Attribute, field, frozen
from attrs.validators import and_, optional

Duplicates: TypeAlias = Literal["refused", "wrapped", "accepted"]
Callbacks: TypeAlias = Literal["once", "repeated", "shuffled", "none"]

Fits: TypeAlias = Callable[[Any], bool]
Validator: TypeAlias = Callable[[object, "Attribute[Any]", Any], None]


def must(wanted: str, fits: Fits, error: type[Exception] = ValueError) -> Validator:
    """Make a check that names the field, what it must be and what it is."""

    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        if not fits(value):
            # a field that is not shown is a key
            shown = f", got {value!r:.80}" if attribute.repr else ""
            raise error(f"{attribute.name} must {wanted}{shown}")

    return check


def whole(least: int) -> Validator:
    """Require an ``int`` that is no ``bool``, from ``least`` up."""
    # by exact type: `True` would pass for 1
    an_int = must("be an int", lambda value: type(value) is int, TypeError)
    return and_(an_int, must(f"be at least {least}", lambda value: value >= least))


def one_of(*words: str) -> Validator:
    """Require one of some words."""
    return must(f"be one of {', '.join(words)}", lambda value: value in words)


def _is_whole(text: str) -> bool:
    """Return whether UTF-8 has bytes for a text: it has none for half a character."""
    return not any("\ud800" <= each <= "\udfff" for each in text)


a_text = and_(
    must("be a str", lambda value: isinstance(value, str), TypeError),
    must("be text that UTF-8 can carry", _is_whole),
)
a_bool = must("be True or False", lambda value: isinstance(value, bool), TypeError)
_a_number = must(
    "be a number",
    lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    TypeError,
)
# NaN is neither of them
not_negative = and_(_a_number, must("be 0 or more", lambda value: value >= 0))
positive = and_(_a_number, must("be above 0 and finite", lambda value: 0 < value < math.inf))
# A 1xx is no final answer: a client would go on waiting for one.
http_status = and_(whole(200), must("be from 200 to 999", lambda value: value in range(200, 1000)))
_a_port = must("be from 0 to 65535", lambda value: value in range(0x10000))
_a_function = must("be a function", callable, TypeError)
_aware = must("have a time zone", lambda value: value.tzinfo is not None)
_a_datetime = must("be a datetime", lambda value: isinstance(value, datetime), TypeError)
_not_blank = must(
    "not be blank or begin or end with a space", lambda text: bool(text) and text == text.strip()
)
_for_a_header = must(
    "be of printable ASCII characters, without a blank",
    lambda text: text.isascii() and text.isprintable() and " " not in text,
)


@frozen(kw_only=True)
class Settings:
    """The arguments of the simulator, checked."""

    seed: int = field(validator=whole(0))
    time_scale: float = field(validator=positive)
    api_key: str = field(validator=[a_text, _not_blank, _for_a_header], repr=False)
    host: str = field(validator=[a_text, _not_blank])
    port: int = field(validator=[whole(0), _a_port])
    latency: float = field(validator=not_negative)
    wrapped: bool = field(validator=a_bool)
    epoch: datetime = field(validator=[_a_datetime, _aware])
    log_size: int = field(validator=whole(1))
    slots: int | None = field(validator=optional(whole(1)))
    duplicates: Duplicates = field(validator=one_of("refused", "wrapped", "accepted"))
    by_external_id: bool = field(validator=a_bool)
    callbacks: Callbacks = field(validator=one_of("once", "repeated", "shuffled", "none"))
    refresh: float = field(validator=not_negative)
    durations: Callable[[Random], float] | None = field(validator=optional(_a_function))
    control: bool = field(validator=a_bool)

    def refreshed(self, moment: float) -> float:
        """Return when the gateway has looked last, in simulated seconds."""
        return moment - moment % self.refresh if self.refresh else moment

    def milliseconds(self, moment: float) -> int:
        """Return simulated seconds as milliseconds since the epoch."""
        return round(1000 * self.epoch.timestamp()) + round(1000 * moment)
