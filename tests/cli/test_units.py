"""Times and sizes as people write them."""

from __future__ import annotations

import math
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async._cli.app import app
from kling_omni_async._cli.options import parted, with_values_joined
from kling_omni_async._cli.units import (
    format_size,
    format_time,
    human_number,
    human_size,
    human_time,
    or_none,
    parse_count,
    parse_interval,
    parse_number,
    parse_size,
    parse_time,
)

READERS = (parse_time, parse_size, parse_interval, parse_number, parse_count)
whole = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20s", 20.0),
        ("30m", 1800.0),
        ("1h30m", 5400.0),
        ("1d", 86_400.0),
        ("500ms", 0.5),
        ("1m500ms", 60.5),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("20", 20.0),
        ("0.05", 0.05),
        ("1e6", 1e6),
        ("30min", 1800.0),
        ("90 sec", 90.0),
        ("2hours", 7200.0),
        ("1 h 30 min", 5400.0),
        ("1H30M", 5400.0),
        ("2 days", 172_800.0),
    ],
)
def test_a_time_is_read(text: str, value: float) -> None:
    """Units from days to ms, short and in words, fractions, and plain numbers of s."""
    assert parse_time(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("500kB", 500_000),
        ("1MiB", 1_048_576),
        ("100 MB", 100_000_000),
        ("1.5GB", 1_500_000_000),
        ("2KiB", 2048),
        ("0.3B", 0),
        ("100mb", 100_000_000),
        ("100MB", 100_000_000),
        ("5 mib", 5_242_880),
        ("1TB", 10**12),
        ("100 bytes", 100),
        ("0.5", 0),
    ],
)
def test_a_size_is_read(text: str, value: int) -> None:
    """Decimal and binary units, and plain numbers of bytes."""
    assert parse_size(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-1",
        "-1s",
        "20x",
        "1s1h",
        "1h1h",
        "nan",
        "inf",
        "1e999",
        "٣s",
        "1h1",
        "1 hh",
        "1m1min",
        "9" * 41,
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """Neither signs nor another order of units, nor anything that is not finite."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_time(text)


@pytest.mark.parametrize("text", ["", "MB", "1M", "-1B", "1e3", "1 MB 1 kB", "9" * 41])
def test_what_is_no_size_is_refused(text: str) -> None:
    """A unit says whether it counts bytes, and there is one of them."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_size(text)


@given(st.integers(0, 10**12))
def test_a_shown_time_is_read_back(milliseconds: int) -> None:
    """Whatever time is shown, to the ms, is the time that is read."""
    value = milliseconds / 1000
    assert parse_time(format_time(value)) == value


@given(st.integers(1, 10**15))
def test_a_shown_size_is_read_back(value: int) -> None:
    """Whatever size is shown is the size that is read."""
    assert parse_size(format_size(value)) == value


@given(whole, whole, whole, whole, whole)
def test_units_add_up(days: int, hours: int, minutes: int, secs: int, ms: int) -> None:
    """All units together are their sum, exact to the last bit of a float."""
    text = f"{days}d{hours}h{minutes}m{secs}s{ms}ms"
    total_ms = (((days * 24 + hours) * 60 + minutes) * 60 + secs) * 1000 + ms
    assert parse_time(text) == total_ms / 1000


@given(st.text() | st.from_regex(r"[0-9.]{0,9}[a-zA-Z]{0,3}[0-9.]{0,3}[a-z]{0,2}", fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes a negative or endless number, or another error."""
    for read in READERS:
        try:
            value = read(text)
        except ValueError:
            continue
        parts = value if isinstance(value, tuple) else (value,)
        assert all(part >= 0 and math.isfinite(part) for part in parts)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("500ms-1m", (0.5, 60.0)),
        ("20s - 30 s", (20.0, 30.0)),
        ("20-30", (20.0, 30.0)),
        ("20-30s", (20.0, 30.0)),
        ("20-30min", (1200.0, 1800.0)),
        ("20", (20.0, 20.0)),
        ("30s", (30.0, 30.0)),
    ],
)
def test_an_interval_is_two_times_or_one(text: str, interval: tuple[float, float]) -> None:
    """Both may have units of their own, or share that of the second; one is both."""
    assert parse_interval(text) == interval


@pytest.mark.parametrize("text", ["none", "never"])
def test_nothing_can_be_written(text: str) -> None:
    """Two words stand for no limit; all else goes to the reader."""
    assert or_none(parse_time)(text) is None
    assert or_none(parse_time)("5") == 5.0


def test_counts_are_whole() -> None:
    """A fraction or a sign is no count."""
    assert parse_count("12") == 12
    for text in ("1.5", "-1", "", "²"):
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            parse_count(text)


def test_times_are_shown_short() -> None:
    """Units that are zero are left out; no limit is a word."""
    assert [format_time(value) for value in (5400.0, 0.25, 0.0, None)] == [
        "1h30m",
        "250ms",
        "0s",
        "never",
    ]
    assert [format_size(value) for value in (1_048_576, 1000, 1001)] == ["1MiB", "1kB", "1001B"]


ID = "842250903629086785"


@pytest.mark.parametrize(
    ("line", "joined"),
    [
        ("--interval 20 30 a", ["--interval", "20-30", "a"]),
        ("--interval 20s 30s a", ["--interval", "20s-30s", "a"]),
        ("--interval=20 30 a", ["--interval=20-30", "a"]),
        ("--interval 20 s 30 s a", ["--interval", "20 s-30 s", "a"]),
        ("--interval 30s 20s a", ["--interval", "30s-20s", "a"]),
        ("--interval 20-30 40", ["--interval", "20-30", "40"]),
        ("--interval=20-30 a", ["--interval=20-30", "a"]),
        ("--interval 20 --quiet", ["--interval", "20", "--quiet"]),
        ("a --interval 20", ["a", "--interval", "20"]),
        ("a --interval", ["a", "--interval"]),
        ("--interval soon 30s", ["--interval", "soon", "30s"]),
        (f"--interval 30s {ID}", ["--interval", "30s", ID]),
        (f"--interval 30 {ID} {ID}", ["--interval", "30", ID, ID]),
        (f"--interval 20s 30s {ID}", ["--interval", "20s-30s", ID]),
        ("--max-image-bytes 100 MB a", ["--max-image-bytes", "100 MB", "a"]),
        ("--timeout 30 min a", ["--timeout", "30 min", "a"]),
        ("--timeout=30 min", ["--timeout=30 min"]),
        ("--timeout=-5 a", ["--timeout=-5", "a"]),
        ("--timeout= a", ["--timeout=", "a"]),
        ("--timeout 30m s", ["--timeout", "30m", "s"]),
        ("--quiet 30 s", ["--quiet", "30", "s"]),
    ],
)
def test_a_value_may_be_several_words(line: str, joined: list[str]) -> None:
    """A number and its unit are one value, two times are one interval; an id is neither."""
    assert with_values_joined(line.split(" ")) == joined


def test_every_option_with_a_unit_may_have_a_blank_before_it() -> None:
    """None is forgotten: those that name a time or a size behind them are all."""
    arguments = app["poll"].assemble_argument_collection(default_parameter=app.default_parameter)
    measured = {
        name
        for argument in arguments
        for name in argument.names
        if argument.parameter.metavar in {"TIME", "SIZE", "LOW-HIGH"}
    }
    assert len(measured) > 3
    for option in measured:
        assert with_values_joined([option, "5", "s"]) == [option, "5 s"]


def test_two_hyphens_end_the_options() -> None:
    """From there on every word is an id, also one that looks like an option."""
    assert parted(["a", "--", "--debug", "--"]) == (["a"], ["--", "--debug", "--"])
    assert parted(["a"]) == (["a"], [])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (24.54, "24.5 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (61.4, "1 min 1 s"),
        (3599.4, "59 min 59 s"),
        (3599.9, "1 h 0 min"),
        (7380.0, "2 h 3 min"),
    ],
)
def test_times_for_people(seconds: float, words: str) -> None:
    """A time has one or two units, and never sixty of one."""
    assert human_time(seconds) == words


@pytest.mark.parametrize(
    ("size_in_bytes", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_940, "999.9 kB"),
        (999_960, "1.0 MB"),
        (2_500_000_000, "2.5 GB"),
        (7_200_000_000_000_000, "7,200.0 TB"),
    ],
)
def test_sizes_for_people(size_in_bytes: int, words: str) -> None:
    """A size has the unit that keeps it short."""
    assert human_size(size_in_bytes) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("0", "0"),
        ("8.00", "8"),
        ("0.250", "0.25"),
        ("1E+2", "100"),
        ("100", "100"),
        ("1E-3", "0.001"),
    ],
)
def test_units_for_people(value: str, words: str) -> None:
    """A decimal is written out, without zeros that say nothing."""
    assert human_number(Decimal(value)) == words
