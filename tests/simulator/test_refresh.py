"""What a gateway shows that asks its provider only now and then, and durations of one's own."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from kling_omni_async import ImageOrder, TaskStatus
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import new_session, now

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_task_looks_as_it_did_until_the_next_refresh(*, wrapped: bool) -> None:
    """A task of 20 s is shown as finished after 30 s, with the time of its true end."""
    async with (
        SimulatedCometAPI(refresh=15, wrapped=wrapped) as api,
        new_session(api, interval=(1, 1)) as session,
    ):
        task_id = api.create_task(duration=20)
        began = now()
        task = await session.wait(task_id)
        assert now() - began == pytest.approx(30.0, abs=1.0)
        assert task.created_at is not None
        assert task.updated_at is not None
        assert (task.updated_at - task.created_at).total_seconds() == pytest.approx(20, abs=1)


async def test_a_task_is_there_before_the_first_refresh() -> None:
    """It is submitted until then, not unknown."""
    async with SimulatedCometAPI(refresh=15) as api, new_session(api) as session:
        await asyncio.sleep(7)
        task = await session.query(api.create_task(duration=20))
        assert task.status is TaskStatus.SUBMITTED


async def test_durations_are_drawn_as_one_likes() -> None:
    """Also those of tasks that a request has made; one that is named goes before."""

    def draw(rng: Random) -> float:
        return 5.0 + rng.random()

    async with SimulatedCometAPI(durations=draw) as api, new_session(api) as session:
        task = await session.create(ImageOrder("a fox"))
        await asyncio.sleep(6)
        assert (await session.query(task.task_id)).status is TaskStatus.SUCCEED
        slow = api.create_task(duration=50)
        await asyncio.sleep(6)
        assert (await session.query(slow)).status is not TaskStatus.SUCCEED


@pytest.mark.parametrize("bad", [{"refresh": -1}, {"durations": 5}])
def test_nonsense_is_refused(bad: dict[str, object]) -> None:
    """A typed error names the argument."""
    with pytest.raises((TypeError, ValueError), match=next(iter(bad))):
        SimulatedCometAPI(**bad)  # type: ignore[arg-type]
