"""Errors are one line with a hint; tracebacks come with --debug only."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import NoReturn

import pytest

from kling_omni_async._cli import poll
from kling_omni_async._cli.app import run
from kling_omni_async._cli.exit import Exit
from kling_omni_async._cli.session import logged_as_notes
from kling_omni_async.simulator import SimulatedCometAPI

from .support import Call, create

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["poll", "1"], "COMETAPI_KEY is not set: write export COMETAPI_KEY=… in the shell"),
        (["poll", "1", "--base-url", "api.test"], "--base-url must be like https://"),
        (["query", "1", "--base-url", "http://api.test"], "or --allow-http for a simulator"),
        (["poll", "1", "--tiemout", "5"], "Did you mean --timeout? kling-omni poll --help shows"),
        (["quary", "1"], 'Did you mean "query"?'),
        (["poll", "1", "--watermarked"], "give --save too"),
    ],
)
def test_an_error_is_one_line_in_the_words_of_the_command_line(
    arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    """It names options and variables, never what a program would write."""
    if "--base-url" in arguments:
        monkeypatch.setenv("COMETAPI_KEY", "a-key")
    assert run(arguments) == Exit.USAGE
    stdout, stderr = capfd.readouterr()
    assert (stdout, stderr.count("\n")) == ("", 1)
    assert stderr.startswith("kling-omni: ")
    assert line in stderr
    assert "KlingOmniSession" not in stderr
    assert "base_url" not in stderr


@pytest.mark.parametrize("arguments", [["poll", "1", "--debug"], ["--debug", "poll", "1"]])
def test_debug_shows_where(arguments: list[str], capfd: Captured) -> None:
    """Wherever it stands, the traceback comes first and the line last."""
    assert run(arguments) == Exit.USAGE
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("kling-omni: COMETAPI_KEY is not set: ")


def test_behind_two_hyphens_debug_is_an_id(capfd: Captured) -> None:
    """There it changes nothing."""
    assert run(["poll", "--", "--debug"]) == Exit.USAGE
    assert "Traceback" not in capfd.readouterr().err


def break_down(*_: object, **__: object) -> NoReturn:
    """Fail as nobody foresaw, with ids that are still pending."""
    error = RuntimeError("broken\nin two")
    error.add_note("2 ids are still pending:\n1\n2")
    raise error


@pytest.mark.parametrize("debug", [False, True])
def test_a_defect_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured, *, debug: bool
) -> None:
    """Nobody has to read a traceback to learn what is still pending; with --debug it is there."""
    monkeypatch.setattr(poll, "PollJob", break_down)
    assert run(["poll", "1", *["--debug"] * debug]) == Exit.NOT_ALL
    *where, first, second, third, fourth = capfd.readouterr().err.splitlines()
    assert first == (
        "kling-omni: a defect of this program (RuntimeError: broken\\nin two); "
        "please report it with what --debug shows"
    )
    assert [second, third, fourth] == ["2 ids are still pending:", "1", "2"]
    assert bool(where) is debug
    assert not any("pending" in line for line in where)


def test_what_the_system_says_is_no_defect(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    """Help that cannot be written, for instance, is told in the system's words."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True) as full:
        monkeypatch.setattr("sys.stdout", full)
        code, _, stderr = call("poll", "--help")
    line = "kling-omni: No space left on device; --debug shows where\n"
    assert (code, stderr) == (Exit.NOT_ALL, line)


def test_an_interruption_has_no_traceback(monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    """With --debug too: who pressed Ctrl-C knows where."""

    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(poll, "PollJob", interrupt)
    assert run(["poll", "1", "--debug"]) == Exit.INTERRUPTED
    assert capfd.readouterr().err == "kling-omni: interrupted\n"


@pytest.mark.parametrize(
    ("verbose", "levels"),
    [(0, ["warning"]), (1, ["info", "warning"]), (2, ["debug", "info", "warning"])],
)
def test_verbose_opens_the_log(verbose: int, levels: list[str], capsys: Captured) -> None:
    """Once for changes, twice for queries; afterwards the log is as it was."""
    logger = logging.getLogger("kling_omni_async.poller")
    with logged_as_notes(verbose):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logger.log(level, "told")
    assert capsys.readouterr().err == "".join(f"kling-omni: {level}: told\n" for level in levels)
    assert logging.getLogger("kling_omni_async").level == logging.NOTSET


def test_a_level_that_was_set_is_kept(capsys: Captured) -> None:
    """Without --verbose whoever listens to the library's log besides hears what he did before."""
    logger = logging.getLogger("kling_omni_async")
    logger.setLevel(logging.DEBUG)
    try:
        with logged_as_notes():
            assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize(("flags", "told"), [((), 0), (("-v",), 1), (("-vv",), 2)])
def test_the_program_tells_its_log(
    flags: tuple[str, ...], told: int, api: SimulatedCometAPI, call: Call
) -> None:
    """Both commands write changes with -v, queries with -vv to stderr, and nothing to stdout."""
    ids = create(api, duration=0.0)
    for code, stdout, stderr in (call("poll", *ids, *flags), call("query", *ids, *flags)):
        assert (code, stdout.count("\n")) == (0, 1)
        assert ("info: task " in stderr) is (told >= 1)
        assert ("debug: query " in stderr) is (told >= 2)
