"""What ``import kling_omni_async`` costs beyond the libraries that it stands on.

Run as ``python -m tests.benchmarks.imports [--rounds N]``. Those libraries are imported first, so
that the cumulative time of the package in ``-X importtime`` is its own.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from .processes import ROOT
from .tables import Group, Row, as_markdown, row

MOST_MS: Final = 25.0
BASE: Final = "import aiohttp, anyio, attr, attrs, cattrs"
EXTRAS: Final = ("cyclopts", "obstore", "rich")
_LINE: Final = re.compile(r"import time: +\d+ \| +(\d+) \| kling_omni_async$", re.MULTILINE)


def measure(*, rounds: int = 9) -> Group:
    """Import in fresh processes, after one that fills the caches."""
    import_ms()
    found = [import_ms() for _ in range(rounds)]
    extras = extras_imported()
    rows = [
        row("import", found, policy="—", unit=" ms", digits=1, most=MOST_MS),
        Row(
            figure=f"modules of {', '.join(EXTRAS)} that are imported",
            policy="—",
            reach="none",
            measured=", ".join(extras) or "none",
            met=not extras,
        ),
    ]
    how = (
        "`python -X importtime` in fresh processes that have imported aiohttp, anyio, attrs and "
        "cattrs before: the cumulative time of the package."
    )
    return Group("Import", how, rows)


def import_ms() -> float:
    """Give the time of one import, in ms."""
    code = f"{BASE}; import kling_omni_async"
    (cumulative,) = _LINE.findall(_python("-X", "importtime", "-c", code).stderr)
    return int(cumulative) / 1e3


def extras_imported() -> list[str]:
    """Name the extras that the package imports without being asked for them."""
    code = "import kling_omni_async, sys; print(*sys.modules)"
    return sorted(set(EXTRAS) & set(_python("-c", code).stdout.split()))


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A process that may write no bytecode would compile the package each time.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
