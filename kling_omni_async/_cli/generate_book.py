"""`generate --book` and `create --book`: a book knows each order, before it is sent and after."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs

from kling_omni_async._book.worker import WORKER_ENDS
from kling_omni_async._order import ImageOrder
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._policy import PollPolicy
from kling_omni_async._session import KlingOmniSession

from .book_ids import read_note
from .books import Place, opened, place_of
from .budget import Budget
from .creating import Work, Write, show_created
from .creating_end import left_noted, tell_end, tell_failures, tell_uncertain
from .exit import Exit, UsageError
from .following import beating
from .options import Connection, Saving, Talk
from .order_journal import read_records
from .progress import Silent, choose_view
from .prompts import digest_in_words
from .results import open_sink
from .session import logged_as_notes, make_session
from .signals import heed_signals, run
from .terminal import out_as_read
from .wanted import Wanted, with_keys

_AGAIN: Final = "run again to look for it; a book never sends an order again that is in doubt"


@attrs.frozen
class KeptRun:
    """What `generate` and `create` were told for a book."""

    book: str
    name: str | None
    note: str | None
    orders: Sequence[ImageOrder]
    policy: PollPolicy
    connection: Connection
    talk: Talk

    def place(self) -> Place:
        """Return where the book is."""
        return place_of(self.book, self.name)

    def work(self) -> Work:
        """Return the orders, each with a key by which the book knows it again."""
        orders = with_keys(self.orders, digest_in_words)
        return Work(map(Wanted, orders), Budget(None))


def generate_in_book(
    given: KeptRun, saving: Saving, jsonl: str | None, max_tasks: int | None, *, quiet: bool
) -> Exit:
    """Create what a book does not know, and bring each order to an outcome."""
    place, note, work = given.place(), read_note(given.note), given.work()
    _require_no_intents(jsonl)
    with ExitStack() as stack:
        heed_signals()
        session = make_session(given.connection, given.policy)
        saving.prepare()
        stack.enter_context(logged_as_notes(given.talk.verbose, told_anyway=(WORKER_ENDS,)))
        view = stack.enter_context(choose_view(quiet=quiet))
        # The book says what is done: to a journal lines are only added, as by `poll --book`.
        sink = stack.enter_context(open_sink(jsonl, view.out, store=saving.place))
        stack.enter_context(left_noted(work, can_go_on=True))
        options: dict[str, Any] = {
            "note": note,
            "max_tasks": max_tasks,
            "save_to": saving.save,
            "watermarked": saving.watermarked,
            "overwrite": saving.overwrite,
        }
        run(partial(_generate, place, session, work, sink.write, view, **options))
    if not quiet:
        tell_end(work)
    tell_uncertain(work, _AGAIN)
    return work.code


async def _generate(
    place: Place,
    session: KlingOmniSession,
    work: Work,
    write: Write,
    view: Silent,
    **options: Any,
) -> None:
    async with opened(place) as (book, _), session, beating(session, view, str):
        work.begin(session)
        view.show(work.tally)
        orders = [each.order for each in work.left.values()]
        async with session.generate_many(orders, book=book, **options) as outcomes:
            # Asking for the next one acknowledges this one, so it is written before.
            async for outcome in outcomes:
                await write(outcome)
                work.finish(outcome)
                view.show(work.tally)


def create_in_book(given: KeptRun) -> Exit:
    """Create what a book does not know, and print the ids of all; others poll them."""
    place, note, work = given.place(), read_note(given.note), given.work()
    heed_signals()
    session = make_session(given.connection, given.policy)
    with logged_as_notes(given.talk.verbose), left_noted(work, can_go_on=True):
        run(partial(_create, place, session, work, note))
    tell_failures(work)
    tell_uncertain(work, _AGAIN)
    return work.code


async def _create(place: Place, session: KlingOmniSession, work: Work, note: object) -> None:
    async with opened(place) as (book, _), session:
        work.begin(session)
        for name, each in list(work.left.items()):
            creating = session.create(each.order, book=book, note=note)
            await show_created(work, name, creating, _nowhere, out_as_read)


async def _nowhere(_: TaskOutcome) -> None:
    """Write nothing: the failures are told at the end."""


def _require_no_intents(jsonl: str | None) -> None:
    """Raise `UsageError` for a journal of creates that the book knows nothing of."""
    if jsonl in {None, "-"}:
        return
    if read_records(Path(str(jsonl)), lambda _: True).by_name:
        raise UsageError(
            f"{jsonl} knows what was created without a book: go on with it alone, or give another"
        )
