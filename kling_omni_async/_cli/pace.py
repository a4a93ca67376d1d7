"""The options that are fields of `PollPolicy`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import attrs
from cyclopts import Parameter

from kling_omni_async._policy import PollPolicy

from .exit import UsageError
from .units import (
    count,
    interval,
    number,
    or_none,
    seconds,
    shown_size,
    shown_time,
    size,
)

_USUAL = PollPolicy()
_TIME = Parameter(metavar="TIME")
_SIZE = Parameter(metavar="SIZE")
_NUMBER = Parameter(metavar="NUMBER")


@attrs.frozen(kw_only=True)
class Limits:
    """What bounds queries; each option is a field of `PollPolicy`.

    Attributes:
        query_timeout: The longest time for one query.
        max_rate: The most queries a second, evenly spaced; none for no limit.
        max_concurrency: The most queries under way at a time.
        max_response_bytes: The largest answer that is read.
    """

    query_timeout: Annotated[str, _TIME] = shown_time(_USUAL.query_timeout)
    max_rate: Annotated[str, _NUMBER] = f"{_USUAL.max_rate:g}"
    max_concurrency: Annotated[str, _NUMBER] = str(_USUAL.max_concurrency)
    max_response_bytes: Annotated[str, _SIZE] = shown_size(_USUAL.max_response_bytes)


@attrs.frozen(kw_only=True)
class Pace:
    """How often and how long ids are polled; each option is a field of `PollPolicy`.

    Attributes:
        interval: The pause between two queries of an id: two times, drawn anew each time.
        timeout: How long to poll an id before it is given up; never for no end.
        confirmations: How often "not found" must be said in a row before it is believed.
        max_pending: The most ids that are read and not yet finished; reading waits beyond it.
    """

    interval: Annotated[str, Parameter(metavar="LOW-HIGH")] = "-".join(
        map(shown_time, _USUAL.interval)
    )
    timeout: Annotated[str, _TIME] = shown_time(_USUAL.timeout)
    confirmations: Annotated[str, _NUMBER] = str(_USUAL.confirmations)
    max_pending: Annotated[str, _NUMBER] = str(_USUAL.max_pending)


@attrs.frozen(kw_only=True)
class Downloads:
    """How images are fetched; each option is a field of `PollPolicy`.

    Attributes:
        max_downloads: The most images that are fetched at a time.
        max_image_bytes: The largest image that is stored.
        download_timeout: The longest time for one try to fetch an image.
    """

    max_downloads: Annotated[str, _NUMBER] = str(_USUAL.max_downloads)
    max_image_bytes: Annotated[str, _SIZE] = shown_size(_USUAL.max_image_bytes)
    download_timeout: Annotated[str, _TIME] = shown_time(_USUAL.download_timeout)


@attrs.frozen
class _Kind:
    """How the text of an option is read.

    Attributes:
        read: Gives the field's value, or raises ValueError.
        hint: What to write.
    """

    read: Callable[[str], object]
    hint: str


_A_TIME: Final = _Kind(seconds, "a time above 0, such as 20s, 1m30s or 500ms")
_A_SIZE: Final = _Kind(size, "a size such as 500kB, 1MiB or 100MB")
_A_COUNT: Final = _Kind(count, "a whole number of 1 or more")
_KINDS: Final = {
    "interval": _Kind(interval, "two times, the lower first, such as 20s-30s"),
    "timeout": _Kind(or_none(seconds), "a time such as 30m or 1h30m, or never"),
    "max_rate": _Kind(or_none(number), "queries a second, above 0, such as 50, or none"),
    "max_concurrency": _A_COUNT,
    "query_timeout": _A_TIME,
    "confirmations": _A_COUNT,
    "max_pending": _A_COUNT,
    "max_response_bytes": _A_SIZE,
    "max_downloads": _A_COUNT,
    "max_image_bytes": _A_SIZE,
    "download_timeout": _A_TIME,
}


def policy_of(*options: Limits | Pace | Downloads) -> PollPolicy:
    """Give the policy that options ask for.

    Raises:
        UsageError: The text of one makes no sense; what to write instead is told.
    """
    values: dict[str, Any] = {}
    for each in options:
        for field in attrs.fields(type(each)):
            values[field.name] = _value(field.name, getattr(each, field.name))
    return PollPolicy(**values)


def _value(field: str, text: str) -> object:
    """Read the text of one option; the policy itself knows which values it takes."""
    kind = _KINDS[field]
    try:
        value: Any = kind.read(text.strip())
        PollPolicy(**{field: value})
    except ValueError:  # the policy's own is one too
        option = f"--{field.replace('_', '-')}"
        raise UsageError(f"{option} cannot be {text!r:.60}: write {kind.hint}") from None
    return value
