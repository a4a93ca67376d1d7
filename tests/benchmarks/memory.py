"""Memory for each watched id: resident memory before and after, in a fresh process for each size.

Run as ``python -m tests.benchmarks.memory [--ids N …] [--over-sockets N] [--rounds N]``. Each id
has had an answer at the last reading, and so has what is kept of it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from kling_omni_async import ImageTask, KlingOmniSession, PollPolicy
from kling_omni_async._api.answers import read_answer

from .answers import API_KEY, OPEN, task_ids
from .processes import fresh, resident_bytes, running_server, stats
from .queries import Canned, sent_by, until
from .tables import Group, Row, alternate, as_markdown, row

INTERVAL: Final = (600.0, 900.0)
MANY: Final = 1_000_000
MOST_BYTES_EACH: Final = 800
MOST_MB: Final = 1000.0
NOWHERE: Final = "http://127.0.0.1:9"
WATCHING: Final = "`interval=(600, 900)`, `max_rate=None`"

HOW: Final = (
    "Resident memory after each id has had one answer (252 bytes, not finished, kept as bytes), "
    "less that before, in which the id strings already are but where a row says otherwise. Over "
    "sockets there are 100 open connections too, as many as may be in flight, and all else that a "
    "program has; where answers come from memory, only what is kept for ids is left. (b) keeps no "
    "answer, only its coroutine, its task and its timer."
)


def measure(
    *,
    ids: Sequence[int] = (10_000, 100_000, MANY),
    over_sockets: int = 50_000,
    rounds: int = 5,
) -> Group:
    """Measure each size; the largest only once, as it takes minutes."""
    rows: list[Row] = []
    with running_server() as base_url:
        sockets = {
            "over sockets": fresh(watched_over_sockets, base_url, over_sockets),
            "over sockets, id strings counted": fresh(
                watched_over_sockets, base_url, over_sockets, strings=True
            ),
        }
        for how, measured in alternate(sockets, rounds).items():
            rows += _rows(measured, over_sockets, WATCHING, f" {how}")
    for count in ids:
        blocks = {"library": fresh(watched, count), "rival": fresh(slept, count)}
        if count >= MANY:
            del blocks["rival"]
        by_name = alternate(blocks, rounds if count < MANY else 1)
        policy = f"{WATCHING}, answers from memory"
        rows += _rows(by_name["library"], count, policy)
        if "rival" in by_name:
            each = [grown for grown, _ in by_name["rival"]]
            rows.append(row(f"(b) each of {count:,} ids", each, policy=policy, unit=" B", digits=0))
    return Group("Memory", HOW, rows)


def _rows(found: list[tuple[float, float]], count: int, policy: str, how: str = "") -> list[Row]:
    each = [grown for grown, _ in found]
    held = [mb for _, mb in found]
    title, most = f"{count:,} ids{how}", MOST_MB if count >= MANY else None
    return [
        row(f"each of {title}", each, policy=policy, unit=" B", digits=0, most=MOST_BYTES_EACH),
        row(
            f"the whole process with {title}", held, policy=policy, unit=" MB", digits=0, most=most
        ),
    ]


def watched(count: int) -> tuple[float, float]:
    """Watch ids by `poll`, answers from memory; gives bytes for each, and MB in all."""
    canned = Canned()
    with sent_by(canned.fetch):
        return asyncio.run(_watched(NOWHERE, count, lambda: canned.fetched))


def watched_over_sockets(
    base_url: str, count: int, *, strings: bool = False
) -> tuple[float, float]:
    """Watch ids of a server by `poll`; gives bytes for each, and MB in all."""
    first = stats(base_url)["queries"]
    return asyncio.run(
        _watched(base_url, count, lambda: stats(base_url)["queries"] - first, strings=strings)
    )


async def _watched(
    base_url: str, count: int, asked: Callable[[], int], *, strings: bool = False
) -> tuple[float, float]:
    policy = PollPolicy(interval=INTERVAL, max_rate=None)
    ids = [] if strings else task_ids(OPEN, count, first=1)
    async with KlingOmniSession(API_KEY, base_url=base_url, policy=policy) as session:
        await session.query(task_ids(OPEN, 1)[0])
        gc.collect()
        before = resident_bytes()
        async with session.poll(ids or task_ids(OPEN, count, first=1)):
            await until(lambda: asked() > count)
            gc.collect()
            after = resident_bytes()
    return (after - before) / count, after / 1e6


def slept(count: int) -> tuple[float, float]:
    """Let a coroutine sleep for each id; gives bytes for each, and MB in all."""
    return asyncio.run(_slept(count))


async def _slept(count: int) -> tuple[float, float]:
    canned, rng = Canned(), Random()

    async def follow(task_id: str) -> ImageTask:
        while True:
            answer = await canned.fetch(None, task_id)
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
    await until(lambda: canned.fetched == count)
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
    parser.add_argument("--over-sockets", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
