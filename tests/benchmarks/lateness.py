"""How late queries start, in real time: the loop's time at a start against the time that was due.

Run as ``python -m tests.benchmarks.lateness [--ids N] [--seconds S] [--low S] [--high S]``. What
the kernel and the server add comes later and is not in the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import attrs

from kling_omni_async import KlingOmniSession, PollPolicy
from kling_omni_async._api.client import Client
from kling_omni_async._polling.schedule import Schedule, Turn

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
    """Notes due times and starts of scheduled queries.

    It looks on where the schedule gives an id away, as the due time is known there: a policy
    without a choice of pauses would tell it from outside, but ids that were late together once
    would then be due together for ever.
    """

    def __init__(self) -> None:
        self.found = Found()
        self._dues: dict[str, float] = {}
        self._began = 0.0

    @contextmanager
    def at_work(self) -> Generator[None]:
        """Look on."""
        launch, dues = Schedule.launch, self._dues

        def noted(self: Schedule[Any], item: Any, turn: Turn, due: float, now: float) -> None:
            if turn is Turn.OVERDUE:
                dues[item.task_id] = due
            launch(self, item, turn, due, now)

        Schedule.launch = noted  # type: ignore[method-assign]
        try:
            with sent_by(self.fetch):
                yield
        finally:
            Schedule.launch = launch  # type: ignore[method-assign]

    async def fetch(self, client: Client, task_id: str) -> Reply:
        """Note when an id's query starts."""
        if (due := self._dues.pop(task_id, None)) is not None:
            self.found.late_ms.append((asyncio.get_running_loop().time() - due) * 1e3)
        return await send(client, task_id)

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


def measure(
    *, ids: int = 50_000, seconds: float = 120.0, low: float = 20.0, high: float = 30.0
) -> Group:
    """Watch ids for a while, once each has been asked."""
    with running_server() as base_url, ThreadPoolExecutor() as threads:
        bare = threads.submit(in_fresh_process, tick, low + high, seconds)
        found = in_fresh_process(watch, base_url, ids, seconds, (low, high))
    rate = len(found.late_ms) / found.seconds
    policy = f"`interval=({low:g}, {high:g})`, `max_rate=None`, {ids:,} ids, {rate:,.0f} queries/s"
    if not found.late_ms:
        raise RuntimeError("no scheduled query was seen: the schedule launches them elsewhere")
    late = found.late_ms
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
        "time. Lateness is the loop's time at the start of a query less the time since which the "
        "schedule had it due. Beside it a loop of another process does nothing but wait for a "
        "timer each 10 ms: what is late there is late by the machine."
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


def watch(base_url: str, ids: int, seconds: float, interval: tuple[float, float]) -> Found:
    """Watch ids that never finish."""
    return asyncio.run(_watch(base_url, ids, seconds, interval))


async def _watch(base_url: str, ids: int, seconds: float, interval: tuple[float, float]) -> Found:
    policy = PollPolicy(interval=interval, max_rate=None, timeout=None)
    observer, over_s = Observer(), policy.mean_interval
    async with KlingOmniSession(API_KEY, base_url=base_url, policy=policy) as session:
        await session.query(task_ids(OPEN, 1)[0])
        with observer.at_work():
            async with session.poll(_feed(task_ids(OPEN, ids, first=1), over_s)):
                await asyncio.sleep(over_s + interval[1] - interval[0])
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
    parser.add_argument("--low", type=float, default=20.0)
    parser.add_argument("--high", type=float, default=30.0)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
