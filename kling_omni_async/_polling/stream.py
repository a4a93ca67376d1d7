"""What the poller keeps of one stream; the stream itself may be dropped at any time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Iterable, Iterator, Sized
from enum import Enum
from typing import Any, Final

from kling_omni_async._ids import read_id
from kling_omni_async._outcome import Progress, TaskOutcome
from kling_omni_async._results import End, Ending, Outlet, log_end
from kling_omni_async._stats import COUNTS, count_of

from .limits import NEVER
from .verdicts import Verdict
from .waiters import Alarm, Alarms, Entry, Waiter

TaskIds = Iterable[str] | AsyncIterable[str]

_SPARE_WAITERS: Final = 64


class Phase(Enum):
    """How far a stream is."""

    NEW = "nothing has been asked"
    READING = "its input is being read"
    POLLING = "its input has ended, some ids have no outcome yet"
    ENDED = "nothing more is taken in"


class IdState(Enum):
    """How far an id of a stream is that nobody waits for."""

    UNREAD = "the input holds it, the poller does not know of it yet"
    DONE = "its outcome is in the outlet"


# As names, which Python 3.11 looks up faster: each id comes by here.
ENDED: Final = Phase.ENDED
UNREAD: Final = IdState.UNREAD
DONE: Final = IdState.DONE


class StreamWaiter(Waiter):
    """One who waits for an id of a stream."""

    __slots__ = ("started", "stream")
    must_query = True

    def __init__(self, stream: StreamState, *, added: float) -> None:
        self.when = NEVER  # not by way of two base classes: there may be a million of them
        self.entry: Entry | None = None
        self.added = added
        self.queries_before = 0
        # Of its first query, in s: that float is there already, a deadline would be one more.
        self.started: float | None = None
        self.stream: StreamState = stream

    @property
    def deadline(self) -> float | None:
        """When it gives up, in s; None for never, or where nothing was asked yet."""
        timeout = self.stream.timeout
        return None if self.started is None or timeout is None else self.started + timeout

    def aged(self, born: float) -> None:
        """Note the youngest task of the stream."""
        self.stream.youngest = max(born, self.stream.youngest or born)

    def queried(self, now: float, alarms: Alarms) -> bool:
        """Let the id's time run from the start of its first query, while the stream goes on."""
        stream = self.stream
        if stream.phase is ENDED:
            return False  # left, and its waiters are still to be let go
        if self.started is None and stream.timeout is not None:
            self.started = now
            stream.deadlines.add(self)
            if stream.when == NEVER:
                stream.set_alarm(alarms)
        return True

    @property
    def goes_on(self) -> bool:
        """Whether its stream was opened after the end of all waiting: else it was told, too."""
        return self.stream.phase is not ENDED

    def left(self, alarms: Alarms) -> None:
        """Remove the alarms that nobody needs any more."""
        if self.when != NEVER:
            alarms.discard(self)
        stream = self.stream
        if self.started is not None and stream.deadlines.lost():
            stream.drop_idle_alarm(alarms)

    def told(self, entry: Entry, verdict: Verdict, now: float) -> None:
        """Put the outcome into the stream."""
        self.stream.finished(
            TaskOutcome(
                task_id=entry.task_id,
                task=verdict.task or entry.last_task(),
                error=verdict.error,
                queries=entry.queries - self.queries_before,
                elapsed=now - self.added,
            )
        )

    def end(self, reason: Ending, task_id: str) -> None:
        """Do nothing: the stream is told as a whole."""


class Deadlines:
    """The waiters of one stream in the order of their deadlines, as all have the same time limit.

    A queue with lazy deletion: who is done goes when he surfaces, or when most are done, so one
    stuck id keeps none of those behind it.
    """

    def __init__(self) -> None:
        self._queue: deque[StreamWaiter] = deque()
        self._done = 0  # in the queue, more or less: too many only means to look sooner

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, waiter: StreamWaiter) -> None:
        """Add one whose deadline is the latest of all."""
        self._queue.append(waiter)

    def first(self) -> StreamWaiter | None:
        """Return the waiter whose deadline is next."""
        queue = self._queue
        while queue and queue[0].entry is None:
            queue.popleft()
            self._done -= 1
        return queue[0] if queue else None

    def pop_due(self, now: float) -> StreamWaiter | None:
        """Remove and return the first if its deadline has come."""
        first = self.first()
        if first is None or (first.deadline or 0.0) > now:
            return None
        self._done -= 1  # for when it is
        return self._queue.popleft()

    def lost(self) -> bool:
        """Note that one of them is done; return whether that may have been the last."""
        self._done += 1
        if self._done > len(self._queue) // 2 + _SPARE_WAITERS:
            self._queue = deque(waiter for waiter in self._queue if waiter.entry is not None)
            self._done = 0
        return self._done >= len(self._queue)


class Intake:
    """The input of one stream, and what is known of its ids before the poller has them."""

    def __init__(self, source: Iterable[object] | AsyncIterable[object]) -> None:
        # None once it was read, so that nothing keeps it open, and nothing disturbs its clean-up.
        self.source: Iterable[object] | AsyncIterable[object] | None = source
        # An id of a feed may come again once it was handed out; otherwise repeats are dropped.
        self.is_feed: bool = isinstance(source, AsyncIterable)
        # In memory already, so that reading it needs no bound.
        self.is_bounded: bool = isinstance(source, Sized) and not self.is_feed
        self.is_known: bool = not self.is_bounded
        self.task: asyncio.Task[object] | None = None  # reads it
        self.closed: asyncio.Event = asyncio.Event()
        self.error: Exception | None = None  # of a container, when it was copied
        self._copy: list[Any] | None = None
        # Ids that were handed out, as long as they have to be known as neither new nor pending.
        self.seen: set[str] = set()
        self.remembers: bool = not self.is_feed

    def copy(self) -> None:
        """Copy a container: changing it later changes nothing."""
        if not self.is_bounded or not isinstance(self.source, Iterable):
            return
        source, self.source, self._copy = self.source, None, []
        try:
            self._copy.extend(iter(source))  # a list would believe what the source says of its size
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream raises it
            self.error = error

    def ids(self) -> Iterator[object]:
        """Return an iterator over what an iterable gives."""
        if self._copy is not None:
            return iter(self._copy)
        assert isinstance(self.source, Iterable)  # noqa: S101 - no feed comes here
        return iter(self.source)

    def not_handed_out(self) -> dict[str, StreamWaiter | IdState]:
        """Return the ids of a container, but for those that were handed out."""
        if (given := self._copy) is None:
            return {}  # not begun: what it holds may still change
        self.is_known = True
        known: dict[str, StreamWaiter | IdState] = dict.fromkeys(_names(given), UNREAD)
        for task_id in self.seen:
            known.pop(task_id, None)
        self._forget()
        return known

    def close(self, *, whole: bool) -> None:
        """Forget what was only needed while it was read; what was not read stays pending."""
        self.source = self.task = None
        self.is_known = self.is_known or whole
        self.closed.set()
        self._forget()

    def stop(self) -> None:
        """Read no more."""
        if self.closed.is_set():
            return
        if self.task is None:  # nobody has begun to
            self.copy()
            self.close(whole=False)
        elif (
            # Once, as anybody cancels a task: an input may await in its clean-up.
            self.source is not None
            and not self.task.cancelling()
            and self.task is not asyncio.current_task()
        ):
            self.task.cancel()

    async def wait_closed(self) -> None:
        """Wait until it is closed; an input that closes its own stream does not wait for itself."""
        if self.task is not asyncio.current_task():
            await self.closed.wait()

    def _forget(self) -> None:
        if self.is_known and self.closed.is_set():
            self.remembers = False
            self._copy = None
            self.seen = set()


class StreamState(Alarm):
    """The inside of a stream. ``when`` is the alarm of its first deadline."""

    input_of = "task ids"

    # Sixteen attributes, as this is the one place for what is known of a stream.
    def __init__(
        self,
        source: TaskIds,
        *,
        timeout: float | None,
        outlet: Outlet,
        most_pending: int,
        expects: float | None = None,
    ) -> None:
        self.when = NEVER
        self.intake: Intake = Intake(source)
        self.outlet: Outlet = outlet
        self.timeout: float | None = timeout
        self.expects: float | None = expects  # a callback for each id, within s
        self.youngest: float | None = None  # creation of a task that was seen, in s of the loop
        self.phase: Phase = Phase.NEW  # only goes forward, and only here
        # Those not yet handed out: who waits for each, or how far it is.
        self.ids: dict[str, StreamWaiter | IdState] = {}
        self.deadlines: Deadlines = Deadlines()
        self.turn: float | None = None  # of its next first query, in s, from the first on
        # Is set when an outcome has been handed out, once its input has had to wait.
        self.room: asyncio.Event | None = None
        self.most_pending: float = NEVER if self.intake.is_bounded else most_pending
        self._polling = 0
        self._counts = dict.fromkeys(COUNTS, 0)
        self._end = End()

    def __repr__(self) -> str:
        return f"<StreamState {self.phase.name.lower()} {self.progress}>"

    @property
    def progress(self) -> Progress:
        """The counts at this moment; they add up, as outcomes are counted when handed out."""
        total = len(self.ids) + sum(self._counts.values())
        return Progress(total=total, pending=len(self.ids), **self._counts)

    @property
    def is_left(self) -> bool:
        """Whether nothing more is to be read or asked for it."""
        return self.phase is ENDED

    # What its input brings.

    def begin(self) -> None:
        """Copy a container, and let reading begin."""
        self.intake.copy()
        if self.phase is Phase.NEW:
            self.phase = Phase.READING

    def know_all(self) -> None:
        """Note all ids that a container holds, once the stream has begun."""
        if not self.intake.is_known:
            known = self.intake.not_handed_out()
            known.update(self.ids)  # what is known already keeps its state
            self.ids.update(known)

    def read(self, given: object) -> str | None:
        """Return the id to poll, or None for a repeat and for what can be none, which comes out."""
        task_id, fault = read_id(given)
        state = self.ids.get(task_id)
        if state is None:
            if task_id in self.intake.seen:
                return None
        elif state is not UNREAD:
            return None
        if fault is None:
            return task_id
        log_end(task_id, fault, queries=0)
        self.put(TaskOutcome(task_id=task_id, error=fault))
        return None

    def add(self, task_id: str, now: float) -> StreamWaiter:
        """Add an id that is to be polled."""
        waiter = self.ids[task_id] = StreamWaiter(self, added=now)
        self._polling += 1
        return waiter

    def input_ended(self, error: Exception | None) -> None:
        """Note that no more ids come, and why if the input raised something."""
        self.intake.close(whole=self.phase is Phase.READING)
        if self.phase is Phase.READING:
            self.phase = Phase.POLLING
            self._end = End(error)
            self._end_if_done()

    # What becomes of its ids.

    def finished(self, outcome: TaskOutcome) -> None:
        """Pass on the outcome of an id that was polled."""
        self._polling -= 1
        self.put(outcome)
        if not self._polling:
            self._end_if_done()

    def put(self, outcome: TaskOutcome) -> None:
        """Pass an outcome on, unless the stream is over."""
        if self.phase is not ENDED:
            self.ids[outcome.task_id] = DONE
            self.outlet.put(outcome)

    def handed_out(self, outcome: TaskOutcome) -> None:
        """Count an outcome that a consumer has."""
        self.ids.pop(outcome.task_id, None)
        if self.intake.remembers:
            self.intake.seen.add(outcome.task_id)
        self._counts[count_of(outcome.error)] += 1
        if self.room is not None:
            self.room.set()

    def drop_idle_alarm(self, alarms: Alarms) -> None:
        """Remove the alarm if nobody has a deadline any more."""
        if self.when != NEVER and self.deadlines.first() is None:
            alarms.discard(self)

    def due(self, now: float, alarms: Alarms) -> Waiter | None:
        """Return the waiter whose deadline is first, if it has come."""
        waiter = self.deadlines.pop_due(now)
        self.set_alarm(alarms)
        return waiter

    def set_alarm(self, alarms: Alarms) -> None:
        """Set the alarm for the first deadline, if there is one."""
        if (first := self.deadlines.first()) is not None:
            alarms.set(self, first.deadline or 0.0)

    def _end_if_done(self) -> None:
        if self.phase is Phase.POLLING and not self._polling:
            self.end(self._end)

    # Its end.

    def end(self, end: End) -> None:
        """Read and ask no more; consumers get what is there, then the end."""
        self.outlet.end(end)
        self.stop()

    def cut(self, end: End) -> None:
        """Read and ask no more; consumers get the end at once, or the one it had before."""
        self.outlet.cut(end)  # first: a defect behind it must not leave them waiting
        self.stop()

    def stop(self) -> None:
        """Read and ask no more."""
        self.phase = ENDED
        self.intake.stop()

    async def closed(self) -> None:
        """Wait until its input is closed."""
        await self.intake.wait_closed()


def _names(given: list[Any]) -> Iterable[str]:
    """Return the names under which what was given is pending and comes out."""
    # At a million ids this must not hold the loop for long: no line of Python for each.
    if set(map(type, given)) == {str} and all(map(str.isalnum, given)):
        return given
    return (read_id(each)[0] for each in given)
