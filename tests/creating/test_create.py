"""`create` and `recover` against the simulator: sent once, and nothing that was paid is lost."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kling_omni_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    CreateUncertainError,
    DuplicateOrderError,
    ImageOrder,
    ImageTask,
    InvalidTaskIdError,
    KlingOmniError,
    KlingOmniSession,
    PollPolicy,
    RateLimitError,
    ResponseError,
    ServerError,
    SessionClosedError,
    TaskStatus,
    TransportError,
)
from kling_omni_async._creating.creator import Creation, Creator
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import freeze, new_session, now, now_waiting, open_session

pytestmark = pytest.mark.anyio

FOX = ImageOrder("a fox", n=2)
PNG = b"\x89PNG\r\n\x1a\nfox"


def posts(api: SimulatedCometAPI) -> Counter[str | None]:
    """Count the creates that reached the API by their external ids."""
    return Counter(query.external_task_id for query in api.queries if query.method == "POST")


def looks(api: SimulatedCometAPI) -> list[float]:
    """Give the times of the queries."""
    return [query.started for query in api.queries if query.method == "GET"]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give the warnings of creating."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "kling_omni_async.creator" and record.levelno == logging.WARNING
    ]


async def test_an_order_becomes_a_task(comet_api: SimulatedCometAPI) -> None:
    """One POST, whose task is returned with its external id and can be waited for."""
    async with open_session(comet_api) as session:
        task = await session.create(FOX)
        assert task.status is TaskStatus.SUBMITTED
        (bill,) = comet_api.billed
        assert (bill.task_id, bill.external_task_id) == (task.task_id, task.external_task_id)
        assert (bill.images, bill.units) == (2, 16)
        assert len((await session.wait(task.task_id)).images) == 2
    assert posts(comet_api) == {task.external_task_id: 1}


async def test_equal_orders_are_two_wishes(comet_api: SimulatedCometAPI) -> None:
    """Without a key each create makes a task of its own."""
    async with open_session(comet_api) as session:
        tasks = [await session.create(FOX), await session.create(FOX)]
    assert len({task.task_id for task in tasks}) == len(comet_api.billed) == 2


async def test_a_file_is_read_when_it_is_sent(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """What is in it then is sent; one that cannot be read is told by its field, free of charge."""
    path = tmp_path / "fox.png"
    order = ImageOrder("a fox", images=[PNG, path, "https://images.example/1.png"])
    async with open_session(comet_api) as session:
        with pytest.raises(ConfigurationError, match=r"^ImageOrder\.images\[1\]: .*fox\.png.*such"):
            await session.create(order)
        path.write_bytes(b"GIF89a")
        with pytest.raises(ConfigurationError, match=r"^ImageOrder\.images\[1\], .* is no image"):
            await session.create(order)
        path.write_bytes(PNG + bytes(10 * 1_048_576))
        with pytest.raises(ConfigurationError, match=r"^ImageOrder\.images\[1\], .* has 10\.5 MB"):
            await session.create(order)
        with pytest.raises(ConfigurationError, match=r"images\[0\]: .* null"):
            await session.create(ImageOrder("a fox", images=[Path("fox\0.png")]))
        assert comet_api.queries == ()
        path.write_bytes(PNG)
        await session.create(order)


async def test_what_is_no_order(comet_api: SimulatedCometAPI) -> None:
    """A text alone is refused with the line to write."""
    wrong: Any
    async with open_session(comet_api) as session:
        for wrong in ("a fox", 7):
            with pytest.raises(ConfigurationError, match=r"write ImageOrder\('a fox'\)$"):
                await session.create(wrong)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 400, "body": {"code": 1201, "message": "bad ratio"}}, ApiError),
        ({"status": 401}, AuthenticationError),
        ({"status": 429, "body": {"code": 1102, "message": "balance"}}, AccountError),
        ({"status": 302, "headers": {"Location": "https://x"}}, ResponseError),
        ({"status": 404, "body": ""}, ResponseError),
    ],
)
async def test_a_refusal_is_final(
    comet_api: SimulatedCometAPI, fault: dict[str, Any], kind: type[KlingOmniError]
) -> None:
    """It is raised at once, nothing is sent again and nothing looked for."""
    comet_api.fail_next_create(**fault)
    async with open_session(comet_api) as session:
        with pytest.raises(kind) as caught:
            await session.create(FOX)
    assert type(caught.value) is kind
    assert len(comet_api.queries) == 1
    assert comet_api.billed == ()


@pytest.mark.usefixtures("seeded")
async def test_a_429_is_sent_again_twice(comet_api: SimulatedCometAPI) -> None:
    """The same bytes and the same name, after 1 to 2 and 4 to 6 s; then it is told."""
    comet_api.fail_next_create(times=2, status=429)
    async with open_session(comet_api) as session:
        task = await session.create(FOX)
        assert posts(comet_api) == {task.external_task_id: 3}
        first, second, third = [query.started for query in comet_api.queries]
        assert 1 <= second - first <= 2
        assert 4 <= third - second <= 6
        comet_api.fail_next_create(times=None, status=500, body={"code": 1303, "message": "slots"})
        with pytest.raises(RateLimitError):
            await session.create(FOX)
    assert len(comet_api.queries) == 6


async def test_a_retry_after_is_kept(comet_api: SimulatedCometAPI) -> None:
    """It stands in for the pause, and holds the session's queries back, too."""
    comet_api.fail_next_create(retry_after=7)
    task_id = comet_api.create_task(duration=0)
    async with open_session(comet_api) as session:
        creating = asyncio.ensure_future(session.create(FOX))
        await comet_api.wait_for_queries(1)
        await now_waiting(20)
        await session.wait(task_id)
        assert now() >= 7
        await creating
    assert [query.started >= 7 for query in comet_api.queries] == [False, True, True]


async def test_a_429_alone_holds_no_query_back(comet_api: SimulatedCometAPI) -> None:
    """Too many tasks at a time are no reason to ask for fewer answers."""
    comet_api.fail_next_create(times=2, status=429)
    task_id = comet_api.create_task(duration=0)
    async with open_session(comet_api) as session:
        creating = asyncio.ensure_future(session.create(FOX))
        await comet_api.wait_for_queries(1)
        await now_waiting(20)
        await session.wait(task_id)
        assert now() < 1
        await creating


async def test_what_never_left_is_sent_again(comet_api: SimulatedCometAPI) -> None:
    """A refused connection has made nothing; three of them are told."""
    session = new_session(comet_api)
    await comet_api.aclose()
    async with session:
        with pytest.raises(TransportError) as caught:
            await session.create(FOX)
        assert caught.value.reason == "connect"
        assert 5 <= now() <= 8
        creating = asyncio.ensure_future(session.create(FOX))
        await asyncio.sleep(0.5)
        await comet_api.start()
        await creating
    assert len(comet_api.billed) == 1


LOST: list[dict[str, Any]] = [
    {"reset": True},
    {"hang": True},
    {"status": 502},
    {"status": 200, "body": ""},
    {"status": 500, "body": {"code": 5000, "message": "internal"}},
    {"cut_after": 30},
    {"raw": b"nonsense\r\n\r\n"},
    {"status": 408},
]


@pytest.mark.parametrize("fault", LOST)
async def test_a_lost_answer_is_found(comet_api: SimulatedCometAPI, fault: dict[str, Any]) -> None:
    """Where the task was made, looking for it returns it as if nothing had happened."""
    comet_api.fail_next_create(created=True, **fault)
    async with open_session(comet_api) as session:
        task = await session.create(FOX)
    assert [bill.task_id for bill in comet_api.billed] == [task.task_id]
    assert posts(comet_api) == {task.external_task_id: 1}
    assert len(looks(comet_api)) == 1


@pytest.mark.parametrize("fault", LOST)
async def test_a_lost_request_is_doubt(
    comet_api: SimulatedCometAPI, fault: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing is found nobody knows: three looks, no second POST, an error with the name."""
    comet_api.fail_next_create(created=False, **fault)
    async with open_session(comet_api) as session:
        with pytest.raises(CreateUncertainError) as caught:
            await session.create(FOX)
        assert comet_api.billed == ()
        error = caught.value
        assert posts(comet_api) == {error.external_task_id: 1}
        ended = comet_api.queries[0].finished
        assert ended is not None
        assert [round(look - ended) for look in looks(comet_api)] == [0, 5, 20]
        assert isinstance(error.__cause__, KlingOmniError)
        assert error.order == FOX
        assert await session.recover(error.external_task_id) is None
    assert warnings_in(caplog) == []


async def test_a_task_that_appears_late_is_found(comet_api: SimulatedCometAPI) -> None:
    """The second and third look find what the first did not."""
    comet_api.fail_next_create(created=True, reset=True)
    comet_api.fail_next(times=2, not_found=True)
    async with open_session(comet_api) as session:
        await session.create(FOX)
    assert 20 <= now() <= 21


async def test_a_look_that_fails_proves_nothing(comet_api: SimulatedCometAPI) -> None:
    """What the POST met is told, and not what the looks did."""
    comet_api.fail_next_create(created=True, status=502)
    comet_api.fail_next(times=None, status=401)
    async with open_session(comet_api) as session:
        with pytest.raises(CreateUncertainError) as caught:
            await session.create(FOX)
    assert isinstance(caught.value.__cause__, ServerError)


async def test_where_tasks_cannot_be_found_by_name() -> None:
    """Without that favour of the API a lost answer stays doubt."""
    async with SimulatedCometAPI(by_external_id=False) as api, open_session(api) as session:
        api.fail_next_create(created=True, reset=True)
        with pytest.raises(CreateUncertainError) as caught:
            await session.create(FOX)
        assert [bill.external_task_id for bill in api.billed] == [caught.value.external_task_id]


async def test_the_time_limit_of_a_create(comet_api: SimulatedCometAPI) -> None:
    """It is its own, and longer than that of a query; no answer within it is doubt."""
    comet_api.fail_next_create(delay=14.0)
    async with open_session(comet_api, query_timeout=1.0, create_timeout=15.0) as session:
        await session.create(FOX)
        comet_api.fail_next_create(delay=16.0)
        with pytest.raises(CreateUncertainError, match="no full answer within 15 s") as caught:
            await session.create(FOX)
    assert isinstance(caught.value.__cause__, TransportError)
    assert len(comet_api.billed) == 1


@pytest.mark.parametrize(("frozen_s", "found"), [(0.9, False), (100.0, True)])
async def test_an_answer_that_came_while_the_process_stood_still(
    frozen_s: float, *, found: bool
) -> None:
    """It waits in its socket when a frozen process wakes, and is read."""
    async with SimulatedCometAPI(by_external_id=False) as api, open_session(api) as session:
        api.fail_next_create(created=True, delay=59.9)
        creating = asyncio.ensure_future(session.create(FOX))
        await asyncio.sleep(59.5)
        freeze(0.5 + frozen_s)
        reply = (await asyncio.gather(creating, return_exceptions=True))[0]
    assert isinstance(reply, ImageTask if found else CreateUncertainError)


# The same wish twice.


async def test_a_key_creates_once(comet_api: SimulatedCometAPI) -> None:
    """Further creates with it give the task of the first, at the same time and later."""
    order = ImageOrder("a fox", key="invoice-42/1")
    async with open_session(comet_api) as session:
        tasks = await asyncio.gather(*(session.create(order) for _ in range(5)))
        tasks.append(await session.create(order))
    assert len({task.task_id for task in tasks}) == 1
    assert len(comet_api.billed) == len(comet_api.queries) == 1


async def test_a_key_names_one_wish(comet_api: SimulatedCometAPI) -> None:
    """Other contents under the same key are refused, at the same time and later."""
    async with open_session(comet_api) as session:
        first = asyncio.ensure_future(session.create(ImageOrder("a fox", key="1")))
        await now_waiting(2)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=r"^ImageOrder\.key '1' names another"):
                await session.create(ImageOrder("a cat", key="1"))
            await first
    assert len(comet_api.billed) == 1


async def test_a_key_in_doubt_is_not_sent_again(comet_api: SimulatedCometAPI) -> None:
    """It is looked for instead, until it is found or gets another name."""
    order = ImageOrder("a fox", key="1")
    comet_api.fail_next_create(created=True, reset=True)
    comet_api.fail_next(times=4, not_found=True)
    async with open_session(comet_api) as session:
        for _ in range(2):
            with pytest.raises(CreateUncertainError):
                await session.create(order)
        task = await session.create(order)
        assert await session.create(order) == task
        assert len(looks(comet_api)) == 5
    assert [bill.task_id for bill in comet_api.billed] == [task.task_id]
    assert sum(posts(comet_api).values()) == 1


async def test_a_key_that_was_refused_may_be_sent_again(comet_api: SimulatedCometAPI) -> None:
    """Where it is proved that nothing was created there is nothing to remember."""
    order = ImageOrder("a fox", key="1")
    comet_api.fail_next_create(status=400)
    async with open_session(comet_api) as session:
        with pytest.raises(ApiError):
            await session.create(order)
        await session.create(order)
    assert len(comet_api.billed) == 1


async def test_a_key_whose_first_caller_left(comet_api: SimulatedCometAPI) -> None:
    """Who waited behind him for the same wish sends it himself."""
    order = ImageOrder("a fox", key="1")
    async with open_session(comet_api, max_rate=1) as session:
        await session.create(FOX)
        first = asyncio.ensure_future(session.create(order))
        await now_waiting(5)
        second = asyncio.ensure_future(session.create(order))
        await now_waiting(5)
        first.cancel()
        task = await second
    assert first.cancelled()
    assert task.task_id == comet_api.billed[1].task_id


async def test_keys_are_remembered_in_bounds(
    comet_api: SimulatedCometAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest is forgotten: then the vendor's own refusal leads to its task."""
    monkeypatch.setattr("kling_omni_async._creating.creator._MOST_KNOWN", 1)
    async with open_session(comet_api) as session:
        task = await session.create(ImageOrder("a fox", key="1"))
        await session.create(ImageOrder("a fox", key="2"))
        again = await session.create(ImageOrder("a fox", key="1"))
    assert again.task_id == task.task_id
    assert len(comet_api.billed) == 2
    assert posts(comet_api)[task.external_task_id] == 2


@pytest.mark.parametrize("duplicates", ["refused", "wrapped"])
async def test_a_key_outlives_the_session(duplicates: Any) -> None:
    """Another session finds the task of the first by the vendor's refusal, and pays nothing."""
    order = ImageOrder("a fox", key="1")
    async with SimulatedCometAPI(duplicates=duplicates) as api:
        tasks = []
        for _ in range(2):
            async with open_session(api) as session:
                tasks.append(await session.create(order))
        assert tasks[0].task_id == tasks[1].task_id
        assert len(api.billed) == 1


async def test_a_duplicate_that_is_not_found() -> None:
    """The vendor knows the order, nobody finds its task: that is told."""
    order = ImageOrder("a fox", key="1")
    async with SimulatedCometAPI(by_external_id=False) as api:
        async with open_session(api) as session:
            task = await session.create(order)
        async with open_session(api) as session:
            with pytest.raises(DuplicateOrderError) as caught:
                await session.create(order)
            assert caught.value.external_task_id == task.external_task_id
        assert len(api.billed) == 1


async def test_namespaces(comet_api: SimulatedCometAPI) -> None:
    """A name of one's own keeps external ids when the API key changes; others do not meet them."""
    names = set()
    for namespace in ("shop.example", "shop.example", None, "other"):
        async with KlingOmniSession(
            comet_api.api_key, base_url=comet_api.base_url, namespace=namespace
        ) as session:
            task = await session.create(ImageOrder("a fox", key="1"))
            names.add(task.external_task_id)
    assert len(names) == len(comet_api.billed) == 3


# Leaving and closing.


async def test_leaving_before_it_is_sent(comet_api: SimulatedCometAPI) -> None:
    """Nothing is sent for somebody who has left while his order waited for its turn."""
    async with open_session(comet_api, max_rate=1) as session:
        await session.create(FOX)
        creating = asyncio.ensure_future(session.create(FOX))
        await now_waiting(5)
        creating.cancel()
        await asyncio.sleep(30)
    assert creating.cancelled()
    assert len(comet_api.queries) == 1


async def test_leaving_in_the_pause_before_it_is_sent_again(comet_api: SimulatedCometAPI) -> None:
    """What was refused is not sent again for somebody who has left."""
    comet_api.fail_next_create(status=429)
    async with open_session(comet_api) as session:
        creating = asyncio.ensure_future(session.create(FOX))
        await comet_api.wait_for_queries(1)
        await now_waiting(20)
        creating.cancel()
        await asyncio.sleep(30)
    assert len(comet_api.queries) == 1


async def test_leaving_under_the_post(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """The POST goes on beside, and the log names what it made."""
    comet_api.fail_next_create(delay=3.0)
    async with open_session(comet_api) as session:
        creating = asyncio.ensure_future(session.create(FOX))
        await comet_api.wait_for_queries(1)
        creating.cancel()
        await now_waiting()
        assert creating.cancelled()
        await asyncio.sleep(10)
        (bill,) = comet_api.billed
        (line,) = warnings_in(caplog)
        assert f"'{bill.task_id}'" in line
        assert f"'{bill.external_task_id}'" in line


async def test_leaving_a_post_that_is_refused(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was paid, so there is nothing to say."""
    comet_api.fail_next_create(delay=3.0, status=400)
    async with open_session(comet_api) as session:
        creating = asyncio.ensure_future(session.create(FOX))
        await comet_api.wait_for_queries(1)
        creating.cancel()
        await asyncio.sleep(10)
    assert warnings_in(caplog) == []


async def test_leaving_in_doubt(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """The looks go on beside, and the log names what they found, or the name to look for."""
    async with open_session(comet_api) as session:
        for created in (True, False):
            caplog.clear()
            comet_api.fail_next_create(created=created, reset=True)
            comet_api.fail_next(times=2, not_found=True)
            creating = asyncio.ensure_future(session.create(FOX))
            await asyncio.sleep(3)
            creating.cancel()
            await asyncio.sleep(30)
            (line,) = warnings_in(caplog)
            name = next(reversed(posts(comet_api)))
            assert f"'{name}'" in line
            assert ("it is task" in line) is created
            assert ("recover(" in line) is not created


async def test_cancelled_in_the_very_pass_in_which_it_is_told(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that reaches a caller who was cancelled at that moment is in the log."""
    settle = Creator._settle

    def settle_and_cancel(self: Creator, creation: Creation, end: Any) -> None:
        settle(self, creation, end)
        creating.cancel()

    monkeypatch.setattr(Creator, "_settle", settle_and_cancel)
    async with open_session(comet_api) as session:
        creating = asyncio.ensure_future(session.create(FOX))
        with pytest.raises(asyncio.CancelledError):
            await creating
    (line,) = warnings_in(caplog)
    assert comet_api.billed[0].task_id in line


@pytest.mark.parametrize("answer_after", [3.0, 30.0])
async def test_closing_under_the_post(comet_api: SimulatedCometAPI, answer_after: float) -> None:
    """It still gets 5 s for its answer; what has none by then is doubt."""
    comet_api.fail_next_create(delay=answer_after, created=True)
    session = new_session(comet_api)
    creating = asyncio.ensure_future(session.create(FOX))
    await comet_api.wait_for_queries(1)
    waiting = asyncio.ensure_future(session.wait("123"))
    await now_waiting()
    await session.aclose()
    with pytest.raises(SessionClosedError):
        await waiting
    assert now() == pytest.approx(min(answer_after, 5.0))
    if answer_after < 5:
        assert (await creating).task_id == comet_api.billed[0].task_id
        return
    with pytest.raises(CreateUncertainError) as caught:
        await creating
    assert isinstance(caught.value.__cause__, SessionClosedError)
    with pytest.raises(SessionClosedError):
        await session.create(FOX)
    with pytest.raises(SessionClosedError):
        await session.recover("x")


async def test_closing_before_it_is_sent(comet_api: SimulatedCometAPI) -> None:
    """Nothing is sent any more, and that is certain."""
    session = new_session(comet_api, max_rate=1)
    creating = [asyncio.ensure_future(session.create(FOX)) for _ in range(3)]
    await comet_api.wait_for_queries(1)
    await now_waiting(10)
    await session.aclose()
    ends = await asyncio.gather(*creating, return_exceptions=True)
    assert [type(end) for end in ends] == [ImageTask, SessionClosedError, SessionClosedError]
    assert len(comet_api.billed) == 1


async def test_closing_in_the_moment_before_it_is_sent(comet_api: SimulatedCometAPI) -> None:
    """Its turn has come, but the end of the session came first."""
    session = new_session(comet_api, max_rate=1)
    creating = [asyncio.ensure_future(session.create(FOX)) for _ in range(2)]
    await comet_api.wait_for_queries(1)
    asyncio.get_running_loop().call_at(2.0, session._wings.engine.cancel)
    ends = await asyncio.gather(*creating, return_exceptions=True)
    assert [type(end) for end in ends] == [ImageTask, SessionClosedError]
    assert now() == 2.0
    await session.aclose()
    assert len(comet_api.queries) == 1


async def test_closing_at_once(comet_api: SimulatedCometAPI) -> None:
    """A create that has not begun never does."""
    session = new_session(comet_api)
    creating = asyncio.ensure_future(session.create(FOX))
    await now_waiting(1)
    await session.aclose()
    with pytest.raises(SessionClosedError):
        await creating
    assert comet_api.queries == ()


async def test_closing_in_doubt(comet_api: SimulatedCometAPI) -> None:
    """Nobody looks any more: the doubt is told at once, with what the POST met."""
    comet_api.fail_next_create(status=502)
    session = new_session(comet_api)
    creating = asyncio.ensure_future(session.create(FOX))
    await asyncio.sleep(3)
    await session.aclose()
    assert now() == 3
    with pytest.raises(CreateUncertainError) as caught:
        await creating
    assert isinstance(caught.value.__cause__, ServerError)


async def test_closing_under_a_look(comet_api: SimulatedCometAPI) -> None:
    """Whoever looks for a task is told that the session was closed."""
    comet_api.fail_next(hang=True)
    session = new_session(comet_api)
    looking = asyncio.ensure_future(session.recover("x"))
    await comet_api.wait_for_queries(1)
    await session.aclose()
    with pytest.raises(SessionClosedError):
        await looking


async def test_somebody_cancels_the_task_of_a_post(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """That closes the session, and the create is in doubt, as nobody waits for its answer."""
    comet_api.fail_next_create(delay=3.0, created=True)
    session = new_session(comet_api)
    creating = asyncio.ensure_future(session.create(FOX))
    await comet_api.wait_for_queries(1)
    for task in asyncio.all_tasks():
        if task.get_name() == "kling_omni_async.create":
            task.cancel()
    with pytest.raises(CreateUncertainError):
        await creating
    assert session.closed
    await session.aclose()


async def test_a_defect_of_ours(
    comet_api: SimulatedCometAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is sent it is told as it is; once a POST was sent it is doubt."""
    monkeypatch.setattr("kling_omni_async._creating.creator.read_created", lambda *_, **__: 1 / 0)
    session = new_session(comet_api)
    with pytest.raises(CreateUncertainError) as caught:
        await session.create(FOX)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert isinstance(session.close_reason, ZeroDivisionError)
    await session.aclose()
    monkeypatch.setattr("kling_omni_async._creating.creator.prepare", lambda *_: 1 / 0)
    session = new_session(comet_api)
    with pytest.raises(ZeroDivisionError):
        await session.create(FOX)
    await session.aclose()


async def test_told_before_the_caller_knows_that_he_was_cancelled(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that comes in the pass after a cancellation is in the log."""
    settle = Creator._settle

    def cancel_and_settle(self: Creator, creation: Creation, end: Any) -> None:
        creating.cancel()
        settle(self, creation, end)

    monkeypatch.setattr(Creator, "_settle", cancel_and_settle)
    async with open_session(comet_api) as session:
        creating = asyncio.ensure_future(session.create(FOX))
        with pytest.raises(asyncio.CancelledError):
            await creating
    (line,) = warnings_in(caplog)
    assert comet_api.billed[0].task_id in line


# Looking.


async def test_recover(comet_api: SimulatedCometAPI) -> None:
    """A task is found by its external id under its own id, whatever its status; others are None."""
    async with open_session(comet_api) as session:
        task_id = comet_api.create_task(external_task_id="mine", duration=5)
        for status in ("submitted", "succeed"):
            task = await session.recover(" mine ")
            assert task is not None
            assert (task.task_id, task.status) == (task_id, status)
            assert task.external_task_id == "mine"
            await asyncio.sleep(10)
        assert await session.recover("another") is None
        with pytest.raises(InvalidTaskIdError):
            await session.recover("")
        comet_api.fail_next("mine", status=401)
        with pytest.raises(AuthenticationError):
            await session.recover("mine")


async def test_recover_refuses_the_task_of_others(comet_api: SimulatedCometAPI) -> None:
    """An answer whose external id is another is not what was asked for."""
    other = {"task_id": "t-1", "task_status": "succeed", "task_info": {"external_task_id": "x"}}
    comet_api.fail_next("mine", body={"code": 0, "data": other})
    async with open_session(comet_api) as session:
        with pytest.raises(ResponseError, match="is about 'x', and 'mine' was asked for"):
            await session.recover("mine")


async def test_leaving_a_look(comet_api: SimulatedCometAPI) -> None:
    """It does no harm, and leaves nothing behind."""
    comet_api.fail_next(delay=3.0)
    async with open_session(comet_api) as session:
        looking = asyncio.ensure_future(session.recover("x"))
        await comet_api.wait_for_queries(1)
        looking.cancel()
        await asyncio.sleep(10)
        assert repr(session._wings.creator) == "<Creator creating=0>"


# The pace.


async def test_creates_keep_the_pace_and_leave_half_to_queries(
    comet_api: SimulatedCometAPI,
) -> None:
    """At most every second start of `max_rate` is a create's."""
    ids = [comet_api.create_task(duration=0) for _ in range(10)]
    async with open_session(comet_api, max_rate=1) as session:
        creating = asyncio.gather(*(session.create(FOX) for _ in range(10)))
        async with session.poll(ids) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 10
        assert now() <= 22
        await creating
    starts = sorted(query.started for query in comet_api.queries)
    assert min(after - before for before, after in pairwise(starts)) > 0.98
    creates = [query.started for query in comet_api.queries if query.method == "POST"]
    assert creates[-1] <= 22


async def test_without_a_pace_all_go_at_once(comet_api: SimulatedCometAPI) -> None:
    """`max_rate=None` holds no create back, and a place in flight they need none."""
    comet_api.fail_next_create(times=None, delay=1.0)
    async with open_session(comet_api, max_rate=None, max_concurrency=1) as session:
        await asyncio.gather(*(session.create(FOX) for _ in range(20)))
    assert now() == pytest.approx(1.0)


def test_a_policy_of_creates() -> None:
    """The time for one create is 60 s unless it is said otherwise."""
    assert PollPolicy().create_timeout == 60.0


@pytest.mark.parametrize("path", ["/callbacks/s3cr3t?token=t0k3n", "/s3cr3t"])
@pytest.mark.parametrize("slash", ["/", "\\/"])
@pytest.mark.parametrize("status", [400, 503])
async def test_a_callback_that_is_quoted_is_not_shown(
    comet_api: SimulatedCometAPI,
    caplog: pytest.LogCaptureFixture,
    path: str,
    slash: str,
    status: int,
) -> None:
    """Neither an error nor the log has the secret path, and the key is not there either."""
    caplog.set_level(0, "kling_omni_async")
    url = f"https://bot.example{path}"
    by = comet_api.api_key if status == 400 else "us"
    told = f"callback_url {url} is refused by {by}".replace("/", slash)
    body = f'{{"error":{{"message":"{told}","code":"bad_value"}}}}'
    comet_api.fail_next_create(times=3, status=status, body=body.encode())
    async with open_session(comet_api) as session:
        with pytest.raises(KlingOmniError, match="callback_url") as caught:
            await session.create(ImageOrder("a fox", callback_url=url))
        (outcome,) = [
            each async for each in session.generate_many([ImageOrder("a fox", callback_url=url)])
        ]
    shown = [str(caught.value), repr(caught.value), repr(caught.value.__cause__), caplog.text]
    shown.append(json.dumps(outcome.to_dict()))
    for text in shown:
        assert "s3cr3t" not in text
        assert "t0k3n" not in text
        assert comet_api.api_key not in text


async def test_an_answer_that_quotes_nothing_stays_as_it_is(comet_api: SimulatedCometAPI) -> None:
    """Only what is a secret is taken out."""
    async with open_session(comet_api) as session:
        order = ImageOrder("a fox", callback_url="https://bot.example/callbacks/s3cr3t")
        task = await session.create(order)
    assert task.task_id == comet_api.billed[0].task_id


@pytest.mark.parametrize("prompt", ['a sign: {"code":1303}', '{"code":1200,"message":"no"}'])
async def test_a_prompt_that_is_quoted_proves_nothing(
    comet_api: SimulatedCometAPI, prompt: str
) -> None:
    """JSON that an error quotes out of it is not the vendor's word that nothing was made."""
    body = {"code": "bad_response", "message": f"upstream closed while it made {prompt}"}
    comet_api.fail_next_create(times=3, status=502, body=body)
    async with open_session(comet_api) as session:
        with pytest.raises(CreateUncertainError):
            await session.create(ImageOrder(prompt))
    assert list(posts(comet_api).values()) == [1]


async def test_the_vendor_is_believed_whatever_the_prompt(comet_api: SimulatedCometAPI) -> None:
    """A refusal that a gateway has wrapped counts, also where the prompt has JSON of its own."""
    body = {"code": "fail_to_fetch_task", "message": '{"code":1301,"message":"unsafe"}'}
    comet_api.fail_next_create(status=502, body=body)
    async with open_session(comet_api) as session:
        with pytest.raises(ApiError, match="unsafe"):
            await session.create(ImageOrder('a sign: {"code":1303}'))
