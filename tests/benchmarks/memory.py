"""Memory for each watched id: resident memory before and after, in a fresh process for each size.

Run as ``python -m tests.benchmarks.memory [--ids N …] [--rounds N]``. The ids themselves exist
before the first reading. Each has had an answer at the last reading, and so has what is kept of it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections.abc import Sequence
from random import Random
from typing import Final

from kling_omni_async import ImageTask, PollPolicy
from kling_omni_async._api.answers import read_answer

from .answers import OPEN, task_ids
from .canned import CannedTransport, new_session, until
from .processes import fresh, resident_bytes
from .tables import Group, Row, alternate, as_markdown, row

INTERVAL: Final = (600.0, 900.0)
MANY: Final = 1_000_000
MOST_BYTES_EACH: Final = 800
MOST_MB: Final = 1000.0
POLICY: Final = "`interval=(600, 900)`, `max_rate=None`, answers from memory"

HOW: Final = (
    "Resident memory after each id has had one answer (252 bytes, not finished, kept as bytes), "
    "less that before, in which the id strings already are. Answers come from memory, so that no "
    "connection is in the figure; all else is as in a program. (b) keeps no answer, only its "
    "coroutine, its task and its timer."
)


def measure(*, ids: Sequence[int] = (10_000, 100_000, MANY), rounds: int = 5) -> Group:
    """Measure each size; the largest only once, as it takes minutes."""
    rows: list[Row] = []
    for count in ids:
        blocks = {
            "library": fresh(watched, count),
            "rival": fresh(slept, count),
        }
        if count >= MANY:
            del blocks["rival"]
        found = alternate(blocks, rounds if count < MANY else 1)
        rows += _rows(found, count)
    return Group("Memory", HOW, rows)


def _rows(found: dict[str, list[tuple[float, float]]], count: int) -> list[Row]:
    each = [grown for grown, _ in found["library"]]
    held = [mb for _, mb in found["library"]]
    title, most = f"{count:,} ids", MOST_MB if count >= MANY else None
    rows = [
        row(f"each of {title}", each, policy=POLICY, unit=" B", digits=0, most=MOST_BYTES_EACH),
        row(
            f"the whole process with {title}", held, policy=POLICY, unit=" MB", digits=0, most=most
        ),
    ]
    if "rival" in found:
        each = [grown for grown, _ in found["rival"]]
        rows.append(row(f"(b) each of {title}", each, policy=POLICY, unit=" B", digits=0))
    return rows


def watched(count: int) -> tuple[float, float]:
    """Watch ids by `poll`; gives bytes for each, and MB in all."""
    return asyncio.run(_watched(count))


async def _watched(count: int) -> tuple[float, float]:
    transport = CannedTransport()
    policy = PollPolicy(interval=INTERVAL, max_rate=None)
    async with new_session(policy, transport) as session:
        await session.query(task_ids(OPEN, 1)[0])
        ids = task_ids(OPEN, count, first=1)
        gc.collect()
        before = resident_bytes()
        async with session.poll(ids):
            await until(lambda: transport.fetched > count)
            gc.collect()
            after = resident_bytes()
    return (after - before) / count, after / 1e6


def slept(count: int) -> tuple[float, float]:
    """Let a coroutine sleep for each id; gives bytes for each, and MB in all."""
    return asyncio.run(_slept(count))


async def _slept(count: int) -> tuple[float, float]:
    transport, rng = CannedTransport(), Random()

    async def follow(task_id: str) -> ImageTask:
        while True:
            answer = await transport.fetch(task_id)
            assert not isinstance(answer, Exception)
            task = read_answer(answer, task_id, wall_s=0.0)
            assert isinstance(task, ImageTask)
            if task.status.is_terminal:
                return task
            del answer, task
            await asyncio.sleep(rng.uniform(*INTERVAL))

    ids = task_ids(OPEN, count)
    gc.collect()
    before = resident_bytes()
    tasks = [asyncio.create_task(follow(task_id)) for task_id in ids]
    await until(lambda: transport.fetched == count)
    gc.collect()
    after = resident_bytes()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return (after - before) / count, after / 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, nargs="+", default=[10_000, 100_000, MANY])
    parser.add_argument("--rounds", type=int, default=5)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
