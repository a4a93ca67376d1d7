"""Serves the batch on a port of loopback; killed and started again, it goes on where it was.

Run as ``python -m tests.faults.program_simulator PORT FOLDER LATENCY``. SIGTERM ends it; what it
was asked is then in the folder.
"""

from __future__ import annotations

import asyncio
import json
import math
import signal
import sys
from pathlib import Path

from kling_omni_async.simulator import SimulatedCometAPI

from .batch import FAILING_IDS, KEY, LIFETIMES_S, REASON, UNKNOWN_ID


def create_tasks(api: SimulatedCometAPI) -> None:
    """Create all tasks but the one that the API does not know."""
    for task_id in LIFETIMES_S:
        if task_id != UNKNOWN_ID:
            reason = REASON if task_id in FAILING_IDS else None
            api.create_task(task_id=task_id, duration=math.inf, fail=reason)


def time_of_first_query(api: SimulatedCometAPI, note: Path) -> float:
    """Give when the first query came, be it in an earlier run, in s of the loop's clock."""
    if not note.exists():  # the clock is the machine's, so all runs share it
        note.write_text(str(api.queries[0].started))
    return float(note.read_text())


async def finish_tasks(api: SimulatedCometAPI, note: Path) -> None:
    """Finish each task in its time."""
    loop = asyncio.get_running_loop()
    await api.wait_for_queries()
    began = time_of_first_query(api, note)
    for task_id, lifetime in LIFETIMES_S.items():
        await asyncio.sleep(began + lifetime - loop.time())
        if task_id != UNKNOWN_ID:
            api.finish(task_id)


def write_record(api: SimulatedCometAPI, path: Path) -> None:
    """Write what was asked, and when."""
    rows = [
        {"task_id": query.task_id, "started": query.started, "ended": query.finished}
        for query in api.queries
    ]
    path.write_text(json.dumps(rows))


async def main(port: int, folder: Path, latency_s: float) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    api = SimulatedCometAPI(api_key=KEY, port=port, latency=latency_s)
    async with api:
        create_tasks(api)
        finishing = asyncio.create_task(finish_tasks(api, folder / "first-query"))
        await stop.wait()
        finishing.cancel()
    write_record(api, folder / "asked.json")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
