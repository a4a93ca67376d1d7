"""How results reach those who wait: an outlet for a stream, a future for one, and their ends."""

# Who waits is only visible inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging

import pytest

from kling_omni_async import ApiError, KlingOmniError, TaskFailedError, TaskOutcome
from kling_omni_async._results import (
    MOST_SUCCESSES,
    TAKES_PER_PASS,
    End,
    Outlet,
    Successes,
    log_end,
    one_line,
    raise_copy,
    resolve,
)

from .support import now_waiting

pytestmark = pytest.mark.anyio

DEFECT = ZeroDivisionError("a defect")
REFUSAL = ApiError("no such model", task_id="b")


def filled(*task_ids: str) -> Outlet:
    """Make an outlet that holds an outcome for each id."""
    outlet = Outlet()
    for task_id in task_ids:
        outlet.put(TaskOutcome(task_id=task_id))
    return outlet


async def taken(outlet: Outlet) -> list[str]:
    """Take until the end; return the ids, and the name of what was raised."""
    found: list[str] = []
    while True:
        try:
            found.append((await outlet.take()).task_id)
        except BaseException as end:  # noqa: BLE001 - whatever it is
            return [*found, type(end).__name__]


# Ends.


def test_a_plain_end_stops_an_iteration() -> None:
    """An end without a reason is the end of the iteration."""
    with pytest.raises(StopAsyncIteration):
        End().throw()


@pytest.mark.parametrize("reason", [REFUSAL, DEFECT], ids=["ours", "a defect"])
def test_an_error_is_raised_as_a_copy(reason: Exception) -> None:
    """Many who wait for one reason share no traceback, and it does not grow."""
    raised: list[BaseException] = []
    for _ in range(2):
        with pytest.raises(type(reason)) as caught:
            End(reason).throw()
        raised.append(caught.value)
    assert len({id(each) for each in (*raised, reason)}) == 3
    assert [str(each) for each in raised] == [str(reason)] * 2
    assert reason.__traceback__ is None


def test_a_reason_names_the_id_of_the_one_who_gets_it() -> None:
    """An error that is about the whole session is raised for one id."""
    with pytest.raises(ApiError) as caught:
        raise_copy(REFUSAL, "a")
    assert (caught.value.task_id, REFUSAL.task_id) == ("a", "b")


async def test_a_result_that_nobody_wants_is_dropped() -> None:
    """Handing a value to one who has left does nothing, and the first value stays."""
    result: asyncio.Future[int | BaseException] = asyncio.get_running_loop().create_future()
    resolve(result, 1)
    resolve(result, 2)
    assert await result == 1


# The outlet of a stream.


@pytest.mark.parametrize(("reason", "name"), [(None, "StopAsyncIteration"), (REFUSAL, "ApiError")])
async def test_an_end_comes_behind_what_was_put(reason: ApiError | None, name: str) -> None:
    """What is there comes out first, then the end, at every further step; the first one counts."""
    outlet = filled("a", "b")
    outlet.end(End(reason))
    outlet.end(End(DEFECT))
    outlet.put(TaskOutcome(task_id="c"))
    assert await taken(outlet) == ["a", "b", name]
    for _ in range(3):
        assert await taken(outlet) == [name]


@pytest.mark.parametrize(
    ("before", "name"), [(None, "ZeroDivisionError"), (End(), "StopAsyncIteration")]
)
async def test_a_cut_hands_nothing_more_out(before: End | None, name: str) -> None:
    """What nobody has taken is dropped; who comes gets the end that there was, or the cut's."""
    outlet = filled("a", "b")
    if before:
        outlet.end(before)
    outlet.cut(End(DEFECT))
    outlet.put(TaskOutcome(task_id="c"))
    outlet.end(End(REFUSAL))
    for _ in range(3):
        assert await taken(outlet) == [name]


async def test_the_first_cut_wins() -> None:
    """What cuts a stream again changes nothing."""
    outlet = filled("a")
    outlet.cut(End(REFUSAL))
    outlet.cut(End())
    assert await taken(outlet) == ["ApiError"]


@pytest.mark.parametrize("way", ["end", "cut"])
async def test_an_end_reaches_every_consumer(way: str) -> None:
    """Of several consumers that wait each one gets the end."""
    outlet = Outlet()
    takes = [asyncio.ensure_future(taken(outlet)) for _ in range(3)]
    await now_waiting()
    getattr(outlet, way)(End(DEFECT))
    assert await asyncio.gather(*takes) == [["ZeroDivisionError"]] * 3


async def test_each_outcome_goes_to_one_consumer() -> None:
    """Consumers that wait get one each, the first who came the first."""
    outlet = Outlet()
    takes = [asyncio.ensure_future(outlet.take()) for _ in range(2)]
    await now_waiting()
    for task_id in "ab":
        outlet.put(TaskOutcome(task_id=task_id))
    assert [found.task_id for found in await asyncio.gather(*takes)] == ["a", "b"]


async def test_a_cancelled_consumer_loses_no_outcome() -> None:
    """One that is cancelled in the pass of the delivery leaves it to the next one."""
    outlet = Outlet()
    take = asyncio.ensure_future(outlet.take())
    await now_waiting()
    outlet.put(TaskOutcome(task_id="a"))
    take.cancel()
    with pytest.raises(asyncio.CancelledError):
        await take
    assert (await outlet.take()).task_id == "a"


@pytest.mark.parametrize("late", [False, True])
async def test_a_consumer_that_was_woken_in_vain_wakes_the_next(*, late: bool) -> None:
    """One that is cancelled while others wait takes neither their outcome nor their end away."""
    outlet = Outlet()
    first, second, third = (asyncio.ensure_future(taken(outlet)) for _ in range(3))
    await now_waiting()
    if not late:
        first.cancel()
    outlet.put(TaskOutcome(task_id="a"))
    if late:
        first.cancel()
    await now_waiting()
    outlet.end(End())
    assert await first == ["CancelledError"]
    assert await second == ["a", "StopAsyncIteration"]
    assert await third == ["StopAsyncIteration"]


async def test_an_outcome_may_go_to_who_came_later() -> None:
    """Whoever takes it first: the one that was woken for it waits on, and gets the next."""
    outlet = Outlet()
    waiting = asyncio.ensure_future(outlet.take())
    await now_waiting()
    outlet.put(TaskOutcome(task_id="a"))
    assert (await outlet.take()).task_id == "a"
    await now_waiting()
    assert not waiting.done()
    outlet.put(TaskOutcome(task_id="b"))
    assert (await waiting).task_id == "b"


async def test_a_consumer_that_is_cancelled_after_its_outcome_has_gone_wakes_nobody() -> None:
    """There is nothing left that another could take: who waits, waits on."""
    outlet = Outlet()
    first, second = (asyncio.ensure_future(outlet.take()) for _ in range(2))
    await now_waiting()
    outlet.put(TaskOutcome(task_id="a"))
    assert (await outlet.take()).task_id == "a"
    first.cancel()
    await asyncio.wait([first])
    outlet.put(TaskOutcome(task_id="b"))
    assert (first.cancelled(), (await second).task_id) == (True, "b")


async def test_consumers_that_come_and_go_leave_nothing_behind() -> None:
    """One that was cancelled is not kept, and what comes next goes to one that waits."""
    outlet = Outlet()
    for _ in range(3):
        take = asyncio.ensure_future(outlet.take())
        await now_waiting()
        take.cancel()
        await asyncio.wait([take])
    assert len(outlet._consumers) == 0


async def test_a_consumer_of_much_gives_way() -> None:
    """Other tasks have a turn while it takes what is ready; cancelled just then it loses none."""
    outlet = filled(*map(str, range(2 * TAKES_PER_PASS)))
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    for _ in range(TAKES_PER_PASS - 1):
        await outlet.take()
    assert turns == []
    take = asyncio.ensure_future(outlet.take())
    await asyncio.sleep(0)
    take.cancel()
    await asyncio.wait([take])
    assert (take.cancelled(), turns) == (True, [1])
    assert (await outlet.take()).task_id == str(TAKES_PER_PASS - 1)


def test_an_outlet_tells_its_state() -> None:
    """The repr says whether it is open, ended or cut, and how much there is to take."""
    outlet = filled("a", "b")
    assert (repr(outlet), outlet.has_ended) == ("<Outlet open, 2 to take>", False)
    outlet.end(End())
    assert (repr(outlet), outlet.has_ended) == ("<Outlet ended, 2 to take>", True)
    outlet.cut(End())
    assert (repr(outlet), outlet.has_ended) == ("<Outlet ended, 0 to take>", True)


# What is logged of an end.


@pytest.mark.parametrize(
    ("error", "queries", "line"),
    [
        (None, 1, "task 'a': succeeded after 1 query"),
        (None, 0, "task 'a': succeeded after 0 queries"),
        (TaskFailedError("too\ndark"), 2, r"task 'a': TaskFailedError: too\ndark after 2 queries"),
    ],
)
def test_an_end_is_one_line(
    caplog: pytest.LogCaptureFixture, error: KlingOmniError | None, queries: int, line: str
) -> None:
    """It names the id, how it ended, and the queries that it took; words of the API forge none."""
    log_end("a", error, queries=queries)
    assert caplog.messages == []
    caplog.set_level(logging.INFO)
    log_end("a", error, queries=queries)
    assert caplog.messages == [line]


def test_a_plain_text_stays_as_it_is() -> None:
    """Only what cannot be printed in one line is written by its escapes."""
    assert one_line(KlingOmniError('it\'s "fine"')) == 'it\'s "fine"'


def test_when_successes_were_first_seen() -> None:
    """The first sight counts, and very many are not remembered for ever."""
    successes = Successes()
    assert successes.first_seen("a", 1.0) == 1.0
    assert successes.first_seen("a", 7.0) == 1.0
    for number in range(MOST_SUCCESSES - 1):
        successes.first_seen(str(number), 8.0)
    assert successes.first_seen("a", 9.0) == 1.0
    successes.first_seen("b", 9.0)
    assert successes.first_seen("a", 10.0) == 10.0
