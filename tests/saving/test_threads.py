"""Threads of our own: what they do is waited for, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings

import anyio
import pytest

from kling_omni_async._saving.threads import OwnThreads, in_thread, own_threads
from tests.support import now_waiting


@pytest.mark.anyio
async def test_gives_what_the_work_gave() -> None:
    """Arguments go in, the result comes out, and it is made in another thread."""
    assert await in_thread(divmod, 7, 2) == (3, 1)
    assert await in_thread(threading.get_ident) != threading.get_ident()


@pytest.mark.anyio
async def test_raises_what_the_work_raised() -> None:
    """An error of the work comes out as it is."""
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)


@pytest.mark.anyio
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


@pytest.mark.anyio
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


@pytest.mark.anyio
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


@pytest.mark.anyio
async def test_own_threads_are_made_with_the_first_work() -> None:
    """They have a name of their own, are as few as was said, and are released with the rest."""
    threads = OwnThreads("kling_omni_async.test", 2)
    threads.close()  # nothing was made: nothing to release
    assert "kling_omni_async.test" not in str(threading.enumerate())
    meeting, names = threading.Barrier(2), set[str]()

    def work() -> None:
        meeting.wait(30)
        names.add(threading.current_thread().name)

    own_threads.set(threads)
    await asyncio.gather(*(in_thread(work) for _ in range(6)))
    assert names == {"kling_omni_async.test_0", "kling_omni_async.test_1"}
    threads.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        await in_thread(work)


def test_own_threads_are_never_very_many() -> None:
    """However many images may be on their way, 32 threads are enough for a disk."""
    threads = OwnThreads("kling_omni_async.test", 1000)
    assert threads.pool._max_workers == 32  # type: ignore[attr-defined]
    assert threads.pool is threads.pool
    threads.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_own_threads_work_behind_a_fork() -> None:
    """Made before a fork and used behind it, in parent and child, they work in both."""
    threads = OwnThreads("kling_omni_async.test", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests may be left
        child = os.fork()
    if not child:
        os._exit(threads.pool.submit(int, "7").result(30))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert threads.pool.submit(int, "8").result(30) == 8
    threads.close()
