"""Colours: where they can be seen and are wanted, and nowhere else."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.table import Table

from kling_omni_async._cli.app import run
from kling_omni_async._cli.exit import Exit
from kling_omni_async._cli.results import plain_line
from kling_omni_async._cli.terminal import is_screen, painted, rendered, wants_colour
from kling_omni_async.errors import PollTimeoutError, TaskFailedError
from kling_omni_async.simulator import SimulatedCometAPI

from .support import Call, OnScreen, bare, create, success, trouble

PAINT = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the environment of the tests may say of colours."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    ("environ", "on_screen", "in_pipe"),
    [
        ({}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_who_wants_colours(environ: dict[str, str], *, on_screen: bool, in_pipe: bool) -> None:
    """NO_COLOR goes before FORCE_COLOR, both before what the stream is; empty ones do not count."""
    assert wants_colour(Terminal(), environ) is on_screen
    assert wants_colour(io.StringIO(), environ) is in_pipe
    assert wants_colour(None, {}) is False


def test_force_color_makes_no_screen() -> None:
    """Nothing moves in a pipe, whatever its colours."""
    assert not is_screen(io.StringIO(), {"FORCE_COLOR": "1"})
    assert is_screen(Terminal(), {"NO_COLOR": "1"})


def test_paint_is_only_paint() -> None:
    """A painted text ends its colour; without colours it is the text."""
    assert painted("x", "good", colour=True) == "\x1b[32mx\x1b[0m"
    assert painted("x", "good", colour=False) == "x"


def test_words_have_the_colour_of_their_meaning() -> None:
    """Green is well, red is final, yellow may be tried again; nothing else of a line is painted."""
    outcomes = [success(), trouble(TaskFailedError("no")), trouble(PollTimeoutError("late"))]
    lines = [plain_line(outcome, colour=True) for outcome in outcomes]
    assert [PAINT.findall(line) for line in lines] == [
        ["\x1b[32m", "\x1b[0m"],
        ["\x1b[31m", "\x1b[0m"],
        ["\x1b[33m", "\x1b[0m"],
    ]
    assert [bare(line) for line in lines] == [plain_line(outcome) for outcome in outcomes]


def test_nothing_is_folded_for_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row stays one line for grep; a terminal gets lines that fit it."""
    monkeypatch.setenv("COLUMNS", "40")
    table = Table("why")
    table.add_row("x" * 200)
    assert "x" * 200 in rendered(table, io.StringIO())
    assert max(map(len, bare(rendered(table, Terminal())).splitlines())) <= 40


@pytest.mark.parametrize(("no_color", "painted_too"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_they_are_unwanted(
    no_color: str,
    api: SimulatedCometAPI,
    on_screen: OnScreen,
    monkeypatch: pytest.MonkeyPatch,
    *,
    painted_too: bool,
) -> None:
    """With NO_COLOR the bar still moves, but nothing is painted: results, bar and table."""
    monkeypatch.setenv("NO_COLOR", no_color)
    ids = [*create(api, duration=0.0), *create(api, duration=30.0, fail="no")]
    code, text = on_screen("poll", *ids)
    assert code == Exit.NOT_ALL
    assert "\x1b[?25l" in text
    assert bool(PAINT.search(text)) is painted_too


def test_a_dumb_terminal_gets_lines(
    api: SimulatedCometAPI, on_screen: OnScreen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a cursor there is neither bar nor colour, but all results and the table."""
    monkeypatch.setenv("TERM", "dumb")
    (task_id,) = create(api, duration=0.0, fail="no")
    code, text = on_screen("poll", task_id)
    assert code == Exit.NOT_ALL
    assert "\x1b" not in text
    assert f"{task_id}\tfailed\tno" in text
    assert text.count("1 of 1 done: 1 failed") == 1


@pytest.mark.parametrize("forced", ["", "1"])
def test_a_pipe_gets_colours_only_by_force(
    forced: str, api: SimulatedCometAPI, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default not one control character; with FORCE_COLOR paint, and still no bar."""
    monkeypatch.setenv("FORCE_COLOR", forced)
    ids = [*create(api, duration=0.0), *create(api, duration=0.0, fail="no")]
    code, stdout, stderr = call("poll", *ids)
    assert code == Exit.NOT_ALL
    for text in (stdout, stderr):
        assert bool(PAINT.search(text)) is bool(forced)
        assert "\x1b" not in PAINT.sub("", text)


def test_help_has_no_colours_in_a_pipe(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read by a pager or a file is plain text."""
    assert "\x1b" not in call("poll", "--help")[1]
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert PAINT.search(call("poll", "--help")[1])


def test_a_closed_stdout_is_no_error_for_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help that nobody can read ends well."""
    monkeypatch.setattr(sys, "stdout", None)
    assert run(["--help"]) == Exit.OK
