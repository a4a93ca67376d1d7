"""What `each` runs: handlers of outcomes, some at once, all of which it awaits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from inspect import isawaitable
from typing import Any, Final, TypeAlias

from ._ids import quoted
from ._outcome import TaskOutcome
from ._results import Outlet
from .errors import ConfigurationError

Handler: TypeAlias = Callable[[TaskOutcome], Awaitable[object]]
Taker: TypeAlias = Callable[[Collection[asyncio.Future[Any]], int], Awaitable[TaskOutcome | None]]

logger: Final = logging.getLogger("kling_omni_async.streams")


class Handlers:
    """The handlers of one `each`: at most `limit` run at once."""

    # Plain tasks, no group: a scope around a user's code must not be left open by a cancellation.
    def __init__(self, outlet: Outlet, handler: Handler, limit: int) -> None:
        self.is_over = False  # nothing more comes
        self._outlet = outlet
        self._handler = handler
        self._limit = _require_limit(limit)
        self._running: dict[asyncio.Task[None], TaskOutcome] = {}
        self._fault: BaseException | None = None  # why no more is taken

    async def run(self, take: Taker) -> None:
        """Handle outcomes until the stream ends; then raise why, if it was no plain end."""
        try:
            await self._serve(take)
            while self._running:
                await asyncio.wait(self._running)
                self._reap()
            await self._wait_until_kept()
        except BaseException:
            await self._cancel()
            raise
        if self._fault is not None:
            raise self._fault

    async def _serve(self, take: Taker) -> None:
        while self._fault is None and not self.is_over:
            if len(self._running) >= self._limit:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            else:
                await self._start_next(take)
            self._reap()

    async def _start_next(self, take: Taker) -> None:
        """Start the handler of the next outcome, unless another one ends before it comes."""
        try:
            outcome = await take(tuple(self._running), self._limit - len(self._running))
        except StopAsyncIteration:
            self.is_over = True
            return
        except Exception as end:  # noqa: BLE001 - it is raised once those that run have ended
            self.is_over, self._fault = True, end
            return
        if outcome is not None:
            task = asyncio.create_task(self._call(outcome), name="kling_omni_async.handler")
            self._running[task] = outcome

    async def _wait_until_kept(self) -> None:
        try:
            await self._outlet.kept()
        except Exception as error:  # noqa: BLE001 - the first fault is raised
            self._fault = self._fault or error

    async def _call(self, outcome: TaskOutcome) -> None:
        reply: object = self._handler(outcome)
        if not isawaitable(reply):
            raise _NotAsyncError(self._handler)
        await reply

    def _reap(self, *, cancelled: bool = False) -> None:
        """Note what became of those that have ended."""
        for task in [task for task in self._running if task.done()]:
            outcome = self._running.pop(task)
            if not task.cancelled():
                self._ended(outcome, task.exception())
            elif cancelled:
                self._outlet.dropped(outcome)
            else:  # given back at once, it would be cancelled again and again
                self._ended(outcome, RuntimeError("the handler was cancelled by somebody else"))

    def _ended(self, outcome: TaskOutcome, error: BaseException | None) -> None:
        if isinstance(error, _NotAsyncError):
            self._fail(outcome, error)
        elif error is None or isinstance(error, Exception):
            fault = self._outlet.handled(outcome, error)
            if fault is not None:
                self._fail(outcome, fault)
        elif isinstance(error, SystemExit):
            self._outlet.handled(outcome, error)  # the loop itself raises it
        elif not isinstance(error, KeyboardInterrupt):  # which meets whoever runs
            self._fail(outcome, error)  # such as what `pytest.fail` raises

    def _fail(self, outcome: TaskOutcome, fault: BaseException) -> None:
        """Take no more; the first fault is raised, the others are logged."""
        if self._fault is None:
            self._fault = fault
        else:
            text = "the handler raised for %s too"
            logger.error(text, quoted(name_of(outcome)), exc_info=fault)

    async def _cancel(self) -> None:
        """Cancel the handlers that run, and await them, however often that is cancelled."""
        for task in self._running:
            task.cancel()
        while self._running:
            with suppress(asyncio.CancelledError):  # the first one is raised behind this
                await asyncio.wait(self._running)
            self._reap(cancelled=True)
        if self._fault is not None:
            logger.error("a handler raised, and `each` was cancelled", exc_info=self._fault)


class _NotAsyncError(TypeError):
    """Says that a handler is not what `each` takes: the next outcome would fare no better."""

    def __init__(self, handler: object) -> None:
        name = getattr(handler, "__name__", type(handler).__name__)
        super().__init__(f"each takes an async function; write: async def {name}(outcome)")


def name_of(outcome: TaskOutcome) -> str:
    """Return the name by which a log line tells an outcome."""
    return outcome.task_id or outcome.external_task_id or ""


def _require_limit(limit: object) -> int:
    if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
        return limit
    raise ConfigurationError("limit must be a whole number above 0, such as 8")
