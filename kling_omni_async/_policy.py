"""How often, how many and how long: the one place where polling is tuned."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeGuard, cast

import attrs

from .errors import ConfigurationError

LONGEST_S: Final = 1e9
"""The longest pause in s, some 30 years: beyond it sums of times lose their seconds."""

MAX_RETRY_AFTER_S: Final = 120.0
"""The longest wait that a ``Retry-After`` gets, in s."""


class _PolicyTimeout(float):
    """Stands for the time-out of the policy, and shows so in signatures."""

    def __repr__(self) -> str:
        return "policy.timeout"


POLICY_TIMEOUT: Final[float] = _PolicyTimeout("nan")
"""The default of a verb's ``timeout``; known by identity, never counted with."""

_HOST = re.compile(r"(?:\*\.)?[^\s*/@?#:\[\]]+")

Check = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def _refuse(field: str, value: object, rule: str) -> ConfigurationError:
    return ConfigurationError(f"PollPolicy.{field} must be {rule}, not {_quoted(value)}")


def _quoted(value: object) -> str:
    try:
        return repr(value)[:80]
    except Exception:  # noqa: BLE001 - such as an int of more digits than Python writes
        return f"such a value of {type(value).__name__}"


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def _number(rule: str, accept: Callable[[Any], bool], *, optional: bool = False) -> Check:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if optional and value is None:
            return
        if not (_is_number(value) and accept(value)):
            raise _refuse(attribute.name, value, rule)

    return check


_above_0 = _number("a number of s above 0", lambda s: s > 0)
_time_limit = _number("a number of s, 0 or more, or None", lambda s: s >= 0, optional=True)
_rate = _number("a number above 0, or None", lambda rate: rate * LONGEST_S >= 1, optional=True)


def _at_least_one(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refuse(attribute.name, value, "a whole number of 1 or more")


def _timing(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value not in ("learned", "uniform"):
        raise _refuse(attribute.name, value, '"learned" or "uniform"')


# A converter takes anything at run time; its annotation is what a type checker lets users write.
def _hosts(value: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    given = cast("object", value)
    hosts = cast("Sequence[object]", given) if isinstance(given, tuple | list) else (None,)
    if not all(isinstance(host, str) and _is_host(host) for host in hosts):
        rule = 'a tuple of host names or addresses, such as ("images.example", "*.example")'
        raise _refuse("allow_hosts", value, rule)
    return tuple(map(str, hosts))


def _is_host(text: str) -> bool:
    if _HOST.fullmatch(text):
        return True
    try:
        return bool(ipaddress.IPv6Address(text[1:-1] if text[:1] + text[-1:] == "[]" else text))
    except ValueError:
        return False


def _interval(value: tuple[float, float]) -> tuple[float, float]:
    match cast("object", value):
        case (int() | float() as low, int() | float() as high) if _is_interval(low, high):
            return float(low), float(high)
        case _:
            raise _refuse("interval", value, "two numbers of s, the lower first, such as (20, 30)")


def _is_interval(low: float, high: float) -> bool:
    in_order = _is_number(low) and _is_number(high) and 0 <= low <= high
    return in_order and 0 < high <= LONGEST_S


@attrs.frozen(kw_only=True)
class PollPolicy:
    """How a session polls. A bad value raises `ConfigurationError` that names its field.

    Attributes:
        interval: The pause from the end of one query of an id to the start of its next, in s,
            chosen anew each time between the two bounds, see `timing`. The API's documentation
            asks for 20 to 30 s, and the gateway refreshes no faster than every 15 s.
        timeout: How long to wait for an id, in s, or None to wait for ever. `wait` and `watch`
            count from the call, `poll` from the start of each id's first query.
        max_concurrency: Queries in flight, for the whole session.
        max_rate: Query starts a second, for the whole session, evenly spaced, or None for no
            pacing. When more is due than it can serve, each id waits for its turn.
        query_timeout: The time for one query, from connecting to the last byte, in s.
        confirmations: How many ``task_not_exist`` answers in a row, or ``succeed`` answers
            without a usable image URL, it takes to believe them. Answers less than
            ``interval[0]`` apart count as one, whoever asked.
        timing: ``"learned"`` chooses the pause within `interval` by how long tasks have taken,
            so that images are seen sooner; ``"uniform"`` draws it evenly. An interval whose upper
            bound is over three times the lower, or that begins at 0, is always drawn evenly.
        max_response_bytes: The largest answer that is read, in bytes after decompression.
        max_pending: Ids of one stream that are read from an input without a length, such as a
            generator or a feed, and not yet handed out; the input waits beyond it.
        create_timeout: The time for one create, from connecting to the last byte, in s, of which at
            most 15 s are for connecting. It is longer than that of a query, as to give up makes
            doubt.
        max_downloads: Images on their way into a store, for the whole session.
        max_image_bytes: The largest image that is stored, in bytes.
        download_timeout: The time for one try to fetch an image, from connecting to the last
            byte, in s. One that does not begin within 30 s, or brings less than 32 KiB in 30 s,
            ends sooner.
        download_tries: Tries for one image before it is given up, with growing pauses. An image
            whose host does not have it yet is asked for longer: for three minutes.
        allow_hosts: Hosts of images that may be on private addresses, each as it stands in a
            URL; ``*.example.com`` is every host below that name. Their URLs are https all the
            same.
    """

    # Fourteen fields: each is a knob of its own, and a public name.
    interval: tuple[float, float] = attrs.field(default=(20.0, 30.0), converter=_interval)
    timeout: float | None = attrs.field(default=3600.0, validator=_time_limit)
    max_concurrency: int = attrs.field(default=100, validator=_at_least_one)
    max_rate: float | None = attrs.field(default=100.0, validator=_rate)
    query_timeout: float = attrs.field(default=15.0, validator=_above_0)
    confirmations: int = attrs.field(default=2, validator=_at_least_one)
    timing: Literal["learned", "uniform"] = attrs.field(default="learned", validator=_timing)
    max_response_bytes: int = attrs.field(default=1_048_576, validator=_at_least_one)
    max_pending: int = attrs.field(default=1_000_000, validator=_at_least_one)
    create_timeout: float = attrs.field(default=60.0, validator=_above_0)
    max_downloads: int = attrs.field(default=8, validator=_at_least_one)
    max_image_bytes: int = attrs.field(default=100 * 1_048_576, validator=_at_least_one)
    download_timeout: float = attrs.field(default=300.0, validator=_above_0)
    download_tries: int = attrs.field(default=5, validator=_at_least_one)
    allow_hosts: tuple[str, ...] = attrs.field(default=(), converter=_hosts)

    @property
    def mean_interval(self) -> float:
        """The middle of `interval`, in s."""
        return (self.interval[0] + self.interval[1]) / 2


def require_timeout(timeout: object, name: str = "timeout") -> float | None:
    """Return a verb's time limit in s, if it is one."""
    if timeout is None:
        return None
    if _is_number(timeout) and timeout >= 0:
        return float(timeout)
    rule = "a number of s, 0 or more, or None"
    raise ConfigurationError(f"{name} must be {rule}, not {_quoted(timeout)}")
