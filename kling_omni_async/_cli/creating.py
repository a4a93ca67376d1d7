"""A run of orders in its loop: each is created once, looked for, or polled, and ends in a sink."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Final, TypeAlias

from kling_omni_async._creating.ledger import NamedOrder
from kling_omni_async._doors import create_named, external_id_in, generate_named
from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._session import KlingOmniSession
from kling_omni_async.errors import (
    AuthenticationError,
    ConfigurationError,
    CreateUncertainError,
    DuplicateOrderError,
    KlingOmniError,
)

from .budget import Budget, cost_of
from .exit import Exit
from .following import beating
from .intents import Intent, Step
from .options import Saving
from .order_journal import OrderJournal
from .progress import Silent
from .report import Failures, Kind, Tally, kind_of
from .wanted import Todo, Wanted

Write: TypeAlias = Callable[[TaskOutcome], Awaitable[None]]
Show: TypeAlias = Callable[[str], Awaitable[None]]

_OF_ONE_ORDER: Final = (CreateUncertainError, DuplicateOrderError, ConfigurationError)


class Work:
    """The orders of a run: those that are left, the counts of the others, and what may be spent."""

    # Eleven attributes: what is left (4), what has come of the others (4), what may be spent (3).
    def __init__(
        self, wanted: Iterable[Wanted], budget: Budget, journal: OrderJournal | None = None
    ) -> None:
        self.wanted = list(wanted)
        self.left: dict[str, Wanted] = {}
        self.over_budget: list[Wanted] = []
        self.tally = Tally(len(self.wanted))
        self.failures = Failures()
        self.uncertain: list[Wanted] = []
        self.is_key_refused = False
        self._journal = journal
        self._budget = budget
        self._running: dict[str, int | None] = {}  # prices of what may still cost less
        self._changed = asyncio.Event()

    def begin(self, session: KlingOmniSession) -> None:
        """Name each order, and count those that an earlier run has ended."""
        for each in self.wanted:
            each.external_id = each.external_id or external_id_in(session, each.order)
            if each.todo is Todo.NOTHING:
                self._count_earlier(each)
            else:
                self.left[each.external_id] = each

    def _count_earlier(self, each: Wanted) -> None:
        record = each.record
        assert record is not None  # noqa: S101 - that is where the end is known from
        assert record.ended is not None  # noqa: S101 - as above
        self.tally.counts[record.ended] += 1
        self.tally.earlier += 1
        if record.ended is not Kind.SUCCEEDED:
            name = record.task_id or each.external_id
            self.failures.add_earlier(record.ended, record.reason, name)

    # What a crash has left open.

    async def look(self, session: KlingOmniSession, write: Write, *, retry: bool) -> None:
        """Look for the tasks of which nobody knows whether there are any."""
        for each in [each for each in self.left.values() if each.todo is Todo.LOOK]:
            found, error = await _looked_for(session, each.external_id)
            if found is not None:
                self._found(each, found)
            elif retry:
                each.is_retry = True
            else:
                await self._doubt(each, error, write)

    def _found(self, each: Wanted, task: ImageTask) -> None:
        if each.record is not None and self._journal is not None:  # pragma: no branch - it has both
            self._journal.found(each.external_id, task)
            step = Intent(external_id=each.external_id, step=Step.CREATED, task_id=task.task_id)
            each.record.note(step)

    async def _doubt(self, each: Wanted, cause: KlingOmniError | None, write: Write) -> None:
        error = CreateUncertainError(
            "whether a task was created is not known: an earlier run ended before it was told, "
            f"and nothing is found under its external id ({cause or 'not found'})",
            external_task_id=each.external_id,
            order=each.order,
            digest=each.digest,
        )
        outcome = failed(each, error)
        if each.record is None or not each.record.is_uncertain:  # else the journal says so
            await write(outcome)
        self._end(each, outcome)

    # What is created and polled.

    async def orders(self) -> AsyncGenerator[NamedOrder]:
        """Yield what is created already, then what is to be, as far as units go."""
        for each in self._to_do(Todo.POLL):
            task = ImageTask(
                task_id=each.task_id,
                status=TaskStatus.SUBMITTED,
                external_task_id=each.external_id,
            )
            record = each.record
            if record is not None and record.cost is None:  # else it is counted already
                self._running[each.external_id] = record.units
            yield NamedOrder(each.order, each.external_id, task)
        for each in self._to_do(Todo.CREATE):
            if not await self._has_room_for(each.price):
                self.over_budget = self._to_do(Todo.CREATE, not_of=self._running)
                return
            self._budget.reserve(each.price)
            self._running[each.external_id] = each.price
            yield NamedOrder(each.order, each.external_id)

    def _to_do(self, todo: Todo, *, not_of: Mapping[str, object] | None = None) -> list[Wanted]:
        begun = not_of or {}
        left = self.left.values()
        return [each for each in left if each.todo is todo and each.external_id not in begun]

    async def _has_room_for(self, price: int | None) -> bool:
        """Wait for units that a task does not cost after all, as long as one runs."""
        while not self._budget.fits(price):
            if not self._running:
                return False
            self._changed.clear()
            await self._changed.wait()
        return True

    def finish(self, outcome: TaskOutcome) -> None:
        """Count an outcome that was written."""
        each = self.left[outcome.external_task_id or ""]
        if each.external_id in self._running:
            price = self._running.pop(each.external_id)
            if kind_of(outcome) is not Kind.UNCERTAIN:  # else it stays reserved
                self._budget.settle(price, cost_of(outcome, price or 0))
        self._end(each, outcome)

    def created(self, external_id: str) -> None:
        """Count a task that is created, and is not waited for: its price stays reserved."""
        del self.left[external_id]
        self._running.pop(external_id, None)
        self.tally.counts[Kind.SUCCEEDED] += 1

    def _end(self, each: Wanted, outcome: TaskOutcome) -> None:
        del self.left[each.external_id]
        self._changed.set()
        self.tally.add(outcome)
        if isinstance(outcome.error, CreateUncertainError | DuplicateOrderError):
            self.uncertain.append(each)
        self.is_key_refused |= isinstance(outcome.error, AuthenticationError)
        if outcome.error is not None:
            name = outcome.task_id or each.external_id
            self.failures.add(kind_of(outcome), outcome.error, name)

    @property
    def code(self) -> Exit:
        """The exit code of a run that has come to its end."""
        if self.is_key_refused:
            return Exit.KEY_REFUSED
        return Exit.OK if self.tally.all_succeeded else Exit.NOT_ALL


def failed(each: Wanted, error: KlingOmniError) -> TaskOutcome:
    """Return the outcome of an order that has no task."""
    return TaskOutcome(task_id="", error=error, order=each.order, external_task_id=each.external_id)


async def _looked_for(
    session: KlingOmniSession, external_id: str
) -> tuple[ImageTask | None, KlingOmniError | None]:
    """Return a task, or why none is found; whether there is none, that alone does not say."""
    try:
        return await session.recover(external_id), None
    except AuthenticationError:
        raise
    except KlingOmniError as error:
        return None, error


async def generate_all(
    work: Work,
    session: KlingOmniSession,
    write: Write,
    view: Silent,
    *,
    saving: Saving,
    journal: OrderJournal | None,
    max_tasks: int | None,
    retry: bool,
) -> None:
    """Bring every order to an outcome, and close the session."""
    async with session, beating(session, view, str):
        work.begin(session)
        await work.look(session, write, retry=retry)
        view.show(work.tally)
        outcomes = generate_named(
            session,
            work.orders(),
            journal,
            max_tasks=max_tasks,
            save_to=saving.save,
            watermarked=saving.watermarked,
            overwrite=saving.overwrite,
        )
        async with outcomes:
            async for outcome in outcomes:
                # Written before it counts: whatever comes between, the order is still left.
                await write(outcome)
                work.finish(outcome)
                view.show(work.tally)


async def create_all(
    work: Work,
    session: KlingOmniSession,
    write: Write,
    show: Show,
    *,
    journal: OrderJournal | None,
    retry: bool,
) -> None:
    """Create every order, show its id, and close the session.

    Raises:
        KlingOmniError: One was refused for a reason that the next would meet, too.
    """
    async with session:
        work.begin(session)
        for each in work.wanted:
            if each.todo is Todo.NOTHING and each.task_id:
                await show(each.task_id)
        await work.look(session, write, retry=retry)
        async with aclosing(work.orders()) as orders:
            async for named in orders:
                creating = _created(session, named, journal)
                await show_created(work, named.external_id, creating, write, show)


async def _created(
    session: KlingOmniSession, named: NamedOrder, journal: OrderJournal | None
) -> ImageTask:
    return named.task or await create_named(session, named, journal)


async def show_created(
    work: Work, external_id: str, creating: Awaitable[ImageTask], write: Write, show: Show
) -> None:
    """Await a create and show the id that it gives; an order that alone is refused is written.

    Raises:
        KlingOmniError: It was refused for a reason that the next would meet, too.
    """
    try:
        task = await creating
    except KlingOmniError as error:
        outcome = failed(work.left[external_id], error)
        if not (outcome.settled or isinstance(error, _OF_ONE_ORDER)):
            raise
        await write(outcome)
        work.finish(outcome)
    else:
        work.created(external_id)
        await show(task.task_id)
