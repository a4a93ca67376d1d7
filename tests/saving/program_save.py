"""Polls the ids on stdin, saves their images, and tells how much memory that took at most."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable

from kling_omni_async import KlingOmniSession, PollPolicy
from tests.program_many_ids import peak_rss_mb


async def save_all(task_ids: Iterable[str], folder: str) -> dict[str, float]:
    """Save the images of all tasks; the API is that of the environment."""
    counts = {"outcomes": 0, "images": 0, "bytes": 0}
    policy = PollPolicy(interval=(1.0, 2.0), max_rate=None)
    async with (
        KlingOmniSession(policy=policy) as session,
        session.poll(task_ids, save_to=folder) as outcomes,
    ):
        async for outcome in outcomes:
            counts["outcomes"] += outcome.ok
            counts["images"] += len(outcome.saved)
            counts["bytes"] += sum(image.size for image in outcome.saved)
    return {**counts, "rss_mb": peak_rss_mb()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(save_all(sys.stdin.read().split(), sys.argv[1]))))  # noqa: T201 - for the test
