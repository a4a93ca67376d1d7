"""How late queries start, in real time: the loop's time at a start against the time that was due.

Run as ``python -m tests.benchmarks.lateness [--ids N] [--seconds S] [--pause S]``. What the kernel
and the server add comes later and is not in the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import attrs

from kling_omni_async import KlingOmniSession, PollPolicy
from kling_omni_async._api.client import Client

from .answers import API_KEY, OPEN, task_ids
from .processes import in_fresh_process, running_server
from .queries import Reply, send, sent_by
from .tables import Group, Row, as_markdown, quantile, row

MOST_P50_MS: Final = 2.0
MOST_P99_MS: Final = 10.0
STEP_S: Final = 0.01
"""How often the feed gives ids."""


@attrs.define
class Found:
    """What one run brought.

    Attributes:
        late_ms: By how much each query started after its due time.
        collector_ms: How long each full collection took.
        seconds: How long was measured.
        busy: The share of one core that was used.
    """

    late_ms: list[float] = attrs.Factory(list[float])
    collector_ms: list[float] = attrs.Factory(list[float])
    seconds: float = 0.0
    busy: float = 0.0


class Observer:
    """Notes when queries start and end, and so how late they are.

    Where the policy leaves no choice of a pause, the end of an id's query says when the next one is
    due. What the library does between an answer and that pause counts as late, too.
    """

    def __init__(self, pause_s: float) -> None:
        self.found = Found()
        self._pause_s = pause_s
        self._dues: dict[str, float] = {}
        self._began = 0.0

    async def fetch(self, client: Client, task_id: str) -> Reply:
        """Note when an id's query starts, and when the next one is due."""
        loop = asyncio.get_running_loop()
        if (due := self._dues.get(task_id)) is not None:
            self.found.late_ms.append((loop.time() - due) * 1e3)
        try:
            return await send(client, task_id)
        finally:
            self._dues[task_id] = loop.time() + self._pause_s

    def collecting(self, phase: str, info: dict[str, int]) -> None:
        """Note how long a full collection takes."""
        if info["generation"] < 2:
            return
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.found.collector_ms.append((time.perf_counter() - self._began) * 1e3)

    async def look_on(self, seconds: float) -> Found:
        """Measure from now on."""
        self.found = Found()
        gc.callbacks.append(self.collecting)
        began, spent = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        self.found.seconds = time.perf_counter() - began
        self.found.busy = (time.process_time() - spent) / self.found.seconds
        gc.callbacks.remove(self.collecting)
        return self.found


def measure(*, ids: int = 50_000, seconds: float = 120.0, pause: float = 25.0) -> Group:
    """Watch ids for a while, once each has been asked."""
    with running_server() as base_url, ThreadPoolExecutor() as threads:
        bare = threads.submit(in_fresh_process, tick, 2 * pause, seconds)
        found = in_fresh_process(watch, base_url, ids, seconds, pause)
    rate = len(found.late_ms) / found.seconds
    policy = (
        f"`interval=({pause:g}, {pause:g})`, `max_rate=None`, {ids:,} ids, {rate:,.0f} queries/s"
    )
    late = found.late_ms or [0.0]
    rows = [
        _late("query", late, 0.5, policy, MOST_P50_MS),
        _late("query", late, 0.99, policy, MOST_P99_MS),
        _late("query", late, 0.999, policy),
        _late("query", late, 1.0, policy),
        Row(
            figure="full passes of the collector",
            policy=policy,
            measured=f"{len(found.collector_ms)}",
            spread=f"{max(found.collector_ms, default=0.0):,.0f} ms the longest",
        ),
        row("share of a core in use", [100 * found.busy], policy=policy, unit=" %", digits=0),
    ]
    alone = "the machine: a loop with nothing else to do"
    rows += [_late("bare timer", bare.result(), share, alone) for share in (0.5, 0.99, 0.999, 1.0)]
    return Group("Lateness", _how(found.seconds), rows)


def _late(
    what: str, late: list[float], share: float, policy: str, most: float | None = None
) -> Row:
    title = f"the latest {what}" if share == 1 else f"lateness of a {what}, p{100 * share:g}"
    return attrs.evolve(
        row(title, [quantile(late, share)], policy=policy, unit=" ms", most=most),
        spread=f"of {len(late):,}",
    )


def _how(seconds: float) -> str:
    return (
        f"Measured for {seconds:.0f} s of real time, after each id had been asked once. The ids "
        "come from a feed that spreads them over one mean pause, like tasks that are created over "
        "time. All pauses are the same, so an id is due a pause after its last query ended; "
        "lateness is the loop's time at its next query less that. Beside it a loop of another "
        "process does nothing but wait for a timer each 10 ms: what is late there is late by the "
        "machine."
    )


def tick(wait_s: float, seconds: float) -> list[float]:
    """Give the lateness of the timers of a loop that does nothing else, in ms."""
    return asyncio.run(_tick(wait_s, seconds))


async def _tick(wait_s: float, seconds: float) -> list[float]:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(wait_s)
    due, end = loop.time(), loop.time() + seconds
    late_ms: list[float] = []
    while due < end:
        due += STEP_S
        await asyncio.sleep(due - loop.time())
        late_ms.append((loop.time() - due) * 1e3)
    return late_ms


def watch(base_url: str, ids: int, seconds: float, pause: float) -> Found:
    """Watch ids that never finish."""
    return asyncio.run(_watch(base_url, ids, seconds, pause))


async def _watch(base_url: str, ids: int, seconds: float, pause: float) -> Found:
    policy = PollPolicy(interval=(pause, pause), max_rate=None, timeout=None)
    observer = Observer(pause)
    async with KlingOmniSession(API_KEY, base_url=base_url, policy=policy) as session:
        await session.query(task_ids(OPEN, 1)[0])
        with sent_by(observer.fetch):
            async with session.poll(_feed(task_ids(OPEN, ids, first=1), pause)):
                await asyncio.sleep(1.5 * pause)
                return await observer.look_on(seconds)


async def _feed(ids: list[str], over_s: float) -> AsyncIterator[str]:
    """Give ids evenly over a time."""
    loop = asyncio.get_running_loop()
    began, given = loop.time(), 0
    while given < len(ids):
        await asyncio.sleep(STEP_S)
        share = min(1.0, (loop.time() - began) / over_s)
        for task_id in ids[given : (given := int(share * len(ids)))]:
            yield task_id


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--pause", type=float, default=25.0)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
