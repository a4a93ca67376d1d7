"""Works one book for long, in real time, and watches what grows: the process, and the book.

Run as ``python -m tests.program_book_soak FILE [QUERIES]``, or ``nox -s soak -- book FILE``; FILE
may be a URL of Redis. By default 200,000 queries, some ten minutes. Two sessions work the book,
each with a stream of outcomes: one reads in order, the other by handlers of which some raise. Ids
come as others end, some are removed or waited for, one query in a hundred meets a fault, streams
are left, and finished entries are dropped a minute after their end. Prints a line for each tenth
and exits with 1 if anything has grown.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random

import attrs
import pytest

from kling_omni_async import (
    KlingOmniError,
    KlingOmniSession,
    OutcomeStream,
    PollPolicy,
    TaskBook,
    TaskOutcome,
    _results,
)
from kling_omni_async.simulator import SimulatedCometAPI

from .benchmarks.processes import resident_bytes
from .program_soak import KINDS_OF_FAULT, MOST_GROWTH, grown, open_files
from .support import say

OPEN = 300
KEEP_S = 60.0
POLICY = PollPolicy(interval=(0.3, 0.5), max_rate=None, timeout=60, query_timeout=2)


@attrs.frozen
class Reading:
    """What the process and the book hold at one moment."""

    queries: int
    rss_mb: float
    blocks: int
    tasks: int
    files: int
    kept: int
    book_kb: int

    def line(self) -> str:
        """Give the reading as a line of a table."""
        return (
            f"{self.queries:>10,} {self.rss_mb:>8.1f} {self.blocks:>9,} {self.tasks:>6} "
            f"{self.files:>6} {self.kept:>7,} {self.book_kb:>9,}"
        )


HEADER = "   queries   RSS MB    blocks  tasks  files    kept   book KB"


class Soak:
    """A book, two sessions that work it, and all that comes and goes meanwhile."""

    def __init__(self, api: SimulatedCometAPI, where: str) -> None:
        self.api, self.where = api, where
        self.book = TaskBook(where, keep=KEEP_S)
        self.rng = Random(1)
        self.room = asyncio.Semaphore(OPEN)

    def new_id(self) -> str:
        """Make a task; one in fifty is unknown to the API, one in ten fails."""
        kind = self.rng.random()
        if kind < 0.02:
            return f"{self.rng.getrandbits(60)}"
        reason = "Image pixel is invalid" if kind < 0.1 else None
        return self.api.create_task(duration=self.rng.uniform(2, 6), fail=reason)

    async def feed(self) -> None:
        """Add ids as others are handed out; a tenth of them is removed again, or waited for."""
        while True:
            await self.room.acquire()
            task_id = self.new_id()
            await self.book.add(task_id, note={"n": self.rng.random()})
            kind = self.rng.random()
            if kind < 0.05:
                await self.book.remove(task_id)
                self.forget(task_id)
            elif kind < 0.1:
                with suppress(KlingOmniError):
                    await self.book.wait(task_id, timeout=self.rng.uniform(0.01, 1))

    async def answer(self, outcome: TaskOutcome) -> None:
        """Handle an outcome; one in twenty raises, and its outcome comes again."""
        await asyncio.sleep(0)
        if self.rng.random() < 0.05:
            raise RuntimeError("the handler is down")
        self.forget(outcome.task_id)

    def forget(self, task_id: str) -> None:
        """Make room for the next id, in the simulator too."""
        with suppress(KeyError):
            self.api.expire(task_id)
        self.room.release()

    async def read(self, session: KlingOmniSession) -> None:
        """Work the book and read in order; leave after a thousand outcomes, and begin anew."""
        while True:
            async with session.poll(self.book) as outcomes:
                await self.read_some(outcomes)

    async def read_some(self, outcomes: OutcomeStream) -> None:
        """Read a thousand outcomes."""
        seen = 0
        async for outcome in outcomes:
            self.forget(outcome.task_id)
            seen += 1
            if seen == 1000:
                await outcomes.ack(outcome)
                return

    async def handle(self, session: KlingOmniSession) -> None:
        """Work the book and hand its outcomes to a handler."""
        async with session.poll(self.book) as outcomes:
            await outcomes.each(self.answer, limit=8)

    async def disturb(self) -> None:
        """Spoil one query in a hundred."""
        for queries in count(100, 100):
            await sent(self.api, queries)
            self.api.fail_next(**KINDS_OF_FAULT[self.rng.randrange(len(KINDS_OF_FAULT))])

    async def measure(self) -> Reading:
        """Measure the process and the book."""
        gc.collect()
        progress = await self.book.progress()
        return Reading(
            queries=self.api._queries.log.begun,
            rss_mb=resident_bytes() / 2**20,
            # Not `gc.get_objects`, which takes hold of what a thread builds: that then fails.
            blocks=sys.getallocatedblocks(),
            tasks=len(asyncio.all_tasks()),
            files=open_files(),
            kept=progress.pending + progress.succeeded + progress.failed + progress.unresolved,
            book_kb=await size_kb(self.where),
        )


async def size_kb(where: str) -> int:
    """Return how large a book is: its files, or what its Redis uses."""
    if "://" in where:
        from redis.asyncio import Redis  # noqa: PLC0415 - an extra, wanted by nobody else here

        async with Redis.from_url(where) as client:
            return int((await client.info("memory"))["used_memory"]) // 1024
    path = Path(where)
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) // 1024


async def soak(where: str, queries: int) -> list[Reading]:
    """Run until so many queries were sent; gives a reading for each tenth."""
    readings: list[Reading] = []
    async with SimulatedCometAPI(seed=1, log_size=1_000) as api:
        run = Soak(api, where)
        one, other = (
            KlingOmniSession(api.api_key, base_url=api.base_url, policy=POLICY) for _ in range(2)
        )
        async with run.book, one, other:
            jobs = [run.feed(), run.feed(), run.read(one), run.handle(other), run.disturb()]
            running = [asyncio.ensure_future(job) for job in jobs]
            while len(readings) < 10:
                await sent(api, queries * (len(readings) + 1) // 10, running)
                readings.append(await run.measure())
                say(readings[-1].line())
            for job in running:
                job.cancel()
            await asyncio.wait(running)
    return readings


async def sent(
    api: SimulatedCometAPI, queries: int, running: Sequence[asyncio.Future[None]] = ()
) -> None:
    """Wait until so many queries were sent, or raise what has ended a job."""
    while api._queries.log.begun < queries:
        await asyncio.sleep(0.1)
        for job in running:
            if job.done():
                job.result()


def main(where: str, queries: int) -> int:
    """Run, print, and tell whether something has grown."""
    logging.disable()  # of faults and handlers that are meant
    # What is bounded, too, is full before the first reading.
    pytest.MonkeyPatch().setattr(_results, "MOST_SUCCESSES", 500)
    say(HEADER)
    factors = grown(asyncio.run(soak(where, queries)))
    for name, factor in factors.items():
        say(f"{name}: x {factor:.3f} from the second tenth to the last")
    return int(max(factors["rss_mb"], factors["blocks"]) > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200_000))
