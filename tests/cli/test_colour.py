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

from .support import FAST, bare, finish, neighbour, start, success, terminal_of, trouble

PAINT = re.compile(r"\x1b\[[0-9;]*m")
NONE = {"NO_COLOR": "", "FORCE_COLOR": ""}


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


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
    assert wants_colour(Screen(), environ) is on_screen
    assert wants_colour(io.StringIO(), environ) is in_pipe
    assert wants_colour(None, {}) is False


def test_force_color_makes_no_screen() -> None:
    """Nothing moves in a pipe, whatever its colours."""
    assert not is_screen(io.StringIO(), {"FORCE_COLOR": "1"})
    assert is_screen(Screen(), {"NO_COLOR": "1"})


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
    assert max(map(len, bare(rendered(table, Screen())).splitlines())) <= 40


@pytest.mark.parametrize(
    ("env", "painted_too"), [(NONE, True), ({**NONE, "NO_COLOR": "1"}, False)], ids=["plain", "no"]
)
def test_a_terminal_gets_colours_unless_they_are_unwanted(
    env: dict[str, str], *, painted_too: bool
) -> None:
    """With NO_COLOR the bar still moves, but nothing is painted: results, bar and table."""
    with neighbour() as api:
        ids = [*api.create(duration=0.0), *api.create(duration=0.3, fail="no")]
        code, text = terminal_of("poll", *ids, *FAST, env={**api.env, **env})
    assert code == 1
    assert "\x1b[?25l" in text
    assert bool(PAINT.search(text)) is painted_too


def test_a_dumb_terminal_gets_lines() -> None:
    """Without a cursor there is neither bar nor colour, but all results and the table."""
    with neighbour() as api:
        ids = api.create(duration=0.0, fail="no")
        code, text = terminal_of("poll", *ids, *FAST, env={**api.env, **NONE, "TERM": "dumb"})
    assert code == 1
    assert "\x1b" not in text
    assert f"{ids[0]}\tfailed\tno" in text
    assert text.count("1 of 1 done: 1 failed") == 1


@pytest.mark.parametrize("forced", ["", "1"])
def test_a_pipe_gets_colours_only_by_force(forced: str) -> None:
    """By default not one control character; with FORCE_COLOR paint, and still no bar."""
    with neighbour() as api:
        ids = [*api.create(duration=0.0), *api.create(duration=0.0, fail="no")]
        env = {**api.env, **NONE, "FORCE_COLOR": forced, "TERM": "xterm"}
        code, stdout, stderr = finish(start("poll", *ids, *FAST, env=env))
    assert code == 1
    for text in (stdout, stderr):
        assert bool(PAINT.search(text)) is bool(forced)
        assert "\x1b" not in PAINT.sub("", text)


def test_help_has_no_colours_in_a_pipe() -> None:
    """What is read by a pager or a file is plain text."""
    env = {**NONE, "TERM": "xterm"}
    assert "\x1b" not in finish(start("poll", "--help", env=env))[1]
    assert PAINT.search(finish(start("poll", "--help", env={**env, "FORCE_COLOR": "1"}))[1])


def test_a_closed_stdout_is_no_error_for_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help that nobody can read ends well."""
    monkeypatch.setattr(sys, "stdout", None)
    assert run(["--help"]) == Exit.OK
