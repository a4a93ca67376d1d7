"""How results reach those who wait: a future for one, an outlet for a stream, and their ends."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Collection, Coroutine
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Final, NoReturn, TypeVar

import attrs

from ._ids import quoted
from ._outcome import TaskOutcome
from .errors import KlingOmniError, copy_error, for_task

Ending = BaseException
"""Why all waiting ended: one of our errors, or a defect that nobody foresaw."""

TAKES_PER_PASS: Final = 64
"""How many outcomes a consumer gets in a row before other tasks have a turn."""

MOST_SUCCESSES: Final = 10_000
"""How many tasks a session remembers to have seen succeed."""

V = TypeVar("V")
Result = asyncio.Future[V | Ending]
"""Never holds an exception but as its value, so none is "never retrieved"."""

logger: Final = logging.getLogger("kling_omni_async.poller")


class Successes:
    """When each of the last tasks was first seen to have succeeded, in s of the loop's clock.

    Hosts of images may need a while from then on. Their clocks, and that of the API, are not ours.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[str, float] = OrderedDict()

    def first_seen(self, task_id: str, now: float) -> float:
        """Return when a success was first seen; for one that is not remembered that is now."""
        at = self._seen.setdefault(task_id, now)
        if len(self._seen) > MOST_SUCCESSES:
            self._seen.popitem(last=False)
        return at


@attrs.frozen
class End:
    """The last thing that the consumers of a stream get, at this step and at every further one."""

    reason: Ending | None = None  # what is raised

    def throw(self) -> NoReturn:
        """Raise the reason, or `StopAsyncIteration` for a plain end."""
        if self.reason is None:
            raise StopAsyncIteration
        raise_copy(self.reason)


class BusyError(RuntimeError):
    """Raised to a consumer of a stream that has another one; nothing has happened."""


class Outlet:
    """Where the outcomes of one stream go, and where its consumers take them from.

    Polling puts outcomes in and ends it; what happens to an outcome before a consumer gets it,
    such as the saving of its images, is the business of a subclass.
    """

    # Not an anyio stream: that one loses an item when a consumer's time-out fires in the same pass
    # of the loop as the delivery. It wakes consumers as asyncio.Queue does, which loses none, at a
    # third of its price: there is one outcome for each id.
    def __init__(self) -> None:
        self._items: deque[TaskOutcome] = deque()
        self._consumers: deque[asyncio.Future[None]] = deque()
        self._end: End | None = None
        self._taken = 0

    def __repr__(self) -> str:
        state = "ended" if self._end else "open"
        return f"<{type(self).__name__} {state}, {len(self._items)} to take>"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is put in."""
        return self._end is not None

    async def prepare(self) -> None:
        """Get ready before polling begins, or raise why it must not; may be done again."""

    def put(self, outcome: TaskOutcome) -> None:
        """Offer an outcome to the consumers, unless it comes behind the end."""
        if self._end is None:
            self._items.append(outcome)
            if self._consumers:
                self._wake_next()

    def end(self, end: End) -> None:
        """End the stream behind what was put; the first end counts."""
        if self._end is None:
            self._end = end
            self._wake_all()

    def cut(self, end: End) -> None:
        """End the stream at once, what nobody has taken is not handed out; the first cut counts."""
        self._end = self._end or end  # consumers get the end that the stream had already
        self._items.clear()
        self._wake_all()

    async def take(self) -> TaskOutcome:
        """Wait for the next outcome, or raise why there is none any more; cancelled, lose none."""
        self._taken += 1
        if self._taken % TAKES_PER_PASS == 0:
            await asyncio.sleep(0)
        while not self._items:
            await self._wait()
        return self._items.popleft()

    async def take_unless(
        self, others: Collection[asyncio.Future[Any]], *, most: int
    ) -> TaskOutcome | None:
        """Do as `take`, but return None once one of the others is done.

        `most` says how many outcomes the consumer could use at once.
        """
        del most
        self._taken += 1
        if self._taken % TAKES_PER_PASS == 0:
            await asyncio.sleep(0)
        while not self._items:
            if any(other.done() for other in others):
                return None
            await self._wait(others)
        return self._items.popleft()

    # How consumers say what became of an outcome; a plain stream has nobody who wants to know.

    def step(self) -> Coroutine[Any, Any, TaskOutcome]:
        """Take the next outcome for a plain step of the stream."""
        return self.take()

    def consuming(self) -> AbstractContextManager[None]:
        """Return what is entered by a consumer that takes many; may raise `BusyError`."""
        return nullcontext()

    def handled(self, outcome: TaskOutcome, error: BaseException | None) -> BaseException | None:
        """Note that the handler of an outcome returned, or raised; return what ends the stream."""
        del outcome
        return error

    def dropped(self, outcome: TaskOutcome) -> None:
        """Note that the handler of an outcome was cancelled."""

    async def ack(self, outcome: TaskOutcome) -> None:
        """Keep that an outcome was handled."""

    async def kept(self) -> None:
        """Wait until it is kept what became of all outcomes so far."""

    def leaving(self, error: BaseException | None) -> None:
        """Note why the block of the stream is left, before it is cut."""

    async def _wait(self, others: Collection[asyncio.Future[Any]] = ()) -> None:
        """Wait until there may be an outcome, or one of the others is done; raise the end."""
        if self._end is not None:
            self._end.throw()
        consumer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._consumers.append(consumer)
        try:
            if others:
                first = asyncio.FIRST_COMPLETED
                await asyncio.wait([consumer, *others], return_when=first)
            else:
                await consumer
        except BaseException:
            self._forgo(consumer)
            raise
        if not consumer.done():
            self._consumers.remove(consumer)

    def _forgo(self, consumer: asyncio.Future[None]) -> None:
        if not consumer.done() or consumer.cancelled():
            with suppress(ValueError):  # woken, and cancelled in the same pass
                self._consumers.remove(consumer)
        elif self._items or self._end is not None:
            self._wake_next()  # what it was woken for is somebody else's now

    def _wake_next(self) -> None:
        while self._consumers:
            consumer = self._consumers.popleft()
            if not consumer.done():
                consumer.set_result(None)
                return

    def _wake_all(self) -> None:
        while self._consumers:
            self._wake_next()


def resolve(result: Result[V], value: V | Ending) -> None:
    """Hand a value to one who waits, unless he has left."""
    if not result.done():
        result.set_result(value)


def raise_copy(reason: Ending, task_id: str | None = None) -> NoReturn:
    """Raise why all waiting ended, as a copy, so that many who wait share no traceback."""
    raise copy_error(reason) if task_id is None else for_task(reason, task_id)


def log_end(task_id: str, error: KlingOmniError | None, *, queries: int) -> None:
    """Report how an id ended: once, however many have waited for it."""
    if logger.isEnabledFor(logging.INFO):
        word = f"{type(error).__name__}: {one_line(error)}" if error else "succeeded"
        count = "1 query" if queries == 1 else f"{queries} queries"
        logger.info("task %s: %s after %s", quoted(task_id), word, count)


def one_line(error: KlingOmniError) -> str:
    """Return what happened without line breaks: the API's words must not forge log lines."""
    text = error.what
    return text if text.isprintable() else repr(text)[1:-1]
