"""What the command line shows: escaped text, outcomes as lines, counts, exit codes."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import re
import sys
from collections.abc import Awaitable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async import (
    AccountError,
    AuthenticationError,
    ConfigurationError,
    DownloadError,
    InvalidTaskIdError,
    KlingOmniError,
    NoImagesError,
    PollPolicy,
    PollTimeoutError,
    RateLimitError,
    ResponseError,
    ServerError,
    StorageError,
    TaskFailedError,
    TaskNotFoundError,
    TaskOutcome,
    TransportError,
)
from kling_omni_async._cli.exit import (
    Ending,
    Exit,
    OutputError,
    UsageError,
    code_of,
    described,
    hint_of,
)
from kling_omni_async._cli.options import Connection
from kling_omni_async._cli.report import Kind, Tally, kind_of
from kling_omni_async._cli.results import open_sink, plain_line
from kling_omni_async._cli.session import logged_as_notes, make_session
from kling_omni_async._cli.terminal import note, out, plain, tell
from kling_omni_async._hints import Hint

from .support import success, trouble

REFUSED = AuthenticationError("invalid token", http_status=401)


class FullRaw(io.RawIOBase):
    """A device without room."""

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class SlowRaw(io.RawIOBase):
    """A pipe that takes three bytes at a time, and now and then none."""

    def __init__(self) -> None:
        self.taken = b""
        self.calls = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int | None:  # type: ignore[override]
        self.calls += 1
        if self.calls % 2:
            return None
        self.taken += data[:3]
        return len(data[:3])


def stream_over(raw: io.RawIOBase, encoding: str = "utf-8") -> io.TextIOWrapper:
    """Return a text stream as Python opens stdout."""
    buffer: io.BufferedWriter = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding=encoding)


@given(st.text())
def test_escaped_text_is_printable(text: str) -> None:
    """No character is left that breaks a line, steers a terminal or turns text round."""
    assert plain(text).isprintable()


def test_readable_text_stays_as_it_is() -> None:
    """Only what does not show is escaped, Chinese and emoji are kept."""
    assert plain("图像 ☺ C:\\x [bold]") == "图像 ☺ C:\\x [bold]"
    assert plain("a\x1b[31mb\r\n\t\u202e\x9b\ud800") == ("a\\x1b[31mb\\r\\n\\t\\u202e\\x9b\\ud800")


def test_notes_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """A note is one line with the program's name, whatever it holds."""
    note("one\ntwo\x1b[2J")
    assert capsys.readouterr() == ("", "kling-omni: one\\ntwo\\x1b[2J\n")


@pytest.mark.parametrize("stderr", [None, stream_over(FullRaw())])
def test_a_note_without_stderr_is_no_error(
    stderr: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If stderr is closed or full the work goes on, and stdout gets nothing of it."""
    monkeypatch.setattr(sys, "stderr", stderr)
    note("nobody reads this")
    tell(["nor this"])
    monkeypatch.undo()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("stdout", "reason"), [(None, "it is closed"), (stream_over(FullRaw()), "No space left")]
)
def test_a_lost_stdout_is_an_error(
    stdout: object, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that cannot be written raises, and leaves nothing in a buffer."""
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(OutputError, match=f"cannot write to stdout: {reason}"):
        out("result")


def test_a_slow_pipe_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pipe does not take at once is offered again."""
    raw = SlowRaw()
    monkeypatch.setattr(sys, "stdout", stream_over(raw))
    out("0123456789")
    assert raw.taken == b"0123456789\n"


def test_narrow_encodings_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A character that stdout's encoding lacks is escaped, not an error."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    out("图")
    assert raw.getvalue() == b"\\u56fe\n"


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (
            success("a", "https://i.test/1.png", "https://i.test/2.png"),
            "a\tsucceed\thttps://i.test/1.png https://i.test/2.png",
        ),
        (trouble(TaskFailedError("not\nallowed\x1b[0m")), "a\tfailed\tnot\\nallowed\\x1b[0m"),
        (
            trouble(TaskNotFoundError("task_not_exist", http_status=400)),
            "a\tnot_found\tHTTP 400: task_not_exist",
        ),
        (trouble(NoImagesError("no image")), "a\tno_images\tno image"),
        (trouble(PollTimeoutError("too late")), "a\ttimed_out\ttoo late"),
        (trouble(InvalidTaskIdError("is empty"), "\t"), "\\t\tinvalid_id\tis empty"),
        (trouble(KlingOmniError("else")), "a\terror\telse"),
    ],
)
def test_a_plain_line_has_three_fields(outcome: TaskOutcome, line: str) -> None:
    """Id, word, and URLs or reason, with a tab between; no field holds a tab or a line break."""
    assert plain_line(outcome) == line


def written(jsonl: str | None, outcome: TaskOutcome) -> list[str]:
    """Return the lines that a sink on stdout makes of an outcome."""
    lines: list[str] = []

    async def out(line: str) -> None:
        lines.append(line)

    with open_sink(jsonl, out) as sink:
        assert not sink.settled
        asyncio.run(as_coroutine(sink.write(outcome)))
    return lines


async def as_coroutine(awaitable: Awaitable[None]) -> None:
    """Return what `asyncio.run` takes."""
    await awaitable


@pytest.mark.parametrize(("jsonl", "first"), [(None, "a\tsucceed\t"), ("-", '{"task_id": "a"')])
def test_outcomes_go_to_stdout(jsonl: str | None, first: str) -> None:
    """Without a journal outcomes are plain lines, with ``-`` JSON lines."""
    assert [line[: len(first)] for line in written(jsonl, success("a"))] == [first]


def test_json_lines_read_back() -> None:
    """A JSON line on stdout is what `TaskOutcome.from_dict` reads."""
    (line,) = written("-", trouble(TaskFailedError("\x7f图")))
    assert "\x7f" not in line
    assert str(TaskOutcome.from_dict(json.loads(line)).error) == "\x7f图"


def test_counts_add_up() -> None:
    """The line names each kind that was met, and what an earlier run had settled."""
    tally = Tally(4)
    assert tally.line() == "0 of 4 done: nothing yet"
    tally.counts.update([Kind.SUCCEEDED, Kind.SUCCEEDED, Kind.TIMED_OUT])
    tally.earlier = 1
    assert tally.line() == ("3 of 4 done: 2 succeeded, 1 timed out; 1 of them by an earlier run")
    assert not tally.all_succeeded
    assert Tally(0).all_succeeded


def test_a_subclass_of_tomorrow_is_an_error() -> None:
    """What no kind stands for counts among the other errors."""
    assert kind_of(trouble(ServerError("down", http_status=500))) is Kind.ERROR


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("wrong"), Exit.USAGE),
        (OutputError("stdout", OSError(errno.EPIPE, "Broken pipe")), Exit.NOT_ALL),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
        (REFUSED, Exit.KEY_REFUSED),
        (ConfigurationError("no key"), Exit.USAGE),
        (InvalidTaskIdError("empty"), Exit.USAGE),
        (AccountError("no money"), Exit.NOT_ALL),
    ],
)
def test_each_ending_has_its_code(error: Ending, code: Exit) -> None:
    """The exit code tells a wrong call, a refused key, an interruption and the rest apart."""
    assert code_of(error) == code


def test_endings_are_told_in_words() -> None:
    """The line says what happened, also where the error alone would not."""
    assert described(KeyboardInterrupt()) == "interrupted"
    assert described(REFUSED) == "the key is refused: HTTP 401: invalid token; check COMETAPI_KEY"
    assert described(UsageError("wrong")) == "wrong"


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (AccountError("no money"), "check the balance and the plan of the account"),
        (RateLimitError("slow down"), "try again later, or with a lower --max-rate"),
        (ResponseError("a web page"), "check --base-url or COMETAPI_BASE_URL"),
        (ServerError("HTTP 502"), "try again later"),
        (TransportError("cut off"), "check the network"),
        (
            TransportError("refused", reason="connect"),
            "check --base-url or COMETAPI_BASE_URL, the network and the proxy",
        ),
        (
            TransportError("wrong version number", reason="tls"),
            "check --base-url or COMETAPI_BASE_URL: something else may be behind a wrong port",
        ),
        (
            TaskNotFoundError("no such task"),
            "check the id, and that COMETAPI_KEY is of the account that made the task",
        ),
        (StorageError("taken", reason="exists"), "move it away, or give --overwrite"),
        (DownloadError("private", reason="address"), "if you trust it, add it to --allow-hosts"),
        (DownloadError("more", reason="too-long"), "--max-image-bytes allows no more"),
    ],
)
def test_trouble_is_told_with_what_can_be_done(error: KlingOmniError, hint: str) -> None:
    """What the error says is followed by what its reader can look at."""
    assert described(error) == f"{error.what}; {hint}"


@pytest.mark.parametrize("hint", Hint)
def test_no_hint_is_for_programs(hint: Hint, monkeypatch: pytest.MonkeyPatch) -> None:
    """None names what only who writes Python can set."""
    monkeypatch.setattr(KlingOmniError, "hint", hint)
    told = hint_of(KlingOmniError("x"))
    assert bool(told) is bool(hint)
    assert not re.search(r"PollPolicy|base_url|\w=", told)


def test_log_records_become_notes(capsys: pytest.CaptureFixture[str]) -> None:
    """The library's warnings are seen as lines, its chatter is not, and only for so long."""
    logger = logging.getLogger("kling_omni_async.poller")
    with logged_as_notes():
        logger.warning("throttled %s", "a\x1b[0m")
        logger.info("chatter")
    assert capsys.readouterr().err == "kling-omni: warning: throttled a\\x1b[0m\n"
    assert not logging.getLogger("kling_omni_async").handlers


def test_warnings_become_notes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Polling the real API too fast is said in one line."""
    monkeypatch.setenv("COMETAPI_KEY", "secret-key")
    make_session(Connection(), PollPolicy(interval=(1, 2)))
    stderr = capsys.readouterr().err
    assert stderr.startswith("kling-omni: warning: the interval begins under 15 s")
    assert stderr.count("\n") == 1
