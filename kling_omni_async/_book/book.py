"""`TaskBook`: a watch list that outlives the process, or a living feed in memory."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from random import Random
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from kling_omni_async._api.callbacks import CallbackHint
from kling_omni_async._engine import Engine, Owner
from kling_omni_async._ids import quoted, require_id
from kling_omni_async._models import FINAL_STATUS, ImageTask
from kling_omni_async._observer import Door
from kling_omni_async._policy import POLICY_TIMEOUT, PollPolicy, require_timeout
from kling_omni_async._results import Outlet, Successes
from kling_omni_async._saving.stores import StoreLike
from kling_omni_async._streams import Origin, OutcomeStream
from kling_omni_async.errors import (
    BookError,
    ConfigurationError,
    InvalidTaskIdError,
)

from .changes import Changes
from .contract import Addition, Store
from .forms import entry_of, note_to_json
from .opened import OpenBook
from .place import Where, place_of
from .readers import Readers
from .reading import Companion, Reading
from .records import BookEntry, BookProgress
from .saving import BookSettings, SavedAhead
from .waiting import Wait

if TYPE_CHECKING:
    from kling_omni_async._saving.wing import Saving

KEEP_S: Final = 7 * 86_400.0
"""How long an outcome is kept after its end, in s, unless a book says otherwise."""

ADDED_AT_ONCE: Final = 500
"""How many ids of `add_many` one step keeps."""

OF_BOOK: Final = Owner("book", "book", "TaskBook", "book.wait(task_id)", BookError)

FROM_BOOK: Final = Origin(
    "book.outcomes()", "task: task = await book.wait(task_id)", needs_block=True
)
FROM_POLLED_BOOK: Final = FROM_BOOK._replace(call="session.poll(book)")

NewTask: TypeAlias = str | tuple[str, Any]
"""An id, or an id and its note."""

logger: Final = logging.getLogger("kling_omni_async.book")


class TaskBook:
    """A watch list of task ids that one can add to and take from, and that outlives the process.

    ::

        async with TaskBook("tasks.db") as book, KlingOmniSession() as session:
            await book.add(task_id, note={"chat": 42})
            async with session.poll(book) as outcomes:
                await outcomes.each(answer)

    What was added is kept when the call returns. Several processes may open the same file. It is
    bound to an event loop at first use, and needs no ``async with``: `aclose` ends it, too.

    Args:
        where: None for memory; the path of a file, made if it is missing (SQLite); or where it is
            to be shared by several hosts, a URL of Redis (``redis://``, ``rediss://``, ``unix://``)
            or a client of ``redis.asyncio``, which is not closed with it (extra ``fleet``).
        name: Tells books of one Redis apart, "tasks" by default; a file holds one only.
        keep: How long an outcome stays after its end, read or not, in s.

    Raises:
        ConfigurationError: One of these cannot be used; the text says which and why.
    """

    def __init__(
        self,
        where: Where = None,
        *,
        name: str | None = None,
        keep: float = KEEP_S,
    ) -> None:
        self._place = place_of(where, name)
        self._keep_s = _require_keep(keep)
        self._engine = Engine(OF_BOOK)
        self._opening = asyncio.Lock()
        self._open: OpenBook | None = None
        self._pid = os.getpid()
        self._readers = Readers(self._engine)
        self._settings = BookSettings()
        self._saving: Saving | None = None  # made when it is first asked for

    def __repr__(self) -> str:
        return f"<TaskBook {self._place.text} {self._engine.state}>"

    async def __aenter__(self) -> Self:
        await self._ready()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        error = exc_info[1]
        self._readers.leaving(error if isinstance(error, BaseException) else None)
        await self.aclose()

    async def aclose(self) -> None:
        """Close the book: whoever waits gets a `BookError`; more calls do no harm.

        Raises:
            WrongLoopError: The book is used in another event loop.
        """
        await self._engine.aclose()

    # What is kept.

    async def add(self, task_id: str, *, note: Any = None) -> bool:
        """Keep an id, to be polled from now on; when it returns, that is so whatever happens.

        Args:
            task_id: As the create answer gave it.
            note: What belongs to it, such as where an answer goes: whatever JSON can carry, with
                text as keys, 64 KiB at most. An id that is there keeps its own.

        Returns:
            Whether it is new.

        Raises:
            InvalidTaskIdError: The id cannot be one.
            ConfigurationError: The note cannot be kept.
            BookError: The book cannot be reached or used; nothing was kept.
            WrongLoopError: The book is used in another event loop.
        """
        addition = Addition(require_id(task_id), note_to_json(note))
        store = (await self._ready()).store
        return (await store.add([addition]))[0]

    async def add_many(self, tasks: Iterable[NewTask] | AsyncIterable[NewTask]) -> int:
        """Keep many ids, some hundreds at a time.

        Args:
            tasks: Ids, or pairs of an id and its note.

        Returns:
            How many are new.

        Raises:
            InvalidTaskIdError: One cannot be an id; those before it may be kept. Or ``tasks`` is a
                single id, or nothing that can be iterated.
            ConfigurationError: A note cannot be kept; those before it may be kept.
            BookError: The book cannot be reached or used; those before it may be kept.
            WrongLoopError: The book is used in another event loop.
        """
        _require_many(tasks)
        store = (await self._ready()).store
        number, batch = 0, list[Addition]()
        async with aclosing(_each(tasks)) as given:
            async for task in given:
                batch.append(_addition(task))
                if len(batch) >= ADDED_AT_ONCE:
                    number += sum(await store.add(batch))
                    batch = []
        return number + (sum(await store.add(batch)) if batch else 0)

    async def get(self, task_id: str) -> BookEntry | None:
        """Return what the book knows of a task, or None.

        Args:
            task_id: The id, or the external id under which the task was created.

        Raises:
            InvalidTaskIdError: The id cannot be one.
            BookError: The book cannot be reached or used.
            WrongLoopError: The book is used in another event loop.
        """
        store = (await self._ready()).store
        found = await store.find(require_id(task_id))
        return None if found is None else entry_of(found)

    async def remove(self, task_id: str) -> bool:
        """Remove an entry: it is polled no further, and comes out nowhere.

        Returns:
            Whether it was there.

        Raises:
            InvalidTaskIdError: The id cannot be one.
            BookError: The book cannot be reached or used.
            WrongLoopError: The book is used in another event loop.
        """
        inside = await self._ready()
        was_there = await inside.store.remove(key := require_id(task_id))
        inside.changes.wake(key)
        return was_there

    async def retry(self, task_id: str) -> bool:
        """Hand a parked outcome out again, or poll an id again whose end was not settled.

        Returns:
            Whether there was such a one.

        Raises:
            InvalidTaskIdError: The id cannot be one.
            BookError: The book cannot be reached or used.
            WrongLoopError: The book is used in another event loop.
        """
        return await (await self._ready()).store.retry(require_id(task_id))

    async def nudge(self, task: str | CallbackHint) -> bool:
        """Say that a task may have changed: it is asked for as soon as its pause allows.

        Args:
            task: The id, or what `read_callback` made of a callback.

        Returns:
            Whether it is asked for. False for a stranger, for what has ended, and for a hint whose
            status is not final.

        Raises:
            InvalidTaskIdError: The id cannot be one.
            BookError: The book cannot be reached or used.
            WrongLoopError: The book is used in another event loop.
        """
        store = (await self._ready()).store
        if isinstance(task, CallbackHint):
            return task.status in FINAL_STATUS and await store.nudge(task.task_id)
        return await store.nudge(require_id(task))

    async def wait(self, task_id: str, *, timeout: float | None = POLICY_TIMEOUT) -> ImageTask:
        """Wait until a task has succeeded, whoever polls it.

        Args:
            task_id: An id of the book, or the external id under which it was created.
            timeout: The longest time to wait from the call, in s; None waits for ever. By default
                an hour, as in `PollPolicy`.

        Returns:
            The task that succeeded, with at least one image.

        Raises:
            NotInBookError: The book does not hold it, or it was removed meanwhile.
            PollTimeoutError: The time is over, or the book gave it up; it can be waited for again.
            KlingOmniError: The error of its outcome, as `KlingOmniSession.wait` raises it; or what
                is wrong with the set-up of a worker of this process.
            InvalidTaskIdError: The id cannot be one.
            BookError: The book cannot be reached or used, or was closed.
            WrongLoopError: The book is used in another event loop.
        """
        inside = await self._ready()
        task_id = require_id(task_id)
        default = PollPolicy().timeout
        limit = require_timeout(default if timeout is POLICY_TIMEOUT else timeout)
        return await Wait(inside, task_id, limit).result()

    async def progress(self) -> BookProgress:
        """Return the counts of the book.

        Raises:
            BookError: The book cannot be reached or used.
            WrongLoopError: The book is used in another event loop.
        """
        desk, workers = await (await self._ready()).store.progress()
        return BookProgress(
            pending=desk.open,
            succeeded=desk.succeeded,
            failed=desk.failed,
            unresolved=desk.unresolved,
            unread=desk.unread,
            parked=desk.parked,
            workers=workers,
        )

    def outcomes(
        self,
        *,
        save_to: StoreLike | None = None,
        watermarked: bool = False,
        overwrite: bool = False,
        until_empty: bool = False,
    ) -> OutcomeStream:
        """Hand out what others poll: each outcome to one reader, again until it is acknowledged.

        ::

            async with book.outcomes() as outcomes:
                await outcomes.each(answer, limit=8)

        Args:
            save_to: Where to save the images of each task before its outcome comes out, as with
                `KlingOmniSession.poll`. After a crash they are saved again, which does no harm.
            watermarked: Whether to save the copies with the watermark instead.
            overwrite: Whether to replace what is there under their names.
            until_empty: Whether it ends when nothing is polled any more and nothing unread.

        Returns:
            An async iterator of `TaskOutcome`, to be entered by ``async with``, with one consumer.
            It asks for no task: somebody has to, by `KlingOmniSession.work` or ``kling-omni work``.

        Raises:
            ConfigurationError: ``save_to`` cannot be used; the text says why.
        """
        ahead = None
        if save_to is not None:
            wing, settings = self._saving_wing(), self._settings
            outlet = wing.outlet(save_to, watermarked=watermarked, overwrite=overwrite)
            ahead = SavedAhead(outlet, settings.policy.max_downloads, settings)
        reading = Reading(self._ready, ahead=ahead, until_empty=until_empty)
        return OutcomeStream(self._host, reading, origin=FROM_BOOK)

    # The inside.

    def _host(self) -> Readers:
        """Return what brings the outcomes of streams, if they may be read here."""
        self._require_same_process()
        self._engine.is_running_here()
        return self._readers

    def _saving_wing(self) -> Saving:
        """Return what saves images for readers without a session."""
        if self._saving is None:
            from kling_omni_async._saving.wing import Saving  # noqa: PLC0415 - for those who save

            self._saving = Saving(
                self._engine,
                self._settings,
                rng=Random(),
                successes=Successes(),
                on_exhausted=Random,
                door=Door(),
            )
            self._engine.add(self._saving)
        return self._saving

    def _require_same_process(self) -> None:
        if self._pid != os.getpid():
            raise BookError("this book was made before a fork; make one TaskBook in each process")

    async def _ready(self) -> OpenBook:
        """Return the inside to a verb, opened at first use."""
        self._require_same_process()
        if not self._engine.is_running_here():
            async with self._opening:
                if not self._engine.is_running_here():
                    await self._start()
        assert self._open is not None  # noqa: S101 - it runs
        return self._open

    async def _start(self) -> None:
        store = self._make_store()
        await store.open()
        changes = Changes(self._engine, store)
        self._open = OpenBook(self._place.text, store, self._engine, changes)
        # The first is closed last: until then readers give back what they have.
        self._engine.start(changes, self._readers, *([self._saving] if self._saving else []))

    def _make_store(self) -> Store:
        return self._place.make(self._keep_s)


async def _each(
    tasks: Iterable[NewTask] | AsyncIterable[NewTask],
) -> AsyncGenerator[NewTask, None]:
    if isinstance(tasks, AsyncIterable):
        async for task in tasks:
            yield task
    else:
        for task in tasks:
            yield task


def _require_many(tasks: object) -> None:
    if isinstance(tasks, str | bytes | bytearray):
        text = quoted(tasks)
        raise InvalidTaskIdError(f"add_many takes many ids; for a single one write add({text})")
    if not isinstance(tasks, Iterable | AsyncIterable):
        kind = type(tasks).__name__
        raise InvalidTaskIdError(f"add_many takes an iterable or async iterable, not {kind}")


def _addition(task: NewTask) -> Addition:
    if isinstance(task, str):
        return Addition(require_id(task), note_to_json(None))
    try:
        task_id, note = task
    except (TypeError, ValueError):
        return Addition(require_id(task))  # which says what is wrong with it
    return Addition(require_id(task_id), note_to_json(note))


def _require_keep(keep: object) -> float:
    if isinstance(keep, int | float) and not isinstance(keep, bool) and 0 < keep < float("inf"):
        return float(keep)
    raise ConfigurationError("keep must be a number of seconds above 0, such as 7 * 86400")


async def open_inside(book: TaskBook) -> OpenBook:
    """Return the inside of a book to a session that polls it."""
    return await book._ready()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - our own


def host_of(book: TaskBook) -> Readers:
    """Return what brings the outcomes of streams, to a session that polls a book for one.

    Raises:
        BookError: The book was closed, or made before a fork.
        WrongLoopError: The book is used in another event loop.
    """
    return book._host()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - our own


def reading_of(
    book: TaskBook,
    make_companion: Callable[[OpenBook], Companion],
    *,
    saving: Outlet | None,
    most_saving: int,
    until_empty: bool,
) -> Reading:
    """Return the inside of a stream of a book, with what polls it as long as it is read.

    Args:
        book: The book.
        make_companion: Makes what polls, when the block is entered; may raise.
        saving: An outlet that saves images, or None.
        most_saving: How many outcomes are taken at once to be saved.
        until_empty: Whether it ends when nothing is open and nothing unread.
    """
    return Reading(
        book._ready,  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - our own
        ahead=None if saving is None else SavedAhead(saving, most_saving),
        until_empty=until_empty,
        make_companion=make_companion,
    )
