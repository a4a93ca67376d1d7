"""The owner task: the schedule, the transport, and the tasks that carry queries between them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar, copy_context
from functools import partial
from random import Random
from typing import Final, Protocol, cast

import anyio
import attrs
from anyio.abc import TaskGroup

from kling_omni_async._api.answers import Answer, read_answer
from kling_omni_async._models import ImageTask
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._policy import PollPolicy
from kling_omni_async._saving.saver import Fetcher, SaveOrder, Saver
from kling_omni_async._saving.stores import SavePlan
from kling_omni_async.errors import KlingOmniError, SessionClosedError

from .inputs import Reader
from .snapshot import Pulse
from .stream import Batch
from .timers import NEVER
from .verdicts import Reply
from .waiters import End, Entry, Result, Ticket, resolve
from .watchlist import Watchlist

_SAVE_NAME: Final = "kling_omni_async.save"

logger: Final = logging.getLogger("kling_omni_async.poller")

_owned_by: ContextVar[Poller | None] = ContextVar("_owned_by", default=None)


class Transport(Protocol):
    """What brings answers. It is opened and closed inside the owner task."""

    async def open(self) -> int | None:
        """Get ready; gives the most queries that it can have in flight, or None."""

    async def fetch(self, task_id: str) -> Answer | KlingOmniError:
        """Send one query; never raises for anything that the network does."""
        ...

    async def aclose(self) -> None:
        """Release everything."""


class Poller:
    """Everything of a session that runs: one owner task, its workers and one timer.

    Attributes:
        closed: Whether no verb may be used any more.
    """

    def __init__(
        self,
        policy: PollPolicy,
        transport: Transport,
        fetcher: Fetcher,
        *,
        rng: Random,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.closed = False
        self._policy = policy
        self._transport = transport
        self._wall_clock = wall_clock
        self._watchlist = Watchlist(policy, rng)
        self._wake = asyncio.Event()
        self._reader = Reader(
            self._watchlist, now=self.now, attend=self._attend, wake=self._wake.set
        )
        self._saver = Saver(fetcher, most=policy.max_downloads, rng=rng, wall_clock=wall_clock)
        self._parked: list[asyncio.Future[Entry]] = []
        self._unfed: list[Batch] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = NEVER

    def __repr__(self) -> str:
        state = "closed" if self.closed else "running" if self._owner else "not started"
        return f"<Poller {state} {self._watchlist!r}>"

    # What the session calls; none of it waits.

    def now(self) -> float:
        """Give the time of the loop in s."""
        return self._running().time()

    def call(self, task_id: str, ticket: Ticket) -> None:
        """Let a call of `wait` or `watch` wait for an id."""
        self._watchlist.call(task_id, ticket, self.now())
        self._attend()

    def leave(self, ticket: Ticket) -> None:
        """Let one who waits go."""
        self._watchlist.leave(ticket)

    def ask(self, task_id: str) -> Result[Reply]:
        """Queue one query that was asked for by hand."""
        self._running()
        result = self._watchlist.ask(task_id)
        self._attend()
        return result

    def forget(self, task_id: str, result: Result[Reply]) -> None:
        """Let a call of `query` go."""
        self._watchlist.forget(task_id, result)

    def open_batch(self, batch: Batch) -> None:
        """Begin to poll a stream."""
        self._running()
        if batch.plan is not None:
            batch.save = partial(self._save_first, batch, batch.plan)
        self._watchlist.batches[batch] = None
        self._unfed.append(batch)
        self._wake.set()

    def abandon(self, batch: Batch) -> None:
        """Drop a stream that nobody reads any more."""
        batch.cut(End())
        self._saver.cancel(batch.orders)
        batch.orders.clear()
        self._watchlist.close_batch(batch)
        self._wake.set()

    def save(self, task: ImageTask, plan: SavePlan) -> tuple[SaveOrder, Result[SaveOrder]]:
        """Begin to save the images of a task, ahead of those of all streams."""
        result: Result[SaveOrder] = self._running().create_future()
        tell = partial(resolve, result)
        order = SaveOrder(task, plan, done=tell, abort=tell)
        self._saver.submit(order, first=True)
        return order, result

    def forget_save(self, order: SaveOrder) -> None:
        """Let a call of `save` go."""
        self._saver.cancel([order])

    def pulse(self, task_id: str) -> Pulse:
        """Tell how the polling goes, at any number of ids at the same small cost."""
        return self._watchlist.pulse(task_id, self.now())

    def cancel(self) -> None:
        """Begin to end everything."""
        if not self.closed and self._owner is not None:
            self._owner.cancel()
        self.closed = True

    async def aclose(self) -> None:
        """End everything and wait until it has ended; more calls do no harm."""
        self.cancel()
        owner = self._owner
        if owner is None or owner.done() or _owned_by.get() is self:
            return  # the last: an input that closes its own session must not wait for itself
        await asyncio.wait([owner])

    # The owner task.

    def _running(self) -> asyncio.AbstractEventLoop:
        """Start the owner task when it is first needed."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            context = Context()
            context.run(_owned_by.set, self)
            self._owner = self._loop.create_task(
                self._own(), name="kling_omni_async.poller", context=context
            )
            self._owner.add_done_callback(self._ended)
        return self._loop

    async def _own(self) -> None:
        limit = await self._transport.open()
        most = self._policy.max_concurrency
        self._watchlist.schedule.limit = min(limit or most, most)
        try:
            async with anyio.create_task_group() as workers:
                self._saver.open(partial(self._start_save, workers, copy_context()))
                await self._run(workers)
        finally:
            self._disarm()
            await self._saver.aclose()
            await self._transport.aclose()

    async def _run(self, workers: TaskGroup) -> None:
        while True:
            self._wake.clear()
            self._start_chores(workers)
            while entry := self._watchlist.start(self.now()):
                self._hand_out(entry, workers)
            if self._watchlist.ring(self.now()):
                await asyncio.sleep(0)
                continue
            self._attend()
            await self._wake.wait()

    def _start_chores(self, workers: TaskGroup) -> None:
        for batch in self._unfed:
            if not batch.closed:  # it may have been left before the loop came round
                workers.start_soon(self._reader.feed, batch, name="kling_omni_async.feed")
        self._unfed.clear()
        while self._watchlist.unswept:
            batch = self._watchlist.unswept.popleft()
            workers.start_soon(self._reader.sweep, batch, name="kling_omni_async.sweep")

    def _ended(self, owner: asyncio.Task[None]) -> None:
        """Tell all who wait why there will be nothing more."""
        self.closed = True
        defect = None if owner.cancelled() else owner.exception()
        reason = _unwrapped(defect) if defect else closed_error()
        self._watchlist.shut(reason)
        self._saver.shut(reason)

    # One timer for the whole session.

    def _attend(self) -> None:
        """See to it that the owner wakes when there is something to do."""
        if self._watchlist.unswept:
            self._wake.set()
        when = self._watchlist.next_event()
        if self._rings_at <= when:
            return
        self._disarm()
        if when <= self.now():
            self._wake.set()
        else:
            # uvloop's handle does not tell its time where that came meanwhile
            self._timer = self._running().call_at(when, self._ring)
            self._rings_at = when

    def _ring(self) -> None:
        self._timer, self._rings_at = None, NEVER
        self._wake.set()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._rings_at = None, NEVER

    # Workers: each carries one query at a time, and is parked when there is none.

    def _hand_out(self, entry: Entry, workers: TaskGroup) -> None:
        if self._parked:
            self._parked.pop().set_result(entry)
        else:
            workers.start_soon(self._work, entry, name="kling_omni_async.query")

    async def _work(self, entry: Entry) -> None:
        try:
            while True:
                now = await self._query(entry)
                following = self._watchlist.start(now)
                self._attend()
                entry = following or await self._park()
        except asyncio.CancelledError:
            self.cancel()  # by an outsider: without its query an id would wait for ever
            raise

    async def _park(self) -> Entry:
        future: asyncio.Future[Entry] = self._running().create_future()
        self._parked.append(future)
        return await future

    async def _query(self, entry: Entry) -> float:
        """Carry a query out; gives the time at which it had ended."""
        answer = await self._transport.fetch(entry.task_id)
        now = self.now()
        if isinstance(answer, KlingOmniError):
            self._watchlist.settle(entry, answer, b"", now)
        else:
            reply = read_answer(answer, entry.task_id, wall_s=self._wall_clock())
            self._watchlist.settle(entry, reply, answer.body, now)
        return now

    # Images.

    def _start_save(self, workers: TaskGroup, context: Context) -> None:
        """Start a worker, whoever runs now, in the owner's context."""
        context.copy().run(partial(workers.start_soon, self._save, name=_SAVE_NAME))

    async def _save(self) -> None:
        try:
            await self._saver.work()
        except asyncio.CancelledError:
            self.cancel()  # by an outsider: without its image an order would wait for ever
            raise

    def _save_first(self, batch: Batch, plan: SavePlan, outcome: TaskOutcome) -> None:
        """Save the images of an outcome before it comes out."""
        assert outcome.task is not None  # noqa: S101 - a success has one
        done = partial(self._saved, batch, outcome, self.now())
        order = SaveOrder(outcome.task, plan, done=done, abort=lambda why: batch.cut(End(why)))
        batch.orders.add(order)
        self._saver.submit(order)

    def _saved(self, batch: Batch, outcome: TaskOutcome, since: float, order: SaveOrder) -> None:
        elapsed = outcome.elapsed + self.now() - since
        ended = attrs.evolve(outcome, saved=order.saved, error=order.error, elapsed=elapsed)
        self._watchlist.saved(batch, order, ended)


def closed_error() -> SessionClosedError:
    """Give the error of a session that can be used no more."""
    return SessionClosedError("the session is closed; open a new KlingOmniSession")


def _unwrapped(defect: BaseException) -> BaseException:
    """Give the one exception inside a task group's, or the group of several."""
    inner = cast("Sequence[BaseException]", getattr(defect, "exceptions", ()))
    return _unwrapped(inner[0]) if len(inner) == 1 else defect
