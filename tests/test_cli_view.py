"""Progress: a bar on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

import pytest

from kling_omni_async._cli._live import Bar, choose_view
from kling_omni_async._cli._summary import Kind, Tally
from kling_omni_async._cli._view import Lines, Silent

from .cli_support import FAST, neighbour, start

NEVER_S = 3600.0


def half_done() -> Tally:
    """Give counts with one of two ids done."""
    tally = Tally(2)
    tally.counts[Kind.SUCCEEDED] = 1
    return tally


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """A line is written at once and then when the last one is old enough."""
    now = 0.0
    with Lines(10.0, clock=lambda: now) as view:
        for now in (0.0, 9.9, 10.0, 19.0, 25.0):  # noqa: B007 - read by the clock
            view.show(half_done())
    assert capsys.readouterr().err == "kling-omni: 1 of 2 done: 1 succeeded\n" * 3


def test_the_summary_is_not_doubled(capsys: pytest.CaptureFixture[str]) -> None:
    """When all is done no line of progress comes: the summary says the same."""
    with Lines(0.0) as view:
        view.show(Tally(0))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("terminal", "term", "quiet", "kind"),
    [
        (True, "xterm", False, Bar),
        (True, "dumb", False, Lines),
        (False, "xterm", False, Lines),
        (True, "xterm", True, Silent),
    ],
)
def test_the_view_fits_stderr(
    *,
    terminal: bool,
    term: str,
    quiet: bool,
    kind: type[Silent],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A bar needs a terminal that can move its cursor and a user who wants one."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert type(choose_view(quiet=quiet)) is kind


def test_without_stderr_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed stderr is no reason to fail."""
    monkeypatch.setattr(sys, "stderr", None)
    assert type(choose_view(quiet=False)) is Silent


def test_quiet_still_writes_results(capfd: pytest.CaptureFixture[str]) -> None:
    """The silent view shows no counts but every result."""
    with Silent() as view:
        view.show(half_done())
        view.out("result")
    assert capfd.readouterr() == ("result\n", "")


def test_results_stay_on_stdout_beside_a_bar(capfd: pytest.CaptureFixture[str]) -> None:
    """If stdout is no part of the bar's terminal, results go there and nowhere else."""
    with Bar() as view:
        view.show(half_done())
        view.out("result")
    stdout, stderr = capfd.readouterr()
    assert stdout == "result\n"
    assert "result" not in stderr


def test_a_bar_without_stdout_shows_counts(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A closed stdout does not stop the bar: a journal may be all that is wanted."""
    monkeypatch.setattr(sys, "stdout", None)
    with Bar() as view:
        view.show(half_done())


def terminal_of(*arguments: str, env: dict[str, str], stdout: int | None = None) -> tuple[int, str]:
    """Run the program on a terminal; give its exit code and all that the terminal got."""
    screen, terminal = pty.openpty()
    try:
        env = {"TERM": "xterm", **env}
        process = start(*arguments, env=env, stderr=terminal, stdout=stdout or terminal)
        os.close(terminal)
        with process:
            text = read_all(screen)
        return process.returncode, text
    finally:
        os.close(screen)


def read_all(screen: int) -> str:
    """Read what a terminal got, until its last writer has gone."""
    pieces: list[bytes] = []
    while True:
        try:
            piece = os.read(screen, 65536)
        except OSError:  # this is how Linux says it
            piece = b""
        if not piece:
            return b"".join(pieces).decode()
        pieces.append(piece)


def test_a_terminal_gets_a_bar_and_whole_results() -> None:
    """On one terminal the results stand above a bar that moves and vanishes."""
    with neighbour() as api:
        done = api.create(3, duration=0.0)
        failed = api.create(1, duration=0.3, fail="[bold]no[/bold]\x1b[2J")
        code, text = terminal_of("poll", *done, *failed, *FAST, env=api.env)
    assert code == 1
    assert "━" in text
    assert "\x1b[?25l" in text  # the cursor is hidden
    assert "\x1b[?25h" in text  # and shown again
    words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", text)
    assert all(re.search(rf"{task_id}\s+succeed\s+http", words) for task_id in done)
    assert re.search(rf"{failed[0]}\s+failed\s+\[bold\]no\[/bold\]\\x1b\[2J\r\n", words)
    assert "\x1b[2J" not in text
    assert text.endswith("4 of 4 done: 3 succeeded, 1 failed\r\n")


def test_results_in_a_file_leave_the_bar_alone(tmp_path: Path) -> None:
    """With stdout in a file the terminal shows the bar, and the file holds the results."""
    with neighbour() as api, (tmp_path / "out.txt").open("wb") as file:
        done = api.create(2, duration=0.0)
        code, text = terminal_of("poll", *done, *FAST, env=api.env, stdout=file.fileno())
    assert code == 0
    assert "succeed\t" not in text
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert sorted(line.split("\t")[0] for line in lines) == sorted(done)
