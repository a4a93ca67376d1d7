"""A polling run: every id that was asked for ends in a sink or stays pending."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from kling_omni_async import KlingOmniSession
from kling_omni_async.errors import ConfigurationError

from ._exit import Exit, UsageError
from ._images import Saving
from ._session import Connection, Pace, logged_as_notes, make_session
from ._signals import heed_signals, run
from ._sinks import Sink, open_sink
from ._summary import Tally
from ._terminal import note, plain
from ._view import Silent, choose_view

NOWHERE = Saving()


class PollJob:
    """The ids of a run: those that are left and the counts of those that are not.

    Args:
        task_ids: What is asked for; repeats count once.

    Attributes:
        tally: The counts so far.
    """

    def __init__(self, task_ids: Iterable[str]) -> None:
        self._left = dict.fromkeys(task_ids)
        self.tally = Tally(len(self._left))

    @property
    def pending(self) -> list[str]:
        """The ids without a written outcome, in the order they were given."""
        return list(self._left)

    def skip_settled(self, sink: Sink) -> None:
        """Count what an earlier run has settled."""
        for task_id in self._left.keys() & sink.settled.keys():
            del self._left[task_id]
            self.tally.counts[sink.settled[task_id]] += 1
            self.tally.earlier += 1

    async def follow(
        self, session: KlingOmniSession, sink: Sink, view: Silent, saving: Saving = NOWHERE
    ) -> None:
        """Poll what is left, and close the session.

        Args:
            session: Polls.
            sink: Takes each outcome as it comes.
            view: Shows how far it is.
            saving: Where images are saved.

        Raises:
            KlingOmniError: Nothing can be polled any more.
            OutputError: The sink takes no more.
        """
        outcomes = session.poll(
            self.pending,
            save_to=saving.save,
            watermarked=saving.watermarked,
            overwrite=saving.overwrite,
        )
        async with session, outcomes:
            async for outcome in outcomes:
                sink.write(outcome)
                del self._left[outcome.task_id]
                self.tally.add(outcome)
                view.show(self.tally)

    def still_pending(self) -> str:
        """Give the ids that are left, one a line below a heading."""
        return "\n".join([f"{len(self._left)} ids are still pending:", *map(plain, self._left)])


def poll(
    task_ids: Iterable[str],
    *,
    jsonl: str | None,
    connection: Connection,
    pace: Pace,
    saving: Saving,
    quiet: bool,
) -> Exit:
    """Poll ids until each has ended; what ends the run early carries the rest as a note.

    Args:
        task_ids: What to poll.
        jsonl: The path of a journal, ``-`` for JSON lines on stdout, or None for plain lines.
        connection: Which API.
        pace: How often and how long.
        saving: Where images are saved.
        quiet: Show neither progress nor a summary.

    Raises:
        UsageError: The journal is in use or of another format.
        OutputError: Outcomes cannot be written.
        KlingOmniError: Nothing can be polled, or any more.
        KeyboardInterrupt: A signal came.
    """
    job = PollJob(task_ids)
    try:
        heed_signals()
        session = make_session(connection, pace.policy())
        saving.prepare()
        _work(job, session, jsonl, saving, quiet=quiet)
    except (UsageError, ConfigurationError):
        raise
    except BaseException as error:
        if job.pending:
            error.add_note(job.still_pending())
        raise
    if not quiet:
        note(job.tally.line())
    return Exit.OK if job.tally.all_succeeded else Exit.NOT_ALL


def _work(
    job: PollJob, session: KlingOmniSession, jsonl: str | None, saving: Saving, *, quiet: bool
) -> None:
    with (
        logged_as_notes(),
        choose_view(quiet=quiet) as view,
        open_sink(jsonl, view.out, saving.is_done) as sink,
    ):
        job.skip_settled(sink)
        view.show(job.tally)
        run(partial(job.follow, session, sink, view, saving))
