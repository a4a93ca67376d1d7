"""`generate_many` into a book: its creates, its tasks and its outcomes are kept there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, TypeAlias

import anyio
import attrs

from kling_omni_async._api.create import CreateRequest, Refused
from kling_omni_async._engine import Engine
from kling_omni_async._models import ImageTask
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._results import End, Outlet
from kling_omni_async.errors import BookError, CreateUncertainError, KlingOmniError, NotInBookError

from .book import TaskBook
from .contract import Ack, Receipt
from .handed import AckedOutlet
from .intents import BookLedger
from .own import OwnReader, OwnReaders
from .waiting import Wait

Tell: TypeAlias = Callable[[TaskOutcome | KlingOmniError], object]
"""Is told the outcome of a task, or why none of the stream will have any."""


@attrs.define(eq=False)
class _Follower:
    """One who waits for the outcome of a task."""

    task_id: str
    tell: Tell
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)


class KeptOrders:
    """What one stream of orders has in a book: the ledger of its creates, and its tasks."""

    # More than ten attributes: what it was given (4), how far it is (4), what it has (3).
    def __init__(
        self,
        engine: Engine,
        find_readers: Callable[[], OwnReaders],
        book: TaskBook,
        make_ledger: Callable[[OwnReader], Awaitable[BookLedger]],
    ) -> None:
        self._engine = engine
        self._find_readers = find_readers
        self._book = book
        self._make_ledger = make_ledger
        self._opening = asyncio.Lock()
        self._readers: OwnReaders | None = None
        self._inside: tuple[OwnReader, BookLedger] | None = None
        self._is_left = False
        self._numbers: dict[str, int] = {}  # of the ends of tasks, until they are acknowledged
        self._out: set[str] = set()  # those that the consumer has

    def __repr__(self) -> str:
        return f"<KeptOrders in {self._book!r} unacknowledged={len(self._numbers)}>"

    async def prepare(self) -> None:
        """Open the book, and begin to work it."""
        async with self._opening:
            if self._inside is not None:
                return
            self._readers = readers = self._find_readers()
            reader = await readers.enter(self._book)
            try:
                self._inside = reader, await self._make_ledger(reader)
            finally:
                if self._inside is None or self._is_left:
                    readers.leave(reader)

    def _open(self) -> tuple[OwnReader, BookLedger]:
        assert self._inside is not None  # noqa: S101 - it was prepared
        return self._inside

    # The ledger of its creates.

    async def open(
        self, request: CreateRequest
    ) -> ImageTask | Refused | CreateUncertainError | None:
        """Keep that a request is about to be sent, unless the book knows what it wants."""
        return await self._open()[1].open(request)

    async def close(self, request: CreateRequest, task: ImageTask | None, *, is_new: bool) -> None:
        """Keep which task a request has made, or that it made none."""
        await self._open()[1].close(request, task, is_new=is_new)

    # Its tasks.

    def follow(self, task_id: str, tell: Tell) -> Callable[[], None]:
        """Wait for the outcome of a task, which is for this stream alone; return what ends that."""
        follower = _Follower(task_id, tell)
        self._open()[0].note(keep=[task_id])
        self._engine.start_soon(self._follow, follower, name="kling_omni_async.order")
        return partial(self._unfollow, follower)

    def _unfollow(self, follower: _Follower) -> None:
        follower.scope.cancel()
        self._open()[0].note(release=[follower.task_id])

    async def _follow(self, follower: _Follower) -> None:
        with follower.scope:
            follower.tell(await self._end_of(follower.task_id))

    async def _end_of(self, task_id: str) -> TaskOutcome | KlingOmniError:
        reader, _ = self._open()
        try:
            row, outcome = await Wait(reader.inside, task_id, None, reader.fault).ended()
        except NotInBookError as error:
            return TaskOutcome(task_id=task_id, error=error)
        except KlingOmniError as error:
            return error
        self._numbers[task_id] = row.number
        return attrs.evolve(outcome, deliveries=row.deliveries + 1)

    # What became of its outcomes.

    def gave(self, outcome: TaskOutcome) -> None:
        """Note that the consumer has an outcome."""
        if outcome.task_id in self._numbers:
            self._out.add(outcome.task_id)

    def settle(self, outcome: TaskOutcome, ack: Ack) -> bool:
        """Note what became of an outcome; return False if that is known, or none is in the book."""
        number = self._numbers.pop(outcome.task_id, None)
        if number is None:
            return False
        self._out.discard(outcome.task_id)
        self._open()[0].note(_receipts(outcome.task_id, number, ack))
        return True

    async def kept(self) -> None:
        """Wait until the book knows what became of all outcomes so far."""
        await self._open()[0].tell()

    async def told(self) -> None:
        """Do so, also where the book is out of reach for long."""
        while True:
            try:
                await self.kept()
            except BookError as error:
                if not error.transient:
                    raise
            else:
                return

    def leave(self, *, failed: bool) -> None:
        """Give everything back, and use the book no more."""
        if self._is_left:
            return
        self._is_left = True
        if self._inside is None or self._readers is None:
            return
        reader, _ = self._inside
        for task_id, number in self._numbers.items():
            is_failed = failed and task_id in self._out
            reader.note(_receipts(task_id, number, Ack.FAILED if is_failed else Ack.BACK))
        self._readers.leave(reader)

    async def left(self) -> None:
        """Wait until the book has back what was not acknowledged."""
        reader, _ = self._open()
        await reader.try_to_tell()
        await reader.gone()


def _receipts(task_id: str, number: int, ack: Ack) -> list[Receipt]:
    receipt = Receipt(task_id, number, ack)
    # What has failed was handed out: so the book counts it.
    return [Receipt(task_id, number, Ack.HANDED), receipt] if ack is Ack.FAILED else [receipt]


class KeptOutlet(AckedOutlet):
    """Hands out what another outlet has ready, and says to a book what became of it."""

    def __init__(self, inner: Outlet, orders: KeptOrders) -> None:
        super().__init__()
        self._inner = inner
        self._orders = orders

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is put in."""
        return self._inner.has_ended

    async def prepare(self) -> None:
        """Try the store of images, then open the book."""
        await self._inner.prepare()
        await self._orders.prepare()

    def put(self, outcome: TaskOutcome) -> None:
        """Offer an outcome, unless it comes behind the end."""
        self._inner.put(outcome)

    def end(self, end: End) -> None:
        """End the stream behind what was put."""
        self._inner.end(end)

    def cut(self, end: End) -> None:
        """End the stream at once, and give back what was not acknowledged."""
        self._inner.cut(end)
        self._orders.leave(failed=self.has_failed)

    async def take(self) -> TaskOutcome:
        """Take the next outcome, once the book knows what became of those before it."""
        await self._orders.told()
        outcome = await self._inner.take()
        self._orders.gave(outcome)
        return outcome

    async def take_unless(
        self, others: Collection[asyncio.Future[Any]], *, most: int
    ) -> TaskOutcome | None:
        """Take an outcome for a handler, or None once one of the others is done."""
        outcome = await self._inner.take_unless(others, most=most)
        if outcome is not None:
            self._orders.gave(outcome)
        return outcome

    async def kept(self) -> None:
        """Wait until the book knows what became of all outcomes so far."""
        await self._orders.kept()

    def settle(self, outcome: TaskOutcome, ack: Ack) -> bool:
        """Note what became of an outcome; return False if that is known, or none is in the book."""
        return self._orders.settle(outcome, ack)
