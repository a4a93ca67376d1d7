"""A session behind a portal of anyio, for threads without a loop: docs/synchronous.md."""

from __future__ import annotations

import math
from collections.abc import Generator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from kling_omni_async import ImageTask, KlingOmniSession, PollPolicy, SessionClosedError, TaskStatus
from kling_omni_async.simulator import SimulatedCometAPI

POLICY = PollPolicy(interval=(0.1, 0.15))


@pytest.fixture
def portal() -> Generator[BlockingPortal]:
    """Give a loop in a thread of its own, on the real clock."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def api(portal: BlockingPortal) -> Generator[SimulatedCometAPI]:
    """Give a simulator in that loop."""
    with portal.wrap_async_context_manager(SimulatedCometAPI(time_scale=50)) as api:
        yield api


def new_session(api: SimulatedCometAPI) -> KlingOmniSession:
    """Make a session, which binds to no loop yet."""
    return KlingOmniSession(api.api_key, base_url=api.base_url, policy=POLICY)


def test_many_threads_share_a_session(portal: BlockingPortal, api: SimulatedCometAPI) -> None:
    """Twenty threads wait for one id at once: each gets the task, the API is asked as by one."""
    task_id = portal.call(api.create_task)
    with (
        portal.wrap_async_context_manager(new_session(api)) as session,
        ThreadPoolExecutor(20) as pool,
    ):

        def wait(_: int) -> ImageTask:
            return portal.call(session.wait, task_id)

        tasks = list(pool.map(wait, range(20)))
    assert {task.status for task in tasks} == {TaskStatus.SUCCEED}
    assert min(api.gaps(), default=math.inf) >= POLICY.interval[0]


def test_leaving_tells_who_still_waits(portal: BlockingPortal, api: SimulatedCometAPI) -> None:
    """The session is closed before the loop ends, so nobody hangs."""
    task_id = portal.call(partial(api.create_task, duration=math.inf))
    with portal.wrap_async_context_manager(new_session(api)) as session:
        waiting = portal.start_task_soon(session.wait, task_id)
        portal.call(api.wait_for_queries)
    with pytest.raises(SessionClosedError):
        waiting.result(timeout=20)


def test_a_wait_that_is_cancelled_is_dropped(
    portal: BlockingPortal, api: SimulatedCometAPI
) -> None:
    """Cancelling the future drops the wait alone: the next call gets the task."""
    task_id = portal.call(partial(api.create_task, duration=math.inf))
    with portal.wrap_async_context_manager(new_session(api)) as session:
        waiting = portal.start_task_soon(session.wait, task_id)
        portal.call(api.wait_for_queries)
        waiting.cancel()
        with pytest.raises(CancelledError):
            waiting.result(timeout=20)
        portal.call(api.finish, task_id)
        task: ImageTask = portal.call(session.wait, task_id)
    assert task.status is TaskStatus.SUCCEED


def test_the_loops_own_thread_must_not_wait(portal: BlockingPortal) -> None:
    """What runs in the loop cannot hand a call to it and wait: anyio says so."""
    with pytest.raises(RuntimeError, match="event loop thread"):
        portal.call(partial(portal.call, print))
