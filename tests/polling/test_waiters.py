"""Those who wait, one class for each way to wait, and the entry that they share."""

from __future__ import annotations

import asyncio

import pytest

from kling_omni_async import (
    ApiError,
    ImageTask,
    TaskFailedError,
    TaskImage,
    TaskStatus,
)
from kling_omni_async._polling.limits import NEVER
from kling_omni_async._polling.verdicts import Verdict, VerdictKind, verdict_on
from kling_omni_async._polling.waiters import (
    Alarm,
    Alarms,
    Entry,
    QueryWaiter,
    ResultWaiter,
    UpdatesWaiter,
    Waiter,
)
from kling_omni_async._results import End

from .scripted import PENDING

pytestmark = pytest.mark.anyio

SUBMITTED = ImageTask(task_id="a", status=TaskStatus.SUBMITTED)
PROCESSING = ImageTask(task_id="a", status=TaskStatus.PROCESSING)
SUCCEED = ImageTask(
    task_id="a", status=TaskStatus.SUCCEED, images=(TaskImage(url="https://img.example/0.png"),)
)
FAILED = ImageTask(task_id="a", status=TaskStatus.FAILED)
DEFECT = ZeroDivisionError("a defect")
REFUSAL = ApiError("no such model", task_id="b")


def new_waiter() -> Waiter:
    """Make a waiter of no kind."""
    return Waiter(added=0.0)


def tell(waiter: Waiter, task: ImageTask | ApiError) -> None:
    """Tell a waiter what an answer means."""
    waiter.told(Entry("a"), verdict_on(task), 1.0)


def updates_of(waiter: UpdatesWaiter) -> list[ImageTask | End]:
    """Take what a watch has not yet taken."""
    return [waiter.updates.get_nowait() for _ in range(waiter.updates.qsize())]


# Who waits.


def test_a_waiter_of_no_kind_cannot_be_told() -> None:
    """It wants an answer and has an alarm; how it takes its end is each kind's own."""
    waiter, alarms = new_waiter(), Alarms()
    assert (waiter.once, waiter.follows, waiter.must_query) == (False, False, False)
    assert waiter.deadline is None
    assert waiter.queried(1.0, alarms) is True
    assert waiter.due(1.0, alarms) is waiter
    with pytest.raises(NotImplementedError):
        tell(waiter, SUCCEED)
    with pytest.raises(NotImplementedError):
        waiter.end(DEFECT, "a")
    with pytest.raises(NotImplementedError):
        Alarm().due(1.0, alarms)


def test_who_leaves_takes_his_alarm_along() -> None:
    """Nothing wakes for one who waits no longer."""
    waiter, alarms = new_waiter(), Alarms()
    alarms.set(waiter, 5.0)
    for _ in range(2):
        waiter.left(alarms)
        assert (waiter.when, alarms.first, len(alarms)) == (NEVER, NEVER, 0)


async def test_wait_gets_the_final_word() -> None:
    """The first final word is the one that counts."""
    waiter = ResultWaiter(added=2.0, deadline=3.0)
    assert (waiter.added, waiter.deadline, waiter.when) == (2.0, 3.0, NEVER)
    tell(waiter, SUCCEED)
    waiter.end(DEFECT, "a")
    assert await waiter.result == verdict_on(SUCCEED)


async def test_wait_gets_the_reason_of_an_end_as_a_value() -> None:
    """As a value it is never reported as an exception that nobody retrieved; it names his id."""
    waiter = ResultWaiter(added=0.0, deadline=None)
    waiter.end(REFUSAL, "a")
    reason = await waiter.result
    assert isinstance(reason, ApiError)
    assert (reason.task_id, str(reason), REFUSAL.task_id) == ("a", str(REFUSAL), "b")


@pytest.mark.parametrize("task", [PROCESSING, FAILED], ids=["pending", "failed"])
async def test_query_gets_a_task_whatever_it_says(task: ImageTask) -> None:
    """A failed task is an answer, too; any answer will do."""
    waiter = QueryWaiter(added=2.0)
    assert (waiter.once, waiter.added, waiter.deadline) == (True, 2.0, None)
    tell(waiter, task)
    assert await waiter.result is task


async def test_query_gets_the_error_of_an_answer_that_is_no_task() -> None:
    """What came instead of a task is its answer, and the first one counts."""
    waiter = QueryWaiter(added=0.0)
    tell(waiter, REFUSAL)
    waiter.end(DEFECT, "a")
    assert await waiter.result is REFUSAL


async def test_query_gets_the_reason_of_an_end() -> None:
    """Its own copy, that names its id."""
    waiter = QueryWaiter(added=0.0)
    waiter.end(REFUSAL, "a")
    reason = await waiter.result
    assert isinstance(reason, ApiError)
    assert reason.task_id == "a"


async def test_watch_gets_changes_only() -> None:
    """The first answer and each change of status come through, repeats do not."""
    waiter = UpdatesWaiter(added=2.0, deadline=3.0)
    assert (waiter.follows, waiter.added, waiter.deadline) == (True, 2.0, 3.0)
    for task in (SUBMITTED, SUBMITTED, PROCESSING, PROCESSING, SUBMITTED):
        tell(waiter, task)
    assert updates_of(waiter) == [SUBMITTED, PROCESSING, SUBMITTED]


@pytest.mark.parametrize("task", [SUCCEED, FAILED], ids=["succeed", "failed"])
async def test_watch_gives_the_final_task_and_ends(task: ImageTask) -> None:
    """A failed task is an answer like any other."""
    waiter = UpdatesWaiter(added=0.0, deadline=None)
    tell(waiter, task)
    assert updates_of(waiter) == [task, End()]


async def test_watch_ends_even_without_a_task() -> None:
    """A final word that has no task is an end, not a hole in the iteration."""
    waiter = UpdatesWaiter(added=0.0, deadline=None)
    failed = Verdict(VerdictKind.FINAL, error=TaskFailedError("no"))
    waiter.told(Entry("a"), failed, 1.0)
    assert updates_of(waiter) == [End()]


async def test_watch_raises_every_other_end() -> None:
    """A refusal comes as an end with a reason, and so does an end of all waiting."""
    waiter = UpdatesWaiter(added=0.0, deadline=None)
    tell(waiter, REFUSAL)
    waiter.end(REFUSAL, "a")
    first, second = updates_of(waiter)
    assert first == End(REFUSAL)
    assert isinstance(second, End)
    assert isinstance(second.reason, ApiError)
    assert second.reason.task_id == "a"


# The entry of an id.


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_entry_knows_who_waits_in_order(count: int) -> None:
    """One who waits or many: the first who came stands first, and each knows the entry."""
    entry = Entry("a")
    entry.queries = 4
    waiters = [new_waiter() for _ in range(count)]
    for number, waiter in enumerate(waiters):
        assert entry.join(waiter) is (number == 0)
        assert (waiter.entry, waiter.queries_before) == (entry, 4)
    assert entry.waiters() == tuple(waiters)
    assert entry.is_watched


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_entry_that_all_have_left_is_unwatched(count: int) -> None:
    """When the last one has gone nobody watches; a stranger's leaving changes nothing."""
    entry = Entry("a")
    waiters = [new_waiter() for _ in range(count)]
    for waiter in waiters:
        entry.join(waiter)
    entry.leave(new_waiter())
    for number, waiter in enumerate(waiters, 1):
        assert entry.is_watched
        assert entry.leave(waiter) is (number == count)
        assert waiter.entry is None
    assert (entry.is_watched, entry.waiters()) == (False, ())


@pytest.mark.parametrize("wanted", [(), (True,), (False,), (False, True), (True, False, False)])
def test_all_who_wait_hear_of_a_query(wanted: tuple[bool, ...]) -> None:
    """It is wanted if anybody wants it; those of a stream that was left do not."""
    entry, alarms = Entry("a"), Alarms()
    heard: list[tuple[bool, float]] = []

    class Listener(Waiter):
        def __init__(self, *, wants: bool) -> None:
            super().__init__(added=0.0)
            self.wants = wants

        def queried(self, now: float, alarms: Alarms) -> bool:
            heard.append((self.wants, now + len(alarms)))
            return self.wants

    for each in wanted:
        entry.join(Listener(wants=each))
    assert entry.queried(3.0, alarms) is any(wanted)
    assert heard == [(each, 3.0) for each in wanted]


def test_an_entry_can_be_joined_again() -> None:
    """After all have left the next one is like the first."""
    entry = Entry("a")
    for _ in range(2):
        pair = new_waiter(), new_waiter()
        for waiter in pair:
            entry.join(waiter)
        assert entry.waiters() == pair
        for waiter in pair:
            entry.leave(waiter)


def test_an_entry_reads_its_last_answer_again() -> None:
    """It keeps the bytes of an answer, which are a quarter of the record."""
    entry = Entry("a")
    assert entry.last_task() is None
    entry.body = PENDING.body
    task = entry.last_task()
    assert task is not None
    assert (task.task_id, task.status) == ("a", TaskStatus.PROCESSING)


def test_an_entry_shows_its_state() -> None:
    """The repr tells the id, the last status, the queries and the next time."""
    entry = Entry("a")
    assert repr(entry) == "<Entry 'a' None queries=0 due=inf>"
    entry.queries, entry.status, entry.when = 2, TaskStatus.PROCESSING, 3.5
    assert repr(entry) == "<Entry 'a' processing queries=2 due=3.5>"


async def test_a_result_can_be_dropped_while_it_is_awaited() -> None:
    """Telling one who has been cancelled does nothing."""
    waiter = ResultWaiter(added=0.0, deadline=None)
    task = asyncio.ensure_future(waiter.result)
    task.cancel()
    tell(waiter, SUCCEED)
    assert waiter.result.cancelled()
