"""``kill -9`` of processes that use a book: nothing is lost, doubled, or asked for too soon.

``python -m tests.program_book_kills`` kills them a hundred times.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .kills import tell

pytestmark = [
    pytest.mark.many,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals"),
]


@pytest.mark.parametrize("processes", [1, 4])
def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path, processes: int) -> None:
    """Each id ends once, is read until it is acknowledged, and is asked for by the book's pace."""
    figures = tell(tmp_path, processes=processes, kills=6, ids=120, seed=processes)
    assert figures.kills >= 6
    assert figures.handed_out >= figures.ids
