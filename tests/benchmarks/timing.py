"""How long a finished task lies there unseen: learned pauses beside even ones.

Run as ``python -m tests.benchmarks.timing [--tasks N] [--rounds N]``. The library polls the
simulator over real sockets on a clock that jumps; tasks come one behind the other, so that what is
learned is of use to those that follow.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from random import Random
from statistics import fmean
from typing import Final, Literal, NamedTuple, TypeVar

from kling_omni_async import ImageOrder, KlingOmniSession, OutcomeStream, PollPolicy
from kling_omni_async.simulator import SimulatedCometAPI
from tests.virtual_clock import VirtualClockLoop

from .tables import Group, Row, as_markdown

Draw = Callable[[Random], float]
Way = Literal["uniform", "learned", "created"]
T = TypeVar("T")

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)

GAP_S: Final = 3.0
"""Between the creation of one task and that of the next, in s: some ten are under way."""

REFRESH_S: Final = 15.0
EVEN: Final = "even, 24–41 s"
MOST: Final = {("learned", EVEN): 10.0, ("created", EVEN): 9.2}
WORDS: Final[dict[Way, str]] = {
    "uniform": "`uniform`",
    "learned": "`learned`, first query at once",
    "created": "`learned`, created by the session",
}


class Seen(NamedTuple):
    """What a run has shown."""

    mean_s: float
    late_s: float  # the 95th percentile
    queries: float  # for each task


def even(rng: Random) -> float:
    """Draw a duration of an even day."""
    return rng.uniform(24.0, 41.0)


def lognormal(rng: Random) -> float:
    """Draw a duration with a tail."""
    return rng.lognormvariate(math.log(31.0), 0.25)


def two_kinds(rng: Random) -> float:
    """Draw a duration where there are quick and slow tasks."""
    return rng.gauss(27.0, 1.5) if rng.random() < 0.5 else rng.gauss(55.0, 3.0)


def refused(rng: Random) -> float:
    """Draw a duration where one in ten is refused at once."""
    return 1.7 if rng.random() < 0.1 else rng.lognormvariate(math.log(31.0), 0.4)


class Change:
    """Draws 31 s, and from some task on 62 s."""

    def __init__(self, after: int) -> None:
        self._left = after

    def __call__(self, rng: Random) -> float:
        """Draw a duration."""
        self._left -= 1
        return rng.uniform(27.0, 35.0) * (1.0 if self._left >= 0 else 2.0)


def draws_of(tasks: int) -> dict[str, Callable[[], Draw]]:
    """Return the kinds of durations by name."""
    return {
        EVEN: lambda: even,
        "lognormal, 31 s": lambda: lognormal,
        "two kinds, 27 and 55 s": lambda: two_kinds,
        "one in ten refused at 1.7 s, long tail": lambda: refused,
        "31 s becoming 62 s half-way": lambda: Change(tasks // 2),
    }


def measure(*, tasks: int = 2_000, rounds: int = 3, kinds: int | None = None) -> Group:
    """Measure the first few kinds of durations in all ways."""
    rows: list[Row] = []
    for refresh_s in (0.0, REFRESH_S):
        for name in list(draws_of(tasks))[:kinds]:
            rows += _rows(name, refresh_s, tasks, rounds)
    return Group("Timing", _how(tasks, rounds), rows)


def _how(tasks: int, rounds: int) -> str:
    return (
        f"{tasks:,} tasks, one every {GAP_S:g} s, {rounds} seeds, pauses of 20 to 30 s. The mean "
        "time from the end of a task to its outcome, its 95th percentile, and the queries a task, "
        f"on a clock on which queries take no time. With a refresh of {REFRESH_S:g} s the gateway "
        "itself learns of an end only then: nobody can see it sooner."
    )


def _rows(name: str, refresh_s: float, tasks: int, rounds: int) -> list[Row]:
    seen: dict[Way, Seen] = {}
    for way in WORDS:
        runs = [run(name, way, refresh_s, tasks, seed) for seed in range(rounds)]
        seen[way] = Seen(*map(fmean, zip(*runs, strict=True)))
    suffix = f", refresh {refresh_s:g} s" if refresh_s else ""
    return [_row(f"{name}{suffix}", way, found, seen["uniform"]) for way, found in seen.items()]


def _row(name: str, way: Way, found: Seen, uniform: Seen) -> Row:
    most = MOST.get((way, name), uniform.mean_s)
    reach = "shown" if way == "uniform" else f"≤ {most:.1f} s"
    return Row(
        figure=name,
        policy=WORDS[way],
        reach=reach,
        measured=f"{found.mean_s:.1f} / {found.late_s:.1f} s, {found.queries:.2f} queries",
        met=None if way == "uniform" else found.mean_s <= most,
    )


def run(name: str, way: Way, refresh_s: float, tasks: int, seed: int) -> Seen:
    """Poll tasks as they come; return how late their ends were seen."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(_run(draws_of(tasks)[name](), way, refresh_s, tasks, seed))


async def _run(draw: Draw, way: Way, refresh_s: float, tasks: int, seed: int) -> Seen:
    policy = PollPolicy(timing="uniform" if way == "uniform" else "learned")
    delays: list[float] = []
    queries = 0
    async with (
        SimulatedCometAPI(seed=seed, refresh=refresh_s, durations=draw, epoch=EPOCH) as api,
        KlingOmniSession(api.api_key, base_url=api.base_url, policy=policy) as session,
    ):
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with _stream(api, session, way, tasks) as outcomes:
            async for outcome in outcomes:
                ended = outcome.result().updated_at
                assert ended is not None
                delays.append(loop.time() - began - (ended - EPOCH).total_seconds())
                queries += outcome.queries
    delays.sort()
    return Seen(fmean(delays), delays[int(0.95 * len(delays))], queries / len(delays))


def _stream(
    api: SimulatedCometAPI, session: KlingOmniSession, way: Way, tasks: int
) -> OutcomeStream:
    if way == "created":
        return session.generate_many(
            _one_by_one(tasks, partial(ImageOrder, "a fox")), max_tasks=None
        )
    return session.poll(_one_by_one(tasks, api.create_task))


async def _one_by_one(number: int, make: Callable[[], T]) -> AsyncIterator[T]:
    for _ in range(number):
        yield make()
        await asyncio.sleep(GAP_S)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
