"""Work in threads is waited for, whatever happens to who began it."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from kling_omni_async._saving.files import in_thread
from tests.support import now_waiting

pytestmark = pytest.mark.anyio


async def test_gives_what_the_work_gave() -> None:
    """Arguments go in, the result comes out, and it is made in another thread."""
    assert await in_thread(divmod, 7, 2) == (3, 1)
    assert await in_thread(threading.get_ident) != threading.get_ident()


async def test_raises_what_the_work_raised() -> None:
    """An error of the work comes out as it is."""
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)


async def test_a_cancelled_scope_waits_for_the_end() -> None:
    """A scope that is cancelled meanwhile ends after the work, and nothing behind it is begun."""
    go_on, done = threading.Event(), list[str]()
    scope = anyio.CancelScope()

    def work() -> None:
        assert go_on.wait(30)
        done.append("work")

    async def run() -> None:
        with scope:
            await in_thread(work)
            await asyncio.sleep(0)
            done.append("more")

    running = asyncio.create_task(run())
    await now_waiting()
    scope.cancel()
    await now_waiting(20)
    assert not running.done()
    go_on.set()
    await running
    assert done == ["work"]


async def test_a_cancelled_task_waits_for_the_end() -> None:
    """A task's own cancellation, as of a time-out, comes out when the thread has let go."""
    go_on, undone = threading.Event(), list[int]()

    def work() -> int:
        assert go_on.wait(30)
        return 7

    running = asyncio.create_task(in_thread(work, undo=undone.append))
    await now_waiting()
    running.cancel()
    await now_waiting(20)
    assert not running.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert undone == [7]


async def test_an_error_of_work_that_was_cancelled() -> None:
    """Nobody is told of an error that comes after the cancellation, the loop's handler neither."""
    go_on = threading.Event()

    def work() -> None:
        assert go_on.wait(30)
        raise LookupError

    running = asyncio.create_task(in_thread(work))
    await now_waiting()
    running.cancel()
    await now_waiting()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
