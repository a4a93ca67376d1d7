"""The batch that every test here polls, and what must become of each of its ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import anyio

from kling_omni_async import (
    KlingOmniSession,
    PollPolicy,
    TaskFailedError,
    TaskNotFoundError,
    TaskOutcome,
)

KEY = "sk-key-of-the-faults"
COUNT = 300
TASK_IDS = [str(10**17 + number) for number in range(COUNT)]
UNKNOWN_ID = TASK_IDS[137]
FAILING_IDS = frozenset(TASK_IDS[5::30])
REASON = "Image pixel is invalid"
LIFETIMES_S = {task_id: 0.5 + 2.5 * n / COUNT for n, task_id in enumerate(TASK_IDS)}
"""When each task is finished, in s after the API was asked for the first time."""

EARLY = COUNT // 5
"""How many ids are out when a disturbance begins."""

INTERVAL_S = (0.5, 0.8)
QUERY_TIMEOUT_S = 5.0
"""Not soon reached, as a busy machine is not what is tested here."""


POLICY = PollPolicy(interval=INTERVAL_S, query_timeout=QUERY_TIMEOUT_S, max_rate=None)


async def poll_batch(
    session: KlingOmniSession,
    disturb: Callable[[], Coroutine[Any, Any, None]] | None = None,
    *,
    timeout: float = 40.0,
) -> list[TaskOutcome]:
    """Poll all ids to the end of their stream; disturb when the first ones are out."""
    outcomes: list[TaskOutcome] = []
    async with (
        anyio.create_task_group() as beside,
        session.poll(TASK_IDS, timeout=timeout) as stream,
    ):
        async for outcome in stream:
            outcomes.append(outcome)
            if len(outcomes) == EARLY and disturb is not None:
                beside.start_soon(disturb)
        assert not stream.pending
    return outcomes


def assert_each_once(outcomes: Sequence[TaskOutcome]) -> None:
    """Require that every id came out exactly once."""
    assert Counter(outcome.task_id for outcome in outcomes) == Counter(TASK_IDS)


def assert_all_settled(outcomes: Sequence[TaskOutcome]) -> None:
    """Require that every id came out exactly once, and as what the API says of it."""
    assert_each_once(outcomes)
    wrong = [outcome for outcome in outcomes if not _is_right(outcome)]
    assert not wrong


def _is_right(outcome: TaskOutcome) -> bool:
    if outcome.task_id == UNKNOWN_ID:
        return isinstance(outcome.error, TaskNotFoundError)
    if outcome.task_id in FAILING_IDS:
        return isinstance(outcome.error, TaskFailedError) and str(outcome.error) == REASON
    return outcome.ok and len(outcome.images) == 1
