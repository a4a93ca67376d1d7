"""Many ids at a time: who is served when more is due than the pace or the places can carry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count, pairwise

import pytest

from kling_omni_async import PollPolicy, PollTimeoutError, RateLimitError
from kling_omni_async._api.answers import Answer
from kling_omni_async.errors import KlingOmniError

from .polling import scripted
from .polling.scripted import Line, ScriptedTransport, now, scripted_session

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("max_rate", [None, 40.0])
async def test_a_flood_of_newcomers_starves_nobody(max_rate: float | None) -> None:
    """A feed that brings more new ids than can be asked leaves every second start to the others."""
    transport = ScriptedTransport()
    transport.default = Line(scripted.PENDING, after=0.05)
    policy = PollPolicy(interval=(0.3, 0.5), max_rate=max_rate, max_concurrency=2)

    async def feed() -> AsyncIterator[str]:
        for number in count():
            yield f"{number}"
            await asyncio.sleep(0.02)

    async with scripted_session(transport, policy) as session, session.poll(feed()):
        waiting = asyncio.ensure_future(session.wait("mine"))
        await asyncio.sleep(30.0)
        waiting.cancel()
    # Half of the starts go to what is overdue, in the order in which it became due.
    repeats = len(transport.starts) - len({start.task_id for start in transport.starts})
    assert repeats >= 0.45 * len(transport.starts)
    assert len(transport.times_of("mine")) > 1
    assert len(transport.times_of("0")) > 1


async def test_a_newcomer_is_asked_at_once_however_slow_the_answers_are() -> None:
    """Beside a crowd whose answers take 10 s, a first query has the next free place."""
    transport = ScriptedTransport()
    transport.default = Line(scripted.PENDING, after=10.0)
    many = [f"{number}" for number in range(2500)]
    async with scripted_session(transport) as session, session.poll(many):
        await asyncio.sleep(300.0)
        called = now()
        waiting = asyncio.ensure_future(session.wait("mine"))
        await asyncio.sleep(1.0)
        waiting.cancel()
        assert transport.times_of("mine")[0] - called <= 0.25


async def test_gaps_shrink_at_once_when_the_crowd_has_gone() -> None:
    """A pause is never stretched: 40 s after 10,000 ids were left, no gap is over 30 s."""
    transport = ScriptedTransport()
    transport.default = Line(scripted.PENDING)
    few, many = [f"few {n}".replace(" ", "") for n in range(10)], [f"{n}" for n in range(10_000)]
    async with scripted_session(transport) as session, session.poll(few, timeout=None):
        async with session.poll(many, timeout=None):
            await asyncio.sleep(400.0)
        left = now()
        await asyncio.sleep(200.0)
    crowded = [gap for n in few for gap in gaps(transport.times_of(n)) if gap]
    assert max(crowded) > 90.0
    after = [t for n in few for t in gaps([t for t in transport.times_of(n) if t > left + 40.0])]
    assert max(after) <= 30.0


async def test_gaps_of_a_crowd_are_even() -> None:
    """5,000 ids at 50 a second: once all turns are taken, each is asked every 100 s or so."""
    transport = ScriptedTransport()
    transport.default = Line(scripted.PENDING)
    policy = PollPolicy(max_rate=50.0)
    many = [f"{n}" for n in range(5000)]
    async with scripted_session(transport, policy) as session, session.poll(many, timeout=None):
        await asyncio.sleep(900.0)
    found = sorted(
        gap for n in many[::10] for gap in gaps([t for t in transport.times_of(n) if t > 400.0])
    )
    assert found[0] >= 90.0
    assert found[-1] <= 110.0


async def test_an_id_of_a_crowd_keeps_its_own_pause_when_the_crowd_has_gone() -> None:
    """1,000 ids are left: a wait for one of them alone is asked when its own pause is over."""
    transport = ScriptedTransport()
    transport.default = Line(scripted.PENDING)
    policy = PollPolicy(interval=(2.0, 3.0), max_rate=100.0)
    many = [f"{n}" for n in range(1000)]
    async with scripted_session(transport, policy) as session:
        async with session.poll(many):
            await asyncio.sleep(10.5)
        with pytest.raises(PollTimeoutError):
            await session.wait(transport.starts[-1].task_id, timeout=5.0)
    assert transport.starts[-1].at - transport.times_of(transport.starts[-1].task_id)[-2] <= 3.0


def gaps(times: list[float]) -> list[float]:
    """Return the times between the starts of one id's queries, in s."""
    return [after - before for before, after in pairwise(times)]


async def test_a_timeout_under_a_pause_says_what_held_the_id_back() -> None:
    """An id that a 429 pause kept from being asked has that 429 as its last error."""
    script = {"busy": [Line(scripted.limited("60"))]}
    transport = ScriptedTransport(script)
    async with scripted_session(transport) as session:
        with pytest.raises(RateLimitError):
            await session.query("busy")
        with pytest.raises(PollTimeoutError, match="held back: HTTP 429") as caught:
            await session.wait("mine", timeout=10.0)
    last = caught.value.last_error
    assert isinstance(last, RateLimitError)
    assert last.task_id == "mine"
    assert transport.times_of("mine") == []


async def test_a_timeout_at_a_slow_pace_says_what_held_the_id_back() -> None:
    """An id that the pace kept from being asked says which limits did."""
    transport = ScriptedTransport()
    policy = PollPolicy(max_rate=0.01)
    async with scripted_session(transport, policy) as session:
        await session.query("first")
        with pytest.raises(PollTimeoutError, match=r"held back: .*max_rate=0\.01") as caught:
            await session.wait("mine", timeout=10.0)
    assert isinstance(caught.value.last_error, KlingOmniError)


async def test_an_answer_about_another_watched_id_is_refused() -> None:
    """What lay on an idle connection is nobody's success; the id is asked again."""
    stray = scripted.answer(
        200,
        {
            "code": 0,
            "data": {
                "task_id": "other",
                "task_status": "succeed",
                "task_result": {"images": [{"url": "https://img.example/other.png"}]},
            },
        },
    )
    transport = ScriptedTransport(
        {
            "mine": [Line(scripted.PENDING), Line(stray), Line(scripted.SUCCEED)],
            "other": [Line(scripted.PENDING)],
            "alone": [Line(stray)],
        }
    )
    async with scripted_session(transport) as session:
        # A stranger's id is its gateway's affair.
        assert (await session.wait("alone")).images
        other = asyncio.ensure_future(session.wait("other"))
        await asyncio.sleep(1.0)
        task = await session.wait("mine")
        other.cancel()
    assert [image.url for image in task.images] == ["https://img.example/0.png"]
    assert len(transport.times_of("mine")) == 3
    assert transport.given_up == 1


async def test_queries_by_hand_do_not_confirm_each_other() -> None:
    """Answers less than a pause apart count as one, whoever asked: an id may appear late."""
    lines = [Line(scripted.NOT_FOUND)] * 4 + [Line(scripted.SUCCEED)]
    transport = ScriptedTransport({"mine": lines})
    policy = PollPolicy(interval=(0.3, 0.5), max_rate=None)
    async with scripted_session(transport, policy) as session:
        waiting = asyncio.ensure_future(session.wait("mine"))
        for _ in range(3):
            await asyncio.sleep(0.05)
            with pytest.raises(KlingOmniError):
                await session.query("mine")
        assert (await waiting).images


async def test_no_query_is_cancelled_in_quadratic_time() -> None:
    """20,000 calls of `query` that are cancelled leave nothing behind, and send nothing."""
    transport = ScriptedTransport()
    transport.default = Line(Answer(502, b""))
    async with scripted_session(transport, PollPolicy(max_rate=0.001)) as session:
        first = asyncio.ensure_future(session.query("first"))
        await asyncio.sleep(0.1)
        calls = [asyncio.ensure_future(session.query(f"{n % 100}")) for n in range(20_000)]
        await asyncio.sleep(0.1)
        for call in calls:
            call.cancel()
        await asyncio.gather(first, *calls, return_exceptions=True)
        assert "ids=1 watched=0" in repr(session)
        assert "asked=0" in repr(session)
    assert len(transport.starts) == 1


async def test_a_crowd_that_was_left_is_passed_over_in_portions() -> None:
    """Ids that were left and fall due at once do not hold the loop: other tasks run between."""
    transport = ScriptedTransport()
    transport.default = Line(scripted.PENDING)
    policy = PollPolicy(interval=(20.0, 20.0), max_rate=None)
    async with scripted_session(transport, policy) as session:
        async with session.poll([f"{n}" for n in range(5000)]):
            await asyncio.sleep(10.0)
        await asyncio.sleep(20.0 - now())
        passes = 0
        while "ids=0" not in repr(session):
            passes += 1
            await asyncio.sleep(0)
        assert 5 <= passes <= 15
