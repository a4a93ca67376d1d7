"""Connections opened over some rounds in real time, counted by the server.

Run as ``python -m tests.benchmarks.connections [--ids N] [--rounds N] [--low S] [--high S]``. The
server answers after 50 ms, as one that is far away, so that queries are in flight together.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Final

from kling_omni_async import KlingOmniSession, PollPolicy
from kling_omni_async._api.client import Client

from .answers import API_KEY, OPEN, task_ids
from .processes import in_fresh_process, running_server, stats
from .queries import Reply, send, sent_by
from .tables import Group, Row, as_markdown

LATENCY_S: Final = 0.05


class InFlight:
    """Counts the queries that are under way together."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def fetch(self, client: Client, task_id: str) -> Reply:
        """Count one query while it is under way."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await send(client, task_id)
        finally:
            self.now -= 1


def measure(*, ids: int = 1000, rounds: int = 3, low: float = 20.0, high: float = 30.0) -> Group:
    """Watch at the default pace, and without one."""
    rows: list[Row] = []
    for rate in (100.0, None):
        with running_server(LATENCY_S) as base_url:
            most = in_fresh_process(watch, base_url, ids, rounds, (low, high), rate)
            found = stats(base_url)
        paced = "default" if rate else "`max_rate=None`"
        rows.append(
            Row(
                figure=f"connections opened for {ids:,} ids",
                policy=f"{paced}, `interval=({low:g}, {high:g})`, {found['queries']:,} queries",
                reach=f"≤ {most} (most in flight)",
                measured=f"{found['opened']}",
                spread="one run",
                met=found["opened"] <= most,
            )
        )
    seconds = rounds * (low + high) / 2
    how = (
        f"{rounds} rounds, {seconds:g} s of real time; each answer takes {LATENCY_S * 1e3:g} ms. "
        "The server counts the connections that it ever accepted, the client the most queries that "
        "it had in flight at once."
    )
    return Group("Connections", how, rows)


def watch(
    base_url: str, ids: int, rounds: int, interval: tuple[float, float], rate: float | None
) -> int:
    """Watch ids for some rounds; gives the most queries in flight at once."""
    return asyncio.run(_watch(base_url, ids, rounds, interval, rate))


async def _watch(
    base_url: str, ids: int, rounds: int, interval: tuple[float, float], rate: float | None
) -> int:
    policy, in_flight = PollPolicy(interval=interval, max_rate=rate), InFlight()
    async with KlingOmniSession(API_KEY, base_url=base_url, policy=policy) as session:
        with sent_by(in_flight.fetch):
            async with session.poll(task_ids(OPEN, ids)):
                await asyncio.sleep(rounds * policy.mean_interval)
    return in_flight.most


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--low", type=float, default=20.0)
    parser.add_argument("--high", type=float, default=30.0)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
