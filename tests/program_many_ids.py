"""Watches very many ids in one process, in virtual time, and prints what that took.

Run as ``python -m tests.program_many_ids COUNT``; prints one JSON object.
"""

# How many ids are watched is only known inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from kling_omni_async import KlingOmniError, PollPolicy
from kling_omni_async._api.answers import Answer
from kling_omni_async._polling.watchlist import Watchlist

from .polling.scripted import poller_of, scripted_session
from .virtual_clock import VirtualClockLoop

PENDING = json.dumps({"code": 0, "data": {"task_status": "processing", "created_at": 1}}).encode()
DONE = json.dumps(
    {"code": 0, "data": {"task_status": "succeed", "task_result": {"images": ["https://x/y"]}}}
).encode()


class SecondTimeLucky:
    """A transport without a network: each id is finished at its second query."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    def bind(self) -> None:
        """Check nothing."""

    async def open(self) -> int | None:
        return None

    async def fetch(self, task_id: str) -> Answer | KlingOmniError:
        count = self.asked[task_id] = self.asked.get(task_id, 0) + 1
        await asyncio.sleep(0)
        return Answer(200, DONE if count > 1 else PENDING)

    def give_up_idle(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class Heartbeat:
    """Measures how long the loop was held between two of its passes, in s of CPU time.

    The collector's own time is counted apart: it depends on all that the process holds.
    """

    def __init__(self) -> None:
        self.worst_s = 0.0
        self.worst_with_collector_s = 0.0
        self._collected_s = 0.0
        self._began = 0.0
        gc.callbacks.append(self._on_collection)

    def _on_collection(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self._collected_s += time.thread_time() - self._began

    async def beat_until(self, watchlist: Watchlist, count: int) -> None:
        # Not by `progress`, which knows of all before they are read.
        while watchlist._watched < count:
            self._collected_s, began = 0.0, time.thread_time()
            await asyncio.sleep(0)
            held = time.thread_time() - began
            self.worst_with_collector_s = max(self.worst_with_collector_s, held)
            self.worst_s = max(self.worst_s, held - self._collected_s)
        gc.callbacks.remove(self._on_collection)


def peak_rss_mb() -> int:
    """Give the most memory that this process has held, in MB.

    Not by `getrusage`: its figure is handed on from the parent, whatever that held.
    """
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def timers() -> int:
    """Count the timers that the loop holds."""
    loop: Any = asyncio.get_running_loop()
    return sum(not handle.cancelled() for handle in loop._scheduled)


async def main(count: int) -> dict[str, Any]:
    """Watch so many ids to their end; gives the figures."""
    task_ids = [str(10**17 + number) for number in range(count)]
    transport, heartbeat = SecondTimeLucky(), Heartbeat()
    session = scripted_session(transport, PollPolicy(timeout=None), seed=1)
    before_mb = peak_rss_mb()
    async with session, session.poll(task_ids) as outcomes:
        began = time.thread_time()
        await heartbeat.beat_until(poller_of(session)._watchlist, count)
        adding_s = time.thread_time() - began
        most_tasks, most_timers, seen = 0, 0, 0
        async for outcome in outcomes:
            seen += outcome.ok
            if seen % 1000 == 1:
                most_tasks = max(most_tasks, len(asyncio.all_tasks()))
                most_timers = max(most_timers, timers())
    return {
        "ids": count,
        "succeeded": seen,
        "least_queries": min(transport.asked.values()),
        "most_tasks": most_tasks,
        "most_timers": most_timers,
        "adding_us_each": round(adding_s / count * 1e6, 1),
        "held_ms": round(heartbeat.worst_s * 1e3, 1),
        "held_with_collector_ms": round(heartbeat.worst_with_collector_s * 1e3, 1),
        "rss_mb": peak_rss_mb(),
        "rss_before_mb": before_mb,
        "virtual_s": round(asyncio.get_running_loop().time()),
    }


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        sys.stdout.write(json.dumps(runner.run(main(int(sys.argv[1])))) + "\n")
