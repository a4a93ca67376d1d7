"""A polling run: every id that was asked for ends in a sink or stays pending."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from kling_omni_async.errors import ConfigurationError

from . import options
from .exit import CliError, Exit, UsageError, code_of
from .following import follow
from .inputs import open_ids, require_ids
from .job import PollJob
from .progress import choose_view
from .results import Sink, open_sink
from .session import logged_as_notes, make_session
from .signals import heed_signals, hold_signals, run
from .table import open_table, require_apart
from .terminal import draw, note, plain
from .units import plural

MOST_OF_A_STREAM: Final = 100_000
"""How many ids of a stream are read ahead, in less than 100 MB: far more than one can ask for."""

_SLICE: Final = 100


def poll(
    *ids: options.Ids,
    source: options.IdFile = None,
    column: options.Column = None,
    book: options.BookOption = None,
    name: options.BookName = None,
    jsonl: options.JournalFile = None,
    csv: options.TableFile = None,
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
        book: A book to poll until nothing is open or unread; ids are added to it first.
        name: Which book of a Redis, whose URL is given as --book; tasks by default.
        jsonl: A journal to append to, as JSON lines; ids settled there are skipped. - for stdout.
        csv: A table to write: the rows of the input, with what came of each id behind them.
        quiet: Show neither progress nor a summary.
        talk: How much is told.
        saving: Where images are saved.
        downloads: How they are fetched.
        pace: How often and how long.
        limits: What bounds queries.
        connection: Which API.
    """
    if book is None:
        if name is not None:
            raise UsageError("--name tells books in Redis apart: give --book too")
        require_ids(ids, source, column, "poll")
    saving.require_place()
    require_apart(csv, jsonl)
    policy = options.policy_of(pace, limits, downloads)
    if book is not None:
        from .books import place_of  # noqa: PLC0415 - not for those without a book
        from .poll_book import PollOptions, poll_book  # noqa: PLC0415 - as above

        return poll_book(
            place_of(book, name),
            PollOptions(policy, connection, saving, talk, jsonl=jsonl, csv=csv, quiet=quiet),
            ids,
            source,
            column,
        )
    with ExitStack() as stack:
        # Read last: it may take its time, and wrong options are told at once.
        given = None
        if source is not None:
            given = stack.enter_context(open_ids(source, column, with_cells=csv is not None))
        rows = [] if given is None or not given.is_file else given.read_all()
        job = PollJob([*ids, *(row.task_id for row in rows)])
        feed = None if given is None or given.is_file else given.feed()
        # The ids of a stream are gone, whatever the journal has.
        stack.enter_context(_pending_noted(job, journal=jsonl if feed is None else None))
        heed_signals()  # not before: from here on the ids are known, and can be told
        if feed is not None:
            most = min(policy.max_pending, MOST_OF_A_STREAM)
            policy = attrs.evolve(policy, max_pending=most)
        session = make_session(connection, policy)
        saving.prepare()
        stack.enter_context(logged_as_notes(talk.verbose))
        view = stack.enter_context(choose_view(quiet=quiet))
        sink = stack.enter_context(
            open_sink(jsonl, view.out, is_done=saving.is_done, store=saving.place)
        )
        if csv is not None:
            table = stack.enter_context(open_table(csv, None if given is None else given.rows))
            stack.callback(lambda: table.add_pending(job.pending))
            for row in rows:
                table.expect(row)
            sink = sink.beside(table)
        _skip_settled(job, sink)
        view.show(job.tally)
        run(partial(follow, job, session, sink, view, saving=saving, feed=feed))
    if not quiet:
        if job.failures:
            draw(job.failures.table())
        note(job.tally.line())
    return Exit.OK if job.tally.all_succeeded else Exit.NOT_ALL


def _skip_settled(job: PollJob, sink: Sink) -> None:
    """Count, and write to a table, what an earlier run has settled."""
    pending = job.pending
    for at in range(0, len(pending), _SLICE):
        # A signal between any two instructions would leave a row without its cells, or with two
        # results; and there may be a million of them.
        hold_signals()
        job.skip_settled(pending[at : at + _SLICE], sink)
        heed_signals()


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
