"""What it costs to import all public names, beyond the libraries that they stand on.

Run as ``python -m tests.benchmarks.imports [--rounds N]``. Those libraries are imported first, so
that the time of the modules in ``-X importtime`` is the package's own. It imports each name when
that is first used; so it is all of them that are measured.
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
_LINE: Final = re.compile(r"import time: +(\d+) \|")
_LAST_OF_BASE: Final = "| cattrs\n"


def measure(*, rounds: int = 9) -> Group:
    """Import in fresh processes, after one that fills the caches."""
    import_ms()
    found = [import_ms() for _ in range(rounds)]
    extras = extras_imported()
    rows = [
        row("import of all names", found, policy="—", unit=" ms", digits=1, most=MOST_MS),
        Row(
            figure=f"modules of {', '.join(EXTRAS)} that are imported",
            policy="—",
            reach="none",
            measured=", ".join(extras) or "none",
            met=not extras,
        ),
    ]
    how = (
        "`from kling_omni_async import *` by `python -X importtime`, in fresh processes that have "
        "imported aiohttp, anyio, attrs and cattrs before: the time of all modules that come with "
        "it. `import kling_omni_async` alone imports none of them."
    )
    return Group("Import", how, rows)


def import_ms() -> float:
    """Give the time of one import, in ms."""
    code = f"{BASE}; from kling_omni_async import *"
    *_, ours = _python("-X", "importtime", "-c", code).stderr.rpartition(_LAST_OF_BASE)
    return sum(map(int, _LINE.findall(ours))) / 1e3


def extras_imported() -> list[str]:
    """Name the extras that the package imports without being asked for them."""
    code = "from kling_omni_async import *; import sys; print(*sys.modules)"
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
