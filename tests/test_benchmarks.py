"""The benchmarks run, and their page has every row; how fast it was proves nothing here."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from .benchmarks import __main__ as benchmarks
from .benchmarks.contenders import optional

FIGURES = (
    "the library",
    "(a) bare aiohttp, the floor",
    "the library against (a)",
    "(a) with the library's client",
    "knowing what is due",
    "(b) a coroutine for each id",
    "(c) httpx",
    "(c) cometapi",
    "each of 200 ids over sockets",
    "each of 200 ids over sockets, id strings counted",
    "each of 500 ids",
    "the whole process with 500 ids",
    "(b) each of 500 ids",
    "adding each of 500 ids",
    "a `wait` beside 500 ids",
    "a `poll` beside 500 ids",
    "100 ids against 10",
    "lateness of a query, p50",
    "lateness of a query, p99",
    "connections opened for 20 ids",
    "wake-ups of the loop in 0.3 s",
    "from finished to delivered, 50 ids",
    "the same simulated directly",
    "apart",
    "not instrumented",
    "instrumented",
    "collecting, in the exporter's thread",
    "import of all names",
    "modules of cyclopts, obstore, rich that are imported",
    "`DummyCookieJar`",
    "`URL.build(…, encoded=True)`",
    "prebuilt headers",
    "decoding by `orjson.loads`",
    "decoding by `msgspec.json.decode`",
)


@pytest.mark.many
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as on Linux")
def test_a_quick_run_writes_a_page_with_every_row(tmp_path: Path) -> None:
    """Every figure is there, with a number, or with the word that its rival is missing."""
    page = tmp_path / "benchmarks.md"
    benchmarks.main(["--quick", "--out", str(page)])
    rows = [line.strip("| ").split(" | ") for line in page.read_text("utf-8").splitlines()]
    measured = {cells[0]: cells[3] for cells in rows if len(cells) >= 4}
    assert set(FIGURES) <= measured.keys()
    for rival in ("httpx", "cometapi"):
        missing = measured[f"(c) {rival}"] == "not installed"
        assert missing == (optional(rival) is None)
    for figure in FIGURES:
        assert re.search(r"\d|none|not installed", measured[figure]), figure
