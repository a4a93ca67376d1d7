"""Sends very many queries from one process and watches what grows.

Run as ``python -m tests.program_soak [QUERIES]``, or by ``nox -s soak``; by default a million, over
real sockets in virtual time. Ids come and go all the while: each is finished after some ten polls,
some fail, some are unknown, waits are cancelled, streams are left, and one query in a hundred meets
a fault. Prints a line for each tenth and exits with 1 if anything has grown.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import attrs

from kling_omni_async import KlingOmniError, KlingOmniSession, PollPolicy
from kling_omni_async.simulator import SimulatedCometAPI

from .benchmarks.processes import resident_bytes
from .polling.scripted import poller_of
from .support import say
from .virtual_clock import VirtualClockLoop

MOST_GROWTH = 1.05
WATCHED = 2000
KINDS_OF_FAULT: tuple[dict[str, Any], ...] = (
    {"status": 502},
    {"status": 503, "body": ""},
    {"cut_after": 20},
    {"malformed": True},
    {"status": 429, "retry_after": 1},
    {"hang": True},
    {"body": "<html>Welcome</html>"},
    {"reset": True, "times": 2},
)


@attrs.frozen
class Reading:
    """What a process holds at one moment."""

    queries: int
    rss_mb: float
    objects: int
    tasks: int
    files: int
    rows: int
    ids: int

    def line(self) -> str:
        """Give the reading as a line of a table."""
        return (
            f"{self.queries:>10,} {self.rss_mb:>8.1f} {self.objects:>9,} {self.tasks:>6} "
            f"{self.files:>6} {self.rows:>7,} {self.ids:>7,}"
        )


HEADER = "   queries   RSS MB   objects  tasks  files    rows     ids"


def open_files() -> int:
    """Return how many files and sockets the process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def read(api: SimulatedCometAPI, session: KlingOmniSession) -> Reading:
    """Measure the process."""
    gc.collect()
    watchlist: Any = poller_of(session)._watchlist
    return Reading(
        queries=api._queries.log.begun,
        rss_mb=resident_bytes() / 2**20,
        objects=len(gc.get_objects()),
        tasks=len(asyncio.all_tasks()),
        files=open_files(),
        rows=len(watchlist.schedule._dues._rows) + len(watchlist._alarms._rows),
        ids=len(watchlist._entries),
    )


async def feed(api: SimulatedCometAPI, rng: Random, room: asyncio.Semaphore) -> AsyncIterator[str]:
    """Give new ids as old ones are handed out, for ever."""
    while True:
        await room.acquire()
        kind = rng.random()
        if kind < 0.02:
            yield f"{rng.getrandbits(60)}"
        else:
            reason = "Image pixel is invalid" if kind < 0.1 else None
            yield api.create_task(duration=rng.uniform(150, 350), fail=reason)


async def poll_for_ever(api: SimulatedCometAPI, session: KlingOmniSession, rng: Random) -> None:
    """Keep a stream of a constant number of ids going."""
    room = asyncio.Semaphore(WATCHED)
    async with session.poll(feed(api, rng, room)) as outcomes:
        async for outcome in outcomes:
            with suppress(KeyError):
                api.expire(outcome.task_id)
            room.release()


async def come_and_go(api: SimulatedCometAPI, session: KlingOmniSession, rng: Random) -> None:
    """Wait for ids and leave, watch and break off, leave streams half-way, meet faults."""
    while True:
        task_id = api.create_task(duration=rng.uniform(10, 60))
        with suppress(KlingOmniError, TimeoutError):
            async with asyncio.timeout(rng.uniform(1, 50)):
                await session.wait(task_id, timeout=rng.uniform(1, 50))
        async for _ in session.watch(task_id):
            break
        async with session.poll([task_id, f"{rng.getrandbits(60)}"]) as outcomes:
            with suppress(TimeoutError):
                async with asyncio.timeout(30):
                    await anext(outcomes)
        api.expire(task_id)
        for _ in range(20):
            fault = KINDS_OF_FAULT[rng.randrange(len(KINDS_OF_FAULT))]
            api.fail_next(**fault)


async def soak(queries: int) -> list[Reading]:
    """Run until so many queries were sent; gives a reading for each tenth."""
    rng = Random(1)
    readings: list[Reading] = []
    policy = PollPolicy(max_rate=None, timeout=2000)
    async with (
        SimulatedCometAPI(seed=1, log_size=10_000) as api,
        KlingOmniSession(api.api_key, base_url=api.base_url, policy=policy) as session,
    ):
        jobs = [asyncio.ensure_future(poll_for_ever(api, session, rng))]
        jobs += [asyncio.ensure_future(come_and_go(api, session, rng)) for _ in range(5)]
        while len(readings) < 10:
            while api._queries.log.begun < queries * (len(readings) + 1) / 10:
                await asyncio.sleep(10)
                gone = [job for job in jobs if job.done()]
                assert not gone, gone
            readings.append(read(api, session))
            say(readings[-1].line())
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
    return readings


def grown(readings: Sequence[attrs.AttrsInstance]) -> dict[str, float]:
    """Give how much each figure has grown from the second tenth to the last."""
    second, last = attrs.asdict(readings[1]), attrs.asdict(readings[-1])
    return {name: last[name] / max(second[name], 1) for name in second if name != "queries"}


def main(queries: int) -> int:
    """Run, print, and tell whether something has grown."""
    say(HEADER)
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        factors = grown(runner.run(soak(queries)))
    for name, factor in factors.items():
        say(f"{name}: x {factor:.3f} from the second tenth to the last")
    return int(max(factors["rss_mb"], factors["objects"]) > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
