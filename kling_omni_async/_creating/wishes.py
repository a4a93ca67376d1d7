"""One order of a stream on its way to an outcome: who waits for its task, what holds it back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Protocol, TypeAlias

import attrs

from kling_omni_async._api.create import CreateRequest
from kling_omni_async._ids import quoted
from kling_omni_async._models import ImageTask
from kling_omni_async._order import ImageOrder
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._policy import MAX_RETRY_AFTER_S
from kling_omni_async._polling.limits import NEVER
from kling_omni_async._polling.verdicts import Verdict
from kling_omni_async._polling.waiters import Alarms, Entry, TimedWaiter
from kling_omni_async._results import End, Ending
from kling_omni_async.errors import KlingOmniError, RateLimitError

from .creator import Creation
from .slots import Backoff


class Stage(Enum):
    """How far a wish is."""

    WAITING = "it is not sent yet, or was refused"
    CREATING = "it is being created"
    POLLING = "its task is being worked on"
    DONE = "its outcome is in the outlet"


# More than ten attributes: an order, and all that becomes of it on its way.
@attrs.define(eq=False)
class Wish:
    """One order of a stream; times are in s."""

    external_id: str
    order: ImageOrder | None  # None where something else was given
    added: float
    stage: Stage = Stage.WAITING
    creation: Creation | None = None
    request: CreateRequest | None = None  # kept when it is refused: it is sent again as it is
    first_sent: float | None = None
    refusal: KlingOmniError | None = None  # the last one
    task: ImageTask | None = None  # as it was created
    waiter: OrderWaiter | None = None
    unfollow: Callable[[], None] | None = None  # ends the wait for its outcome out of a book
    may_be_paid: bool = False
    is_named: bool = False  # by the log, as its outcome will not be handed out

    @property
    def slots(self) -> int:
        """How many places its task holds."""
        return self.order.slots if self.order else 0

    def name(self) -> str:
        """Return what the log says of it."""
        external_id = f"external id {quoted(self.external_id)}"
        return f"{quoted(self.task.task_id)} ({external_id})" if self.task else external_id


Tell: TypeAlias = Callable[[TaskOutcome | KlingOmniError], object]
"""Is told the outcome of a task, or why no task of the stream will have any."""


class Kept(Protocol):
    """What keeps the tasks of a stream, and brings their outcomes instead of the poller."""

    def follow(self, task_id: str, tell: Tell) -> Callable[[], None]:
        """Wait for the outcome of a task; return what ends that."""
        ...

    async def left(self) -> None:
        """Wait until it has back what was not acknowledged, once the stream was left."""


class Follower(Protocol):
    """A stream that is told of the tasks of its wishes."""

    timeout: float | None  # of each task, in s
    youngest: float | None  # creation of a task, in s of the loop

    def polled(
        self,
        wish: Wish,
        task: ImageTask | None,
        error: KlingOmniError | None,
        *,
        queries: int,
        now: float,
    ) -> None:
        """Note that the task of a wish has ended, or was given up."""

    def end(self, end: End) -> None:
        """End: none of its tasks is asked for any more."""


class OrderWaiter(TimedWaiter):
    """One who waits for the task of a wish."""

    __slots__ = ("stream", "wish")

    must_query = True

    def __init__(self, stream: Follower, wish: Wish, *, added: float) -> None:
        super().__init__(added=added, deadline=None)
        self.stream: Follower = stream
        self.wish: Wish = wish

    def aged(self, born: float) -> None:
        """Note the youngest task of the stream."""
        self.stream.youngest = max(born, self.stream.youngest or born)

    def queried(self, now: float, alarms: Alarms) -> bool:
        """Let the task's time run from the start of its first query."""
        if self.deadline is None and self.stream.timeout is not None:
            self.deadline = now + self.stream.timeout
            alarms.set(self, self.deadline)
        return True

    def told(self, entry: Entry, verdict: Verdict, now: float) -> None:
        """Pass the outcome on."""
        task, queries = verdict.task or entry.last_task(), entry.queries - self.queries_before
        self.stream.polled(self.wish, task, verdict.error, queries=queries, now=now)

    def end(self, reason: Ending, task_id: str) -> None:  # noqa: ARG002 - as the base
        """End the stream: none of its tasks is asked for any more."""
        self.stream.end(End(reason))


class Pace:
    """When a stream may send its next order, and the timer for that."""

    def __init__(self, backoff: Backoff) -> None:
        self.next_send = -NEVER  # in s
        self._backoff = backoff
        self._timer: asyncio.TimerHandle | None = None

    def went_well(self) -> None:
        """Let the next pause be a short one."""
        self._backoff.reset()

    def refused(self, error: KlingOmniError, *, is_alone: bool, now: float) -> None:
        """Hold orders back: as long as the API asks, or until a task ends, or for a while."""
        if isinstance(error, RateLimitError) and error.retry_after is not None:
            pause_s = min(error.retry_after, MAX_RETRY_AFTER_S)
            self.next_send = max(self.next_send, now + pause_s)
        elif is_alone and self.next_send <= now:  # else it is of a burst, which is one step
            # No task of ours ends that could make room.
            self.next_send = now + self._backoff.next_s()

    def arm(self, when: float, look: Callable[[], None]) -> None:
        """Set the timer for the next look."""
        self.disarm()
        if when < NEVER:
            self._timer = asyncio.get_running_loop().call_at(when, look)

    def disarm(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
