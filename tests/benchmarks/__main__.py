"""Runs all benchmarks, prints their tables and writes a page of them.

Run as ``python -m tests.benchmarks [--quick] [--out FILE]``, or by ``nox -s bench``; about a
quarter of an hour. ``--quick`` only proves that everything runs, in seconds, and writes a page only
where ``--out`` says so.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from . import (
    connections,
    crowds,
    delay,
    growth,
    ideas,
    idle,
    imports,
    lateness,
    memory,
    observing,
    speed,
    timing,
)
from .processes import ROOT
from .tables import Group, as_markdown

PAGE: Final = ROOT / "docs" / "benchmarks.md"
VERSIONS: Final = (
    "kling-omni-async",
    "aiohttp",
    "yarl",
    "anyio",
    "attrs",
    "cattrs",
    "httpx",
    "cometapi",
    "uvloop",
    "orjson",
    "msgspec",
)
Measures = Sequence[Callable[[], Group]]

FULL: Final[Measures] = (
    speed.measure,
    memory.measure,
    crowds.measure,
    growth.measure,
    lateness.measure,
    connections.measure,
    idle.measure,
    delay.measure,
    timing.measure,
    observing.measure,
    imports.measure,
    ideas.measure,
)
QUICK: Final[Measures] = (
    partial(speed.measure, ids=100, rounds=1),
    partial(memory.measure, ids=(500,), over_sockets=200, rounds=1),
    partial(crowds.measure, ids=500, rounds=1, newcomers=1),
    partial(growth.measure, ids=(10, 100), rounds=1, seconds=0.3),
    partial(lateness.measure, ids=50, seconds=0.5, low=0.2, high=0.3),
    partial(connections.measure, ids=20, rounds=2, low=0.2, high=0.3),
    partial(idle.measure, ids=100, seconds=0.3, rounds=1),
    partial(delay.measure, ids=50, rounds=1),
    partial(timing.measure, tasks=20, rounds=1, kinds=1),
    partial(observing.measure, queries=50, rounds=1),
    partial(imports.measure, rounds=1),
    partial(ideas.measure, ids=100, rounds=1, decodings=100),
)


def page(groups: Sequence[Group], began: datetime, *, quick: bool) -> str:
    """Give the page of a run."""
    return "\n".join([*_preface(began, quick=quick), *map(as_markdown, groups)])


def _preface(began: datetime, *, quick: bool) -> Iterator[str]:
    minutes = (datetime.now(UTC) - began).total_seconds() / 60
    yield "# Benchmarks\n"
    yield (
        "Written by `nox -s bench`, which measures all of this anew; not to be edited. What the "
        "figures mean for many ids is in "
        "[how polling works](polling.md#what-stops-a-process-first).\n"
    )
    if quick:
        yield "**A quick run, which proves that the benchmarks run: its figures mean nothing.**\n"
    yield f"- {began:%Y-%m-%d %H:%M} UTC, {minutes:.0f} minutes"
    yield f"- {_machine()}, load of {os.getloadavg()[0]:.1f} at the end"
    yield f"- {platform.python_implementation()} {platform.python_version()}, {_versions()}\n"
    yield (
        "Client and server are processes of their own, and so is each block that is compared; "
        "blocks alternate (A B A B …), medians are shown with the least and the most. CPU time is "
        "that of the client's process. A figure that misses its reach says **no**.\n"
    )


def _machine() -> str:
    return f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores: {_processor()}"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else "unknown"


def _versions() -> str:
    return ", ".join(f"{name} {_version(name)}" for name in VERSIONS)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print it as it comes, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="prove in seconds that it runs")
    parser.add_argument("--out", type=Path, help="the page to write")
    chosen = parser.parse_args(arguments)
    began, groups = datetime.now(UTC), list[Group]()
    for measure in QUICK if chosen.quick else FULL:
        groups.append(measure())
        sys.stdout.write(as_markdown(groups[-1]) + "\n")
        sys.stdout.flush()
    out: Path | None = chosen.out or (None if chosen.quick else PAGE)
    if out is not None:
        out.write_text(page(groups, began, quick=chosen.quick), "utf-8")


if __name__ == "__main__":
    main()
