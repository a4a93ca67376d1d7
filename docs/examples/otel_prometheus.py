"""Polls ids and serves its metrics to Prometheus until all have come out.

It needs ``opentelemetry-sdk`` and ``opentelemetry-exporter-prometheus``, and the key in
COMETAPI_KEY::

    python otel_prometheus.py ID [ID ...]
    curl http://127.0.0.1:9464/metrics

PORT is the port (9464).
"""

from __future__ import annotations

import asyncio
import os
import sys

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server

from kling_omni_async import KlingOmniSession
from kling_omni_async.otel import instrument


async def main(task_ids: list[str]) -> None:
    """Poll all of them in a session that is seen."""
    async with KlingOmniSession() as session:
        instrument(session)
        async with session.poll(task_ids) as outcomes:
            async for outcome in outcomes:
                print(outcome, flush=True)


if __name__ == "__main__":
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
    server, _ = start_http_server(int(os.environ.get("PORT", "9464")), addr="127.0.0.1")
    print(f"Running on http://127.0.0.1:{server.server_port}/metrics", flush=True)
    asyncio.run(main(sys.argv[1:]))
