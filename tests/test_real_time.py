"""What a virtual clock cannot show: aiohttp's reuse of connections, and another async plugin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from kling_omni_async import KlingOmniSession, TaskStatus
from kling_omni_async._api.client import KEEP_ALIVE_S
from kling_omni_async.simulator import SimulatedCometAPI

from .support import all_of, new_session, open_session

QUICK: dict[str, Any] = {"interval": (0.05, 0.1), "max_rate": None}


class TestOnTheRealClock:
    """Under anyio's plugin, with the loop that users have."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Take asyncio as it comes."""
        return "asyncio"

    async def test_connections_are_reused(self, comet_api: SimulatedCometAPI) -> None:
        """Round after round of queries opens no more connections than were in flight at once."""
        comet_api.fail_next(times=None, delay=0.01)
        task_ids = [comet_api.create_task(duration=1000) for _ in range(20)]
        async with open_session(comet_api, **QUICK) as session:
            polling = asyncio.ensure_future(all_of(session, task_ids))
            await comet_api.wait_for_queries(200)  # however long that takes on a busy machine
            for task_id in task_ids:
                comet_api.finish(task_id)
            outcomes = await polling
            pool: Any = session._wings.client._pool
            assert pool.http.connector._keepalive_timeout == KEEP_ALIVE_S
        assert all(outcome.ok for outcome in outcomes)
        assert comet_api.connections_opened <= comet_api.in_flight_peak
        assert len(comet_api.queries) >= 2 * comet_api.connections_opened

    async def test_pauses_hold_in_real_time(self, comet_api: SimulatedCometAPI) -> None:
        """On the real clock too no pause is shorter than the interval's lower bound."""
        task_ids = [comet_api.create_task(duration=1000) for _ in range(30)]
        async with open_session(comet_api, **QUICK) as session:
            polling = asyncio.ensure_future(all_of(session, task_ids))
            await comet_api.wait_for_queries(150)  # however long that takes on a busy machine
            for task_id in task_ids:
                comet_api.finish(task_id)
            await polling
        assert min(comet_api.gaps()) >= 0.05


class TestUnderPytestAsyncio:
    """A fixture of pytest-asyncio enters in one task and leaves in another."""

    @pytest_asyncio.fixture
    async def api(self) -> AsyncGenerator[SimulatedCometAPI]:
        """Give a simulator."""
        async with SimulatedCometAPI() as api:
            yield api

    @pytest_asyncio.fixture
    async def session(self, api: SimulatedCometAPI) -> AsyncGenerator[KlingOmniSession]:
        """Give a session that is left after the test."""
        async with new_session(api, **QUICK) as session:
            yield session

    @pytest.mark.asyncio
    async def test_a_session_can_be_a_fixture(
        self, api: SimulatedCometAPI, session: KlingOmniSession
    ) -> None:
        """A session that a fixture opens and closes serves the test in between."""
        task_id = api.create_task(duration=0.2)
        assert (await session.wait(task_id)).status is TaskStatus.SUCCEED
