"""A process that works on a book until somebody kills it, and writes down what it has seen.

A child is forked from a server that has imported everything: it starts in some ms.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from kling_omni_async import KlingOmniSession, OutcomeStream, PollPolicy, TaskBook, TaskOutcome
from kling_omni_async._book import book as book_module
from kling_omni_async._book.contract import Said, Settle
from kling_omni_async._book.judging import Held
from kling_omni_async._book.sqlite import SqliteStore
from kling_omni_async._book.worker import Worker

QUERY_TIMEOUT_S: Final = 3.0
FAST: Final[Mapping[str, Any]] = {
    "interval": (0.3, 0.5),
    "query_timeout": QUERY_TIMEOUT_S,
    "max_concurrency": 20,
}
MOST_BY_ONES: Final = 3
LIMIT: Final = 4
"""How many handlers run at once."""

LEASE_S: Final = 2.0 + QUERY_TIMEOUT_S + 0.3


@attrs.frozen(kw_only=True)
class Job:
    """What a child does.

    Attributes:
        book: The file, or the URL of a Redis.
        base_url: Of the simulator.
        api_key: The same.
        log: Where it writes what it has seen.
        roles: What it does at once: ``add``, ``work``, and one of ``each``, ``loop`` and ``ack``,
            with ``poll`` beside it to poll in the same stream.
        policy: What differs from the usual policy.
        ids: What it adds.
        batch: How many at a time.
        save_to: Where images go.
        limit: How many handlers run at once.
        poison: How a handler fails: it does ``hang``, or its process ``die``.
        poisoned: For which id; the first one by default, or all that come to a handler that hangs.
        dies_at: A point of the store at which the process dies, and at which passing of it.
        blocks_s: For how long its loop stands still between its first claims and their starts.
        until_empty: Whether it ends by itself.
    """

    book: str
    base_url: str
    api_key: str
    log: str
    roles: tuple[str, ...]
    policy: Mapping[str, Any] = FAST
    ids: tuple[str, ...] = ()
    save_to: str | None = None
    batch: int = MOST_BY_ONES
    limit: int = LIMIT
    poison: str | None = None
    poisoned: str | None = None
    dies_at: tuple[str, int] | None = None
    blocks_s: float = 0.0
    until_empty: bool = False


@attrs.frozen
class Line:
    """Something that a child has seen, at a time in s of the clock that all processes share."""

    child: int
    time: float
    what: str
    task_id: str
    extra: Any = None


class Child:
    """A process, as its parent sees it."""

    def __init__(self, number: int, job: Job) -> None:
        forks = multiprocessing.get_context("forkserver")
        # There is one such server for all: the first is what `tests.cli.warm` needs.
        forks.set_forkserver_preload(["kling_omni_async._cli.app", __name__])
        self.number = number
        self.job = job
        self._process = forks.Process(target=_run, args=(number, job))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once; more calls do no harm."""
        self._process.kill()
        self._process.join()

    def finish(self) -> int:
        """Wait for its end; return its exit code."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode


@contextmanager
def child(number: int, job: Job) -> Generator[Child]:
    """Run a child, and leave none behind."""
    process = Child(number, job)
    try:
        yield process
    finally:
        process.kill()


def lines_of(log: Path) -> list[Line]:
    """Return what all children have seen, in order of time."""
    lines = [Line(**json.loads(line)) for line in log.read_bytes().splitlines()]
    return sorted(lines, key=lambda line: line.time)


def wait_until(has_come: Callable[[], bool]) -> None:
    """Wait for something that is seen from outside only."""
    while not has_come():
        time.sleep(0.03)


# In the child.


def _run(number: int, job: Job) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = os.open(job.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(os.open(f"{job.log}.err", os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(_Work(number, job, log).run())


class _Work:
    """What a child does, in its loop."""

    def __init__(self, number: int, job: Job, log: int) -> None:
        self._number = number
        self._job = job
        self._log = log
        self._passed = 0  # how often the point was passed
        self._say_what_is_asked()
        if job.blocks_s:
            self._block_before_starts()

    def say(self, what: str, task_id: str = "", extra: Any = None) -> None:
        """Write a line; it is there whatever happens next."""
        line = Line(self._number, time.monotonic(), what, task_id, extra)
        os.write(self._log, json.dumps(attrs.asdict(line)).encode() + b"\n")

    async def run(self) -> None:
        job = self._job
        book = TaskBook(job.book)
        if "://" not in job.book:
            book._make_store = self._new_store  # type: ignore[method-assign]
        policy = PollPolicy(**job.policy)
        session = KlingOmniSession(job.api_key, base_url=job.base_url, policy=policy)
        try:
            async with book, session:
                self.say("open")
                await self._play(book, session)
            self.say("closed")
        except* Exception as group:  # noqa: BLE001 - whatever it is, its parent looks at it
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self.say("raised", extra=f"{type(error).__name__}: {error}")
            raise SystemExit(3) from None

    def _new_store(self) -> SqliteStore:
        return SqliteStore(Path(self._job.book), keep_s=book_module.KEEP_S, at=self._at)

    def _at(self, point: str) -> None:
        """Die at a point of the thread in which the file is used."""
        if self._job.dies_at is not None and self._job.dies_at[0] == point:
            self._passed += 1
            if self._passed == self._job.dies_at[1]:
                os.kill(os.getpid(), signal.SIGKILL)

    async def _play(self, book: TaskBook, session: KlingOmniSession) -> None:
        roles = self._job.roles
        async with AsyncExitStack() as stack:
            work = session.work(book)
            if "work" in roles:
                await stack.enter_async_context(work)
            async with asyncio.TaskGroup() as group:
                if "add" in roles:
                    group.create_task(self._add(book))
                if {"each", "loop", "ack"} & set(roles):
                    group.create_task(self._read(book, session))
                elif "work" in roles:
                    worker = work._worker
                    assert worker is not None
                    group.create_task(worker.ended.wait())  # such as with a wrong key

    async def _add(self, book: TaskBook) -> None:
        """Add by ones and by several, in turn."""
        left, batch = list(self._job.ids), self._job.batch
        while left:
            some, left = left[:batch], left[batch:]
            if batch > MOST_BY_ONES or len(left) % 2:
                await book.add_many((task_id, {"of": task_id}) for task_id in some)
            else:
                for task_id in some:
                    await book.add(task_id, note={"of": task_id})
            for task_id in some:
                self.say("added", task_id)
            await asyncio.sleep(0.01)

    async def _read(self, book: TaskBook, session: KlingOmniSession) -> None:
        async with self._stream(book, session) as outcomes:
            if "each" in self._job.roles:
                await outcomes.each(self._handle, limit=self._job.limit)
            elif "ack" in self._job.roles:
                async for outcome in outcomes:
                    self._got(outcome)
                    await outcomes.ack(outcome)
                    self.say("acked", outcome.task_id)
            else:
                await self._loop(outcomes)

    @asynccontextmanager
    async def _stream(
        self, book: TaskBook, session: KlingOmniSession
    ) -> AsyncIterator[OutcomeStream]:
        options: dict[str, Any] = {
            "save_to": self._job.save_to,
            "until_empty": self._job.until_empty,
        }
        made = session.poll(book, **options) if "poll" in self._job.roles else None
        async with made or book.outcomes(**options) as outcomes:
            yield outcomes

    async def _loop(self, outcomes: OutcomeStream) -> None:
        before: TaskOutcome | None = None
        async for outcome in outcomes:
            if before is not None:  # the next one was handed out
                self.say("acked", before.task_id)
            before = outcome
            self._got(outcome)
            await asyncio.sleep(0)
        if before is not None:
            self.say("acked", before.task_id)

    async def _handle(self, outcome: TaskOutcome) -> None:
        self._got(outcome)
        if self._job.poisoned in (None, outcome.task_id):
            if self._job.poison == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self._job.poison == "hang":
                await asyncio.sleep(3600)
        await asyncio.sleep(0.005)
        self.say("handled", outcome.task_id)

    def _got(self, outcome: TaskOutcome) -> None:
        error = type(outcome.error).__name__ if outcome.error else None
        extra = {
            "error": error,
            "deliveries": outcome.deliveries,
            "queries": outcome.queries,
            "note": outcome.note,
            "saved": [each.key for each in outcome.saved],
        }
        self.say("got", outcome.task_id, extra)

    def _say_what_is_asked(self) -> None:
        """Write a line before each query: when it was to start, in s of the book."""
        ask, carry, starts = Worker._ask, Worker._carry, dict[str, float]()

        async def carried(worker: Worker, held: Held, sent: float, start: float) -> None:
            starts[held.row.key] = start + held.book_time
            await carry(worker, held, sent, start)

        async def told(worker: Worker, held: Held) -> Settle:
            self.say("asks", held.row.key, starts[held.row.key])
            settle = await ask(worker, held)
            if settle.said is Said.FAULT:  # such as no answer in time
                self.say("no answer", held.row.key)
            return settle

        Worker._carry = carried  # type: ignore[assignment,method-assign]
        Worker._ask = told  # type: ignore[assignment,method-assign]

    def _block_before_starts(self) -> None:
        """Let the loop stand still once, when a worker has some claims and has started none."""
        begin, has_blocked = Worker._begin, False

        def blocked(worker: Worker, *args: Any) -> None:
            nonlocal has_blocked
            begin(worker, *args)
            if not has_blocked and len(worker._held) >= 3:
                has_blocked = True
                self.say("blocks", extra=sorted(worker._held))
                time.sleep(self._job.blocks_s)
                self.say("goes on")

        Worker._begin = blocked  # type: ignore[assignment,method-assign]


def each_of(lines: list[Line], what: str) -> Iterator[Line]:
    """Return the lines of one kind."""
    return (line for line in lines if line.what == what)
