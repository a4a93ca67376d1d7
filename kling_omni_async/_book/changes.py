"""Tells those who wait in this process that a book may have changed: one watcher for all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from kling_omni_async._engine import Engine
from kling_omni_async._results import Ending, Result, raise_copy, resolve
from kling_omni_async.errors import BookError

from .contract import Store

WATCH_S: Final = 5.0
"""How long the watcher waits at most before it looks again, in s."""

_AFTER_TROUBLE_S: Final = 1.0


class Changes:
    """Who waits for what in a book: a part of its engine, which closes the store."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine = engine
        self._store = store
        self._listeners: set[Result[None]] = set()
        self._expected: dict[str, set[Result[None]]] = {}
        self._number = -1  # of the last end that was seen
        self._is_watching = False
        self._callbacks: dict[Callable[[], object], None] = {}

    def __repr__(self) -> str:
        return f"<Changes expected={len(self._expected)} listeners={len(self._listeners)}>"

    def listen(self, callback: Callable[[], object]) -> None:
        """Call back each time anything may have changed, until `unlisten`."""
        self._callbacks[callback] = None
        self._watch_soon()

    def unlisten(self, callback: Callable[[], object]) -> None:
        """Call back no more."""
        self._callbacks.pop(callback, None)

    async def wait(self, timeout_s: float) -> None:
        """Wait until anything may have changed, at most so long."""
        await self._wait(self._listeners, timeout_s)

    async def ended(self, key: str, timeout_s: float) -> None:
        """Wait until an entry may have ended, at most so long."""
        waiting = self._expected.setdefault(key, set())
        try:
            await self._wait(waiting, timeout_s)
        finally:
            if not waiting:
                self._expected.pop(key, None)

    async def _wait(self, group: set[Result[None]], timeout_s: float) -> None:
        if self._engine.closed:  # while the caller looked: nobody wakes him any more
            raise self._engine.closed_error()
        result: Result[None] = asyncio.get_running_loop().create_future()
        group.add(result)
        self._watch_soon()
        try:
            await asyncio.wait([result], timeout=timeout_s)
        finally:
            group.discard(result)
        if result.done() and (reason := result.result()) is not None:
            raise_copy(reason)

    def _watch_soon(self) -> None:
        if not self._is_watching:
            self._is_watching = True
            self._engine.start_soon(self._watch, name="kling_omni_async.changes")

    async def _watch(self) -> None:
        try:
            self.wake_all()  # what has changed before this nobody else tells
            while self._listeners or self._expected or self._callbacks:
                await self._look()
        finally:
            self._is_watching = False

    async def _look(self) -> None:
        """Wait for one change, and wake those whom it concerns."""
        try:
            if self._number < 0:
                self._number, _ = await self._store.ended_after(1 << 62)
                self.wake_all()  # what has ended before is found by whoever waits for it
            await self._store.changed(WATCH_S)
            self._number, keys = await self._store.ended_after(self._number)
        except BookError:  # whoever steps meets it too, and says so
            await asyncio.sleep(_AFTER_TROUBLE_S)
            keys = ()
        for key in keys:
            self.wake(key)
        _wake(self._listeners)
        for callback in list(self._callbacks):
            callback()

    def wake(self, key: str) -> None:
        """Let those look who wait for an entry."""
        _wake(self._expected.get(key, set()))

    def wake_all(self) -> None:
        """Let all look who wait here."""
        for waiting in (self._listeners, *list(self._expected.values())):
            _wake(waiting)
        for callback in list(self._callbacks):
            callback()

    # What the engine calls.

    def bind(self) -> None:
        """Do nothing: it is made in the loop where it runs."""

    async def open(self) -> None:
        """Do nothing: the store is open already."""

    def stop(self) -> None:
        """Do nothing: the watcher may be cancelled as a task group does."""

    def tell_end(self, reason: Ending) -> Iterator[None]:
        """Tell all who wait that nothing more comes."""
        for waiting in (self._listeners, *list(self._expected.values())):
            for result in list(waiting):
                resolve(result, reason)
                yield

    async def aclose(self) -> None:
        """Close the store."""
        await self._store.aclose()


def _wake(waiting: set[Result[None]]) -> None:
    for result in list(waiting):
        resolve(result, None)
