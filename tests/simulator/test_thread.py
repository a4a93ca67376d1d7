"""The simulator outside of asyncio: a thread with a loop of its own, and nothing left of either."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import pytest

from kling_omni_async import KlingOmniSession
from kling_omni_async.simulator import SimulatedCometAPI

from .client import COLLECTION


def status_word(api: SimulatedCometAPI, task_id: str) -> str:
    """Ask for the status word of a task, as a program without asyncio does."""
    headers = {"Authorization": f"Bearer {api.api_key}"}
    with urlopen(Request(f"{api.base_url}{COLLECTION}/{task_id}", headers=headers)) as answer:  # noqa: S310 - the simulator's
        word: str = json.load(answer)["data"]["task_status"]
        return word


def test_serves_beside_the_test() -> None:
    """What a test does to it is seen by a program, and what was asked is seen by the test."""
    with SimulatedCometAPI() as api:
        task_id = api.create_task()
        assert status_word(api, task_id) == "submitted"
        api.finish(task_id)
        assert status_word(api, task_id) == "succeed"
        assert [query.status for query in api.queries] == [200, 200]
        assert api.queries_of(task_id) == api.queries
        assert len(api.gaps(task_id)) == 1
        assert api.image_requests == api.image_requests_of(task_id) == ()


def test_leaves_no_thread_and_no_loop() -> None:
    """After the block its thread has ended, its log can be read, and its port is closed."""
    before = set(threading.enumerate())
    with SimulatedCometAPI() as api:
        task_id = api.create_task()
        status_word(api, task_id)
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before
    assert len(api.queries) == 1
    with pytest.raises(OSError, match="refused"):
        status_word(api, task_id)


def test_leaves_no_thread_behind_an_error() -> None:
    """An exception of the block comes out as it is, and so does one of the start."""
    before = set(threading.enumerate())
    error = LookupError("of the block")
    with pytest.raises(LookupError) as caught, SimulatedCometAPI() as api:  # noqa: PT012 - a block
        with pytest.raises(RuntimeError, match="runs already"), api:
            pass
        with pytest.raises(OSError, match="in use"), SimulatedCometAPI(port=port_of(api)):
            pass
        raise error
    assert caught.value is error
    assert set(threading.enumerate()) == before


def port_of(api: SimulatedCometAPI) -> int:
    """Return the port that a simulator listens on."""
    return int(api.base_url.rpartition(":")[2])


def test_methods_can_be_called_from_any_thread() -> None:
    """Tasks that many threads create at once are all there, each with an id of its own."""
    with SimulatedCometAPI() as api, ThreadPoolExecutor(4) as threads:
        made = [threads.submit(api.create_task) for _ in range(200)]
        assert len({each.result() for each in made}) == 200
        assert "200 tasks" in repr(api)


def test_another_loop_can_wait_for_queries() -> None:
    """A program with a loop of its own runs against it, and waits for what it is asked."""

    async def main(api: SimulatedCometAPI, task_id: str) -> None:
        async with KlingOmniSession(api.api_key, base_url=api.base_url) as session:
            asked = asyncio.create_task(api.wait_for_queries(1, task_id))
            await session.query(task_id)
            await asked
        await api.aclose()

    with SimulatedCometAPI() as api:
        task_id = api.create_task()
        asyncio.run(main(api, task_id))
        assert "not running" in repr(api)


def test_who_still_waits_does_not_hold_up_the_end() -> None:
    """The end of the block cancels those who wait for queries that never come."""
    begun = threading.Event()

    async def wait(api: SimulatedCometAPI) -> None:
        waiting = asyncio.create_task(api.wait_for_image_requests())
        await asyncio.sleep(0)
        begun.set()
        await waiting

    with ThreadPoolExecutor(1) as threads:
        with SimulatedCometAPI() as api:
            waiting = threads.submit(asyncio.run, wait(api))
            begun.wait()
        assert isinstance(waiting.exception(), asyncio.CancelledError)


def test_starts_again_where_it_was() -> None:
    """A second block, with another loop, has the same port, the tasks, and their age."""
    api = SimulatedCometAPI(time_scale=1e9)
    with api:
        task_id, url = api.create_task(), api.base_url
        assert status_word(api, task_id) == "succeed"
    with api:
        assert api.base_url == url
        assert status_word(api, task_id) == "succeed"


def test_a_fixture_beside_the_test(comet_api: SimulatedCometAPI) -> None:
    """A test that is no coroutine function asks for ``comet_api`` too."""
    assert status_word(comet_api, comet_api.create_task()) == "submitted"
