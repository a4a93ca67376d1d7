"""Very many ids in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.many
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as on Linux")
def test_100_000_ids_fit_in_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    """100,000 ids: two queries each, a handful of tasks, one timer, and a loop never held up."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")
    }
    result = subprocess.run(
        [sys.executable, "-m", "tests.program_many_ids", "100000"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(result.stdout)
    with capsys.disabled():
        sys.stdout.write(f"\n{result.stdout}")
    assert figures["succeeded"] == 100_000
    assert figures["least_queries"] >= 2
    assert figures["most_tasks"] <= 5
    assert figures["most_timers"] <= 1
    assert 0 < figures["held_ms"] <= 50
    assert figures["rss_mb"] <= 200
