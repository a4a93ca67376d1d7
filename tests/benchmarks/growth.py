"""CPU for each query beside few and beside very many watched ids, in alternating blocks.

Run as ``python -m tests.benchmarks.growth [--ids N N …] [--rounds N] [--seconds S]``. All crowds
are asked at the same pace, and more is due than it carries: only their size differs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Final

from kling_omni_async import KlingOmniSession, PollPolicy

from .answers import API_KEY, OPEN, task_ids
from .processes import fresh, running_server, stats
from .queries import all_added
from .tables import Group, Row, alternate, as_markdown, ratios, row

RATE: Final = 1000.0
INTERVAL: Final = (0.2, 0.3)
MOST: Final = 1.2
POLICY: Final = "`max_rate=1000`, more due than it carries"


def measure(
    *, ids: Sequence[int] = (1000, 100_000, 1_000_000), rounds: int = 5, seconds: float = 5.0
) -> Group:
    """Compare the crowds; the first is the measure of the others."""
    with running_server() as base_url:
        blocks = {count: fresh(cpu_us_each, base_url, count, seconds) for count in ids}
        found = alternate(blocks, rounds)
    least = min(ids)
    rows = [
        row(f"{count:,} ids watched", found[count], policy=POLICY, unit=" µs", digits=0)
        for count in ids
    ]
    rows += [_against(least, count, found) for count in ids if count > least]
    return Group("Growth", _how(seconds), rows)


def _against(least: int, count: int, found: dict[int, list[float]]) -> Row:
    title = f"{count:,} ids against {least:,}"
    return row(title, ratios(found[count], found[least]), policy=POLICY, unit=" ×", most=MOST)


def _how(seconds: float) -> str:
    return (
        f"CPU time for each query over {seconds:g} s at {RATE:,.0f} queries/s, once all ids are "
        f"read and {seconds / 2:g} s have gone by. At an even pace each query has a timer and a "
        "pass of the loop to itself, so it costs more than in the first table."
    )


def cpu_us_each(base_url: str, count: int, seconds: float) -> float:
    """Watch so many ids; gives the CPU time for each query, in µs."""
    return asyncio.run(_cpu_us_each(base_url, count, seconds))


async def _cpu_us_each(base_url: str, count: int, seconds: float) -> float:
    policy = PollPolicy(interval=INTERVAL, max_rate=RATE, timeout=None)
    ids = task_ids(OPEN, count)
    async with (
        KlingOmniSession(API_KEY, base_url=base_url, policy=policy) as session,
        session.poll(ids),
    ):
        await all_added(session, count)
        await asyncio.sleep(seconds / 2)
        before, began = stats(base_url)["queries"], time.process_time()
        await asyncio.sleep(seconds)
        spent = time.process_time() - began
        queries = stats(base_url)["queries"] - before
    return spent / queries * 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
