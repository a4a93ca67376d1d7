"""Polls ids and prints their metrics and spans: OpenTelemetry's console exporters.

It needs ``opentelemetry-sdk``, and the key in COMETAPI_KEY::

    python otel_console.py ID [ID ...]
"""

from __future__ import annotations

import asyncio
import sys

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from kling_omni_async import KlingOmniError, KlingOmniSession
from kling_omni_async.otel import instrument


async def show(session: KlingOmniSession, task_id: str) -> None:
    """Wait for a task, which is a span."""
    try:
        await session.wait(task_id)
    except KlingOmniError as error:
        print(error, file=sys.stderr)


async def main(task_ids: list[str]) -> None:
    """Wait for all of them in a session that is seen."""
    meters = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())])
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
    async with KlingOmniSession() as session:
        instrument(session, meter_provider=meters, tracer_provider=tracers, queries=True)
        await asyncio.gather(*(show(session, task_id) for task_id in task_ids))
    await asyncio.to_thread(meters.shutdown)  # they export what is left
    await asyncio.to_thread(tracers.shutdown)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
