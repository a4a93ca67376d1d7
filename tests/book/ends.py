"""Ends of tasks as a worker brings them to a book, and a store with trouble."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, cast

from kling_omni_async import TaskBook, TaskFailedError, TaskOutcome
from kling_omni_async._book.book import open_inside
from kling_omni_async._book.book_clock import Clocks
from kling_omni_async._book.contract import Said, Settle, Store, Take, Taken, Terms, Turn
from kling_omni_async._book.forms import outcome_to_json
from kling_omni_async._book.opened import OpenBook
from kling_omni_async._book.sqlite import SqliteStore
from kling_omni_async._models import ImageTask, TaskImage, TaskStatus

TERMS: Final = Terms((20.0, 30.0), None, 2, None)


class Ender:
    """A worker of a book that says by command how a task has ended."""

    def __init__(self, inside: OpenBook, origin: str = "https://api.example") -> None:
        self._inside = inside
        self._origin = origin
        self._seq = 0

    async def end(self, *outcomes: TaskOutcome | str) -> None:
        """Let tasks end; an id fails."""
        by_id = {each.task_id: each for each in map(_outcome, outcomes)}
        turned = await self._turn(want=200)
        await self._turn(settles=[_settle(claim.row, by_id) for claim in turned.claims])

    async def end_as(self, task_id: str, text: str) -> None:
        """Let a task end with an outcome as it is kept."""
        turned = await self._turn(want=200)
        for claim in turned.claims:
            row = claim.row
            said = Said.FINAL if row.key == task_id else Said.UNASKED
            settle = Settle(key=row.key, token=row.token, said=said, outcome=text, count="failed")
            await self._turn(settles=[settle])

    async def _turn(self, **kwargs: Any) -> Any:
        self._seq += 1
        return await self._inside.store.turn(
            Turn(
                worker="ender",
                seq=self._seq,
                lease_s=30.0,
                probe_s=10.0,
                account="account",
                origin=self._origin,
                terms=TERMS if self._seq == 1 else None,
                **kwargs,
            )
        )


def failed(task_id: str) -> TaskOutcome:
    """Return the outcome of a task that failed."""
    task = ImageTask(task_id=task_id, status=TaskStatus.FAILED)
    return TaskOutcome(task_id=task_id, task=task, error=TaskFailedError("no", task=task))


def succeeded(task_id: str, *urls: str) -> TaskOutcome:
    """Return the outcome of a task that has images."""
    images = tuple(TaskImage(url=url, index=index) for index, url in enumerate(urls))
    task = ImageTask(task_id=task_id, status=TaskStatus.SUCCEED, images=images)
    return TaskOutcome(task_id=task_id, task=task)


def _outcome(given: TaskOutcome | str) -> TaskOutcome:
    return failed(given) if isinstance(given, str) else given


def _settle(row: Any, by_id: dict[str, TaskOutcome]) -> Settle:
    outcome = by_id.get(row.key)
    if outcome is None:
        return Settle(key=row.key, token=row.token, said=Said.UNASKED)
    return Settle(
        key=row.key,
        token=row.token,
        said=Said.FINAL,
        outcome=outcome_to_json(outcome),
        count="succeeded" if outcome.ok else "failed",
        is_word=True,
    )


async def ender_of(book: TaskBook, **kwargs: str) -> Ender:
    """Return what ends the tasks of a book."""
    return Ender(await open_inside(book), **kwargs)


async def ended(book: TaskBook, task_ids: Iterable[str]) -> Ender:
    """Add ids to a book, and let them end in this order."""
    task_ids = list(task_ids)
    await book.add_many(task_ids)
    ender = await ender_of(book)
    for task_id in task_ids:
        await ender.end(task_id)
    return ender


class TroubledStore:
    """A store whose steps of readers are slow or fail, as told; all else goes to the real one."""

    def __init__(self, inside: OpenBook) -> None:
        self._store: Any = inside.store
        self.takes: list[tuple[float, Take]] = []
        self.before: Callable[[Take], BaseException | None] = _no_trouble
        self.after: Callable[[Take], BaseException | None] = _no_trouble
        self.latency_s = 0.0
        inside.store = cast("Store", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def take(self, take: Take) -> Taken:
        """Make a step, as slowly as it is told, unless trouble comes before it or behind it."""
        self.takes.append((asyncio.get_running_loop().time(), take))
        if (trouble := self.before(take)) is not None:
            raise trouble
        reply: Taken = await self._store.take(take)
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if (trouble := self.after(take)) is not None:
            raise trouble
        return reply


def _no_trouble(take: Take) -> BaseException | None:
    del take
    return None


async def troubled(book: TaskBook) -> TroubledStore:
    """Put trouble between a book and its store."""
    return TroubledStore(await open_inside(book))


def kept_in(folder: Path) -> TaskBook:
    """Return a book in a file that goes by the clock of the loop."""
    book = TaskBook(folder / "tasks.db")

    def make() -> SqliteStore:
        time_of = asyncio.get_running_loop().time
        clocks = Clocks(lambda: "boot", lambda: 1e6 + time_of(), lambda: 1.8e9 + time_of())
        return SqliteStore(folder / "tasks.db", keep_s=604_800.0, clocks=clocks)

    book._make_store = make  # type: ignore[method-assign]
    return book
