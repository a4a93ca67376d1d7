"""`work`: a book is polled until it is interrupted, and others hand out what came of it."""

from __future__ import annotations

import asyncio
import math
import os
import re
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from kling_omni_async import BookError, BookProgress, SessionStats, TaskBook
from kling_omni_async._book.book import open_inside
from kling_omni_async._cli.book_view import (
    BookBoard,
    BookLines,
    SilentBook,
    choose_book_view,
    pace_line,
    shown,
)
from kling_omni_async._cli.exit import Exit
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import new_session

from .books import FAST_BOOK, beside, counts_of, in_book, make_book
from .support import Call, Neighbour, OnScreen, Screen, bare


@pytest.fixture
def api() -> Generator[Neighbour]:
    """Run a simulator beside the test."""
    with beside() as api:
        yield api


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a book may be made."""
    return tmp_path / "tasks.db"


def test_a_book_is_polled_until_nothing_is_open(api: Neighbour, path: Path, call: Call) -> None:
    """Ends of each kind are there for a reader, and nothing is handed out."""
    good, bad = api.create(3, duration=0.1), api.create(duration=0.1, fail="no")
    make_book(path, *good, *bad)
    code, stdout, stderr = call("work", str(path), "--until-empty", *FAST_BOOK)
    assert (code, stdout) == (Exit.OK, "")
    assert stderr.splitlines()[-1] == (
        "kling-omni: 0 pending, 3 succeeded, 1 failed, 0 unresolved; 4 unread, 0 parked; workers: 0"
    )
    assert counts_of(path).unread == 4


def test_an_empty_book_ends_at_once(api: Neighbour, path: Path, call: Call) -> None:
    """With --quiet nothing at all is told."""
    make_book(path)
    assert call("work", str(path), "--until-empty", "--quiet", *FAST_BOOK) == (Exit.OK, "", "")
    assert not api.api.queries


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_everything_back(
    number: signal.Signals, api: Neighbour, path: Path, call: Call
) -> None:
    """What it was asking for is free for others at once; the line says how much is left."""
    make_book(path, *api.create(2, duration=math.inf))

    async def interrupt() -> None:
        await api.api.wait_for_queries(5)
        os.kill(os.getpid(), number)

    api.portal.start_task_soon(interrupt)
    code, stdout, stderr = call("work", str(path), "--quiet", *FAST_BOOK)
    assert (code, stdout) == (Exit.INTERRUPTED, "")
    assert stderr.splitlines() == [
        "kling-omni: interrupted",
        "2 left; run the same command to go on",
    ]

    async def claimed(book: TaskBook) -> list[bool]:
        found = await (await open_inside(book)).store.list("", 10)
        return [bool(each.row.token) for each in found]

    assert in_book(path, claimed) == [False, False]


def test_a_book_that_is_missing_is_made(
    api: Neighbour, path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever adds to it may start later."""

    @asynccontextmanager
    async def interrupt(*_: object) -> AsyncGenerator[None]:
        signal.raise_signal(signal.SIGINT)
        yield

    monkeypatch.setattr("kling_omni_async._cli.work.shown", interrupt)
    assert call("work", str(path)) == (Exit.INTERRUPTED, "", "kling-omni: interrupted\n")
    assert counts_of(path).pending == 0


def test_a_refused_key_is_told_once(
    api: Neighbour, path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its own exit code, and the ids stay in the book."""
    make_book(path, *api.create(2, duration=math.inf))
    monkeypatch.setenv("COMETAPI_KEY", "wrong")
    code, stdout, stderr = call("work", str(path), "--quiet", *FAST_BOOK)
    assert (code, stdout) == (Exit.KEY_REFUSED, "")
    warning, line, left = stderr.splitlines()
    assert warning.startswith("kling-omni: warning: AuthenticationError (HTTP 401): ")
    assert line.startswith("kling-omni: the key is refused: HTTP 401: ")
    assert left == "2 left; run the same command to go on"
    assert counts_of(path).pending == 2


def test_another_api_is_refused(
    api: Neighbour, path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A book of one API is not polled at another."""
    make_book(path, *api.create(duration=0.0))
    assert call("work", str(path), "--until-empty", "--quiet", *FAST_BOOK)[0] == Exit.OK
    monkeypatch.setenv("COMETAPI_BASE_URL", "http://127.0.0.1:9")
    code, _, stderr = call("work", str(path), "--quiet")
    assert code == Exit.USAGE
    assert stderr == (
        f"kling-omni: the book {path} is for {api.api.base_url}, and this session asks "
        "http://127.0.0.1:9; give each API a book of its own\n"
    )


def test_a_book_that_is_deleted_ends_the_work(api: Neighbour, path: Path, call: Call) -> None:
    """What comes in the way of a book that was open is no wrong usage."""
    make_book(path, *api.create(duration=math.inf))

    async def delete() -> None:
        await api.api.wait_for_queries(2)
        await asyncio.to_thread(path.unlink)

    api.portal.start_task_soon(delete)
    code, stdout, stderr = call("work", str(path), "--until-empty", "--quiet", *FAST_BOOK)
    assert (code, stdout) == (Exit.NOT_ALL, "")
    (line,) = stderr.splitlines()
    assert line.startswith(f"kling-omni: the book {path} was deleted, moved or replaced")


@pytest.mark.parametrize("options", [["--interval", "20"], ["--base-url", "ftp://x"]])
def test_wrong_options_make_no_book(options: list[str], path: Path, call: Call) -> None:
    """Without a key, or with what cannot be, nothing is begun."""
    code, stdout, _ = call("work", str(path), *options)
    assert (code, stdout) == (Exit.USAGE, "")
    assert not path.exists()


def test_a_terminal_has_two_lines_that_move(
    api: Neighbour, path: Path, on_screen: OnScreen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the book holds; what this process does; at the end they make room for what is told."""
    make_book(path, *api.create(2, duration=math.inf), *api.create(duration=0.0))
    draw = BookBoard.beat

    def beat(view: BookBoard, now: float, stats: SessionStats, counts: BookProgress) -> None:
        draw(view, now, stats, counts)
        if counts.succeeded:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(BookBoard, "beat", beat)
    code, text = on_screen("work", str(path), *FAST_BOOK, columns=120)
    assert code == Exit.INTERRUPTED
    shows = bare(text)
    assert re.search(r"0:00:\d\d 2 pending, 1 succeeded, 0 failed, 0 unresolved; 1 unread", shows)
    pace = r"^  \d+\.\d queries/s · \d in flight · next query (in \d+ s|now)"
    assert re.search(pace, shows, re.MULTILINE)
    assert text.endswith("kling-omni: interrupted\n2 left; run the same command to go on\n")


# How it is shown.


def counts(**fields: int) -> BookProgress:
    """Return counts of a book."""
    return BookProgress(**fields)


def test_the_second_line_is_of_this_process() -> None:
    """Its rate, what it has under way, and when it asks next."""
    stats = SessionStats(in_flight=3, next_query=2.2)
    assert pace_line(stats, 1.55) == "  1.6 queries/s · 3 in flight · next query in 3 s"


def test_lines_come_where_something_has_changed(capsys: pytest.CaptureFixture[str]) -> None:
    """A log of days is not filled by a line that says the same."""
    with BookLines() as view:
        for number in (1, 1, 2, 1, 1):
            view.beat(0.0, SessionStats(), counts(pending=number))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" pending")[0] for line in lines] == [
        "kling-omni: 1",
        "kling-omni: 2",
        "kling-omni: 1",
    ]


@pytest.mark.parametrize(
    ("term", "quiet", "kind"),
    [("xterm", False, BookBoard), ("dumb", False, BookLines), ("xterm", True, SilentBook)],
)
def test_the_view_fits_stderr(
    term: str,
    *,
    quiet: bool,
    kind: type[SilentBook],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Lines that move need a terminal, and a user who wants them."""
    with Screen(tmp_path / "screen") as screen:
        monkeypatch.setattr("sys.stderr", screen)
        monkeypatch.setenv("TERM", term)
        assert type(choose_book_view(quiet=quiet)) is kind
    monkeypatch.setattr("sys.stderr", None)
    assert type(choose_book_view(quiet=False)) is SilentBook


@pytest.mark.anyio
async def test_a_book_out_of_reach_keeps_its_last_counts(
    comet_api: SimulatedCometAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The view goes on: whoever polls says what is wrong."""

    class Kept(SilentBook):
        every_s = 1.0

        def __init__(self) -> None:
            self.pending: list[int] = []

        def beat(self, now: float, stats: SessionStats, counts: BookProgress) -> None:
            self.pending.append(counts.pending)

    async def locked(_: TaskBook) -> NoReturn:
        raise BookError("locked", transient=True)

    view = Kept()
    async with TaskBook() as book, new_session(comet_api) as session:
        await book.add("1")
        async with shown(book, session, view):
            await asyncio.sleep(0.5)
            monkeypatch.setattr(TaskBook, "progress", locked)
            await asyncio.sleep(2.0)
    assert view.pending == [1, 1, 1]
