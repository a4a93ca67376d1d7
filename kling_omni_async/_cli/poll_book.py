"""`poll --book`: a book is polled and handed out until nothing of it is open or unread."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import attrs

from kling_omni_async._book.contract import Store
from kling_omni_async._book.forms import outcome_of
from kling_omni_async._book.records import BookProgress
from kling_omni_async._book.worker import WORKER_ENDS
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._policy import PollPolicy
from kling_omni_async._session import KlingOmniSession

from .book_ids import NewIds, new_ids
from .book_list import pages
from .book_view import SilentBook, choose_book_view, shown
from .books import LastCounts, Place, opened
from .exit import Exit
from .id_rows import IdRow
from .inputs import require_ids, require_source
from .job import PollJob
from .options import Connection, Saving, Talk
from .results import Sink, open_sink
from .session import logged_as_notes, make_session
from .signals import heed_signals, run
from .table import open_table
from .terminal import draw, note


@attrs.frozen
class PollOptions:
    """What `poll` was told besides ids."""

    policy: PollPolicy
    connection: Connection
    saving: Saving
    talk: Talk
    jsonl: str | None
    csv: str | None
    quiet: bool


def poll_book(
    place: Place,
    given: PollOptions,
    ids: Sequence[str] = (),
    source: str | None = None,
    column: str | None = None,
) -> Exit:
    """Add ids to a book, if there are any, and hand out what it holds until that is all."""
    require_source(source, column)
    if ids or source is not None:
        require_ids(ids, source, column, "poll --book BOOK")
    else:
        place.require_there()
    last = LastCounts()
    with ExitStack() as stack:
        news = stack.enter_context(new_ids(ids, source, column, with_cells=given.csv is not None))
        job = PollJob(news.ids)
        heed_signals()
        session = make_session(given.connection, given.policy)
        given.saving.prepare()
        stack.enter_context(logged_as_notes(given.talk.verbose, told_anyway=(WORKER_ENDS,)))
        view = stack.enter_context(choose_book_view(quiet=given.quiet))
        # The book says what is done, and no journal: to that one lines are only added.
        sink = stack.enter_context(open_sink(given.jsonl, view.out, store=given.saving.place))
        if given.csv is not None:
            table = stack.enter_context(open_table(given.csv, news.rows))
            stack.callback(lambda: table.add_pending(job.pending))
            for row in news.known_rows:
                table.expect(row)
            sink = sink.beside(table)
        stack.enter_context(last.noted(_left))
        follower = _Follower(job, sink, given.saving)
        run(partial(follower.follow, place, session, news, view, last))
    if not given.quiet:
        if job.failures:
            draw(job.failures.table())
        note(job.tally.line())
    return Exit.OK if job.tally.all_succeeded else Exit.NOT_ALL


def _left(counts: BookProgress) -> int:
    return counts.pending + counts.unread


class _Follower:
    """Writes what a book hands out, and counts it once it is written."""

    def __init__(self, job: PollJob, sink: Sink, saving: Saving) -> None:
        self._job = job
        self._sink = sink
        self._saving = saving

    async def follow(
        self,
        place: Place,
        session: KlingOmniSession,
        news: NewIds,
        view: SilentBook,
        last: LastCounts,
    ) -> None:
        """Bring new ids to a book, and hand out what it holds."""
        async with (
            opened(place) as (book, inside),
            session,
            last.taken(book),
            shown(book, session, view),
        ):
            await news.add_to(book, expect=self._expect)
            outcomes = session.poll(
                book,
                until_empty=True,
                save_to=self._saving.save,
                watermarked=self._saving.watermarked,
                overwrite=self._saving.overwrite,
            )
            async with outcomes:
                # Asking for the next one acknowledges this one, so it is written before.
                async for outcome in outcomes:
                    await self._sink.write(outcome)
                    self._finish(outcome)
            await self._tell_earlier(inside.store)

    def _expect(self, row: IdRow) -> None:
        self._sink.expect(row)
        if not self._job.knows(row.task_id):
            self._job.add(row.task_id)

    def _finish(self, outcome: TaskOutcome) -> None:
        if not self._job.is_left(outcome.task_id):
            self._job.add(outcome.task_id)
        self._job.finish(outcome)

    async def _tell_earlier(self, store: Store) -> None:
        """Count the given ids whose outcomes were handed out before this run."""
        if not self._job.pending:
            return
        async for page in pages(store, lambda found: self._job.is_left(found.row.key)):
            for outcome in filter(None, map(outcome_of, page)):
                self._sink.again(outcome)
                self._job.finish(outcome)
                self._job.tally.earlier += 1
