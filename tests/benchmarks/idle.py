"""Wake-ups of a loop with nothing due, counted at its selector.

Run as ``python -m tests.benchmarks.idle [--ids N] [--seconds S] [--rounds N]``. All ids were
answered over real connections, whose own timers are in the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import selectors
import sys
from collections.abc import Sequence
from typing import Final

from kling_omni_async import KlingOmniSession, PollPolicy

from .answers import API_KEY, OPEN, task_ids
from .processes import in_fresh_process, running_server, stats
from .tables import Group, as_markdown, row

MOST: Final = 2.0
LOOK_S: Final = 0.5


class CountingSelector(selectors.DefaultSelector):
    """Counts how often the loop has woken."""

    def __init__(self) -> None:
        super().__init__()
        self.wake_ups = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as ever, and count the end of it."""
        events = super().select(timeout)
        self.wake_ups += 1
        return events


def measure(*, ids: int = 100_000, seconds: float = 5.0, rounds: int = 5) -> Group:
    """Count over some stretches, one after the other."""
    with running_server() as base_url:
        found = in_fresh_process(rest, base_url, ids, seconds, rounds)
    policy = f"`interval=(600, 900)`, `max_rate=None`, {ids:,} ids, all answered"
    title = f"wake-ups of the loop in {seconds:g} s"
    how = (
        "Returns of the selector, less the one that ends each stretch, once every id has had an "
        "answer and none is due for minutes."
    )
    return Group("Idle", how, [row(title, found, policy=policy, digits=0, most=MOST)])


def rest(base_url: str, ids: int, seconds: float, rounds: int) -> list[float]:
    """Give the wake-ups in each stretch."""
    selector = CountingSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        return runner.run(_rest(base_url, ids, seconds, rounds, selector))


async def _rest(
    base_url: str, ids: int, seconds: float, rounds: int, selector: CountingSelector
) -> list[float]:
    policy = PollPolicy(interval=(600, 900), max_rate=None)
    found: list[float] = []
    async with KlingOmniSession(API_KEY, base_url=base_url, policy=policy) as session:
        before = stats(base_url)["queries"]
        async with session.poll(task_ids(OPEN, ids)):
            while stats(base_url)["queries"] < before + ids:
                await asyncio.sleep(LOOK_S)
            await asyncio.sleep(LOOK_S)
            for _ in range(rounds):
                began = selector.wake_ups
                await asyncio.sleep(seconds)
                found.append(selector.wake_ups - began - 1)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
