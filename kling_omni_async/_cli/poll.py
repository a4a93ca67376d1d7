"""A polling run: every id that was asked for ends in a sink or stays pending."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Final

from kling_omni_async._ids import trimmed
from kling_omni_async._session import KlingOmniSession, snapshot_of
from kling_omni_async.errors import ConfigurationError

from . import options
from .exit import CliError, Exit, UsageError, code_of
from .id_rows import IdRow
from .inputs import open_ids, refuse_paths
from .progress import Silent, choose_view
from .report import Failures, Kind, Tally, kind_of
from .results import Sink, open_sink
from .session import logged_as_notes, make_session
from .signals import heed_signals, run
from .terminal import draw, note, plain
from .units import plural

# Of a stream of ids: how many that have ended are remembered, so that repeats are passed over, and
# how many repeats in a row are read before a rest, as a stream may have nothing else.
_MOST_ENDED: Final = 100_000
_MOST_REPEATS: Final = 1000
_REST_S: Final = 0.1


class PollJob:
    """The ids of a run, known or still to come: those left, and the counts of the others."""

    def __init__(self, task_ids: Iterable[str], feed: AsyncGenerator[IdRow] | None = None) -> None:
        # Ordered: a plain dictionary that many keys have left is slow to give its first one.
        self._left = OrderedDict.fromkeys(map(trimmed, task_ids))
        self._feed = feed
        self._ended: OrderedDict[str, None] = OrderedDict()
        self.tally = Tally(len(self._left))
        self.failures = Failures()

    @property
    def pending(self) -> list[str]:
        """The known ids without a written outcome, in the order they were given."""
        return list(self._left)

    @property
    def oldest(self) -> str:
        """The first id, in the order given, without a written outcome; empty if there is none."""
        return next(iter(self._left), "")

    def skip_settled(self, sink: Sink) -> None:
        """Count what an earlier run has settled."""
        for task_id in [each for each in self._left if each in sink.settled]:
            self._skip(task_id, sink)

    def _skip(self, task_id: str, sink: Sink) -> None:
        del self._left[task_id]
        earlier = sink.settled[task_id]
        self.tally.counts[earlier.kind] += 1
        self.tally.earlier += 1
        if earlier.kind is not Kind.SUCCEEDED:
            self.failures.add_earlier(earlier.kind, earlier.reason, task_id)

    async def _ids(self, feed: AsyncGenerator[IdRow], sink: Sink) -> AsyncGenerator[str]:
        """Yield the known ids, then those of a stream as they come."""
        for task_id in self.pending:
            yield task_id
        repeats = 0
        async with aclosing(feed):
            async for row in feed:
                if row.task_id in self._left or row.task_id in self._ended:
                    repeats += 1
                    if repeats % _MOST_REPEATS == 0:
                        await asyncio.sleep(_REST_S)
                    continue
                self.tally.total += 1
                self._left[row.task_id] = None
                if row.task_id in sink.settled:
                    self._skip(row.task_id, sink)
                    self._remember(row.task_id)
                else:
                    yield row.task_id

    def _remember(self, task_id: str) -> None:
        self._ended[task_id] = None
        if len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)

    async def follow(
        self, session: KlingOmniSession, sink: Sink, view: Silent, saving: options.Saving
    ) -> None:
        """Poll what is left, and close the session."""
        ids = self.pending if self._feed is None else self._ids(self._feed, sink)
        outcomes = session.poll(
            ids,
            save_to=saving.save,
            watermarked=saving.watermarked,
            overwrite=saving.overwrite,
        )
        async with session, outcomes, self._beating(session, view):
            async for outcome in outcomes:
                # Written before it counts: whatever comes between, the id is named as pending.
                await sink.write(outcome)
                del self._left[outcome.task_id]
                if self._feed is not None:
                    self._remember(outcome.task_id)
                self.tally.add(outcome)
                if outcome.error is not None:
                    self.failures.add(kind_of(outcome), outcome.error, outcome.task_id)
                view.show(self.tally)

    @asynccontextmanager
    async def _beating(self, session: KlingOmniSession, view: Silent) -> AsyncGenerator[None]:
        """Draw now and then, in this loop: no other thread may look at the session."""
        if view.every_s is None:
            yield
            return
        # A task, no task group: a view that breaks down must not cancel the polling.
        beats = asyncio.create_task(self._beat(session, view, view.every_s))
        try:
            yield
        finally:
            beats.cancel()
            await asyncio.wait([beats])

    async def _beat(self, session: KlingOmniSession, view: Silent, every_s: float) -> None:
        while True:
            oldest = self.oldest
            view.beat(snapshot_of(session, oldest), oldest)
            await asyncio.sleep(every_s)


def poll(
    *ids: options.Ids,
    source: options.IdFile = None,
    column: options.Column = None,
    jsonl: options.JournalFile = None,
    quiet: options.Quiet = False,
    talk: options.TalkOptions = options.USUAL_TALK,
    saving: options.SavingOptions = options.NOWHERE,
    downloads: options.DownloadOptions = options.USUAL_DOWNLOADS,
    pace: options.PaceOptions = options.USUAL_PACE,
    limits: options.LimitOptions = options.USUAL_LIMITS,
    connection: options.ApiOptions = options.USUAL_API,
) -> Exit:
    """Poll tasks until each has succeeded, failed, or was given up.

    Prints a line for each: its id, a word, and its images or the reason.

    Args:
        ids: The task ids.
        source: A file with more ids: one a line, CSV or JSON; - for stdin, as they come.
        column: The column of the file that has the ids, by name or number; task_id by default.
        jsonl: A journal to append to, as JSON lines; ids settled there are skipped. - for stdout.
        quiet: Show neither progress nor a summary.
        talk: How much is told.
        saving: Where images are saved.
        downloads: How they are fetched.
        pace: How often and how long.
        limits: What bounds queries.
        connection: Which API.
    """
    if not ids and source is None:
        raise UsageError("no ids: give some, or a file of them with --from")
    if column is not None and source is None:
        raise UsageError("--column says where a file has its ids: give --from too")
    if saving.save is None and (saving.watermarked or saving.overwrite):
        raise UsageError("--watermarked and --overwrite say how to save: give --save too")
    policy = options.policy_of(pace, limits, downloads)
    refuse_paths(ids)
    # Read last: it may take its time, and wrong options are told at once.
    with nullcontext() if source is None else open_ids(source, column) as given:
        if given is None:
            job = PollJob(ids)
        elif given.is_file:
            job = PollJob([*ids, *(row.task_id for row in given.read_all())])
        else:
            job = PollJob(ids, given.feed())
        # The ids of a stream are gone, whatever the journal has.
        with _pending_noted(job, journal=jsonl if given is None or given.is_file else None):
            heed_signals()  # not before: from here on the ids are known, and can be told
            session = make_session(connection, policy)
            saving.prepare()
            with (
                logged_as_notes(talk.verbose),
                choose_view(quiet=quiet) as view,
                open_sink(jsonl, view.out, is_done=saving.is_done, store=saving.place) as sink,
            ):
                job.skip_settled(sink)
                view.show(job.tally)
                run(partial(job.follow, session, sink, view, saving))
    if not quiet:
        if job.failures:
            draw(job.failures.table())
        note(job.tally.line())
    return Exit.OK if job.tally.all_succeeded else Exit.NOT_ALL


@contextmanager
def _pending_noted(job: PollJob, *, journal: str | None) -> Generator[None]:
    """Note on what ends a run early which ids are still pending, or how to go on with them."""
    try:
        yield
    except (CliError, ConfigurationError) as error:
        # Nothing was begun: a million ids would only push the line that matters off the screen.
        if code_of(error) is not Exit.USAGE:
            _note_pending(error, job, journal)
        raise
    except BaseException as error:
        _note_pending(error, job, journal)
        raise


def _note_pending(error: BaseException, job: PollJob, journal: str | None) -> None:
    if not (pending := job.pending):
        return
    if journal is not None and Path(journal).is_file():  # no pipe, and not -
        error.add_note(f"{len(pending):,} left; run the same command to go on")
        return
    heading = f"{plural(len(pending), 'id is', 'ids are')} still pending:"
    error.add_note("\n".join([heading, *map(plain, pending)]))
