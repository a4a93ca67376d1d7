"""`work`: poll a book, and hand nothing out."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Final

from kling_omni_async._book.book import TaskBook
from kling_omni_async._book.worker import WORKER_ENDS
from kling_omni_async._session import KlingOmniSession
from kling_omni_async.errors import BookError

from . import options
from .book_view import SilentBook, choose_book_view, shown
from .books import LastCounts, Place, opened, place_of
from .exit import Exit
from .session import logged_as_notes, make_session
from .signals import heed_signals, run
from .terminal import note

_LOOK_S: Final = 1.0


def work(
    book: options.Book,
    /,
    *,
    name: options.BookName = None,
    until_empty: options.UntilEmpty = False,
    quiet: options.Quiet = False,
    talk: options.TalkOptions = options.USUAL_TALK,
    pace: options.PaceOptions = options.USUAL_PACE,
    limits: options.LimitOptions = options.USUAL_LIMITS,
    connection: options.ApiOptions = options.USUAL_API,
) -> Exit:
    """Poll the tasks of a book until Ctrl-C.

    Args:
        book: The file of the book, which is made if it is missing; or a URL of Redis.
        name: Which book of that Redis; tasks by default.
        until_empty: End when nothing is open any more.
        quiet: Show neither progress nor a summary.
        talk: How much is told.
        pace: How often and how long.
        limits: What bounds queries.
        connection: Which API.
    """
    place = place_of(book, name)
    if until_empty:
        place.require_there()
    policy = options.policy_of(pace, limits)
    heed_signals()
    session = make_session(connection, policy)
    last = LastCounts()
    with (
        logged_as_notes(talk.verbose, told_anyway=(WORKER_ENDS,)),
        choose_book_view(quiet=quiet) as view,
        last.noted(lambda counts: counts.pending),
    ):
        run(partial(attend, place, session, view, last, until_empty=until_empty))
    if not quiet and last.counts is not None:
        note(str(last.counts))
    return Exit.OK


async def attend(
    place: Place,
    session: KlingOmniSession,
    view: SilentBook,
    last: LastCounts,
    *,
    until_empty: bool,
) -> None:
    """Poll a book until it is cancelled or, if that is wanted, until nothing is open."""
    async with (
        opened(place) as (book, inside),
        session,
        last.taken(book),
        session.work(book),
        shown(book, session, view),
    ):
        while not (until_empty and await _is_done(book)) and inside.fault is None:
            await inside.changes.wait(_LOOK_S)


async def _is_done(book: TaskBook) -> bool:
    with suppress(BookError):  # whoever works says so, and goes on when it is back
        return (await book.progress()).pending == 0
    return False
