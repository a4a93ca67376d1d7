"""Where a simulator's loop runs: with its caller, or in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial
from threading import get_ident
from types import TracebackType
from typing import ParamSpec, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from attrs import define, field

P = ParamSpec("P")
T = TypeVar("T")


@define(eq=False)
class Home:
    """Runs what touches a simulator where its loop runs, whoever calls."""

    _portal: BlockingPortal | None = None  # the way into a thread of its own, while there is one
    _thread: int = 0
    _stack: ExitStack = field(factory=ExitStack)  # what is to be left

    def enter(self, server: AbstractAsyncContextManager[object]) -> None:
        """Enter a server in a new thread with a new loop."""
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("asyncio"))
            # who still waits for something of the server has waited long enough
            stack.callback(lambda: portal.call(partial(portal.stop, cancel_remaining=True)))
            stack.enter_context(portal.wrap_async_context_manager(server))
            self._thread = portal.call(get_ident)
            self._portal, self._stack = portal, stack.pop_all()

    def leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the server, end the loop and join the thread."""
        self._portal = None
        self._stack.__exit__(kind, error, traceback)

    def call(self, function: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
        """Call a function in the thread of the loop."""
        portal = self._away()
        if portal is None:
            return function(*args, **named)
        return portal.call(partial(function, *args, **named))

    async def wait(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **named: P.kwargs
    ) -> T:
        """Await a coroutine function in the loop, from any loop."""
        portal = self._away()
        if portal is None:
            return await function(*args, **named)
        return await asyncio.wrap_future(portal.start_task_soon(partial(function, *args, **named)))

    def _away(self) -> BlockingPortal | None:
        """Return the way to another thread; None in the right one."""
        return None if get_ident() == self._thread else self._portal
