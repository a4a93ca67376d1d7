"""What a book knows of creates: kept before each POST, so that nothing is paid for twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import anyio

from kling_omni_async._api.create import CreateRequest, Refused, uncertain
from kling_omni_async._api.posting import CONNECT_S
from kling_omni_async._config import Settings
from kling_omni_async._ids import quoted
from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async._order import ImageOrder, expected_s
from kling_omni_async._policy import PollPolicy
from kling_omni_async.errors import (
    BookError,
    ConfigurationError,
    CreateUncertainError,
    KlingOmniError,
)

from .book import TaskBook, open_inside
from .contract import Addition, Intent, Known, Row
from .forms import note_to_json, order_to_json, task_from_json, task_to_json
from .opened import OpenBook, wrong_origin
from .planning import BookPlanner
from .waiting import LOOK_S
from .worker import Look

LOOKS_S: Final = 30.0
"""How long a create goes on looking for its task after its POST, in s, with time to spare."""

_AGAIN_S: Final = (0.5, 1.0, 2.0)

_UNKNOWN: Final = "an earlier create of it has not said what came of its POST"

R = TypeVar("R")


class BookLedger:
    """Keeps the creates of one call in a book, and knows those of all others there."""

    def __init__(
        self,
        inside: OpenBook,
        look: Look,
        policy: PollPolicy,
        *,
        planner: BookPlanner,
        expects: float | None = None,  # a callback for each task, within s
        note: str | None = None,
        holder: str | None = None,  # the reader whose the outcomes are to be
    ) -> None:
        self._inside = inside
        self._look = look
        self._policy = policy
        self._planner = planner
        self._expects = expects
        self._note = note
        self._holder = holder

    async def _kept(self, intent: Intent) -> Known | None:
        # Whoever leaves now must know what was kept.
        with anyio.CancelScope(shield=True):
            return await self._inside.store.intend(intent)
        raise AssertionError  # pragma: no cover - the scope is never cancelled

    async def open(
        self, request: CreateRequest
    ) -> ImageTask | Refused | CreateUncertainError | None:
        """Keep that a request is about to be sent, unless the book knows what it wants."""
        try:
            intent = self._intent(request)
        except ConfigurationError as error:
            return Refused(error)
        until, has_looked = _now() + self._policy.create_timeout, False
        await self._planner.look(_now())  # now: behind the POST nothing may fail any more
        while True:
            known = await self._kept(intent)
            if known is None:
                return None
            if known.wish.digest != request.digest:
                return _another_wish(request)
            if known.wish.task_id is not None:
                return await self._task_of(request, known.wish.task_id, known.row)
            left_s = min(_posting_s(known), until - _now())
            if left_s > 0 and has_looked:
                await self._while_posting(request.external_id, left_s)
                continue
            if (found := await self._found(request)) is not None:
                return found
            if left_s <= 0:
                return uncertain(request, KlingOmniError(_UNKNOWN))
            has_looked = True

    async def close(
        self, request: CreateRequest, task: ImageTask | None, *, is_new: bool = True
    ) -> None:
        """Keep which task a request has made, or that it made none."""
        made = None if task is None else self._addition(request, task, is_new=is_new)
        await persist(partial(self._inside.store.created, request.external_id, made))

    # What is known.

    async def _task_of(self, request: CreateRequest, task_id: str, row: Row | None) -> ImageTask:
        """Return the task of a wish, which is in the book from now on if it was there no more."""
        task = None if row is None else task_from_json(row.task)
        if task is None:
            status, name = TaskStatus.UNKNOWN, request.external_id
            task = ImageTask(task_id=task_id, status=status, external_task_id=name)
        if row is None:
            addition = self._addition(request, task, is_new=False)
            await self._inside.store.add([addition])
        return task

    async def _found(self, request: CreateRequest) -> ImageTask | None:
        """Look for the task of a create that is in doubt; keep it in the book if it is there."""
        found = await self._look(request.external_id)
        if not isinstance(found, ImageTask):
            return None
        try:
            await self.close(request, found, is_new=False)
        except BookError as error:
            error.task_id = found.task_id  # it is paid for
            raise
        return found

    async def _while_posting(self, name: str, left_s: float) -> None:
        """Wait until it is known what came of somebody else's POST, at most so long."""
        until = _now() + left_s
        while (left_s := until - _now()) > 0:
            await self._inside.changes.wait(min(left_s, LOOK_S))
            found = await self._inside.store.find(name)
            if found is None or not found.row.is_intent:
                return

    # What is kept.

    def _intent(self, request: CreateRequest) -> Intent:
        order = request.order
        return Intent(
            external_id=request.external_id,
            digest=request.digest,
            is_keyed=order.key is not None,
            note=self._note,
            order=order_to_json(order, request.digest),
            lease_s=CONNECT_S + self._policy.create_timeout + LOOKS_S,
            kind=kind_of(order),
        )

    def _addition(self, request: CreateRequest, task: ImageTask, *, is_new: bool) -> Addition:
        is_waited_for = is_new and not task.is_terminal
        kind = kind_of(request.order)
        return Addition(
            task.task_id,
            self._note,
            external_id=request.external_id,
            task=None if task.status is TaskStatus.UNKNOWN else task_to_json(task),
            kind=kind,
            age_s=0.0 if is_new else None,
            first_s=self._first_look_s(request, task, kind) if is_waited_for else 0.0,
            order=order_to_json(request.order, request.digest),
            holder=self._holder,
        )

    def _first_look_s(self, request: CreateRequest, task: ImageTask, kind: str | None) -> float:
        expects_s = expected_s(request.order, self._expects)
        return self._planner.first_look_s(task.task_id, kind, _now(), expects_s)


async def open_ledger(
    book: TaskBook,
    note: object,
    look: Look,
    settings: Settings,
    *,
    find_planner: Callable[[OpenBook], BookPlanner],
    expects: float | None,
    holder: str | None,
) -> BookLedger:
    """Return what keeps the creates of a session in a book.

    Raises:
        ConfigurationError: The note cannot be kept, or the book is for another API.
        BookError: The book cannot be reached or used.
    """
    kept = note_to_json(note)
    inside = await open_inside(book)
    desk, _ = await inside.store.progress()
    if desk.origin not in (None, settings.base_url):
        raise wrong_origin(inside.name, desk.origin, settings.base_url)
    planner = find_planner(inside)
    planner.adopt(desk)
    return BookLedger(
        inside, look, settings.policy, planner=planner, expects=expects, note=kept, holder=holder
    )


def kind_of(order: ImageOrder) -> str | None:
    """Return what tells tasks of different durations apart."""
    return " ".join(filter(None, (order.model, order.resolution))) or None


async def persist(work: Callable[[], Awaitable[R]]) -> R:
    """Do a step of a book, a few times over where that may pass."""
    for pause_s in _AGAIN_S:
        try:
            return await work()
        except BookError as error:
            if not error.transient:
                raise
        await asyncio.sleep(pause_s)
    return await work()


def _posting_s(known: Known) -> float:
    """Return how long the POST of a wish may still be under way, in s; 0 where it is in doubt."""
    row = known.row
    if row is None or row.ended is not None or row.token or row.first is not None:
        return 0.0
    return row.at - known.now


def _another_wish(request: CreateRequest) -> Refused:
    name = quoted(request.order.key)
    text = f"ImageOrder.key {name} names another order of this book; give each wish its own key"
    return Refused(ConfigurationError(text))


def _now() -> float:
    return asyncio.get_running_loop().time()
