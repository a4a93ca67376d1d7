"""One timer ends whatever takes too long, and no cancellation but its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from kling_omni_async._api.client import SharedTimeout
from tests.support import freeze, now_waiting

pytestmark = pytest.mark.anyio

LIMIT_S = 15.0


@contextmanager
def within(limit: SharedTimeout) -> Iterator[None]:
    """Bound what is inside as the client does."""
    task = asyncio.current_task()
    assert task
    limit.start(task)
    try:
        yield
    except asyncio.CancelledError:
        if limit.stop(task):
            raise TimeoutError from None
        raise
    finally:
        limit.stop(task)


async def work(limit: SharedTimeout, *, for_s: float, after_s: float = 0.0) -> float:
    """Begin after a while, work for some time, and give the time at which it ended, in s."""
    await asyncio.sleep(after_s)
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        with within(limit):
            await asyncio.sleep(for_s)
    except TimeoutError:
        return began - loop.time()
    return loop.time() - began


async def test_each_has_its_own_time() -> None:
    """What ends in time is left alone, also beside others that do not; each gets the full time."""
    limit = SharedTimeout(LIMIT_S)
    took = await asyncio.gather(
        work(limit, for_s=3.0),
        work(limit, for_s=99.0),
        work(limit, for_s=14.9, after_s=1.0),
        work(limit, for_s=99.0, after_s=1.0),
        work(limit, for_s=99.0, after_s=7.5),
    )
    assert took == pytest.approx([3.0, -LIMIT_S, 14.9, -LIMIT_S, -LIMIT_S])


async def test_can_be_used_again() -> None:
    """A task that was too late once has its full time again, and its cancellation is forgotten."""
    limit = SharedTimeout(LIMIT_S)
    assert await work(limit, for_s=99.0) == pytest.approx(-LIMIT_S)
    assert await work(limit, for_s=14.0) == pytest.approx(14.0)
    task = asyncio.current_task()
    assert task
    assert not task.cancelling()


async def test_leaves_no_timer_behind() -> None:
    """When nothing is under way, nothing will wake the loop."""
    limit = SharedTimeout(LIMIT_S)
    await asyncio.gather(work(limit, for_s=3.0), work(limit, for_s=5.0))
    assert limit._timer is None
    await asyncio.gather(work(limit, for_s=99.0), work(limit, for_s=99.0))
    assert limit._timer is None
    assert not limit._overdue


async def test_an_outsiders_cancellation_stays_one() -> None:
    """A task that somebody else cancels is cancelled, not late."""
    limit = SharedTimeout(LIMIT_S)
    task = asyncio.create_task(work(limit, for_s=99.0))
    await now_waiting()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limit._timer is None


@pytest.mark.parametrize("outsider_s", [LIMIT_S, LIMIT_S - 1e-9])
async def test_an_outsider_wins_at_the_deadline(outsider_s: float) -> None:
    """A task that is cancelled by somebody and late in one pass of the loop is cancelled."""
    limit = SharedTimeout(LIMIT_S)
    task = asyncio.create_task(work(limit, for_s=99.0))
    await now_waiting()
    loop = asyncio.get_running_loop()
    loop.call_later(outsider_s, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_scope_around_it_stays_the_scopes() -> None:
    """A scope of anyio that ends first leaves no time-out, and the other way round."""
    limit = SharedTimeout(LIMIT_S)
    with anyio.move_on_after(10.0) as scope:
        await work(limit, for_s=99.0)
    assert scope.cancelled_caught
    with anyio.move_on_after(20.0) as scope:
        assert await work(limit, for_s=99.0) == pytest.approx(-LIMIT_S)
    assert not scope.cancelled_caught


async def test_another_error_at_the_deadline_comes_out() -> None:
    """What the work itself raised when it was cancelled is not hidden."""
    limit = SharedTimeout(LIMIT_S)

    async def fail_late() -> None:
        with within(limit):
            try:
                await asyncio.sleep(99.0)
            finally:
                _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        await fail_late()
    task = asyncio.current_task()
    assert task
    assert not task.cancelling()


async def test_a_frozen_loop_is_no_time_out() -> None:
    """Whoever waited when the loop stood still gets that time back, and a second at least."""
    limit = SharedTimeout(LIMIT_S)
    works = [
        asyncio.create_task(work(limit, for_s=99.0)),
        asyncio.create_task(work(limit, for_s=99.0, after_s=5.0)),
        asyncio.create_task(work(limit, for_s=26.0, after_s=10.0)),
        asyncio.create_task(work(limit, for_s=99.0, after_s=38.0)),
    ]
    await asyncio.sleep(12.0)
    freeze(20.0)  # until 32: the first was due at 15, so 17 are lost
    assert await asyncio.gather(*works) == pytest.approx([-33.0, -32.0, 26.0, -15.0])
    assert limit._timer is None


async def test_time_is_given_back_once() -> None:
    """A loop that stands still again and again lets no work run for ever."""
    limit = SharedTimeout(LIMIT_S)
    works = [asyncio.create_task(work(limit, for_s=999.0)) for _ in range(2)]
    await asyncio.sleep(14.0)
    freeze(11.0)
    await asyncio.sleep(0.5)
    freeze(50.0)
    assert await asyncio.gather(*works) == pytest.approx([-75.5, -75.5])
    assert limit._timer is None


async def test_what_begins_after_a_freeze_has_its_own_time() -> None:
    """What began when the loop ran again, but before the timer could, gets nothing back."""
    limit = SharedTimeout(LIMIT_S)
    first = asyncio.create_task(work(limit, for_s=99.0))
    await asyncio.sleep(14.0)
    freeze(8.0)
    later = asyncio.create_task(work(limit, for_s=99.0))
    assert await asyncio.gather(first, later) == pytest.approx([-23.0, -15.0])


@pytest.mark.parametrize(("late_s", "took"), [(1.0, -16.0), (1.25, -17.25)])
async def test_a_little_late_is_no_freeze(late_s: float, took: float) -> None:
    """A timer that comes up to a second late is as good as any."""
    limit = SharedTimeout(LIMIT_S)
    first = asyncio.create_task(work(limit, for_s=99.0))
    await asyncio.sleep(14.0)
    freeze(1.0 + late_s)
    assert await first == pytest.approx(took)


async def test_what_begins_after_a_standstill_gets_no_more_time() -> None:
    """The time in which nobody could read is given to what was under way, and to nothing else."""
    limit = SharedTimeout(10.0)
    before, after = (asyncio.ensure_future(asyncio.sleep(1e6)) for _ in range(2))
    limit.start(before)
    freeze(30.0)
    limit.start(after)
    await asyncio.sleep(9.9)
    assert before.cancelled()
    assert not after.done()
    await asyncio.sleep(0.2)
    assert after.cancelled()
    for task in (before, after):
        limit.stop(task)
