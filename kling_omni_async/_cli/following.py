"""A polling run in its loop: every id of a job ends in a sink or stays pending."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._session import KlingOmniSession

from .copying import Copies
from .id_rows import IdRow
from .job import PollJob
from .options import Saving
from .progress import Silent
from .results import Sink

# A stream of ids may have nothing but repeats: how many in a row are read before a rest.
_MOST_REPEATS: Final = 1000
_REST_S: Final = 0.1


async def follow(
    job: PollJob,
    session: KlingOmniSession,
    sink: Sink,
    view: Silent,
    *,
    saving: Saving,
    feed: AsyncGenerator[IdRow] | None = None,
) -> None:
    """Poll what is left of a job and what a feed brings, and close the session."""
    follower = _Follower(job, sink, view, Copies(sink, saving))
    async with session, beating(session, view, lambda: job.oldest):
        await follower.copy_known(at_a_time=session.policy.max_downloads)
        outcomes = session.poll(
            job.pending if feed is None else follower.ids(feed),
            save_to=saving.save,
            watermarked=saving.watermarked,
            overwrite=saving.overwrite,
        )
        async with outcomes:
            async for outcome in outcomes:
                await follower.finish(outcome)


class _Follower:
    """Writes outcomes, one at a time, whoever brings them, and counts those that are written."""

    def __init__(self, job: PollJob, sink: Sink, view: Silent, copies: Copies) -> None:
        self._job = job
        self._sink = sink
        self._view = view
        self._copies = copies
        self._writing = asyncio.Lock()

    async def finish(self, outcome: TaskOutcome) -> None:
        """Write an outcome."""
        async with self._writing:
            # Written before it counts: whatever comes between, the id is named as pending.
            await self._sink.write(outcome)
            self._job.finish(outcome)
            self._view.show(self._job.tally)

    async def copy_known(self, *, at_a_time: int) -> None:
        """Finish the ids whose images another store has."""
        known = [each for each in self._job.pending if self._copies.may_have(each)]
        if not known:
            return
        await self._copies.try_out()
        left = iter(known)
        workers = [asyncio.create_task(self._copy_each(left)) for _ in range(at_a_time)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)

    async def _copy_each(self, task_ids: Iterator[str]) -> None:
        for task_id in task_ids:
            await self._copy(task_id)

    async def _copy(self, task_id: str) -> bool:
        outcome = await self._copies.bring(task_id)
        if outcome is not None:
            await self.finish(outcome)
        return outcome is not None

    async def ids(self, feed: AsyncGenerator[IdRow]) -> AsyncGenerator[str]:
        """Yield the known ids, then those of a stream that need polling, as they come."""
        for task_id in self._job.pending:
            yield task_id
        repeats = 0
        async with aclosing(feed):
            async for row in feed:
                if self._job.knows(row.task_id):
                    repeats += 1
                    if repeats % _MOST_REPEATS == 0:
                        await asyncio.sleep(_REST_S)
                elif await self._is_to_be_polled(row):
                    yield row.task_id

    async def _is_to_be_polled(self, row: IdRow) -> bool:
        task_id = row.task_id
        self._sink.expect(row)
        self._job.add(task_id)
        if task_id in self._sink.settled:
            self._job.skip_settled([task_id], self._sink)
            return False
        return not (self._copies.may_have(task_id) and await self._copy(task_id))


@asynccontextmanager
async def beating(
    session: KlingOmniSession, view: Silent, oldest: Callable[[], str]
) -> AsyncGenerator[None]:
    """Draw now and then, in this loop: no other thread may look at the session."""
    loop = asyncio.get_running_loop()

    async def beat() -> None:
        view.beat(loop.time(), session.stats(), oldest())

    async with repeating(beat, view.every_s):
        yield


@asynccontextmanager
async def repeating(
    act: Callable[[], Awaitable[None]], every_s: float | None
) -> AsyncGenerator[None]:
    """Do something every so many s; never with None."""
    if every_s is None:
        yield
        return
    # A task, no task group: a view that breaks down must not cancel the polling.
    beats = asyncio.create_task(_repeat(act, every_s))
    try:
        yield
    finally:
        beats.cancel()
        await asyncio.wait([beats])


async def _repeat(act: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        await act()
        await asyncio.sleep(every_s)
