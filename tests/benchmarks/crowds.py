"""What a crowd costs those who come: adding ids, and a newcomer's first query beside a crowd.

Run as ``python -m tests.benchmarks.crowds [--ids N] [--rounds N]``. Adding is CPU time; the
newcomer is timed by the clock, from the call to the answer, as its caller sees it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Final

from kling_omni_async import KlingOmniSession, PollPolicy

from .answers import API_KEY, DONE, OPEN, task_ids
from .processes import fresh, running_server
from .queries import all_added
from .tables import Group, alternate, as_markdown, quantile, row

MOST_US: Final = 4.0
MOST_S: Final = 1.0
PAUSE_S: Final = 0.5
HOW: Final = (
    "The ids come from a list, all at once. Adding is the CPU time until all are read, with what "
    "the session did meanwhile. A newcomer is a call of `wait`, or a `poll` of one id, for a task "
    "that is finished, while the crowd is waiting for its first queries: the time from the call "
    "to the result, at the 99th percentile of a run."
)


def measure(*, ids: int = 100_000, rounds: int = 5, newcomers: int = 10) -> Group:
    """Add ids, then come to them as a newcomer."""
    with running_server() as base_url:
        block = fresh(come, base_url, ids, newcomers)
        found = alternate({"": block}, rounds)[""]
    policy = "default (`max_rate=100`)"
    adding = [us for us, _, _ in found]
    waits = [quantile(each, 0.99) for _, each, _ in found]
    polls = [quantile(each, 0.99) for _, _, each in found]
    rows = [
        row(f"adding each of {ids:,} ids", adding, policy=policy, unit=" µs", most=MOST_US),
        row(f"a `wait` beside {ids:,} ids", waits, policy=policy, unit=" s", digits=3, most=MOST_S),
        row(f"a `poll` beside {ids:,} ids", polls, policy=policy, unit=" s", digits=3, most=MOST_S),
    ]
    return Group("Newcomers", HOW, rows)


def come(base_url: str, ids: int, newcomers: int) -> tuple[float, list[float], list[float]]:
    """Give the µs to add each id, and the s that each `wait` and each `poll` took."""
    return asyncio.run(_come(base_url, ids, newcomers))


async def _come(base_url: str, ids: int, newcomers: int) -> tuple[float, list[float], list[float]]:
    async with KlingOmniSession(API_KEY, base_url=base_url, policy=PollPolicy()) as session:
        first, *others = task_ids(DONE, 2 * newcomers + 1)
        await session.wait(first)
        crowd = task_ids(OPEN, ids)
        began = time.process_time()
        async with session.poll(crowd):
            await all_added(session, ids)
            adding_us = (time.process_time() - began) / ids * 1e6
            waits = [await _waited(session, one) for one in others[:newcomers]]
            polls = [await _polled(session, one) for one in others[newcomers:]]
    return adding_us, waits, polls


async def _waited(session: KlingOmniSession, task_id: str) -> float:
    await asyncio.sleep(PAUSE_S)
    began = time.perf_counter()
    await session.wait(task_id)
    return time.perf_counter() - began


async def _polled(session: KlingOmniSession, task_id: str) -> float:
    await asyncio.sleep(PAUSE_S)
    began = time.perf_counter()
    async with session.poll([task_id]) as outcomes:
        await anext(outcomes)
    return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--newcomers", type=int, default=10)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
