"""A server, and a fresh process for each block: no block inherits another's heap or connections."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def running_server(latency_s: float = 0.0) -> Generator[str]:
    """Start a server in a process of its own; gives its base URL."""
    command = [sys.executable, "-m", "tests.benchmarks.server", "--latency", str(latency_s)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def stats(base_url: str, *, reset: bool = False) -> dict[str, int]:
    """Ask the server what it has seen."""
    connection = http.client.HTTPConnection(base_url.removeprefix("http://"))
    connection.request("GET", "/reset" if reset else "/stats")
    counts: dict[str, int] = json.load(connection.getresponse())
    connection.close()
    return counts


def in_fresh_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a new Python; gives what it returned."""
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()


def fresh(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Callable[[], R]:
    """Make a block of such a call."""
    return lambda: in_fresh_process(function, *args, **kwargs)


def resident_bytes() -> int:
    """Give the memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
