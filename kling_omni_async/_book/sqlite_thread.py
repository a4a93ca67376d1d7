"""A thread of a file's own: what is asked of it while it is busy is done together next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import attrs

P = ParamSpec("P")
R = TypeVar("R")

_MOST_TOGETHER: Final = 1_000


class Kind(Enum):
    """What a work needs."""

    LOOK = "to read"
    STEP = "to write"
    NEWS = "to write what others wait for"
    CALL = "no transaction"


@attrs.define(eq=False)
class Work:
    """One thing to do, and who waits for it."""

    kind: Kind
    do: Callable[[], Any]
    future: Future[Any]

    def answer(self, result: object) -> None:
        """Give what came of it to whoever still waits."""
        self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Give an error to whoever still waits."""
        self.future.set_exception(error)


class Worked(Protocol):
    """What is used in a thread of its own."""

    def look(self, works: Sequence[Work]) -> None:
        """Do and answer what needs a transaction to read in."""

    def write(self, works: Sequence[Work]) -> None:
        """Do and answer what needs a transaction to write in."""

    def rest(self) -> float | None:
        """Do what is due between works; return in how many s to come again at the latest."""
        ...

    def close(self) -> None:
        """Release everything; more calls do no harm."""


class Lane(Executor):
    """Where works of one kind are handed in: an executor, as event loops wait for those."""

    def __init__(self, thread: WorkThread, kind: Kind) -> None:
        self._thread = thread
        self._kind = kind

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Queue a work."""
        future: Future[R] = Future()
        self._thread.put(Work(self._kind, lambda: fn(*args, **kwargs), future))
        return future


class WorkThread:
    """A thread that ends with the process, whatever it is doing."""

    def __init__(self, worked: Worked, name: str) -> None:
        self.looks = Lane(self, Kind.LOOK)
        self.steps = Lane(self, Kind.STEP)
        self.news = Lane(self, Kind.NEWS)
        self.calls = Lane(self, Kind.CALL)
        self._worked = worked
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        # A daemon: a program that forgets to close a book ends all the same.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def put(self, work: Work) -> None:
        """Queue a work."""
        self._queue.put(work)

    def stop(self) -> None:
        """End when all that is queued is done."""
        self._queue.put(None)

    def _run(self) -> None:
        rest_s: float | None = None
        is_going = True
        try:
            while is_going:
                is_going = self._do(self._next(rest_s))
                rest_s = self._worked.rest()
        finally:
            self._worked.close()

    def _next(self, rest_s: float | None) -> list[Work | None]:
        """Wait for a work, at most so long; return it and what came meanwhile."""
        batch: list[Work | None] = []
        with suppress(Empty):
            batch.append(self._queue.get(timeout=rest_s))
            while len(batch) < _MOST_TOGETHER:
                batch.append(self._queue.get_nowait())
        return batch

    def _do(self, batch: Sequence[Work | None]) -> bool:
        """Do all works; return whether more may come."""
        works = [work for work in batch if work and work.future.set_running_or_notify_cancel()]
        if looks := [work for work in works if work.kind is Kind.LOOK]:
            self._worked.look(looks)
        if steps := [work for work in works if work.kind in (Kind.STEP, Kind.NEWS)]:
            self._worked.write(steps)
        for work in works:
            if work.kind is Kind.CALL:
                _call(work)
        return None not in batch


def _call(work: Work) -> None:
    try:
        result = work.do()
    except Exception as error:  # noqa: BLE001 - whoever waits for it gets it
        work.fail(error)
    else:
        work.answer(result)
