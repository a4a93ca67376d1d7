"""What it costs to be seen by OpenTelemetry: noting in the loop, and recording when collected.

Run as ``python -m tests.benchmarks.observing [--queries N] [--rounds N]``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from kling_omni_async import ImageTask, KlingOmniSession, TaskStatus
from kling_omni_async._observer import Observer

from .answers import API_KEY
from .contenders import optional
from .tables import Group, Row, as_markdown, row

MOST_US: Final = 5.0
TASK: Final = ImageTask(
    task_id="1",
    status=TaskStatus.SUCCEED,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    updated_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=31),
    final_unit_deduction=Decimal(8),
)


def measure(*, queries: int = 3_000, rounds: int = 9) -> Group:
    """Show queries to an observer, each the only one of its task; then collect the metrics."""
    if optional("opentelemetry.sdk.metrics") is None:
        rows = [Row(figure="OpenTelemetry", policy="—", measured="not installed")]
        return Group("Being observed", _HOW, rows)
    found = [_round(queries) for _ in range(rounds)]
    off, on, recorded = map(list, zip(*found, strict=True))
    policy = f"{queries:,} queries, each of a task of its own"
    rows = [
        row("not instrumented", off, policy=policy, unit=" µs"),
        row("instrumented", on, policy=policy, unit=" µs", most=MOST_US),
        row("collecting, in the exporter's thread", recorded, policy=policy, unit=" µs"),
    ]
    return Group("Being observed", _HOW, rows)


_HOW: Final = (
    "What a query costs more in CPU time where `otel.instrument` is used, with the real SDK: its "
    "request is hidden from aiohttp's own instrumentation, its time, its lateness and all of its "
    "task's metrics are noted. What was noted is recorded when metrics are collected. Where "
    "nothing is instrumented, a look at one attribute is left, twice for a query."
)


def _round(queries: int) -> tuple[float, float, float]:
    """Give the µs a query without and with OpenTelemetry, and for collecting."""
    sdk: Any = optional("opentelemetry.sdk.metrics")
    export: Any = optional("opentelemetry.sdk.metrics.export")
    from kling_omni_async.otel import instrument  # noqa: PLC0415 - needs the extra

    reader = export.InMemoryMetricReader()
    session = KlingOmniSession(API_KEY, base_url="http://127.0.0.1:9")
    door = session._wings.door
    off = _us_each(queries, lambda: (door.observer is None, door.observer is None))
    with instrument(session, meter_provider=sdk.MeterProvider([reader])):
        assert door.observer is not None
        observer: Observer = door.observer
        on = _us_each(queries, lambda: _show(observer))
        recorded = _us_each(1, reader.get_metrics_data) / queries
    return off, on, recorded


def _show(observer: Observer) -> None:
    """Show a query as the poller does, and the end of its task."""
    with observer.hushed():
        pass
    observer.queried(took_s=0.2, late_s=0.0, error=None, traces=[])
    observer.ended(None, queries=1)
    observer.seen(TASK, 35.0)


def _us_each(count: int, step: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(count):
        step()
    return (time.process_time() - began) / count * 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=9)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
