"""Progress: a bar on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from kling_omni_async._cli.exit import Exit, OutputError
from kling_omni_async._cli.job import PollJob
from kling_omni_async._cli.progress import (
    Bar,
    Lines,
    Rate,
    Silent,
    choose_view,
    second_line,
    time_left,
)
from kling_omni_async._cli.report import Kind, Tally
from kling_omni_async._cli.signals import Signals, interruptible
from kling_omni_async._stats import SessionStats
from kling_omni_async.simulator import SimulatedCometAPI

from .support import FAST, OnScreen, bare, create, neighbour, read_all, running, terminal_of

NEVER_S = 3600.0


def half_done() -> Tally:
    """Return counts with one of two ids done."""
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
        asyncio.run(view.out("result"))
    assert capfd.readouterr() == ("result\n", "")


def test_results_stay_on_stdout_beside_a_bar(capfd: pytest.CaptureFixture[str]) -> None:
    """If stdout is no part of the bar's terminal, results go there and nowhere else."""
    with Bar() as view:
        view.show(half_done())
        asyncio.run(view.out("result"))
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


@pytest.mark.parametrize(
    ("stats", "oldest", "line"),
    [
        (SessionStats(), "", "  2.5 queries/s · next query none"),
        (SessionStats(in_flight=3), "", "  2.5 queries/s · next query after an answer"),
        (SessionStats(next_query=0.0), "7", "  2.5 queries/s · next query now"),
        (
            SessionStats(next_query=2.2, oldest=754.6),
            "7",
            "  2.5 queries/s · next query in 3 s · oldest 7, 12 min 34 s",
        ),
        (
            SessionStats(oldest=1.9),
            "\x1b" + "9" * 30,
            f"  2.5 queries/s · next query none · oldest \\x1b{'9' * 22}…, 1 s",
        ),
    ],
)
def test_the_second_line(stats: SessionStats, oldest: str, line: str) -> None:
    """It tells the next query in whole s and the oldest id in at most some letters, escaped."""
    assert second_line(stats, oldest, 2.5) == line


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    """It begins at once, forgets what is long ago, and has no more samples than that needs."""
    rate = Rate()
    assert rate.add(100.0, 7) == 0.0
    assert rate.add(101.0, 17) == 10.0
    rates = [rate.add(float(second), 17 + second) for second in range(102, 1000)]
    assert rates[-1] == 1.0
    assert len(rate._samples) == 31


@pytest.mark.parametrize(
    ("count", "rate", "words"),
    [
        (0, 2.0, ""),
        (10, 0.0, ""),
        (10, 2.0, "~5 s left"),
        (1, 100.0, "~1 s left"),
        (754, 1.0, "~12 min 34 s left"),
    ],
)
def test_what_is_left_is_told_once_it_is_known(count: int, rate: float, words: str) -> None:
    """Nothing is said where nothing is left, or where nothing has ended yet."""
    assert time_left(count, rate) == words


def test_the_bar_tells_how_long_it_will_take(capfd: pytest.CaptureFixture[str]) -> None:
    """By the ends of the last two minutes: one in 10 s, and one is left."""
    tally = Tally(2)
    with Bar() as view:
        view.show(tally)
        view.beat(0.0, SessionStats(), "7")
        assert " left" not in capfd.readouterr().err
        tally.counts[Kind.SUCCEEDED] = 1
        view.beat(10.0, SessionStats(), "7")
    assert " ~10 s left 1 succeeded" in bare(capfd.readouterr().err)


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="Windows stops no programs")
def test_a_program_that_is_stopped_leaves_its_terminal_as_it_was() -> None:
    """Ctrl-Z shows the cursor and removes the view; after `fg` both are as before."""
    import pty  # noqa: PLC0415 - Windows has none

    screen, terminal = pty.openpty()
    with neighbour() as api:
        (slow,) = api.create(duration=1e6)
        env = {"TERM": "xterm", **api.env}
        # A group of its own: the system never stops one that nobody could wake.
        options: Any = {"stdout": terminal, "stderr": terminal, "process_group": 0}
        with running("poll", slow, env=env, **options) as process:
            os.close(terminal)
            read_until(screen, "queries/s")
            process.send_signal(signal.SIGTSTP)
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            text = read_until(screen, "\x1b[?25h")
            assert text.endswith("\r\x1b[2K\x1b[1A\x1b[2K\x1b[?25h")
            process.send_signal(signal.SIGCONT)
            assert read_until(screen, "\x1b[?25l") == "\r\n\x1b[?25l"
            read_until(screen, "queries/s")
            process.send_signal(signal.SIGTSTP)  # a second time too
            os.waitpid(process.pid, os.WUNTRACED)
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
            text = read_all(screen)
            assert process.wait() == Exit.INTERRUPTED
    os.close(screen)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def read_until(screen: int, end: str) -> str:
    """Read what a terminal gets up to a text."""
    text = b""
    while end.encode() not in text:
        text += os.read(screen, 1)  # no more: what follows is for the next reader
    return text.decode()


def test_a_stop_that_somebody_forbids_is_left_forbidden(capfd: pytest.CaptureFixture[str]) -> None:
    """Where the signal was ignored before, a view changes nothing."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        with Bar():
            assert signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTSTP, before)


def test_a_hard_end_shows_the_cursor(capfd: pytest.CaptureFixture[str]) -> None:
    """The second signal leaves a terminal on which one can go on, even in the midst of a view."""
    now = 0.0
    codes: list[int] = []
    with interruptible(Signals(end=codes.append, clock=lambda: now)), Bar():
        signal.raise_signal(signal.SIGINT)
        now = 1.0
        before = capfd.readouterr().err
        signal.raise_signal(signal.SIGINT)
        assert capfd.readouterr().err == "\x1b[?25hkling-omni: ended at once\n"
    assert codes == [Exit.INTERRUPTED]
    assert before


@pytest.mark.parametrize("columns", [0, 1, 2])
def test_a_terminal_without_room_is_taken_for_a_narrow_one(
    columns: int, api: SimulatedCometAPI, on_screen: OnScreen
) -> None:
    """Help, the view and its tables are folded to some letters; nothing is folded for ever."""
    done, failed = create(api, duration=0.0), create(api, duration=0.0, fail="no such thing")
    code, text = on_screen("poll", "--help", columns=columns)
    assert code == Exit.OK
    assert max(map(len, bare(text).splitlines())) <= 80
    code, text = on_screen("poll", *done, *failed, columns=columns)
    assert code == Exit.NOT_ALL
    assert text.endswith("2 of 2 done: 1 succeeded, 1 failed\n")


def test_an_encoding_without_drawings_gets_plain_ones(
    api: SimulatedCometAPI, on_screen: OnScreen
) -> None:
    """In ASCII the view, its table and help are drawn in ASCII, and all else is escaped."""
    done, failed = create(api, duration=0.0), create(api, duration=0.0, fail="no 图 …")
    code, text = on_screen("poll", *done, *failed, encoding="ascii")
    assert code == Exit.NOT_ALL
    assert text.isascii()
    assert "no \\u56fe ..." in text
    assert "queries/s | next query" in text
    assert re.search(r"^-{20,}$", bare(text), re.MULTILINE)
    assert text.count("\\u") == text.count("\\u56fe")
    code, text = on_screen("gallery", "--help", encoding="latin-1")
    assert code == Exit.OK
    assert "kling-omni poll ... --jsonl" in text
    assert "\\u" not in text


def test_only_what_is_written_is_drawn_plainly() -> None:
    """Bytes that are no text stay an error."""
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", "kling_omni_async.plainly")


def test_the_oldest_id_is_the_first_that_is_left() -> None:
    """It is the first one given without an outcome, repeats or not."""
    job = PollJob([*map(str, range(1000)), "7"])
    assert job.oldest == "0"
    for number in range(999):
        del job._left[str(number)]
        if number % 100 == 50:
            assert job.oldest == str(number + 1)
    assert job.oldest == "999"
    job._left.clear()
    assert job.oldest == ""


def test_a_terminal_that_is_held_up_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """After Ctrl-S nothing is drawn: the polling goes on behind it."""
    with Bar() as view:
        before = capfd.readouterr().err
        with monkeypatch.context() as patched:
            patched.setattr("kling_omni_async._cli.board.has_room", lambda _: False)
            view.beat(0.0, SessionStats(next_query=5.0), "7")
        assert capfd.readouterr().err == ""
        view.beat(0.0, SessionStats(next_query=5.0), "7")
        assert "next query in 5 s" in capfd.readouterr().err
    assert before


class GoneTerminal(io.StringIO):
    """A terminal whose window was closed."""

    gone = False

    def write(self, text: str, /) -> int:
        if self.gone:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


def test_a_terminal_that_has_gone_ends_results_only(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Drawing on a closed window does nothing; a result that cannot be written there is told."""
    terminal = GoneTerminal()
    monkeypatch.setattr(sys.stderr, "write", terminal.write)
    with Bar() as view:
        view._board._shares_terminal = True
        terminal.gone = True
        view.beat(0.0, SessionStats(next_query=5.0), "7")
        with pytest.raises(OutputError, match="cannot write to stdout: Input/output error"):
            asyncio.run(view.out("result"))


@pytest.mark.heavy
def test_a_terminal_gets_a_bar_and_whole_results() -> None:
    """On one real terminal the results stand above a bar that moves and vanishes."""
    with neighbour() as api:
        done = api.create(3, duration=0.0)
        failed = api.create(1, duration=0.0, fail="[bold]no[/bold]\x1b[2J")
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


def test_the_live_lines_tell_rate_next_query_and_oldest_id(
    api: SimulatedCometAPI, on_screen: OnScreen
) -> None:
    """Each second while an id is not finished a terminal shows what is done, and for how long."""
    (slow,) = create(api, duration=45.0)
    code, text = on_screen("poll", slow, "--interval", "20-20", columns=100)
    assert code == Exit.OK
    lines = re.findall(r"^  .* queries/s · .*?(?=\s*$)", bare(text), re.MULTILINE)
    ages = [line.rpartition(f" · oldest {slow}, ")[2] for line in lines]
    seconds = [f"{second} s" for second in range(60)]
    assert [age for age in dict.fromkeys(ages) if age in seconds] == seconds
    assert all(ages.count(second) >= 4 for second in seconds[1:])
    # Queries start at 0, 20, 40 and 60 s.
    assert f"  0.1 queries/s · next query in 5 s · oldest {slow}, 15 s" in lines
    assert f"  0.1 queries/s · next query in 15 s · oldest {slow}, 45 s" in lines


def test_log_lines_come_whole_above_the_bar(api: SimulatedCometAPI, on_screen: OnScreen) -> None:
    """With --verbose each change is a line of its own, not torn by the bar that moves."""
    slow = create(api, 3, duration=45.0)
    code, text = on_screen("poll", *slow, "-v", columns=200)
    assert code == Exit.OK
    lines = [line.strip() for line in re.split(r"\n|\r", bare(text))]
    told = [line for line in lines if "info: " in line]
    assert all(line.startswith("kling-omni: info: ") for line in told)
    assert all(sum(task_id in line for line in told) >= 2 for task_id in slow)


def test_results_in_a_file_leave_the_bar_alone(
    api: SimulatedCometAPI,
    on_screen: OnScreen,
    tmp_path: Path,
) -> None:
    """With stdout in a file the terminal shows the bar, and the file holds the results."""
    done = create(api, 2, duration=0.0)
    with (tmp_path / "out.txt").open("w") as file:
        code, text = on_screen("poll", *done, stdout=file)
    assert code == Exit.OK
    assert "━" in text
    assert "succeed\t" not in text
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert sorted(line.split("\t")[0] for line in lines) == sorted(done)
