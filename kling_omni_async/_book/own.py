"""Who brings a session the outcomes of the tasks that it waits for itself, out of a book."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final
from uuid import uuid4

import anyio
import attrs

from kling_omni_async._engine import Engine
from kling_omni_async._ids import quoted
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._results import Ending
from kling_omni_async.errors import (
    BookError,
    KlingOmniError,
    SessionClosedError,
    copy_error,
)

from .book import Ended, OpenBook, TaskBook, Wait, open_inside
from .contract import Ack, Receipt, Take
from .intents import persist
from .worker import FAREWELL_S, HEARTBEAT_S, Worker

logger: Final = logging.getLogger("kling_omni_async.book")


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
        self._wake = asyncio.Event()
        self._seq = 0
        self._saying = asyncio.Lock()
        self._works = False
        self._released: list[str] = []  # the book has not been told yet

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
        self._wake.set()

    def end(self) -> None:
        """Let all go who wait here: nothing more will come."""
        self._is_known.set()
        self.left.set()
        self.inside.changes.wake_all()

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
        await self._say(keep=[task_id])
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
                self._released.append(task_id)
                self._wake.set()
            else:
                await self._acknowledge(handled)

    async def _acknowledge(self, ended: Ended) -> None:
        try:
            await self._say([Receipt(ended.row.key, ended.row.number, Ack.DONE)])
        except BookError as error:
            text = "the outcome of %s was handed out, and may come again: %s"
            logger.warning(text, quoted(ended.row.key), error)

    # What it says to the book.

    async def _say(self, receipts: Sequence[Receipt] = (), *, keep: Sequence[str] = ()) -> None:
        async with self._saying:
            release, self._released = self._released, []
            self._seq += 1
            take = Take(
                reader=self.name,
                seq=self._seq,
                receipts=receipts,
                keep=keep,
                release=release,
                is_leaving=self._is_leaving,
            )
            try:
                await persist(lambda: self.inside.store.take(take))
            except BookError:
                self._released += release
                raise

    async def _run(self) -> None:
        try:
            await self._read()
        except BookError as fault:
            self._fault = fault
        finally:
            self._is_leaving = True
            with anyio.CancelScope(shield=True), suppress(BookError, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self._say()
                    if self._works:
                        await self._worker.aclose()
            self.end()

    async def _read(self) -> None:
        await self._say()
        self._worker.start()
        self._works = True
        self._is_known.set()
        while not self._is_leaving:
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._say()
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
        self._leaving: set[OwnReader] = set()

    def __repr__(self) -> str:
        return f"<OwnReaders {list(self._readers.values())}>"

    @asynccontextmanager
    async def at(self, book: TaskBook) -> AsyncGenerator[OwnReader, None]:
        """Read and work a book for as long as somebody is in here."""
        inside = await open_inside(book)
        if (reader := self._readers.get(inside)) is None:
            reader = OwnReader(self._engine, inside, self._make_worker(inside))
            self._readers[inside] = reader
            reader.start()
        reader.users += 1
        try:
            await reader.known()
            yield reader
        finally:
            reader.users -= 1
            if not reader.users:
                await self._leave(self._readers.pop(inside))

    async def _leave(self, reader: OwnReader) -> None:
        self._leaving.add(reader)
        reader.stop()
        try:
            await reader.left.wait()
        finally:
            self._leaving.discard(reader)

    # What the engine calls.

    def bind(self) -> None:
        """Do nothing: it is made in the loop where it runs."""

    async def open(self) -> None:
        """Do nothing: a book is opened by whoever waits at it."""

    def stop(self) -> None:
        """Do nothing: its tasks may be cancelled as a task group does."""

    def tell_end(self, reason: Ending) -> Iterator[None]:  # noqa: ARG002 - as of all parts
        """Tell all who wait for tasks of books that nothing more comes."""
        for reader in (*self._readers.values(), *self._leaving):
            reader.end()
            yield

    async def aclose(self) -> None:
        """Do nothing: all has ended by then."""
