"""One who waits for the end of an entry, whoever polls it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from kling_omni_async._ids import quoted
from kling_omni_async._models import ImageTask
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async.errors import NotInBookError, PollTimeoutError, copy_error

from .contract import Found, Row
from .forms import outcome_of, task_from_json
from .opened import OpenBook

NO_WORKER_S: Final = 30.0
LOOK_S: Final = 5.0
"""How often `wait` looks although nothing was heard, in s."""

logger: Final = logging.getLogger("kling_omni_async.book")


class Ended(NamedTuple):
    """An entry that has an outcome."""

    row: Row
    outcome: TaskOutcome


class Wait:
    """One call of `wait`: it looks when the entry may have ended, and now and then."""

    def __init__(
        self,
        inside: OpenBook,
        task_id: str,
        limit_s: float | None,
        fault: Callable[[], BaseException | None] | None = None,
    ) -> None:
        self._inside = inside
        self._fault = fault or (lambda: inside.fault)  # why it will not end
        self._task_id = task_id
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._deadline = None if limit_s is None else self._began + limit_s
        self._worked = self._began  # when somebody was last seen to work
        self._is_warned = False

    async def result(self) -> ImageTask:
        """Return the task, or raise why there is none."""
        return (await self.ended()).outcome.result()

    async def ended(self) -> Ended:
        """Return how it ended, or raise why it has not."""
        while True:
            found = await self._find()
            if (outcome := outcome_of(found)) is not None:
                return Ended(found.row, outcome)
            if (fault := self._fault()) is not None:
                raise copy_error(fault)
            left_s = self._left_s(found)
            await self._inside.changes.ended(found.row.key, left_s)
            await self._warn_if_alone()

    async def _find(self) -> Found:
        found = await self._inside.store.find(self._task_id)
        if found is None:
            text = f"the book does not hold {quoted(self._task_id)}; add it first"
            raise NotInBookError(text, task_id=self._task_id)
        return found

    def _left_s(self, found: Found) -> float:
        """Return how long to wait for a change, or raise that the time is over."""
        if self._deadline is None:
            return LOOK_S
        now = self._loop.time()
        if now < self._deadline:
            return min(LOOK_S, self._deadline - now)
        task = task_from_json(found.row.task)
        state = f"its status was {task.status}" if task else "its status was never seen"
        text = f"no final answer in {now - self._began:.1f} s; {state}"
        raise PollTimeoutError(text, task_id=self._task_id, task=task)

    async def _warn_if_alone(self) -> None:
        """Say once that nobody polls what is waited for."""
        now = self._loop.time()
        if self._is_warned or now < self._worked + NO_WORKER_S:
            return
        _, workers = await self._inside.store.progress()
        if workers:
            self._worked = now
            return
        self._is_warned = True
        text = "nobody polls the book %s: start `session.work(book)`, or `kling-omni work`"
        logger.warning(text, self._inside.name)
