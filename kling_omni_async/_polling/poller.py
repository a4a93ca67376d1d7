"""The I/O shell of polling: one timer, and the tasks that carry queries and read inputs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from random import Random
from typing import Final, Protocol

import attrs

from kling_omni_async._api.answers import Answer, age_of, read_answer
from kling_omni_async._engine import Engine
from kling_omni_async._models import SUCCEED, ImageTask, TaskStatus
from kling_omni_async._observer import Door, Observer, Trace
from kling_omni_async._policy import PollPolicy
from kling_omni_async._results import End, Ending, Successes, log_end
from kling_omni_async._stats import COUNTS, SessionStats, count_of
from kling_omni_async.errors import KlingOmniError, RateLimitError, ResponseError

from .inputs import read_input
from .limits import NEVER, LentPace
from .log import PollingLog
from .stream import ENDED, Phase, StreamState
from .verdicts import FINAL, Reply
from .waiters import Entry, Waiter
from .watchlist import Decision, Told, Watchlist

_QUERY: Final = "kling_omni_async.query"
_FEED: Final = "kling_omni_async.feed"
_SWEEP: Final = "kling_omni_async.sweep"


class Client(Protocol):
    """What brings answers. It is opened and closed inside the owner task."""

    def bind(self) -> None:
        """Check what can be checked in the running loop only."""

    async def open(self) -> int | None:
        """Get ready; return the most queries that it can have in flight, or None."""

    async def fetch(self, task_id: str) -> Answer | KlingOmniError:
        """Send one query; never raises for anything that the network does."""
        ...

    def give_up_idle(self) -> None:
        """Close the connections on which nothing is under way."""

    async def aclose(self) -> None:
        """Release everything."""


class Poller:
    """Polls for all who wait in a session: a part of its engine."""

    # Fourteen attributes: what it was given (6), the loop, what it keeps (3), what is running (4).
    def __init__(
        self,
        engine: Engine,
        policy: PollPolicy,
        client: Client,
        *,
        rng: Random,
        wall_clock: Callable[[], float] = time.time,  # for a ``Retry-After`` that is a date
        successes: Successes | None = None,
        door: Door | None = None,
    ) -> None:
        self._engine = engine
        self.door = door or Door()
        self._loop: asyncio.AbstractEventLoop  # the engine's, from `bind` on
        self._most = policy.max_concurrency
        self._client = client
        self._wall_clock = wall_clock
        self._successes = successes or Successes()
        self._watchlist = Watchlist(policy, rng, limit=0)  # none may start before `open`
        self._log = PollingLog()
        self._streams: dict[StreamState, None] = {}
        self._idle: list[asyncio.Future[Entry]] = []
        self._timer: asyncio.Handle | None = None
        self._looks_at = NEVER
        self._fires_at = NEVER
        self._ended = dict.fromkeys(COUNTS, 0)
        self._others_next = NEVER

    def __repr__(self) -> str:
        return f"<Poller {self._engine.state} {self._watchlist!r}>"

    # What the session calls; none of it waits.

    def call(self, task_id: str, waiter: Waiter, expects_s: float | None = None) -> None:
        """Let a call of `wait`, `watch` or `query` wait for an id; a callback may come first."""
        now = self._loop.time()
        try:
            self._tell(self._watchlist.call(task_id, waiter, now, expects_s), now)
            self._look_soon(now)
        except Exception as defect:
            self._engine.fail(defect)
            raise

    def leave(self, waiter: Waiter) -> None:
        """Let one who waits go."""
        try:
            self._watchlist.leave(waiter)
        except Exception as defect:  # noqa: BLE001 - it must not replace what made him leave
            self._engine.fail(defect)

    def open_stream(self, stream: StreamState) -> None:
        """Begin to poll a stream."""
        self._streams[stream] = None
        self._engine.start_soon(read_input, stream, self._admit, name=_FEED)

    def leave_stream(self, stream: StreamState) -> None:
        """Drop a stream that nobody reads any more, or that has been read to its end."""
        try:
            stream.cut(End())
            if (reader := stream.intake.task) is None:
                self._streams.pop(stream, None)
            else:  # an input that left its own stream is cancelled by the end of the session
                reader.add_done_callback(lambda _: self._streams.pop(stream, None))
            self._engine.do(self._watchlist.leaving(stream), name=_SWEEP)
        except Exception as defect:  # noqa: BLE001 - as in `leave`
            self._engine.fail(defect)

    def drop(self, waiter: Waiter) -> None:
        """Let one go who was dropped, by whichever thread collects the garbage."""
        self._engine.call_from_anywhere(self.leave, waiter)

    def drop_stream(self, stream: StreamState) -> None:
        """Leave a stream that was dropped, by whichever thread collects the garbage."""
        self._engine.call_from_anywhere(self.leave_stream, stream)

    def take_start(self) -> float:
        """Take a start of the pace for what is no scheduled query; return its time in s."""
        return self._watchlist.schedule.reserve(self._loop.time())

    def limited(self, error: RateLimitError, started: float) -> None:
        """Hold scheduled queries back for a 429 that met another request, of a start in s."""
        throttle = self._watchlist.schedule.throttle
        if pause_s := throttle.limited(error, started=started, now=self._loop.time()):
            self._log.throttled(pause_s)
            self._tell_book(pause_s)
            if self.door.observer is not None:
                self.door.observer.throttled(pause_s)

    def heard(self) -> None:
        """Note that the API has answered another request readably: the set-up is right."""
        self._watchlist.heard()

    def created(self, task: ImageTask, kind: object) -> None:
        """Remember a task that this session has created now."""
        self._watchlist.planner.own.add(task, self._loop.time(), kind)

    @property
    def awaits_callbacks(self) -> bool:
        """Whether callbacks do come, as far as is known."""
        return self._watchlist.planner.expected.comes

    def callback_told(self, *, came: bool) -> None:
        """Note whether a callback came that somebody else has waited for."""
        expected = self._watchlist.planner.expected
        if came:
            expected.came()
        elif expected.missed():
            self._log.no_callbacks()

    def lend(self, pace: LentPace | None) -> bool:
        """Take starts from a book, or none any more; False where another book lends some."""
        schedule = self._watchlist.schedule
        if pace is not None and schedule.lent is not None:
            return False
        schedule.lend(pace)
        self._look_soon(self._loop.time())
        return True

    def granted(self, starts: Iterable[float], gate: float) -> None:
        """Use starts that a book has lent, in s; nothing scheduled starts before its gate opens."""
        now, schedule = self._loop.time(), self._watchlist.schedule
        assert schedule.lent is not None  # noqa: S101 - it was lent to
        schedule.lent.grant(starts, now)
        schedule.throttle.hold(gate)
        self._look_soon(now)

    @property
    def wanted_starts(self) -> int:
        """How many starts of a book could be used now."""
        return self._watchlist.schedule.ready(self._loop.time())

    @property
    def free_places(self) -> int:
        """How many more queries may be in flight."""
        schedule = self._watchlist.schedule
        return schedule.limit - schedule.in_flight

    def take_places(self, number: int) -> None:
        """Take places in flight for queries that others schedule."""
        self._watchlist.schedule.in_flight += number

    def give_place(self) -> None:
        """Give such a place back."""
        self._watchlist.schedule.in_flight -= 1
        self._look_at(max(self._loop.time(), self._watchlist.next_event()))

    def scheduled(self, when: float | None) -> None:
        """Note when others schedule their next query, in s; None where none is scheduled."""
        self._others_next = NEVER if when is None else when

    async def ask(self, task_id: str) -> tuple[Reply, Mapping[str, str] | None]:
        """Send one query that others have scheduled; return what it brought, and its headers."""
        self._watchlist.schedule.starts += 1
        return self._reply_in(await self._client.fetch(task_id), task_id)

    def _reply_in(
        self, answer: Answer | KlingOmniError, task_id: str
    ) -> tuple[Reply, Mapping[str, str] | None]:
        if not isinstance(answer, Answer):
            return answer, None
        reply = read_answer(answer, task_id, wall_s=self._wall_clock())
        if isinstance(reply, ImageTask) and reply.status is SUCCEED:
            self._successes.first_seen(task_id, self._loop.time())
        return reply, answer.headers

    def judged(
        self,
        entry: Entry,
        decision: Decision,
        before: TaskStatus | None,
        *,
        took_s: float,
        late_s: float,
        age_s: float | None,
    ) -> None:
        """Log and count what such a query brought, and show it."""
        reply, verdict = decision.reply, decision.verdict
        if isinstance(reply, ResponseError) and decision.foreign_id is not None:
            self._client.give_up_idle()
        self._log.answered(entry, decision, before)
        self._watchlist.count_fault(verdict)
        has_ended = verdict.kind is FINAL and not decision.ends_all
        if has_ended:
            self._ended[count_of(verdict.error)] += 1
            log_end(entry.task_id, verdict.error, queries=entry.queries)
        if (observer := self.door.observer) is None:
            return
        error = None if isinstance(reply, ImageTask) else reply
        observer.queried(took_s=took_s, late_s=late_s, error=error, traces=[])
        if has_ended:
            observer.ended(verdict.error, queries=entry.queries)
            if verdict.task is not None:
                observer.seen(verdict.task, age_s)

    def nudge(self, task_id: str) -> bool:
        """Ask for an id soon, as it may have changed; return whether it is one of ours."""
        now = self._loop.time()
        is_ours = self._watchlist.nudge(task_id, now)
        self._look_at(max(now, self._watchlist.next_event()))
        return is_ours

    def peek(self, task_id: str) -> ImageTask | None:
        """Return the last that is known of a task, or None."""
        return self._watchlist.peek(task_id, self._loop.time())

    def eta_s(self, task_id: str) -> float | None:
        """Return how long a task needs still, in s, by the median, or None if that is unknown."""
        return self._watchlist.eta_s(task_id, self._loop.time())

    def stream_eta_s(self, stream: StreamState) -> float | None:
        """Return how long the youngest task of a stream needs still, in s, or None."""
        if stream.youngest is None or not stream.ids:
            return None
        return self.left_s(stream.youngest)

    def left_s(self, born: float) -> float | None:
        """Return how long a task that was created at a time needs still, in s, by the median."""
        return self._watchlist.planner.timing.left_s(self._loop.time() - born)

    def stats(self) -> SessionStats:
        """Return what is being done, without looking at the ids."""
        stats, ended = self._watchlist.stats(self._loop.time(), self._others_next), self._ended
        succeeded, failed, unresolved = map(ended.__getitem__, COUNTS)
        return attrs.evolve(stats, succeeded=succeeded, failed=failed, unresolved=unresolved)

    @property
    def is_alive(self) -> bool:
        """Whether it has a loop, of which `stats` may ask the time."""
        # uvloop's cannot tell it any more once it is closed.
        loop = None if self._engine.closed else getattr(self, "_loop", None)
        return loop is not None and not loop.is_closed()

    # What the engine calls.

    def bind(self) -> None:
        self._client.bind()
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        limit = await self._client.open()
        self._watchlist.schedule.limit = min(limit or self._most, self._most)
        self._look_soon(self._loop.time())

    def stop(self) -> None:
        """Cancel the inputs that are being read, each once."""
        for stream in self._streams:
            stream.stop()

    def tell_end(self, reason: Ending) -> Iterator[None]:
        """Tell all who wait why there will be nothing more, one at each step."""
        self._disarm()
        for stream in list(self._streams):
            try:
                if not stream.outlet.has_ended:
                    stream.cut(End(reason))
                if stream.intake.task is None:  # else it is closed when its clean-up is done
                    stream.intake.close(whole=False)
            except Exception as defect:  # noqa: BLE001 - the others are told all the same
                self._engine.fail(defect)
            yield
        yield from self._end_waiters(reason, queries=True)

    async def aclose(self) -> None:
        await self._client.aclose()

    # One timer for the whole session.

    def _look_soon(self, now: float) -> None:
        """See to it that somebody looks in the next pass of the loop."""
        if self._looks_at > now:
            self._look_at(now)

    def _look_at(self, when: float) -> None:
        """See to it that somebody looks at a time in s, unless that is so already."""
        if when >= self._looks_at or self._engine.closed:
            return
        self._disarm()
        self._looks_at = when
        loop, context = self._loop, self._engine.context
        self._fires_at = max(when, now := loop.time())
        if when <= now:
            self._timer = loop.call_soon(self._look, context=context)
        else:
            self._timer = loop.call_at(when, self._look, context=context)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._looks_at = None, NEVER

    def _look(self) -> None:
        """Start what is due, and end the waits whose time is up."""
        now = self._loop.time()
        self._log.stood_still(now - self._fires_at, now)
        self._timer, self._looks_at = None, NEVER
        try:
            due = self._watchlist.pass_time(now)
            for entry in due.queries:
                self._hand_out(entry)
            self._tell(due.told, now)
            self._look_at(due.next_event)
        except Exception as defect:  # noqa: BLE001 - no task runs here: it reaches all who wait
            self._engine.fail(defect)

    # Workers: each carries one query at a time. When there is none it is parked and not ended, as
    # to start an anyio task costs about as much as a query.

    def _hand_out(self, entry: Entry) -> None:
        while self._idle:
            parked = self._idle.pop()
            if not parked.done():  # one whose task was cancelled is
                parked.set_result(entry)
                return
        self._engine.start_soon(self._work, entry, name=_QUERY)

    async def _work(self, entry: Entry) -> None:
        fetch, loop, watchlist = self._client.fetch, self._loop, self._watchlist
        while True:
            answer = await fetch(entry.task_id)
            now = loop.time()
            if isinstance(answer, Answer):
                reply = read_answer(answer, entry.task_id, wall_s=self._wall_clock())
                self._answered(entry, reply, answer.body, now, answer.headers)
            else:
                self._answered(entry, answer, None, now)
            following, next_event = watchlist.next_query(now)
            if next_event < self._looks_at:
                self._look_at(next_event)
            entry = following or await self._park()

    async def _park(self) -> Entry:
        parked: asyncio.Future[Entry] = self._loop.create_future()
        self._idle.append(parked)
        return await parked

    def _answered(
        self,
        entry: Entry,
        reply: Reply,
        body: bytes | None,
        now: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(reply, ImageTask) and reply.status is SUCCEED:
            self._successes.first_seen(entry.task_id, now)
        before, observer = entry.status, self.door.observer
        if observer is not None:
            _show_query(observer, entry, reply, now)
        decision = self._watchlist.answered(entry, reply, body, now, headers)
        if decision.reply is not reply:  # a stray one: each next answer there would be one, too
            self._client.give_up_idle()
        self._log.answered(entry, decision, before)
        if decision.pause_s:
            self._tell_book(decision.pause_s)
        if decision.stretch > 1.0 and not self._reads_a_list():
            self._log.stretched(decision.stretch)
        if decision.gives_up_callbacks:
            self._log.no_callbacks()
        if decision.told:
            self._tell(decision.told, now)
        if observer is not None:
            _show_answer(observer, entry, decision, now, headers)
        if decision.ends_all:
            self._end_all(decision.verdict.error or KlingOmniError(), now)

    def _tell_book(self, pause_s: float) -> None:
        """Let a book that lends its pace know of a 429 that met this session."""
        if (lent := self._watchlist.schedule.lent) is not None:
            lent.limits.append(pause_s)
            lent.want()

    def _reads_a_list(self) -> bool:
        """Whether the number of ids is still to be known."""
        return any(
            stream.phase is Phase.READING and not stream.intake.is_feed for stream in self._streams
        )

    # What the watchlist has decided.

    def _admit(self, stream: StreamState, given: object, now: float) -> None:
        try:
            if told := self._watchlist.admit(stream, given, now):
                self._tell(told, now)
            self._look_soon(now)
        except Exception as defect:  # noqa: BLE001 - else it would pass for the input's own
            self._engine.fail(defect)
            stream.cut(End(defect))

    def _tell(self, told: list[Told], now: float) -> None:
        logged = None
        for waiter, entry, verdict in told:
            if verdict.kind is FINAL and verdict is not logged and not waiter.once:
                logged = verdict  # one line for an end, however many have waited for it
                self._ended[count_of(verdict.error)] += 1
                log_end(entry.task_id, verdict.error, queries=entry.queries)
                if self.door.observer is not None:
                    self.door.observer.ended(verdict.error, queries=entry.queries)
            waiter.told(entry, verdict, now)
        self._watchlist.all_told()

    def _end_all(self, reason: Ending, now: float) -> None:
        """End all waiting for one reason; calls of `query` get their own answers."""
        for stream in self._streams:
            if stream.phase is not ENDED:
                stream.end(End(reason))
        self._engine.do(self._end_waiters(reason, since=now, queries=False), name=_SWEEP)

    def _end_waiters(
        self, reason: Ending, *, queries: bool, since: float = NEVER
    ) -> Iterator[None]:
        for waiter, task_id in self._watchlist.ending(since, queries=queries):
            try:
                waiter.end(reason, task_id)
                self._watchlist.leave(waiter)
            except Exception as defect:  # noqa: BLE001 - the others are told all the same
                self._engine.fail(defect)
            yield


def _show_query(observer: Observer, entry: Entry, reply: Reply, now: float) -> None:
    """Show a query that has ended, while it is known when it began and who waits for it."""
    flight = entry.flight
    assert flight is not None  # noqa: S101 - it was started
    traces: list[Trace] = []
    if observer.follows_queries:
        traces = [waiter.trace for waiter in entry.waiters() if waiter.trace is not None]
    observer.queried(
        took_s=now - flight.started,
        late_s=flight.started - flight.due,
        error=None if isinstance(reply, ImageTask) else reply,
        traces=traces,
    )


def _show_answer(
    observer: Observer,
    entry: Entry,
    decision: Decision,
    now: float,
    headers: Mapping[str, str] | None,
) -> None:
    """Show what an answer has brought."""
    if decision.pause_s:
        observer.throttled(decision.pause_s)
    task = decision.verdict.task
    if task is None or decision.verdict.kind is not FINAL:
        return
    if not all(waiter.once for waiter, _, _ in decision.told):
        age_s = None if headers is None else age_of(task, headers)
        observer.seen(task, age_s if entry.born is None else now - entry.born)
