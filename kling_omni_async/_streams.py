"""What `poll` and `watch` give: async iterators that may be left at any moment, in any task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, Protocol, Self, TypeVar

from ._handlers import Handler, Handlers
from ._models import ImageTask
from ._outcome import Progress, TaskOutcome
from ._polling.poller import Poller
from ._polling.stream import ENDED, Phase
from ._polling.waiters import UpdatesWaiter
from ._results import BusyError, End, Outlet

if TYPE_CHECKING:
    from types import TracebackType


def refusal(text: str) -> Callable[..., NoReturn]:
    """Return a method for a use that forgets an ``async``, which raises what to write instead.

    In the text ``{0}`` stands for the object.
    """

    def refuse(self: object) -> NoReturn:
        raise TypeError(text.format(self))

    return refuse


class StreamInside(Protocol):
    """What a stream is made of: that of `poll`, of `generate_many`, or of a book."""

    @property
    def outlet(self) -> Outlet:
        """Where its outcomes are taken from."""
        ...

    @property
    def phase(self) -> Phase:
        """How far it is."""
        ...

    @property
    def ids(self) -> Mapping[str, object]:
        """Those that have not been handed out."""
        ...

    @property
    def progress(self) -> Progress:
        """The counts at this moment."""
        ...

    def begin(self) -> None:
        """Copy a container, and let reading begin."""

    def know_all(self) -> None:
        """Note all that a container holds."""

    def handed_out(self, outcome: TaskOutcome) -> None:
        """Count an outcome that a consumer has."""

    def cut(self, end: End) -> None:
        """End at once."""

    async def closed(self) -> None:
        """Wait until all that belongs to it is closed, once it has begun."""


S = TypeVar("S", bound=StreamInside)
S_contra = TypeVar("S_contra", bound=StreamInside, contravariant=True)


class StreamHost(Protocol[S_contra]):
    """What brings the outcomes of streams of one kind."""

    def open_stream(self, stream: S_contra) -> None:
        """Begin to bring them."""

    def leave_stream(self, stream: S_contra) -> None:
        """Drop a stream that nobody reads any more."""

    def drop_stream(self, stream: S_contra) -> None:
        """Leave a stream that was dropped, by whichever thread collects the garbage."""

    def stream_eta_s(self, stream: S_contra) -> float | None:
        """Return how long the youngest task of a stream needs still, in s, or None."""


class _Visit(Generic[S]):
    """A stream at its host, once it has one."""

    def __init__(self, host: Callable[[], StreamHost[S]], state: S) -> None:
        self.find_host = host
        self._state = state
        self._host: StreamHost[S] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether it has a host."""
        return self._host is not None

    def open(self) -> None:
        """Go to the host of this loop, and let it bring outcomes."""
        self._host = self.find_host()
        self._host.open_stream(self._state)

    def leave(self) -> None:
        """Let the host drop it."""
        if self._host is not None:  # pragma: no branch - it has begun
            self._host.leave_stream(self._state)

    def eta_s(self) -> float | None:
        """Return how long the youngest task needs still, in s, by the median, or None."""
        return None if self._host is None else self._host.stream_eta_s(self._state)

    def drop(self) -> None:
        """Leave from whichever thread, if it has begun."""
        if self._host is not None:
            self._host.drop_stream(self._state)


class PendingIds(AbstractSet[str]):
    """A live, read-only view of the ids that a stream has not yet handed out.

    Copy it (``set(stream.pending)``) before the stream moves on while you iterate.
    """

    def __init__(self, state: StreamInside) -> None:
        self._state = state

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._ids()

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids())

    def __len__(self) -> int:
        return len(self._ids())

    def __repr__(self) -> str:
        return f"<PendingIds of {len(self)}>"

    def _ids(self) -> Mapping[str, object]:
        self._state.know_all()  # a view that was taken before entry knows of all too
        return self._state.ids

    @classmethod
    def _from_iterable(cls, it: object) -> AbstractSet[str]:  # type: ignore[override]
        return frozenset(it)  # type: ignore[call-overload,no-any-return]


class Origin(NamedTuple):
    """The call that made a stream, and the one to write for a single id or order."""

    call: str
    single: str
    needs_block: bool = False  # what it has is given back on leaving

    @property
    def block(self) -> str:
        """The line that opens it."""
        return f"async with {self.call} as outcomes:"

    @property
    def loop(self) -> str:
        """The lines that read it."""
        plain = f"async for outcome in {self.call}:"
        return f"{self.block} async for outcome in outcomes:" if self.needs_block else plain


OF_IDS = Origin("session.poll(task_ids)", "task: task = await session.wait(task_id)")
OF_ORDERS = Origin(
    "session.generate_many(orders)", "order: outcome = await session.generate(order)"
)
OF_KEPT_ORDERS = OF_ORDERS._replace(
    call="session.generate_many(orders, book=book)", needs_block=True
)


class OutcomeStream:
    """The outcomes of `poll`, `generate_many` or a book, in the order in which they become known.

    An async iterator and an async context manager. Nothing is asked before the block is entered
    or the first step is taken. Several consumers may share a stream; each outcome goes to one.

    The stream of a book has to be entered by ``async with``, and has one consumer. Its outcomes
    come again, to whoever reads the book, unless they are acknowledged: by asking for the next one,
    by its end, by `ack`, or by `each`, when the handler returns. Leaving the block gives back what
    is not: at once, or after a pause where an exception leaves it.
    """

    def __init__(
        self, host: Callable[[], StreamHost[S]], state: S, *, origin: Origin = OF_IDS
    ) -> None:
        self._origin = origin
        self._visit: _Visit[Any] = _Visit(host, state)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state: StreamInside = state
        self._left = False

    def __repr__(self) -> str:
        is_left, has_begun = self._state.phase is ENDED, self._visit.has_begun
        state = "closed" if is_left else "open" if has_begun else "not started"
        return f"<OutcomeStream {state} {self.progress!r}>"

    if not TYPE_CHECKING:  # pragma: no branch - a type checker refuses each better by itself
        __enter__ = __exit__ = refusal("a stream needs `async with`; write: {0._origin.block}")
        __iter__ = refusal("a stream needs `async for`; write: {0._origin.loop}")
        __await__ = refusal(
            "a stream gives many outcomes, one by one; write: {0._origin.loop} or, for a single "
            "{0._origin.single}"
        )

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._state.outlet.leaving(error)
        await self.aclose()

    @property
    def pending(self) -> AbstractSet[str]:
        """The ids not yet handed out, as a live view that is readable after closing too."""
        return PendingIds(self._state)

    @property
    def progress(self) -> Progress:
        """The counts at this moment, readable after closing too."""
        self._state.know_all()  # so that it says what `pending` says
        return self._state.progress

    @property
    def eta(self) -> float | None:
        """How long the youngest of its tasks needs still, in s, by the median, if that is known."""
        return self._visit.eta_s()

    async def __anext__(self) -> TaskOutcome:
        """Wait for the next outcome.

        Raises:
            StopAsyncIteration: All ids have come out, or the stream was closed.
            AuthenticationError: The key is not accepted; so do other faults of the set-up.
            ConfigurationError: At the first step: nothing can be saved to ``save_to``.
            SessionClosedError: The session was closed.
            BookError: The book cannot be reached or used, or was closed.
            RuntimeError: Of a book: it was not entered by ``async with``, or has another consumer.
            Exception: What the input raised, once all ids before it have come out.
        """
        state = self._state
        if self._loop is not asyncio.get_running_loop():  # not at each step: it costs a coroutine
            await self._begin()
        try:
            outcome = await state.outlet.step()
        except (asyncio.CancelledError, BusyError):
            raise
        except BaseException:
            self._leave()
            raise
        state.handed_out(outcome)  # no await between: a cancelled consumer loses none
        return outcome

    async def each(self, handler: Handler, *, limit: int = 8) -> None:
        """Await a handler for each outcome, several at once, until the stream ends.

        Handlers run in tasks of their own, in copies of your context. Cancelling this call cancels
        those that run, and waits for them.

        Args:
            handler: An async function that takes a `TaskOutcome`. Of a book's stream an outcome is
                acknowledged when it returns. If it raises, that is logged, and the outcome comes
                again after 1, 2, 4 … 300 s, while others pass by.
            limit: How many handlers may run at once.

        Raises:
            Exception: What the stream raises; or, where it is none of a book, what a handler
                raised: nothing more is taken then. Either comes once the handlers that run have
                ended.
            ConfigurationError: The limit is no whole number above 0.
            TypeError: The handler is no async function.
        """
        handlers = Handlers(self._state.outlet, handler, limit)
        await self._begin()
        with self._state.outlet.consuming():
            try:
                await handlers.run(self._take_unless)
            finally:
                if handlers.is_over:
                    self._leave()

    async def ack(self, outcome: TaskOutcome) -> None:
        """Acknowledge an outcome of a book, so that it does not come again.

        It is kept when this returns. An outcome of any other stream needs none: nothing is done.

        Args:
            outcome: One that this stream gave.

        Raises:
            BookError: The book cannot be reached or used; the outcome comes again.
        """
        await self._state.outlet.ack(outcome)

    async def aclose(self) -> None:
        """Leave: the ids that are still pending are dropped at once, and nothing more is created.

        It returns when the input has been closed, its own clean-up included; that of a book, when
        it has everything back that was not acknowledged.
        """
        self._state.cut(End())
        self._leave()
        if self._visit.has_begun:
            await self._state.closed()

    async def _begin(self) -> None:
        """Open the stream for a consumer that takes from it, unless that was done."""
        if self._loop is asyncio.get_running_loop() or self._state.phase is ENDED:
            return
        if self._loop is None and self._origin.needs_block:
            raise RuntimeError(
                f"the stream of a book has to be entered; write: {self._origin.block}"
            )
        await self._open()

    async def _take_unless(
        self, others: Collection[asyncio.Future[Any]], most: int
    ) -> TaskOutcome | None:
        """Take an outcome for `each`, or None once one of the others is done."""
        outcome = await self._state.outlet.take_unless(others, most=most)
        if outcome is not None:
            self._state.handed_out(outcome)
        return outcome

    async def _open(self) -> None:
        """Begin to poll, unless that was done, once all is ready for what will come."""
        if self._loop is asyncio.get_running_loop():
            return  # what ended it since then comes behind what it holds
        self._state.begin()  # first, so that nothing given is lost if it cannot be opened
        self._visit.find_host()
        await self._state.outlet.prepare()
        self._start()

    def _start(self) -> None:
        # Another consumer may have been faster meanwhile, or may have closed it.
        if self._loop is asyncio.get_running_loop() or self._state.phase is ENDED:
            return
        self._loop = asyncio.get_running_loop()
        self._visit.open()

    def _leave(self) -> None:
        if self._visit.has_begun and not self._left:
            self._left = True
            self._visit.leave()

    def __del__(self) -> None:
        """Drop the ids of a stream that nobody can read any more."""
        if not self._left:
            self._visit.drop()


class TaskUpdates:
    """The answers of `KlingOmniSession.watch`: the first, each change of status, the final one.

    An async iterator and an async context manager. Nothing is asked before the block is entered
    or the first step is taken.
    """

    def __init__(
        self,
        poller: Callable[[], Poller],
        task_id: str,
        *,
        timeout: float | None,
        called_at: float | None,
    ) -> None:
        self._find_poller = poller
        self._task_id = task_id
        self._timeout = timeout
        self._called_at = called_at
        self._poller: Poller | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: UpdatesWaiter | None = None
        self._end: End | None = None

    def __repr__(self) -> str:
        state = "closed" if self._end else "open" if self._poller else "not started"
        return f"<TaskUpdates {state} of {self._task_id!r}>"

    if not TYPE_CHECKING:  # pragma: no branch - as above
        __enter__ = __exit__ = refusal(
            "watch needs `async with`; write: async with session.watch(task_id) as updates:"
        )
        __iter__ = refusal(
            "watch needs `async for`; write: async for task in session.watch(task_id):"
        )
        __await__ = refusal(
            "watch gives each change; write: async for task in session.watch(task_id): "
            "or, for the last one alone: task = await session.wait(task_id)"
        )

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @property
    def eta(self) -> float | None:
        """How long the task needs still, in s, by the median, or None if that is unknown."""
        return self._poller.eta_s(self._task_id) if self._poller else None

    async def __anext__(self) -> ImageTask:
        """Wait for the next change.

        Raises:
            StopAsyncIteration: The final answer was given, or the iterator was closed.
            KlingOmniError: There will be no final answer; the class says why.
        """
        item = self._end or await self._start().updates.get()
        if isinstance(item, End):
            self._finish(item)
            item.throw()
        return item

    async def aclose(self) -> None:
        """Leave; the remote task is not touched."""
        self._finish(End())
        if self._poller is not None and self._waiter is not None:
            self._poller.leave(self._waiter)

    def _start(self) -> UpdatesWaiter:
        if self._waiter is None or self._loop is not asyncio.get_running_loop():
            poller = self._find_poller()
            self._poller, self._loop = poller, asyncio.get_running_loop()
            added = self._loop.time() if self._called_at is None else self._called_at
            deadline = None if self._timeout is None else added + self._timeout
            self._waiter = UpdatesWaiter(added=added, deadline=deadline)
            poller.call(self._task_id, self._waiter)
        return self._waiter

    def _finish(self, end: End) -> None:
        if self._end is None:
            self._end = end
            if self._waiter is not None:
                self._waiter.updates.put_nowait(end)  # wakes another consumer that waits

    def __del__(self) -> None:
        """Leave for somebody who dropped the iterator."""
        if self._poller is not None and self._waiter is not None and self._end is None:
            self._poller.drop(self._waiter)
