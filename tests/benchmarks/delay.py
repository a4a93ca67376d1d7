"""From the end of a task to its delivery, beside a simulation that is nothing but the rule.

Run as ``python -m tests.benchmarks.delay [--ids N] [--rounds N]``. The library polls the simulator
over real sockets on a clock that jumps, so no query takes time; the direct simulation draws the
same durations and pauses without any of the library's code.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from random import Random
from statistics import fmean
from typing import Final

import attrs

from kling_omni_async import KlingOmniSession, PollPolicy
from kling_omni_async.simulator import SimulatedCometAPI
from tests.virtual_clock import VirtualClockLoop

from .processes import fresh
from .tables import Group, Row, alternate, as_markdown, ratios, row

IMAGE_S: Final = (24.0, 41.0)
REFUSAL_S: Final = 1.7
REFUSED: Final = 0.1
INTERVAL: Final = (20.0, 30.0)
MOST_OFF: Final = 0.03
POLICY: Final = '`interval=(20, 30)`, `timing="uniform"`, `max_rate=None`'
HOW: Final = (
    "Tasks as they were seen: 24 to 41 s for an image, and one in ten is refused after 1.7 s. All "
    "are polled from their creation on. The mean time from the end of a task to its outcome, on a "
    "clock on which queries take no time, against a loop of a few lines that asks at once and then "
    "after each pause."
)


def measure(*, ids: int = 10_000, rounds: int = 5) -> Group:
    """Compare the delays of both."""
    blocks = {
        "library": fresh(by_library, ids),
        "direct": fresh(directly, ids),
    }
    found = alternate(blocks, rounds)
    off = [ratio - 1 for ratio in ratios(found["library"], found["direct"])]
    last = row("apart", [100 * share for share in off], policy=POLICY, unit=" %", digits=1)
    kept = abs(fmean(off)) <= MOST_OFF
    rows: list[Row] = [
        row(f"from finished to delivered, {ids:,} ids", found["library"], policy=POLICY, unit=" s"),
        row("the same simulated directly", found["direct"], policy=POLICY, unit=" s"),
        attrs.evolve(last, reach="within 3 %, on average", met=kept),
    ]
    return Group("Delay", HOW, rows)


def durations(ids: int, rng: Random) -> list[float]:
    """Draw how long tasks take; the refused ones come first."""
    refused = round(REFUSED * ids)
    return [REFUSAL_S] * refused + [rng.uniform(*IMAGE_S) for _ in range(ids - refused)]


def directly(ids: int) -> float:
    """Give the mean delay by the rule alone, in s."""
    rng = Random()
    return fmean(_delay(duration, rng) for duration in durations(ids, rng))


def _delay(duration: float, rng: Random) -> float:
    now = 0.0
    while now < duration:
        now += rng.uniform(*INTERVAL)
    return now - duration


def by_library(ids: int) -> float:
    """Give the mean delay by `poll`, in s."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(_by_library(ids))


async def _by_library(ids: int) -> float:
    loop, rng = asyncio.get_running_loop(), Random()
    policy = PollPolicy(interval=INTERVAL, timing="uniform", max_rate=None)
    async with (
        SimulatedCometAPI(seed=rng.getrandbits(32)) as api,
        KlingOmniSession(api.api_key, base_url=api.base_url, policy=policy) as session,
    ):
        ends = {
            api.create_task(
                duration=duration, fail="refused" if duration == REFUSAL_S else None
            ): loop.time() + duration
            for duration in durations(ids, rng)
        }
        async with session.poll(list(ends)) as outcomes:
            return fmean([loop.time() - ends[one.task_id] async for one in outcomes])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
