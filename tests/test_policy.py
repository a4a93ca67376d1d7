"""A policy is right, or it is refused with the name of the field and a rule to follow."""

# The checks of the fields are made when the module is imported; some tests make one of their own.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import math
import re
import sys
from typing import Any

import attrs
import pytest

from kling_omni_async import ConfigurationError, PollPolicy
from kling_omni_async._policy import POLICY_TIMEOUT, _number, require_timeout

from .support import plain

TOO_LONG_TO_WRITE = 10**5000
"""Python writes no int of more than 4,300 digits."""


def test_defaults() -> None:
    """The defaults are those of the documentation."""
    assert attrs.asdict(PollPolicy()) == {
        "interval": (20.0, 30.0),
        "timeout": 3600.0,
        "max_concurrency": 100,
        "max_rate": 100.0,
        "query_timeout": 15.0,
        "confirmations": 2,
        "timing": "learned",
        "max_response_bytes": 1_048_576,
        "max_pending": 1_000_000,
        "create_timeout": 60.0,
        "max_downloads": 8,
        "max_image_bytes": 104_857_600,
        "download_timeout": 300.0,
        "download_tries": 5,
        "allow_hosts": (),
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("interval", (0, 1)),
        ("interval", (5, 5)),
        ("interval", (0.001, 1e9)),
        ("timeout", None),
        ("timeout", 0),
        ("timeout", 0.5),
        ("timeout", sys.float_info.max),
        ("max_concurrency", 1),
        ("max_rate", None),
        ("max_rate", 0.01),
        ("query_timeout", 1),
        ("confirmations", 1),
        ("max_response_bytes", 1),
        ("max_pending", 1),
        ("create_timeout", 0.1),
        ("max_downloads", 1),
        ("max_image_bytes", 1),
        ("download_timeout", 0.1),
        ("download_tries", 1),
        ("allow_hosts", ()),
        (
            "allow_hosts",
            (
                "minio",
                "a.example",
                "*.b.example",
                "10.0.0.1",
                "fd00::1",
                "[fd00::1]",
                "b\u00fccher.de",
            ),
        ),
    ],
)
def test_good_values(field: str, value: Any) -> None:
    """Values on the edge of what is allowed are kept as they are."""
    assert getattr(PollPolicy(**{field: value}), field) == value


@pytest.mark.parametrize("value", [(20, 30), [20, 30], (20.0, 30)])
def test_interval_becomes_two_floats(value: Any) -> None:
    """Any sequence of two numbers will do for the interval."""
    interval = PollPolicy(interval=value).interval
    assert interval == (20.0, 30.0)
    assert [type(bound) for bound in interval] == [float, float]


NUMBERS = [math.nan, math.inf, -math.inf, -1, -0.5, True, "5", [5], 1j, TOO_LONG_TO_WRITE]
WHOLE = [math.nan, 0, -1, 1.0, True, False, "5", None, [5], -TOO_LONG_TO_WRITE]


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        *(("timeout", value, "a number of s, 0 or more, or None") for value in NUMBERS),
        *(("max_rate", value, "a number above 0, or None") for value in [*NUMBERS, 0, 1e-10]),
        *(("query_timeout", value, "a number of s above 0") for value in [*NUMBERS, 0, None]),
        *(("max_concurrency", value, "a whole number of 1 or more") for value in WHOLE),
        *(("confirmations", value, "a whole number of 1 or more") for value in WHOLE),
        *(("max_response_bytes", value, "a whole number of 1 or more") for value in WHOLE),
        *(("max_pending", value, "a whole number of 1 or more") for value in WHOLE),
        *(("create_timeout", value, "a number of s above 0") for value in [*NUMBERS, 0, None]),
        *(("max_downloads", value, "a whole number of 1 or more") for value in WHOLE),
        *(("max_image_bytes", value, "a whole number of 1 or more") for value in WHOLE),
        *(("download_timeout", value, "a number of s above 0") for value in [*NUMBERS, 0, None]),
        *(("download_tries", value, "a whole number of 1 or more") for value in WHOLE),
        *(
            (
                "allow_hosts",
                value,
                'a tuple of host names or addresses, such as ("images.example", "*.example")',
            )
            for value in [
                None,
                "a.example",
                b"a.example",
                {"a.example"},
                ("",),
                ("a b",),
                (5,),
                ("*",),
                ("*.",),
                ("a.*.example",),
                ("https://a.example",),
                ("a.example/b",),
                ("a.example:443",),
                ("me@a.example",),
                ("[fd00::1",),
            ]
        ),
        *(
            ("interval", value, "two numbers of s, the lower first, such as (20, 30)")
            for value in [
                None,
                20,
                "20",
                (20,),
                (20, 25, 30),
                (30, 20),
                (-1, 20),
                (0, 0),
                (0, math.inf),
                (0, 1e10),
                (math.nan, 20),
                (20, math.nan),
                (False, True),
                ("20", "30"),
                {20, 30},
                (1, TOO_LONG_TO_WRITE),
            ]
        ),
    ],
    ids=plain,
)
def test_bad_values(field: str, value: Any, rule: str) -> None:
    """A bad value is refused with the field's name and what to write instead."""
    with pytest.raises(
        ConfigurationError, match=rf"^PollPolicy\.{field} must be {re.escape(rule)}, not "
    ):
        PollPolicy(**{field: value})


def test_bad_value_is_shown() -> None:
    """The message shows the bad value, cut to a length that fits, or its type at least."""
    with pytest.raises(ConfigurationError, match=r"not -5$"):
        PollPolicy(timeout=-5)
    with pytest.raises(ConfigurationError, match=r"not -5$"):
        PollPolicy(confirmations=-5)
    with pytest.raises(ConfigurationError, match=r"not \(30, 20\)$"):
        PollPolicy(interval=(30, 20))
    with pytest.raises(ConfigurationError, match=r"not -5$"):
        require_timeout(-5)
    with pytest.raises(ConfigurationError) as caught:
        PollPolicy(timeout="x" * 10_000)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert str(caught.value).endswith("or None, not '" + "x" * 79)
    with pytest.raises(ConfigurationError, match=r"not such a value of int$"):
        PollPolicy(timeout=TOO_LONG_TO_WRITE)


@pytest.mark.parametrize("optional", [{}, {"optional": False}, {"optional": True}])
def test_a_check_of_a_number(optional: dict[str, bool]) -> None:
    """A check takes what its rule accepts, None only where it may, and quotes its rule."""
    check = _number("odd", lambda number: number % 2 == 1, **optional)
    kind = attrs.make_class("Odd", {"field": attrs.field(validator=check)})
    assert kind(3).field == 3
    for bad in [2, "3", True, math.inf, *([] if optional.get("optional") else [None])]:
        text = f"PollPolicy.field must be odd, not {bad!r}"
        with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}$"):
            kind(bad)
    if optional.get("optional"):
        assert kind(None).field is None


def test_change_is_checked_too() -> None:
    """A policy evolved from another is checked like a new one."""
    with pytest.raises(ConfigurationError, match=r"PollPolicy\.confirmations"):
        attrs.evolve(PollPolicy(), confirmations=0)


def test_mean_interval() -> None:
    """The mean lies in the middle of the interval."""
    assert PollPolicy(interval=(10, 40)).mean_interval == 25.0


@pytest.mark.parametrize(
    ("given", "expected"), [(None, None), (0, 0.0), (5, 5.0), (0.25, 0.25), (1e300, 1e300)]
)
def test_time_limit_of_a_verb(given: float | None, expected: float | None) -> None:
    """A verb's own time limit is a number of s from 0 on, or None."""
    assert require_timeout(given) == expected


@pytest.mark.parametrize("given", NUMBERS, ids=plain)
def test_bad_time_limit_of_a_verb(given: Any) -> None:
    """Any other time limit is refused with a rule to follow."""
    with pytest.raises(
        ConfigurationError, match="timeout must be a number of s, 0 or more, or None, not "
    ):
        require_timeout(given)


def test_the_default_time_limit_says_where_it_stands() -> None:
    """Signatures and the documentation show its name."""
    assert repr(POLICY_TIMEOUT) == "policy.timeout"


@pytest.mark.parametrize("host", ["[::1]", "[1::]", "::1", "1::", "a.example", "*.a.example"])
def test_allowed_hosts(host: str) -> None:
    """A name, all below a name, and an address, also as it stands in a URL."""
    assert PollPolicy(allow_hosts=(host,)).allow_hosts == (host,)


@pytest.mark.parametrize("timing", ["learned", "uniform"])
def test_both_ways_to_time(timing: Any) -> None:
    """Pauses are drawn where tasks are likely to end, or evenly."""
    assert PollPolicy(timing=timing).timing == timing


@pytest.mark.parametrize("timing", ["LEARNED", "even", "", None, 7])
def test_no_other_way_to_time(timing: Any) -> None:
    """The message shows what was given and what may be."""
    with pytest.raises(ConfigurationError) as caught:
        PollPolicy(timing=timing)
    text = f'PollPolicy.timing must be "learned" or "uniform", not {timing!r}'
    assert str(caught.value) == text


def test_what_is_no_list_of_hosts_is_shown() -> None:
    """As it was given."""
    with pytest.raises(ConfigurationError, match=r"not 'a\.example'$"):
        PollPolicy(allow_hosts="a.example")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
