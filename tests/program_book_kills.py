"""Kills the processes of a book again and again, and proves that nothing is lost or doubled.

Run as ``python -m tests.program_book_kills [KILLS] [SEED]``: so many kills (100 by default) of one
process that works by itself, then of four on one file. Prints what has happened.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from .book.kills import tell

IDS_A_KILL = 25


def main() -> None:
    """Tell both stories."""
    kills, seed = (*map(int, sys.argv[1:]), *(100, 1)[len(sys.argv) - 1 :])
    for processes in (1, 4):
        with TemporaryDirectory() as folder:
            figures = tell(
                Path(folder), processes=processes, kills=kills, ids=kills * IDS_A_KILL, seed=seed
            )
        print(f"{processes} processes: {figures}", flush=True)  # noqa: T201 - a program


if __name__ == "__main__":
    main()
