"""Measures what a query costs a worker of a book in Redis, beside sessions that poll alone.

``python -m tests.program_fleet_cost [RATE] [PAIRS]`` starts a simulator and a redis-server of its
own; each figure is of a process of its own, in turns, so that a busy machine burdens all alike.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from kling_omni_async import KlingOmniSession, PollPolicy, TaskBook

from .cli.support import Neighbour, neighbour
from .fleet.server import RedisServer
from .support import say

SPAN_S: Final = 10.0
WARM_S: Final = 7.0
"""After this all ids were asked once, at the paces of this program, in s."""

IDS_A_START: Final = 5
WORKERS: Final = (1, 4)
PROMISED: Final = 1.3
HOUR_S: Final = 3600.0


# In a process whose cost is measured.


def used_s() -> float:
    """Return what this process has used of a processor, in s."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def spend(where: str, base_url: str, key: str, rate: float) -> None:
    """Poll for a while, the ids of stdin or a book, and say what that cost."""
    ids = sys.stdin.read().split()
    policy = PollPolicy(interval=(2.5, 4.9), max_rate=rate)
    async with KlingOmniSession(key, base_url=base_url, policy=policy) as session:
        if where == "alone":
            async with session.poll(ids) as outcomes:
                first = asyncio.ensure_future(anext(outcomes))  # which is an hour away
                await measure()
                first.cancel()
            return
        async with TaskBook(where) as book, session.work(book):
            await measure()


async def measure() -> None:
    """Measure once all runs evenly."""
    await asyncio.sleep(WARM_S)
    say("begins")
    before = used_s()
    await asyncio.sleep(SPAN_S)
    say(f"{used_s() - before}")


# In the process that compares.


def cost_us(
    api: Neighbour, where: str, ids: Sequence[str], rate: float, number: int
) -> tuple[float, float]:
    """Return what a query cost so many processes together, in us, and how many there were a s.

    Those that work alone share ids and rate evenly.
    """
    pace = rate / number if where == "alone" else rate
    args = [where, api.api.base_url, api.api.api_key, str(pace)]
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.program_fleet_cost", "spend", *args],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(number)
        ]
        for place, child in enumerate(children):
            assert child.stdin is not None
            child.stdin.write("\n".join(ids[place::number]))
            child.stdin.close()
        lines = [child.stdout for child in children if child.stdout is not None]
        for line in lines:
            line.readline()
        asked = api.api._queries.log.begun
        used = [float(line.readline()) for line in lines]
        asked = api.api._queries.log.begun - asked
    return sum(used) / asked * 1e6, asked / SPAN_S


async def fill(url: str, ids: Sequence[str]) -> None:
    """Put ids into a book."""
    async with TaskBook(url) as book:
        await book.add_many(ids)


def compare(rate: float, pairs: int) -> None:
    """Measure in turns, and print."""
    with tempfile.TemporaryDirectory() as folder, neighbour() as api:
        server = RedisServer(Path(folder))
        try:
            api.portal.call(server.start)
            api.portal.call(server.ready)
            ids = api.create(int(rate * IDS_A_START), duration=HOUR_S)
            asyncio.run(fill(server.url, ids))
            ratios: dict[int, list[float]] = {number: [] for number in WORKERS}
            for _ in range(pairs):
                for number in WORKERS:
                    alone, pace = cost_us(api, "alone", ids, rate, number)
                    say(f"{number} alone: {alone:.0f} us a query, {pace:.0f} a second")
                    spent, pace = cost_us(api, server.url, ids, rate, number)
                    ratios[number].append(spent / alone)
                    say(
                        f"{number} on a book: {spent:.0f} us a query, {pace:.0f} a second, "
                        f"{spent / alone:.2f} x"
                    )
            for number, found in ratios.items():
                median = statistics.median(found)
                say(f"{number} on a book: {median:.2f} x that of {number} alone (<= {PROMISED})")
        finally:
            server.kill()


def main() -> None:
    """Compare, or be what is compared."""
    if sys.argv[1:2] == ["spend"]:
        where, base_url, key, rate = sys.argv[2:]
        asyncio.run(spend(where, base_url, key, float(rate)))
        return
    pace, pairs = (*map(float, sys.argv[1:]), *(100.0, 3.0)[len(sys.argv) - 1 :])
    compare(pace, int(pairs))


if __name__ == "__main__":
    main()
