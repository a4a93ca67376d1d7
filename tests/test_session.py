"""The verbs of a session, against the simulator over real sockets on a virtual clock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kling_omni_async import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InvalidTaskIdError,
    KlingOmniSession,
    NoImagesError,
    PollPolicy,
    PollTimeoutError,
    ResponseError,
    ServerError,
    SessionClosedError,
    TaskFailedError,
    TaskNotFoundError,
    TaskStatus,
    TransportError,
)
from kling_omni_async.simulator import SimulatedCometAPI

from .support import WEB_PAGE, all_of, new_session, now, now_waiting, open_session

pytestmark = pytest.mark.anyio


async def test_wait_gives_the_task_that_succeeded(comet_api: SimulatedCometAPI) -> None:
    """`wait` returns the record of a task once it has succeeded, with all its images."""
    task_id = comet_api.create_task(duration=40, images=2)
    async with open_session(comet_api) as session:
        task = await session.wait(task_id)
    assert task.task_id == task_id
    assert task.status is TaskStatus.SUCCEED
    assert len(task.images) == 2
    assert 40 <= now() <= 70


async def test_wait_raises_the_apis_own_reason(comet_api: SimulatedCometAPI) -> None:
    """A failed task raises `TaskFailedError` whose text is the API's reason."""
    task_id = comet_api.create_task(duration=1, fail="Image pixel is invalid")
    async with open_session(comet_api) as session:
        with pytest.raises(TaskFailedError, match=r"^Image pixel is invalid$") as caught:
            await session.wait(task_id)
    assert caught.value.task_id == task_id
    assert caught.value.task is not None
    assert caught.value.task.status is TaskStatus.FAILED


async def test_an_unknown_id_is_believed_after_two_answers(comet_api: SimulatedCometAPI) -> None:
    """`task_not_exist` ends a wait only when a second query has met it too."""
    async with open_session(comet_api) as session:
        with pytest.raises(TaskNotFoundError):
            await session.wait("404040404040404040")
    assert len(comet_api.queries_of("404040404040404040")) == 2
    assert 20 <= now() <= 30


async def test_a_task_that_appears_late_is_found(comet_api: SimulatedCometAPI) -> None:
    """One `task_not_exist` for a task just created does not end its wait."""
    task_id = comet_api.create_task(duration=5)
    comet_api.fail_next(task_id, not_found=True)
    async with open_session(comet_api) as session:
        assert (await session.wait(task_id)).status is TaskStatus.SUCCEED


async def test_doubts_count_only_in_a_row(comet_api: SimulatedCometAPI) -> None:
    """A good answer between two `task_not_exist` answers makes the first one forgotten."""
    task_id = comet_api.create_task(duration=70)
    comet_api.fail_next(task_id, not_found=True)
    async with open_session(comet_api) as session:
        waiting = asyncio.ensure_future(session.wait(task_id))
        await comet_api.wait_for_queries(2, task_id)
        comet_api.fail_next(task_id, not_found=True)
        assert (await waiting).status is TaskStatus.SUCCEED


async def test_success_without_images_needs_confirmation(comet_api: SimulatedCometAPI) -> None:
    """A success without a usable URL raises `NoImagesError` when it was said twice."""
    task_id = comet_api.create_task(duration=1, images=0)
    async with open_session(comet_api) as session:
        with pytest.raises(NoImagesError) as caught:
            await session.wait(task_id)
    assert caught.value.task is not None
    answers = [query.status for query in comet_api.queries_of(task_id)]
    assert len(answers) == 3  # submitted, then twice without images


async def test_query_asks_once_and_judges_nothing(comet_api: SimulatedCometAPI) -> None:
    """`query` gives the task as it is by one GET, finished or not, failed or not."""
    fresh, failed = comet_api.create_task(duration=40), comet_api.create_task(fail="no", duration=0)
    async with open_session(comet_api) as session:
        assert (await session.query(fresh)).status is TaskStatus.SUBMITTED
        assert (await session.query(failed)).status is TaskStatus.FAILED
    assert len(comet_api.queries) == 2


async def test_query_raises_the_first_not_found(comet_api: SimulatedCometAPI) -> None:
    """`query` believes a single `task_not_exist`."""
    async with open_session(comet_api) as session:
        with pytest.raises(TaskNotFoundError):
            await session.query("404040404040404040")


async def test_queries_of_one_id_share_a_get(comet_api: SimulatedCometAPI) -> None:
    """Calls of `query` for one id at the same time cause one GET."""
    task_id = comet_api.create_task()
    async with open_session(comet_api) as session:
        tasks = await asyncio.gather(*[session.query(task_id) for _ in range(5)])
    assert len({id(task) for task in tasks}) == 1
    assert len(comet_api.queries) == 1


async def test_a_query_is_shared_with_those_who_wait(comet_api: SimulatedCometAPI) -> None:
    """An answer to `query` ends a wait for the same id at once."""
    task_id = comet_api.create_task(duration=40)
    async with open_session(comet_api) as session:
        waiting = asyncio.ensure_future(session.wait(task_id))
        await comet_api.wait_for_queries(1, task_id)
        await asyncio.sleep(1)
        comet_api.finish(task_id)
        await session.query(task_id)
        assert (await waiting).task_id == task_id
    assert now() == pytest.approx(1)


async def test_a_query_restarts_the_pause(comet_api: SimulatedCometAPI) -> None:
    """After a query by hand the next scheduled one comes a whole pause later."""
    task_id = comet_api.create_task(duration=60)
    async with open_session(comet_api) as session:
        waiting = asyncio.ensure_future(session.wait(task_id))
        await asyncio.sleep(15)
        await session.query(task_id)
        await waiting
    starts = [query.started for query in comet_api.queries_of(task_id)]
    assert starts[:2] == [0, 15]
    assert all(20 <= gap <= 30 for gap in comet_api.gaps(task_id)[1:])


async def test_a_cancelled_query_is_not_sent(comet_api: SimulatedCometAPI) -> None:
    """A call of `query` that is cancelled before its turn sends nothing."""
    task_id, other = comet_api.create_task(), comet_api.create_task()
    async with open_session(comet_api, max_rate=0.1) as session:
        await session.query(other)
        call = asyncio.ensure_future(session.query(task_id))
        await now_waiting()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(60)
    assert comet_api.queries_of(task_id) == ()


async def test_one_cancelled_query_leaves_the_others(comet_api: SimulatedCometAPI) -> None:
    """Of two calls of `query` for one id, cancelling one leaves the other its answer."""
    task_id = comet_api.create_task()
    async with open_session(comet_api) as session:
        calls = [asyncio.ensure_future(session.query(task_id)) for _ in range(2)]
        await now_waiting()
        calls[0].cancel()
        assert (await calls[1]).task_id == task_id
        assert calls[0].cancelled()


async def test_watch_gives_each_status_once(comet_api: SimulatedCometAPI) -> None:
    """`watch` gives the first answer, each change and the final answer, then ends."""
    task_id = comet_api.create_task(duration=100)
    async with open_session(comet_api) as session, session.watch(task_id) as updates:
        seen = [task.status async for task in updates]
        assert [task async for task in updates] == []
    assert seen == [TaskStatus.SUBMITTED, TaskStatus.PROCESSING, TaskStatus.SUCCEED]


async def test_watch_gives_a_failed_task_as_its_last(comet_api: SimulatedCometAPI) -> None:
    """A failed task is the last record of `watch`, not an error."""
    task_id = comet_api.create_task(duration=0, fail="no")
    async with open_session(comet_api) as session:
        assert [task.status async for task in session.watch(task_id)] == [TaskStatus.FAILED]


async def test_watch_raises_every_other_final_error(comet_api: SimulatedCometAPI) -> None:
    """`watch` raises what is final and no task, at each further step too."""
    async with open_session(comet_api) as session:
        updates = session.watch("404040404040404040")
        for _ in range(2):
            with pytest.raises(TaskNotFoundError):
                await anext(updates)


async def test_watch_deadline_runs_from_the_call(comet_api: SimulatedCometAPI) -> None:
    """The time of `watch` runs from the call, not from the first step."""
    task_id = comet_api.create_task(duration=1000)
    async with open_session(comet_api) as session:
        updates = session.watch(task_id, timeout=50)
        await asyncio.sleep(10)
        with pytest.raises(PollTimeoutError):
            _ = [task async for task in updates]
    assert now() == pytest.approx(50)


@pytest.mark.parametrize("timeout", [30, None])
def test_watch_may_be_called_before_a_loop_runs(timeout: float | None) -> None:
    """`watch` and `poll` need no running loop until their first step."""
    session = KlingOmniSession("sk-key-of-a-test")
    assert repr(session.watch("1", timeout=timeout)) == "<TaskUpdates not started of '1'>"
    assert "not started" in repr(session.poll(["1"], timeout=timeout))


async def test_a_watch_before_its_loop_counts_from_the_first_step(
    comet_api: SimulatedCometAPI,
) -> None:
    """Where `watch` was called without a loop its time runs from the first step."""
    task_id = comet_api.create_task(duration=1000)
    async with open_session(comet_api) as session:
        make = asyncio.to_thread(session.watch, task_id, timeout=50)
        updates = await make
        await asyncio.sleep(10)
        started = now()
        with pytest.raises(PollTimeoutError):
            _ = [task async for task in updates]
    assert now() - started == pytest.approx(50)


async def test_a_deadline_says_what_was_last_seen(comet_api: SimulatedCometAPI) -> None:
    """`PollTimeoutError` carries the last task, and no fault where the API has answered."""
    task_id = comet_api.create_task(duration=1000)
    async with open_session(comet_api) as session:
        with pytest.raises(PollTimeoutError, match="processing") as caught:
            await session.wait(task_id, timeout=200)
    assert now() == pytest.approx(200)
    assert caught.value.task is not None
    assert caught.value.task.status is TaskStatus.PROCESSING
    assert caught.value.last_error is None
    assert isinstance(caught.value, TimeoutError)


async def test_a_deadline_tells_that_the_api_is_down(comet_api: SimulatedCometAPI) -> None:
    """`PollTimeoutError` carries the last fault where the API gives none but faults."""
    task_id = comet_api.create_task(duration=1)
    comet_api.fail_next(times=None, status=502, body="<html>bad gateway</html>")
    async with open_session(comet_api, timeout=100) as session:
        with pytest.raises(PollTimeoutError, match="502") as caught:
            await session.wait(task_id)
    assert caught.value.task is None
    assert isinstance(caught.value.last_error, ServerError)


async def test_success_within_the_grace_wins(comet_api: SimulatedCometAPI) -> None:
    """A final answer to a query in flight at the deadline wins if it comes within 5 s."""
    task_id = comet_api.create_task(duration=0)
    comet_api.fail_next(task_id, delay=14)
    async with open_session(comet_api) as session:
        task = await session.wait(task_id, timeout=10)
    assert task.status is TaskStatus.SUCCEED
    assert now() == pytest.approx(14)


async def test_a_wait_ends_five_seconds_after_its_deadline(comet_api: SimulatedCometAPI) -> None:
    """A query that hangs holds a wait no longer than 5 s past its deadline."""
    task_id = comet_api.create_task(duration=0)
    comet_api.fail_next(task_id, hang=True)
    async with open_session(comet_api) as session:
        with pytest.raises(PollTimeoutError):
            await session.wait(task_id, timeout=6)
    assert now() == pytest.approx(11)


async def test_a_final_answer_is_kept_for_a_pause(comet_api: SimulatedCometAPI) -> None:
    """Who comes back within the pause gets a final answer without a query."""
    task_id = comet_api.create_task(duration=0)
    async with open_session(comet_api) as session:
        first = await session.wait(task_id)
        assert await session.wait(task_id) == first
        (outcome,) = await all_of(session, [task_id])
        assert outcome.ok
        assert outcome.queries == 0
        assert [task async for task in session.watch(task_id)] == [first]
        assert len(comet_api.queries) == 1
        await asyncio.sleep(31)
        await session.wait(task_id)
    assert len(comet_api.queries) == 2


async def test_a_newcomer_to_watch_gets_the_last_answer(comet_api: SimulatedCometAPI) -> None:
    """`watch` begins with the last answer if the id's pause is not yet over."""
    task_id = comet_api.create_task(duration=1000)
    async with open_session(comet_api) as session:
        await session.query(task_id)
        await asyncio.sleep(10)
        async with session.watch(task_id) as updates:
            assert (await anext(updates)).status is TaskStatus.SUBMITTED
        assert now() == 10


async def test_fifty_waiters_that_come_and_go_poll_no_faster(
    comet_api: SimulatedCometAPI,
) -> None:
    """50 waiters of one id, all leaving and returning twice in 10 intervals, never add a query."""
    task_id = comet_api.create_task(duration=260)

    async def come_and_go(session: KlingOmniSession, number: int) -> None:
        for stay in (20 + number, 30 + number / 2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(stay):
                    await session.wait(task_id)
            await asyncio.sleep(number % 7)
        assert (await session.wait(task_id)).status is TaskStatus.SUCCEED

    async with open_session(comet_api) as session:
        await asyncio.gather(*[come_and_go(session, number) for number in range(50)])
    gaps = comet_api.gaps(task_id)
    assert len(gaps) >= 9
    assert min(gaps) >= 20
    assert max(gaps) <= 30


async def test_a_fault_costs_one_pause(comet_api: SimulatedCometAPI) -> None:
    """After a 502, a cut-off body or a hang the id is asked again after its pause, no sooner."""
    task_id = comet_api.create_task(duration=0)
    async with open_session(comet_api) as session:
        await session.query(comet_api.create_task())
        comet_api.fail_next(task_id, status=502)
        comet_api.fail_next(task_id, cut_after=10)
        comet_api.fail_next(task_id, hang=True)
        comet_api.fail_next(task_id, reset=True, times=2)
        assert (await session.wait(task_id)).status is TaskStatus.SUCCEED
    gaps = [gap for gap in comet_api.gaps(task_id) if gap > 0]
    assert len(gaps) >= 3
    assert all(20 <= gap <= 46 for gap in gaps)


async def test_a_web_page_as_first_answer_ends_a_wait(comet_api: SimulatedCometAPI) -> None:
    """A set-up that has never answered like the API is wrong: the wait ends at once."""
    task_id = comet_api.create_task()
    comet_api.fail_next(body=WEB_PAGE)
    async with open_session(comet_api) as session:
        with pytest.raises(ResponseError) as caught:
            await session.wait(task_id)
    assert now() == 0
    assert "Welcome" in caught.value.snippet


async def test_a_web_page_in_mid_batch_ends_nothing(comet_api: SimulatedCometAPI) -> None:
    """Once the API has answered, a web page is a passing fault."""
    task_ids = [comet_api.create_task(duration=50) for _ in range(5)]
    async with open_session(comet_api) as session:
        await session.query(task_ids[0])
        comet_api.fail_next(times=10, body=WEB_PAGE)
        outcomes = await all_of(session, task_ids)
    assert all(outcome.ok for outcome in outcomes)


async def test_a_refused_key_ends_everything_at_once(comet_api: SimulatedCometAPI) -> None:
    """A 401 before any good answer ends waits and streams, and the stream raises each time."""
    task_id = comet_api.create_task()
    comet_api.fail_next(times=None, status=401)
    async with open_session(comet_api) as session:
        waiting = asyncio.ensure_future(session.wait(task_id))
        stream = session.poll([task_id, "another"])
        for _ in range(2):
            with pytest.raises(AuthenticationError):
                await anext(stream)
        with pytest.raises(AuthenticationError):
            await waiting
        assert set(stream.pending) == {task_id, "another"}
        with pytest.raises(AuthenticationError):
            await session.wait(task_id)


async def test_one_401_in_the_middle_passes(comet_api: SimulatedCometAPI) -> None:
    """A single 401 among good answers ends nothing."""
    task_id = comet_api.create_task(duration=60)
    async with open_session(comet_api) as session:
        await session.query(task_id)
        comet_api.fail_next(status=401)
        assert (await session.wait(task_id)).status is TaskStatus.SUCCEED


async def test_a_lasting_401_ends_everything(comet_api: SimulatedCometAPI) -> None:
    """A second 401 to a query that started an interval later ends everything."""
    task_id = comet_api.create_task(duration=60)
    async with open_session(comet_api) as session:
        await session.query(task_id)
        comet_api.fail_next(times=None, status=401)
        with pytest.raises(AuthenticationError):
            await session.wait(task_id)
    assert len(comet_api.queries) == 3
    assert 40 <= now() <= 60


async def test_a_permanent_refusal_ends_one_id_only(comet_api: SimulatedCometAPI) -> None:
    """A permanent error of one id leaves the others alone."""
    bad, good = comet_api.create_task(duration=30), comet_api.create_task(duration=30)
    comet_api.fail_next(bad, status=400, body={"code": 1200, "message": "no"})
    async with open_session(comet_api) as session:
        outcomes = {outcome.task_id: outcome for outcome in await all_of(session, [bad, good])}
    assert type(outcomes[bad].error) is ApiError
    assert outcomes[good].ok


async def test_a_429_pauses_all_scheduled_queries(comet_api: SimulatedCometAPI) -> None:
    """After a 429 no scheduled query starts before `Retry-After`, and then one goes first."""
    task_ids = [comet_api.create_task(duration=35) for _ in range(20)]
    async with open_session(comet_api, max_rate=None) as session:
        comet_api.fail_next(task_ids[0], status=429, retry_after=40)
        comet_api.fail_next(task_ids[1], delay=45)
        outcomes = await all_of(session, task_ids)
    assert all(outcome.ok for outcome in outcomes)
    starts = [query.started for query in comet_api.queries]
    assert starts[20:22] != [40, 40] or comet_api.queries[20].finished == 40
    assert not [start for start in starts if 0 < start < 40]


async def test_a_query_by_hand_does_not_wait_for_a_429(comet_api: SimulatedCometAPI) -> None:
    """`query` goes out during a pause and does not end it."""
    task_id = comet_api.create_task(duration=5)
    comet_api.fail_next(task_id, status=429, retry_after=100)
    async with open_session(comet_api) as session:
        waiting = asyncio.ensure_future(session.wait(task_id))
        await asyncio.sleep(10)
        assert (await session.query(task_id)).status is TaskStatus.SUCCEED
        assert (await waiting).status is TaskStatus.SUCCEED
    assert now() == 10


async def test_the_pace_is_even(comet_api: SimulatedCometAPI) -> None:
    """The first queries of a batch start one after the other at `max_rate`."""
    task_ids = [comet_api.create_task(duration=0) for _ in range(50)]
    async with open_session(comet_api, max_rate=10) as session:
        await all_of(session, task_ids)
    starts = [query.started for query in comet_api.queries]
    assert starts == pytest.approx([number / 10 for number in range(50)])


async def test_a_newcomer_goes_before_a_crowd(comet_api: SimulatedCometAPI) -> None:
    """A first query starts at once although a batch fills the pace for minutes."""
    crowd = [comet_api.create_task(duration=0) for _ in range(300)]
    newcomer = comet_api.create_task(duration=0)
    async with open_session(comet_api, max_rate=1) as session, session.poll(crowd) as outcomes:
        await anext(outcomes)
        await asyncio.sleep(20)
        await session.wait(newcomer)
    (query,) = comet_api.queries_of(newcomer)
    assert query.started <= 22


@pytest.mark.parametrize(("bad", "words"), [("", "empty"), ("a?b", "URL"), ("../x", "segment")])
async def test_a_bad_id_is_refused_before_anything_is_sent(
    comet_api: SimulatedCometAPI, bad: str, words: str
) -> None:
    """`query`, `wait` and `watch` raise for an id that cannot be one and send nothing."""
    async with open_session(comet_api) as session:
        with pytest.raises(InvalidTaskIdError, match=words):
            await session.query(bad)
        with pytest.raises(InvalidTaskIdError, match=words):
            await session.wait(bad)
        with pytest.raises(InvalidTaskIdError, match=words):
            session.watch(bad)
    assert comet_api.queries == ()


async def test_an_id_with_a_slash_is_one_segment(comet_api: SimulatedCometAPI) -> None:
    """A base64-like id with `/`, `+` and `=` is asked for as one percent-encoded segment."""
    task_id = comet_api.create_task(task_id="ab/c+d==", duration=0)
    async with open_session(comet_api) as session:
        assert (await session.query(task_id)).task_id == task_id
    assert comet_api.queries[0].path == "/kling/v1/images/omni-image/ab%2Fc%2Bd%3D%3D"


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", True])
async def test_a_bad_timeout_names_itself(comet_api: SimulatedCometAPI, timeout: Any) -> None:
    """Each verb refuses a time limit that is none."""
    async with open_session(comet_api) as session:
        with pytest.raises(ConfigurationError, match="timeout"):
            await session.wait("1", timeout=timeout)
        with pytest.raises(ConfigurationError, match="timeout"):
            session.watch("1", timeout=timeout)
        with pytest.raises(ConfigurationError, match="timeout"):
            session.poll(["1"], timeout=timeout)


async def test_a_closed_session_refuses_every_verb(comet_api: SimulatedCometAPI) -> None:
    """After `aclose` each verb raises `SessionClosedError`; closing again does no harm."""
    session = new_session(comet_api)
    await session.aclose()
    await session.aclose()
    assert session.closed
    with pytest.raises(SessionClosedError):
        await session.query("1")
    with pytest.raises(SessionClosedError):
        await session.wait("1")
    with pytest.raises(SessionClosedError):
        await anext(session.watch("1"))
    with pytest.raises(SessionClosedError):
        await anext(session.poll(["1"]))
    with pytest.raises(SessionClosedError):
        async with session:
            pass


async def test_nobody_there_is_a_transport_error(comet_api: SimulatedCometAPI) -> None:
    """A refused connection is a `TransportError` that says so."""
    base_url = comet_api.base_url
    await comet_api.aclose()
    async with KlingOmniSession("sk-key-of-a-test", base_url=base_url) as session:
        with pytest.raises(TransportError) as caught:
            await session.query("1")
    assert caught.value.reason == "connect"


def test_a_session_shows_its_state_but_no_key() -> None:
    """The repr of a session tells where it sends and what it does."""
    session = KlingOmniSession("sk-key-of-a-test", policy=PollPolicy(timeout=5))
    assert repr(session).startswith("<KlingOmniSession https://api.cometapi.com <Poller not st")
    assert "sk-key" not in repr(session)
    assert session.policy.timeout == 5


def test_too_short_an_interval_draws_a_warning() -> None:
    """An interval under 15 s against the real API is warned of where the session is made."""
    with pytest.warns(UserWarning, match="15 s") as caught:
        KlingOmniSession("sk-key-of-a-test", policy=PollPolicy(interval=(5, 10)))
    assert caught[0].filename == __file__


async def test_a_deadline_tells_of_an_unconfirmed_refusal(comet_api: SimulatedCometAPI) -> None:
    """A wait too short to confirm that an id is unknown ends with that refusal as `last_error`."""
    async with open_session(comet_api) as session:
        with pytest.raises(PollTimeoutError) as caught:
            await session.wait("404404", timeout=10)
    assert isinstance(caught.value.last_error, TaskNotFoundError)


async def test_the_end_of_everything_names_each_ones_own_id(comet_api: SimulatedCometAPI) -> None:
    """An error that ends all waiting carries the id that its catcher waited for."""
    comet_api.fail_next(status=401)
    async with open_session(comet_api, max_rate=1) as session:
        calls = [session.wait(task_id) for task_id in ("1", "2", "3")]
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [AuthenticationError] * 3
    assert [getattr(error, "task_id", None) for error in errors] == ["1", "2", "3"]


async def test_many_deadlines_at_once_are_all_kept(comet_api: SimulatedCometAPI) -> None:
    """1,200 waits whose time is up at the same moment all end at that moment."""
    async with open_session(comet_api, max_rate=0.01) as session:
        await session.query(comet_api.create_task())
        calls = [session.wait(f"{number}", timeout=10) for number in range(1200)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in errors} == {PollTimeoutError}
    assert now() == pytest.approx(10)
