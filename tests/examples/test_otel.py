"""The programs that show a session by OpenTelemetry: on the console, and to Prometheus."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import aiohttp
import pytest

from kling_omni_async.simulator import SimulatedCometAPI

from .program import environment, running

pytestmark = pytest.mark.anyio


async def test_the_console_shows_metrics_and_spans(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """The spans name their tasks, the metrics none of them."""
    task_ids = [comet_api.create_task(duration=0.0), comet_api.create_task(duration=0.0, fail="no")]
    env = environment(comet_api)
    async with running("otel_console.py", *task_ids, env=env, folder=tmp_path) as program:
        assert await program.ends() == 0
        output = program.output
    for name in ("kling_omni.wait", "kling_omni.query", "kling_omni.outcomes"):
        assert f'"name": "{name}"' in output
    assert output.count(f'"kling_omni.task.id": "{task_ids[0]}"') == 1
    at = output.index('"resource_metrics"')
    metrics, _ = json.JSONDecoder().raw_decode(output[output.rindex("\n{", 0, at) + 1 :])
    assert not any(task_id in json.dumps(metrics) for task_id in task_ids)


async def test_prometheus_is_served(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """What it scrapes has the open ids while they are polled, and no id."""
    task_id = comet_api.create_task(duration=math.inf)
    env = {**environment(comet_api), "PORT": "0"}
    async with running("otel_prometheus.py", task_id, env=env, folder=tmp_path) as program:
        url = await program.address()
        await comet_api.wait_for_queries()
        text = ""

        async def scrape() -> str:
            async with client.get(f"{url}/metrics") as answer:
                return await answer.text()

        while "kling_omni_query_duration_seconds_count" not in text:
            text = await scrape()
        assert re.search(r"^kling_omni_tasks_open(\{[^}]*\})? 1\.0$", text, re.MULTILINE)
        assert task_id not in text
        await program.kill()
