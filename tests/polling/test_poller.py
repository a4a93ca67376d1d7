"""Single facts about the poller, each a plan that the machine would rarely find."""

# Some facts (nothing is kept) are only visible inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kling_omni_async import (
    AuthenticationError,
    KlingOmniSession,
    OutcomeStream,
    PollPolicy,
    PollTimeoutError,
    RateLimitError,
    ResponseError,
    SessionClosedError,
    TaskOutcome,
)
from kling_omni_async._polling.verdicts import Verdict, VerdictKind
from kling_omni_async._polling.waiters import Entry
from kling_omni_async._polling.watchlist import Decision, Watchlist

from . import scripted
from .oracle import NEVER, InputFailedError, Saying, spoken
from .scripted import Line, ScriptedTransport, poller_of, scripted_session

pytestmark = pytest.mark.anyio


async def give_way(passes: int = 40) -> None:
    """Let the loop run that often."""
    for _ in range(passes):
        await asyncio.sleep(0)


def new_session(
    *sayings: Saying, **policy: Any
) -> tuple[KlingOmniSession, ScriptedTransport, Watchlist]:
    """Make a session where all ids share a script, and give what is inside."""
    transport = ScriptedTransport()
    transport.default = spoken(sayings)[0]
    session = scripted_session(transport, PollPolicy(**policy))
    return session, transport, poller_of(session)._watchlist


async def forever(taken: list[str], feed: asyncio.Queue[str]) -> AsyncIterator[str]:
    """Give what comes into a queue, and note it."""
    while True:
        taken.append(await feed.get())
        yield taken[-1]


async def test_the_input_of_a_stream_that_was_left_at_once_is_not_read() -> None:
    """Leaving before the first pass of the loop takes nothing from a feed, then or later."""
    session, _, _ = new_session(("pending", 0.0, 1))
    taken: list[str] = []
    feed: asyncio.Queue[str] = asyncio.Queue()
    async with session:
        async with session.poll(forever(taken, feed)):
            feed.put_nowait("a")
        feed.put_nowait("b")
        await asyncio.sleep(100.0)
        assert taken == []


async def test_a_wrong_setup_lets_go_of_its_ids_at_once() -> None:
    """After everything has ended no id counts as watched, though nothing else happens."""
    session, _, inside = new_session(("401", 0.0, 1))
    async with session:
        with pytest.raises(AuthenticationError):
            await all_of(session.poll(list("abc")))
        await give_way()
        assert inside._watched == 0


async def test_a_repr_tells_the_state_of_a_poller() -> None:
    """It is not started, running or closed."""
    session, _, _ = new_session(("pending", 0.0, 1))
    poller = poller_of(session)
    states = [repr(poller).split()[1]]
    async with session:
        states.append(repr(poller).split()[1])
    states.append(repr(poller).split()[1])
    assert states == ["not", "running", "closed"]


@pytest.mark.parametrize(("limit", "most"), [(None, 3), (2, 2), (9, 3)])
async def test_no_more_queries_than_the_transport_has_places_for(
    limit: int | None, most: int
) -> None:
    """In flight is at most the policy's limit, and at most the transport's if it has one."""
    transport = ScriptedTransport(limit=limit)
    transport.default = spoken([("succeed", 5.0, 1)])[0]
    policy = PollPolicy(max_concurrency=3, max_rate=None)
    async with scripted_session(transport, policy) as session:
        assert len(await all_of(session.poll(list("abcdef")))) == 6
    assert transport.most_in_flight == most


async def test_a_thousand_waits_that_time_out_at_once_all_end() -> None:
    """Their number does not keep one of them waiting."""
    session, _, _ = new_session(("pending", 0.0, 1))
    async with session:
        waits = [session.wait("a", timeout=7.0) for _ in range(1100)]
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(result) for result in results} == {PollTimeoutError}
        assert scripted.now() == pytest.approx(7.0)


async def test_a_transport_that_cannot_open_tells_everyone() -> None:
    """A defect reaches who waits, unwrapped, and closes the session."""

    class BrokenTransport(ScriptedTransport):
        async def open(self) -> int | None:
            raise ZeroDivisionError

    session = scripted_session(BrokenTransport())
    with pytest.raises(ZeroDivisionError):
        await session.wait("a")
    assert session.closed


async def test_an_answer_held_back_keeps_only_its_own_id_waiting() -> None:
    """One id's trouble does not touch another's."""
    transport = ScriptedTransport({"a": [Line(scripted.SUCCEED, 0.0, asyncio.Event())]})
    transport.default = Line(scripted.SUCCEED)
    async with scripted_session(transport) as session, session.poll(list("ab")) as outcomes:
        assert (await anext(outcomes)).task_id == "b"
        assert scripted.now() < 1.0
        assert set(outcomes.pending) == {"a"}
        held = transport.scripts["a"][0].hold
        assert held is not None
        held.set()
        assert (await anext(outcomes)).task_id == "a"


class PlainFeed:
    """An async iterator that is no generator, and has nothing to close."""

    def __init__(self, *steps: object) -> None:
        self._steps = iter(steps)

    def __aiter__(self) -> PlainFeed:
        return self

    async def __anext__(self) -> Any:
        step = next(self._steps, StopAsyncIteration())
        if isinstance(step, BaseException):
            raise step
        return step


@pytest.mark.parametrize(
    ("source", "end", "given_out"),
    [
        (PlainFeed("a", "b"), StopAsyncIteration, 2),
        (PlainFeed("a", InputFailedError()), InputFailedError, 1),
        (PlainFeed("a", asyncio.CancelledError()), RuntimeError, 1),
    ],
    ids=["plain", "raises", "cancels itself"],
)
async def test_an_input_ends_as_it_likes(source: Any, end: type[Exception], given_out: int) -> None:
    """Ids come out first, then what the input raised."""
    session, _, _ = new_session(("succeed", 0.3, 1))
    async with session, session.poll(source) as outcomes:
        for _ in range(given_out):
            assert (await anext(outcomes)).ok
        for _ in range(2):
            with pytest.raises(end):
                await anext(outcomes)


@pytest.mark.parametrize("feeds", [False, True], ids=["list", "feed"])
async def test_long_work_is_cut_into_slices(
    monkeypatch: pytest.MonkeyPatch,
    feeds: bool,  # noqa: FBT001 - two kinds of input
) -> None:
    """Other tasks have a turn while many ids are read, and while they are let go."""
    monkeypatch.setattr("kling_omni_async._engine.SLICE_S", -1.0)
    session, _, inside = new_session(("pending", 0.0, 1))
    ids = [f"id-{number}" for number in range(50)]
    async with session:
        async with session.poll(PlainFeed(*ids) if feeds else ids) as outcomes:
            while inside._watched < len(ids):
                before = inside._watched
                await asyncio.sleep(0)
                assert inside._watched <= before + 1
        assert outcomes.pending == set(ids)
        await give_way(3)
        assert 0 < inside._watched < len(ids)
        await give_way(len(ids))
        assert inside._watched == 0


async def test_a_query_waits_for_no_429() -> None:
    """A query by hand goes through a pause, and its good answer does not end it."""
    session, transport, _ = new_session(("succeed", 0.0, 1))
    transport.scripts["a"] = spoken([("429 for 40 s", 0.0, 1), ("succeed", 0.0, 1)])
    async with session:
        waits = [asyncio.ensure_future(session.wait(task_id)) for task_id in "ab"]
        await asyncio.sleep(1.0)
        await session.query("c")
        assert [start.task_id for start in transport.starts] == ["a", "c"]
        await asyncio.gather(*waits)
        assert min(transport.times_of("b")) >= 40.0


async def test_no_timer_is_set_when_nothing_is_due() -> None:
    """One timer serves the whole session, and none is left when nobody waits."""
    session, transport, inside = new_session(("pending", 0.0, 1))
    async with session:
        with pytest.raises(PollTimeoutError):
            await session.wait("a", timeout=100.0)
        await asyncio.sleep(100.0)
        assert (inside.next_event(), poller_of(session)._timer) == (NEVER, None)
    assert len(transport.starts) in {4, 5}


async def test_an_input_may_wait_in_its_clean_up_for_one_who_waits_here() -> None:
    """Who waits is told before inputs have closed, so a feed that awaits him does not hang."""
    session, _, _ = new_session(("pending", 0.0, 1))
    waiting = asyncio.ensure_future(session.wait("a"))

    async def feed() -> AsyncIterator[str]:
        try:
            yield "b"
            await asyncio.sleep(1e6)
        finally:
            await asyncio.wait([waiting])

    async with session:
        stream = session.poll(feed())
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(1.0)
    assert isinstance(waiting.exception(), SessionClosedError)
    with pytest.raises(SessionClosedError):
        await reading


@pytest.mark.parametrize("ends", ["close", "a defect"])
async def test_a_wait_does_not_time_out_while_an_input_cleans_up(ends: str) -> None:
    """Closing ends a wait at once, however long the clean-up of an input takes."""
    session, _, _ = new_session(("pending", 0.0, 1))
    waiting = asyncio.ensure_future(session.wait("a", timeout=7.0))

    async def feed() -> AsyncIterator[str]:
        try:
            yield "b"
            await asyncio.sleep(1e6)
        finally:
            await asyncio.sleep(10.0)

    stream = session.poll(feed())
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(1.0)
    if ends == "a defect":
        session._wings.engine.fail(ZeroDivisionError())
    await session.aclose()
    assert scripted.now() == pytest.approx(11.0)
    errors = await asyncio.gather(waiting, reading, return_exceptions=True)
    kind = SessionClosedError if ends == "close" else ZeroDivisionError
    assert [type(error) for error in errors] == [kind, kind]


async def all_of(stream: OutcomeStream) -> list[TaskOutcome]:
    """Read a stream to its end."""
    return [outcome async for outcome in stream]


async def test_a_parked_task_that_was_cancelled_gets_no_query() -> None:
    """In the pass in which an outsider cancels it, the id goes to another; then all ends."""
    session, _, _ = new_session(("succeed", 0.0, 1), max_rate=None)
    assert (await session.wait("a")).images
    (parked,) = (
        task for task in asyncio.all_tasks() if task.get_name() == "kling_omni_async.query"
    )
    waiting = asyncio.ensure_future(session.wait("b"))
    parked.cancel()
    with pytest.raises(SessionClosedError):
        await waiting
    await session.aclose()


async def test_a_stream_that_is_opened_while_all_others_end_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An id that comes anew in the very moment in which all waiting ends is polled all the same."""
    monkeypatch.setattr("kling_omni_async._engine.SLICE_S", -1.0)  # each step a slice of its own
    transport = ScriptedTransport({"a": [Line(scripted.SUCCEED)]})
    transport.default = Line(scripted.UNAUTHORIZED)
    async with scripted_session(transport) as session:
        waiting = [asyncio.ensure_future(session.wait(f"{number}")) for number in range(200)]
        waiting.append(asyncio.ensure_future(session.wait("a")))
        async with session.poll([]):  # it has ended already
            with pytest.raises(AuthenticationError):
                await waiting[0]
            async with session.poll(["a"]) as later:
                assert (await anext(later)).task_id == "a"
        ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(end) for end in ends} == {AuthenticationError}


async def test_an_idle_connection_with_a_stray_answer_is_given_up_for_books_too() -> None:
    """What a claim of a book met is judged outside; a stray answer costs the idle connections."""
    transport = ScriptedTransport()
    async with scripted_session(transport) as session:
        stray = ResponseError("about another task", task_id="b", http_status=200)
        verdict = Verdict(VerdictKind.FAULT, error=stray)
        decision = Decision(stray, verdict, [], 0.0, "a", ends_all=False, stretch=1.0)
        poller = poller_of(session)
        poller.judged(Entry("b"), decision, None, took_s=0.0, late_s=0.0, age_s=None)
        assert transport.given_up == 1
        assert session.stats().faults == {"ResponseError (HTTP 200)": 1}


async def test_a_429_of_the_same_burst_lengthens_no_pause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Requests that met one limit together close the gate once, and the log tells it once."""
    async with scripted_session(
        ScriptedTransport({"7": scripted.lines(scripted.SUCCEED)})
    ) as session:
        await session.wait("7")
        poller = poller_of(session)
        started = asyncio.get_running_loop().time()
        error = RateLimitError("", retry_after=5.0)
        for _ in range(2):
            poller.limited(error, started=started)
    assert [record.message for record in caplog.records if "throttled" in record.message] == [
        "throttled by the API: no scheduled query for 5.0 s"
    ]
