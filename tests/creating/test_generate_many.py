"""`generate_many`: each order comes out once, no more run than there is room for."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncGenerator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kling_omni_async import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    CreateUncertainError,
    DuplicateOrderError,
    ImageOrder,
    KlingOmniSession,
    OutcomeStream,
    PollTimeoutError,
    RateLimitError,
    SessionClosedError,
    TaskFailedError,
    TaskOutcome,
    TransportError,
)
from kling_omni_async._creating.stream import OrderStream
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import new_session, now, now_waiting, open_session

from .test_create import posts, warnings_in

pytestmark = pytest.mark.anyio


def foxes(count: int, **fields: Any) -> list[ImageOrder]:
    """Make some orders."""
    return [ImageOrder(f"fox {number}", **fields) for number in range(count)]


async def all_of(outcomes: OutcomeStream) -> list[TaskOutcome]:
    """Read a stream to its end; what it counts adds up at each step."""
    found: list[TaskOutcome] = []
    async with outcomes:
        async for outcome in outcomes:
            found.append(outcome)
            assert outcome.external_task_id not in outcomes.pending
            done = outcomes.progress
            assert done.total == done.pending + done.succeeded + done.failed + done.unresolved
            assert done.pending == len(outcomes.pending)
    return found


async def bodies(api: SimulatedCometAPI) -> int:
    """Count the creates."""
    return sum(posts(api).values())


async def test_each_order_comes_out(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """With its task, its images, its order and the name under which it was created."""
    orders = foxes(20)
    async with open_session(comet_api) as session:
        stream = session.generate_many(orders, save_to=tmp_path)
        outcomes = await all_of(stream)
        assert stream.progress.succeeded == 20
        assert stream.pending == set()
    assert {outcome.order for outcome in outcomes} == set(orders)
    assert all(outcome.ok and outcome.saved for outcome in outcomes)
    assert {outcome.external_task_id for outcome in outcomes} == posts(comet_api).keys()
    assert {outcome.task_id for outcome in outcomes} == {b.task_id for b in comet_api.billed}
    assert {outcome.external_task_id: outcome.task_id for outcome in outcomes} == {
        bill.external_task_id: bill.task_id for bill in comet_api.billed
    }
    form = json.loads(json.dumps(outcomes[0].to_dict()))
    assert TaskOutcome.from_dict(form).to_dict() == form


async def test_it_needs_no_block(comet_api: SimulatedCometAPI) -> None:
    """An `async for` alone will do, and nothing is created before its first step."""
    async with open_session(comet_api) as session:
        stream = session.generate_many(foxes(2))
        await now_waiting(5)
        assert comet_api.queries == ()
        assert "not started" in repr(stream)
        assert len([outcome async for outcome in stream]) == 2


async def test_a_list_is_pending_from_the_start(comet_api: SimulatedCometAPI) -> None:
    """It is copied: changing it later changes nothing; before entry nothing is known."""
    orders = foxes(100)
    async with open_session(comet_api) as session:
        stream = session.generate_many(orders)
        assert stream.progress.total == 0
        async with stream:
            assert (len(stream.pending), stream.progress.total) == (100, 100)
            orders.clear()
            assert await bodies(comet_api) == 0
            assert len([outcome async for outcome in stream]) == 100


async def test_an_iterable_is_read_one_ahead(comet_api: SimulatedCometAPI) -> None:
    """No more orders are taken than there is room for, and one."""
    read: list[int] = []

    def orders() -> Iterator[ImageOrder]:
        for number in range(20):
            read.append(number)
            yield ImageOrder(f"fox {number}")

    async with open_session(comet_api) as session, session.generate_many(orders()) as outcomes:
        await anext(outcomes)
        await now_waiting(20)
        assert len(read) == 10
        assert len(outcomes.pending) == 9
        assert len([outcome async for outcome in outcomes]) == 19


async def test_a_feed(comet_api: SimulatedCometAPI) -> None:
    """Orders are created as they come; a key that comes again gives its task again."""
    queue: asyncio.Queue[ImageOrder | None] = asyncio.Queue()

    async def feed() -> AsyncGenerator[ImageOrder]:
        while (order := await queue.get()) is not None:
            yield order

    order = ImageOrder("a fox", key="1")
    async with open_session(comet_api) as session, session.generate_many(feed()) as outcomes:
        for _ in range(2):
            queue.put_nowait(order)
            outcome = await anext(outcomes)
            assert outcome.task_id == comet_api.billed[0].task_id
        queue.put_nowait(None)
        assert [outcome async for outcome in outcomes] == []
    assert len(comet_api.billed) == 1


async def test_the_same_key_twice(comet_api: SimulatedCometAPI) -> None:
    """A repeat is dropped, also behind its outcome; another wish under it comes out refused."""

    def orders() -> Iterator[ImageOrder]:
        yield ImageOrder("a fox", key="1")
        yield ImageOrder("a fox", key="1")
        yield ImageOrder("a cat", key="1")
        yield from foxes(20)
        yield ImageOrder("a fox", key="1")
        yield ImageOrder("a cow", key="1")
        yield ImageOrder("a fox", key="1", extra={"seed": 7})

    async with open_session(comet_api) as session:
        outcomes = await all_of(session.generate_many(orders(), max_tasks=2))
    assert len(outcomes) == 24
    refused = [outcome for outcome in outcomes if not outcome.ok]
    assert len(refused) == 3
    for outcome in refused:
        assert isinstance(outcome.error, ConfigurationError)
        assert "names another order of this stream" in str(outcome.error)
    assert [outcome.order.prompt for outcome in refused if outcome.order] == [
        "a cat",
        "a cow",
        "a fox",
    ]
    assert len(comet_api.billed) == 21


async def test_what_is_no_order_comes_out(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """So does one whose file is missing; the others go on."""
    orders: Any = ["a fox", ImageOrder("a fox", images=[tmp_path / "no.png"]), ImageOrder("a cat")]
    async with open_session(comet_api) as session:
        outcomes = await all_of(session.generate_many(orders))
    text, missing, cat = outcomes
    assert "write ImageOrder('a fox')" in str(text.error)
    assert (text.task_id, text.order, text.settled) == ("", None, False)
    assert "images[0]" in str(missing.error)
    assert cat.ok


@pytest.mark.parametrize("orders", ["a fox", b"a", ImageOrder("a fox"), 7, {"a": 1}, None])
async def test_what_is_no_list(comet_api: SimulatedCometAPI, orders: Any) -> None:
    """One order alone is refused with the line to write."""
    async with open_session(comet_api) as session:
        with pytest.raises(ConfigurationError, match=r"generate_many\(\[ImageOrder\(…\)\]\)$"):
            session.generate_many(orders)


@pytest.mark.parametrize("max_tasks", [0, -1, True, 1.5, "8"])
async def test_bad_options(comet_api: SimulatedCometAPI, max_tasks: Any) -> None:
    """A ceiling that is none is refused."""
    async with open_session(comet_api) as session:
        with pytest.raises(ConfigurationError, match="max_tasks must be a whole number"):
            session.generate_many([], max_tasks=max_tasks)


async def test_nothing_to_do(comet_api: SimulatedCometAPI) -> None:
    """An empty list ends at once."""
    async with open_session(comet_api) as session:
        assert await all_of(session.generate_many([])) == []


async def test_a_refused_order_is_an_outcome(comet_api: SimulatedCometAPI) -> None:
    """It has no id, and is settled: its contents were refused. The others go on."""
    comet_api.fail_next_create(status=400, body={"code": 1201, "message": "bad ratio"})
    async with open_session(comet_api) as session:
        stream = session.generate_many(foxes(3))
        outcomes = await all_of(stream)
        assert (stream.progress.succeeded, stream.progress.unresolved) == (2, 1)
    (refused,) = [outcome for outcome in outcomes if not outcome.ok]
    assert type(refused.error) is ApiError
    assert (refused.task_id, refused.settled) == ("", True)
    assert refused.external_task_id in posts(comet_api)


async def test_a_failed_task_is_an_outcome(comet_api: SimulatedCometAPI) -> None:
    """Also where the very answer to the create says so."""
    failed = {"task_id": "t-1", "task_status": "failed", "task_status_msg": "bad pixel"}
    comet_api.fail_next_create(body={"code": 0, "data": failed})
    async with open_session(comet_api) as session:
        stream = session.generate_many(foxes(2))
        outcomes = await all_of(stream)
        assert stream.progress.failed == 1
    (bad,) = [outcome for outcome in outcomes if not outcome.ok]
    assert isinstance(bad.error, TaskFailedError)
    assert (bad.task_id, bad.settled, bad.queries) == ("t-1", True, 0)


async def test_doubt_is_an_outcome(comet_api: SimulatedCometAPI) -> None:
    """It is not settled, and never sent again."""
    comet_api.fail_next_create(reset=True)
    async with open_session(comet_api) as session:
        outcomes = await all_of(session.generate_many(foxes(3)))
    (doubt,) = [outcome for outcome in outcomes if not outcome.ok]
    assert isinstance(doubt.error, CreateUncertainError)
    assert doubt.error.external_task_id == doubt.external_task_id
    assert (doubt.task_id, doubt.settled) == ("", False)
    assert posts(comet_api).most_common(1)[0][1] == 1


async def test_a_duplicate_is_an_outcome() -> None:
    """One that the vendor knows and nobody finds."""
    order = ImageOrder("a fox", key="1")
    async with SimulatedCometAPI(by_external_id=False) as api:
        async with open_session(api) as session:
            await session.create(order)
        async with open_session(api) as session:
            (outcome,) = await all_of(session.generate_many([order]))
    assert isinstance(outcome.error, DuplicateOrderError)


# Room.


async def test_no_more_than_there_is_room_for() -> None:
    """A refusal is free; the order goes again when there is room, in its place."""
    async with SimulatedCometAPI(slots=3) as api, open_session(api) as session:
        outcomes = await all_of(session.generate_many(foxes(12)))
        assert all(outcome.ok for outcome in outcomes)
        assert len(api.billed) == 12
        assert await bodies(api) <= 12 + 5 + 3
        prompts = [int(outcome.order.prompt.split()[1]) for outcome in outcomes if outcome.order]
        assert sorted(prompts) == list(range(12))


async def test_large_orders_go_alone() -> None:
    """One that needs more than there is goes when nothing else is held."""
    async with SimulatedCometAPI(slots=9) as api, open_session(api) as session:
        orders = [*foxes(3), *foxes(2, n=9), *foxes(3)]
        outcomes = await all_of(session.generate_many(orders))
        assert all(outcome.ok for outcome in outcomes)
        assert len(api.billed) == 8


async def test_a_ceiling(comet_api: SimulatedCometAPI) -> None:
    """No more tasks run at a time than the user allows."""
    async with open_session(comet_api) as session:
        outcomes = session.generate_many(foxes(6), max_tasks=2)
        first = await anext(outcomes)
        assert len(comet_api.billed) == 2
        assert len([first] + [outcome async for outcome in outcomes]) == 6


async def test_places_that_others_hold() -> None:
    """Where nothing of ours ends, it is tried again after growing pauses."""
    async with SimulatedCometAPI(slots=9) as api, open_session(api) as session:
        await session.create(ImageOrder("a fox", n=9))
        (outcome,) = await all_of(session.generate_many(foxes(1)))
        assert outcome.ok
        creates = [query.started for query in api.queries if query.method == "POST"][1:]
        pauses = [after - before for before, after in pairwise(creates)]
        assert all(
            low <= pause <= 1.6 * low for low, pause in zip((1, 2, 4, 8), pauses, strict=False)
        )
        assert len(pauses) >= 4


async def test_a_retry_after(comet_api: SimulatedCometAPI) -> None:
    """No order is sent before it is over."""
    comet_api.fail_next_create(retry_after=50)
    async with open_session(comet_api) as session:
        await all_of(session.generate_many(foxes(3), max_tasks=1))
    creates = [query.started for query in comet_api.queries if query.method == "POST"]
    assert creates[1] - creates[0] >= 50


async def test_a_refused_order_has_its_time(comet_api: SimulatedCometAPI) -> None:
    """At the end of `timeout`, from its first create, it comes out with the last refusal."""
    comet_api.fail_next_create(times=None, status=429)
    async with open_session(comet_api) as session:
        outcomes = await all_of(session.generate_many(foxes(3), timeout=60))
        assert [type(outcome.error) for outcome in outcomes] == [RateLimitError] * 3
        assert [outcome.settled for outcome in outcomes] == [False] * 3
        assert 60 <= now() <= 95
        forever = session.generate_many(foxes(1), timeout=None)
        async with forever:
            await asyncio.sleep(10_000)
            comet_api.clear_creates()
            assert (await anext(forever)).ok


async def test_a_task_has_its_time(comet_api: SimulatedCometAPI) -> None:
    """From the start of its first query, as with `poll`."""
    async with open_session(comet_api, timing="uniform") as session:
        outcomes = await all_of(session.generate_many(foxes(2), timeout=10))
    assert [type(outcome.error) for outcome in outcomes] == [PollTimeoutError] * 2
    assert {outcome.task_id for outcome in outcomes} == {b.task_id for b in comet_api.billed}


async def test_an_outage_costs_nothing(comet_api: SimulatedCometAPI) -> None:
    """What never left goes back to the front, and is sent when the API is there again."""
    session = new_session(comet_api)
    await comet_api.aclose()
    async with session, session.generate_many(foxes(10)) as outcomes:
        await asyncio.sleep(300)
        assert outcomes.progress.pending == 10
        await comet_api.start()
        assert all([outcome.ok async for outcome in outcomes])
    assert len(comet_api.billed) == 10


@pytest.mark.parametrize("fault", [{"status": 401}, {"status": 429, "body": {"code": 1102}}])
async def test_a_refused_key_ends_creating(
    comet_api: SimulatedCometAPI, fault: dict[str, Any]
) -> None:
    """What was not sent comes out with that error; created tasks come to their end."""
    orders = foxes(30)
    async with open_session(comet_api) as session, session.generate_many(orders) as outcomes:
        await anext(outcomes)
        comet_api.fail_next_create(times=None, **fault)
        rest = [outcome async for outcome in outcomes]
    good = [outcome for outcome in rest if outcome.ok]
    assert len(good) + 1 == len(comet_api.billed) >= 8
    assert len(rest) == 29
    assert {type(outcome.error) for outcome in rest if not outcome.ok} <= {
        AuthenticationError,
        ApiError,
        *ApiError.__subclasses__(),
    }
    assert not any(outcome.settled for outcome in rest if not outcome.ok)
    refused = [q for q in comet_api.queries if q.method == "POST" and q.status != 200]
    assert 1 <= len(refused) <= 8


async def test_a_refused_key_and_an_endless_input(comet_api: SimulatedCometAPI) -> None:
    """It is read no faster than its outcomes are taken."""
    read: list[int] = []

    def orders() -> Iterator[ImageOrder]:
        number = 0
        while True:
            read.append(number := number + 1)
            yield ImageOrder(f"fox {number}")

    comet_api.fail_next_create(times=None, status=401)
    async with open_session(comet_api) as session, session.generate_many(orders()) as outcomes:
        await asyncio.sleep(10)
        assert len(read) <= 1_010
        for _ in range(100):
            assert isinstance((await anext(outcomes)).error, AuthenticationError)
        await asyncio.sleep(10)
        assert 1_000 <= len(read) <= 1_110


async def test_a_certificate_that_is_refused() -> None:
    """It ends creating, as it does not pass by itself."""
    from .raw_server import raw_server, server_context  # noqa: PLC0415 - of this test alone
    from .test_posting import say_created  # noqa: PLC0415

    async with raw_server(say_created, tls=server_context()) as server:
        url = f"https://localhost:{server.port}"
        async with KlingOmniSession("sk-secret", base_url=url) as session:
            outcomes = await all_of(session.generate_many(foxes(20)))
    assert {type(outcome.error) for outcome in outcomes} == {TransportError}
    assert len(server.lines) <= 8


# Leaving, closing, and inputs that raise.


async def test_leaving(comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing more is created; what was paid for is pending and in one warning."""
    async with open_session(comet_api) as session:
        async with session.generate_many(foxes(30)) as outcomes:
            first = await anext(outcomes)
            await asyncio.sleep(5)
        billed = len(comet_api.billed)
        pending = set(outcomes.pending)
        names = {bill.external_task_id for bill in comet_api.billed}
        assert names - {first.external_task_id} <= pending
        (line,) = warnings_in(caplog)
        for bill in comet_api.billed:
            named = f"'{bill.task_id}' (external id '{bill.external_task_id}')" in line
            assert named is (bill.task_id != first.task_id)
        await asyncio.sleep(100)
        assert len(comet_api.billed) == billed
        assert outcomes.progress.total == 30
        await outcomes.aclose()
    assert len(warnings_in(caplog)) == 1


async def test_leaving_under_a_create(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Its POST goes on beside, and what it made is named then; what waits for its turn is not."""
    comet_api.fail_next_create(times=None, delay=3.0)
    async with open_session(comet_api, max_rate=1) as session:
        async with session.generate_many(foxes(5)):
            await comet_api.wait_for_queries(1)
        assert warnings_in(caplog) == []
        await asyncio.sleep(60)
    (bill,) = comet_api.billed
    (line,) = warnings_in(caplog)
    assert bill.task_id in line


async def test_leaving_with_doubt_in_the_outlet(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """An outcome of doubt that nobody took is named, too."""
    comet_api.fail_next_create(created=True, reset=True)
    comet_api.fail_next(times=3, not_found=True)
    async with open_session(comet_api) as session, session.generate_many(foxes(1)) as outcomes:
        await asyncio.sleep(60)
        assert outcomes.progress.pending == 1
    (line,) = warnings_in(caplog)
    assert str(comet_api.billed[0].external_task_id) in line


async def test_dropping(comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture) -> None:
    """A stream that is forgotten is left."""
    async with open_session(comet_api) as session:
        async for _ in session.generate_many(foxes(30)):
            break
        gc.collect()
        await now_waiting(5)
        billed = len(comet_api.billed)
        await asyncio.sleep(100)
        assert len(comet_api.billed) == billed
        assert len(warnings_in(caplog)) == 1


async def test_closing(comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture) -> None:
    """The stream raises; what was created is named, also what a POST brings meanwhile."""
    session = new_session(comet_api)
    outcomes = session.generate_many(foxes(30))
    await anext(outcomes)
    comet_api.fail_next_create(times=None, delay=2.0)
    count = len(comet_api.queries)
    await comet_api.wait_for_queries(count + 1)
    waiting = asyncio.ensure_future(anext(outcomes))
    await session.aclose()
    with pytest.raises(SessionClosedError):
        await waiting
    named = " ".join(warnings_in(caplog))
    assert sum(bill.task_id in named for bill in comet_api.billed) == len(comet_api.billed) - 1
    with pytest.raises(SessionClosedError):
        await anext(outcomes)
    await outcomes.aclose()


async def test_closing_with_orders_that_wait_for_their_turn(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """They are never sent, and still pending."""
    comet_api.fail_next_create(delay=3.0)
    session = new_session(comet_api, max_rate=1)
    outcomes = session.generate_many(foxes(5))
    waiting = asyncio.ensure_future(anext(outcomes))
    await asyncio.sleep(1)
    await session.aclose()
    with pytest.raises(SessionClosedError):
        await waiting
    assert len(comet_api.billed) == len(warnings_in(caplog)) == 1
    assert len(outcomes.pending) == 5


async def test_a_long_list_is_taken_in_pieces(comet_api: SimulatedCometAPI) -> None:
    """All of it is pending at once, whoever looks, and also when it is left before it was taken."""
    odd: Any = [*foxes(3_000), "what?"]
    async with open_session(comet_api) as session:
        async with session.generate_many(odd) as outcomes:
            assert len(outcomes.pending) == 3_001
        async with session.generate_many(odd) as others:
            pass
        await asyncio.sleep(1)
        assert len(others.pending) == 3_001
    assert comet_api.billed == ()


async def test_left_before_it_is_entered(comet_api: SimulatedCometAPI) -> None:
    """Nothing is created then."""
    async with open_session(comet_api) as session:
        outcomes = session.generate_many(foxes(3))
        await outcomes.aclose()
        assert "closed" in repr(outcomes)
        async with outcomes:
            assert [outcome async for outcome in outcomes] == []
    assert comet_api.queries == ()


async def test_closing_before_anything_is_sent(comet_api: SimulatedCometAPI) -> None:
    """Nothing is created behind the end."""
    session = new_session(comet_api)

    async def never() -> AsyncGenerator[ImageOrder]:
        yield ImageOrder("a fox")
        await asyncio.get_running_loop().create_future()

    outcomes = session.generate_many(never())
    waiting = asyncio.ensure_future(anext(outcomes))
    await now_waiting(1)
    await session.aclose()
    with pytest.raises(SessionClosedError):
        await waiting
    assert comet_api.billed == ()
    with pytest.raises(SessionClosedError):
        await anext(session.generate_many([]))


async def test_an_input_that_raises(comet_api: SimulatedCometAPI) -> None:
    """What it gave before comes out first, then its exception."""

    def orders() -> Iterator[ImageOrder]:
        yield from foxes(2)
        raise ZeroDivisionError

    class Bad(list[ImageOrder]):
        def __iter__(self) -> Iterator[ImageOrder]:
            return orders()

    given: Any
    async with open_session(comet_api) as session:
        for given in (orders(), Bad()):
            outcomes = session.generate_many(given)
            assert (await anext(outcomes)).ok
            assert (await anext(outcomes)).ok
            with pytest.raises(ZeroDivisionError):
                await anext(outcomes)


async def test_a_wrong_set_up_ends_it(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that queries find refused raises, and what is dropped is named."""
    async with open_session(comet_api) as session:
        outcomes = session.generate_many(foxes(3))
        async with outcomes:
            await asyncio.sleep(1)
            comet_api.fail_next(times=None, status=401)
            with pytest.raises(AuthenticationError):
                [outcome async for outcome in outcomes]
            assert len(outcomes.pending) == 3
    line = next(line for line in warnings_in(caplog) if "are not handed out" in line)
    assert all(bill.task_id in line for bill in comet_api.billed)


async def test_an_input_that_leaves_its_own_stream(comet_api: SimulatedCometAPI) -> None:
    """It is closed with the session."""
    streams: list[OutcomeStream] = []

    async def orders() -> AsyncGenerator[ImageOrder]:
        yield ImageOrder("a fox")
        await streams[0].aclose()
        await asyncio.get_running_loop().create_future()

    session = new_session(comet_api)
    streams.append(session.generate_many(orders()))
    async with streams[0]:
        await asyncio.sleep(1)
        await session.aclose()


async def test_a_defect_of_ours(
    comet_api: SimulatedCometAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is, it reaches the reader and ends the session."""
    where: Any
    for name in ("_add", "_create", "_created", "polled"):
        monkeypatch.setattr(OrderStream, name, lambda *_, **__: 1 / 0)
        for where in (foxes(1), iter(foxes(1))):
            session = new_session(comet_api)
            with pytest.raises((ZeroDivisionError, SessionClosedError)):
                await anext(session.generate_many(where))
            assert isinstance(session.close_reason, ZeroDivisionError)
            await session.aclose()
        monkeypatch.undo()


async def test_a_defect_in_a_timer(
    comet_api: SimulatedCometAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the session, as a defect in a task does."""
    comet_api.fail_next_create(status=429)
    session = new_session(comet_api)
    outcomes = session.generate_many(foxes(1))
    async with outcomes:
        await comet_api.wait_for_queries(1)
        await now_waiting(20)
        monkeypatch.setattr(OrderStream, "_give_up", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await anext(outcomes)
    await session.aclose()


async def test_repr(comet_api: SimulatedCometAPI) -> None:
    """Each part says in a line how it stands."""
    async with open_session(comet_api) as session:
        async with session.generate_many(foxes(2)) as outcomes:
            await asyncio.sleep(1)
            assert repr(session._wings.ordering) == "<Ordering streams=1>"
            (stream,) = session._ordering_wing()._streams
            assert repr(stream).startswith("<OrderStream polling <SlotLimit 2 of 8> Progress(")
            assert [outcome.ok async for outcome in outcomes] == [True, True]
        assert repr(session._wings.ordering) == "<Ordering streams=0>"
