"""Who brings a session the outcomes of the tasks that it waits for itself, out of a book."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple
from uuid import uuid4

import anyio
import attrs

from kling_omni_async._engine import Engine
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._results import Ending
from kling_omni_async.errors import (
    BookError,
    KlingOmniError,
    SessionClosedError,
    copy_error,
)

from .bell import Bell
from .book import TaskBook, open_inside
from .contract import MOST_AT_ONCE, Ack, Receipt, Take
from .intents import persist
from .opened import OpenBook
from .waiting import Ended, Wait
from .worker import FAREWELL_S, HEARTBEAT_S, Worker

logger: Final = logging.getLogger("kling_omni_async.book")


class _News(NamedTuple):
    """What the book has not been told yet."""

    receipts: tuple[Receipt, ...]
    keep: tuple[str, ...]
    release: tuple[str, ...]


class OwnReader:
    """A reader that has the outcomes of some ids alone, and a worker that polls their book.

    Should this process die, those outcomes are for any other reader.
    """

    # More than ten attributes: what it was given (3), how far it is (7), what it says (3).
    def __init__(self, engine: Engine, inside: OpenBook, worker: Worker) -> None:
        self.inside = inside
        self.name = str(uuid4())
        self.users = 0
        self.left = asyncio.Event()
        self._engine = engine
        self._worker = worker
        self._fault: BaseException | None = None  # why it ended by itself
        self._is_known = asyncio.Event()  # to the book; or it never will be
        self._is_leaving = False
        self._wake = Bell()
        self._seq = 0
        self._saying = asyncio.Lock()
        self._works = False
        self._untold: list[_News] = []

    def __repr__(self) -> str:
        return f"<OwnReader of {self.inside.name} users={self.users}>"

    def start(self) -> None:
        """Begin to read, and to work the book."""
        self._engine.start_soon(self._run, name="kling_omni_async.reader")

    async def known(self) -> None:
        """Wait until the book knows this reader, or raise why it never will."""
        await self._is_known.wait()
        if (fault := self.fault()) is not None:
            raise copy_error(fault)

    def stop(self) -> None:
        """Begin to leave."""
        self._is_leaving = True
        self._wake.ring()

    def end(self) -> None:
        """Let all go who wait here: nothing more will come."""
        self._is_known.set()
        self.left.set()
        self.inside.changes.wake_all()

    async def gone(self) -> None:
        """Wait until it has left, unless others use it."""
        if not self.users:
            await self.left.wait()

    def fault(self) -> BaseException | None:
        """Return why nothing more will come, if that is so."""
        if self._engine.closed:
            return self._engine.closed_error()
        return self._fault or self._worker.fault

    # What its users call.

    @asynccontextmanager
    async def own(self, task_id: str) -> AsyncGenerator[OwnTask, None]:
        """Have the outcome of a task alone; it is acknowledged on leaving, once there is one.

        Others get it where this is left by a cancellation, or as the session was closed.
        """
        own, handled = OwnTask(self, task_id), None
        self.note(keep=[task_id])
        await self.tell()
        try:
            yield own
            handled = own.ended
        except SessionClosedError:
            raise
        except KlingOmniError:
            handled = own.ended
            raise
        finally:
            if handled is None:
                self.note(release=[task_id])
            else:
                self.note([Receipt(handled.row.key, handled.row.number, Ack.DONE)])
                await self.try_to_tell()

    def note(
        self,
        receipts: Sequence[Receipt] = (),
        *,
        keep: Sequence[str] = (),
        release: Sequence[str] = (),
    ) -> None:
        """Say soon what became of outcomes, which ids are its own, and which are no longer."""
        self._untold.append(_News(tuple(receipts), tuple(keep), tuple(release)))
        self._wake.ring()

    async def tell(self) -> None:
        """Wait until the book knows what was noted so far."""
        async with self._saying:
            while self._untold:
                await self._say()

    async def try_to_tell(self) -> None:
        """Do so, and log why it cannot be done."""
        try:
            await self.tell()
        except BookError as error:
            text = "the book %s does not know what became of outcomes, they may come again: %s"
            logger.warning(text, self.inside.name, error)

    # What it says to the book.

    async def _say(self, *, is_leaving: bool = False) -> None:
        """Make one step, with some of what was noted; it is noted still where that fails."""
        news = self._untold[:MOST_AT_ONCE]
        self._seq += 1
        take = Take(
            reader=self.name,
            seq=self._seq,
            receipts=[each for some in news for each in some.receipts],
            keep=[each for some in news for each in some.keep],
            release=[each for some in news for each in some.release],
            is_leaving=is_leaving or self.left.is_set(),  # who tells late is there no more
        )
        await persist(lambda: self.inside.store.take(take))
        del self._untold[: len(news)]

    async def _run(self) -> None:
        try:
            await self._read()
        except BookError as fault:
            self._fault = fault
        finally:
            self._is_leaving = True
            with anyio.CancelScope(shield=True), suppress(BookError, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self.tell()
                    await self._say(is_leaving=True)
                    if self._works:
                        await self._worker.aclose()
            self.end()

    async def _read(self) -> None:
        await self._say()
        self._worker.start()
        self._works = True
        self._is_known.set()
        loop = asyncio.get_running_loop()
        while not self._is_leaving:
            try:
                if not await self._wake.wait(loop.time() + HEARTBEAT_S):
                    self.note()  # it is still there
                self._wake.silence()
                await self.tell()
            except BookError as error:
                if not error.transient:
                    raise


@attrs.define(eq=False)
class OwnTask:
    """A task that a session waits for itself."""

    reader: OwnReader
    task_id: str
    ended: Ended | None = None

    async def outcome(self, limit_s: float | None) -> TaskOutcome:
        """Wait for its outcome, at most so long."""
        wait = Wait(self.reader.inside, self.task_id, limit_s, self.reader.fault)
        row, outcome = self.ended = await wait.ended()
        return attrs.evolve(outcome, deliveries=row.deliveries + 1)


class OwnReaders:
    """The own readers of a session, one for each book at which it waits: a part of its engine."""

    def __init__(self, engine: Engine, make_worker: Callable[[OpenBook], Worker]) -> None:
        self._engine = engine
        self._make_worker = make_worker
        self._readers: dict[OpenBook, OwnReader] = {}
        self._known: list[OwnReader] = []  # those that leave, too

    def __repr__(self) -> str:
        return f"<OwnReaders {list(self._readers.values())}>"

    @asynccontextmanager
    async def at(self, book: TaskBook) -> AsyncGenerator[OwnReader, None]:
        """Read and work a book for as long as somebody is in here."""
        reader = await self.enter(book)
        try:
            yield reader
        finally:
            self.leave(reader)
            await reader.gone()

    async def enter(self, book: TaskBook) -> OwnReader:
        """Read and work a book until `leave`."""
        inside = await open_inside(book)
        reader = self._readers.get(inside)
        if reader is None or reader.fault() is not None:
            reader = self._readers[inside] = OwnReader(
                self._engine, inside, self._make_worker(inside)
            )
            self._known = [each for each in self._known if not each.left.is_set()] + [reader]
            reader.start()
        reader.users += 1
        try:
            await reader.known()
        except BaseException:
            self.leave(reader)
            raise
        return reader

    def leave(self, reader: OwnReader) -> None:
        """Use a reader no more; the last one to go ends it."""
        reader.users -= 1
        if reader.users:
            return
        if self._readers.get(reader.inside) is reader:
            del self._readers[reader.inside]
        reader.stop()

    # What the engine calls.

    def bind(self) -> None:
        """Do nothing: it is made in the loop where it runs."""

    async def open(self) -> None:
        """Do nothing: a book is opened by whoever waits at it."""

    def stop(self) -> None:
        """Do nothing: its tasks may be cancelled as a task group does."""

    def tell_end(self, reason: Ending) -> Iterator[None]:  # noqa: ARG002 - as of all parts
        """Tell all who wait for tasks of books that nothing more comes."""
        for reader in list(self._known):
            reader.end()
            yield

    async def aclose(self) -> None:
        """Do nothing: all has ended by then."""
