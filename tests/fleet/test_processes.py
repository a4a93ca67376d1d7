"""Processes that share a book in Redis: killed, stopped, cut off from it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from . import stories

pytestmark = [pytest.mark.many, pytest.mark.timeout(300)]


def test_four_workers_keep_one_pace_and_one_of_them_is_killed(tmp_path: Path) -> None:
    """2,000 ids, `max_rate` 200: no second is given more starts, and each id comes out once.

    What the killed one had in its hand others ask for once its leases are over.
    """
    stories.one_pace(tmp_path)


def test_a_worker_that_stands_still_for_twice_its_lease(tmp_path: Path) -> None:
    """Others take over what it had, and when it goes on it starts none of it."""
    stories.stands_still(tmp_path)


@pytest.mark.parametrize(("number", "away_s"), [(signal.SIGTERM, 30.0), (signal.SIGKILL, 3.0)])
def test_a_redis_that_is_away(tmp_path: Path, number: signal.Signals, away_s: float) -> None:
    """Ended in the middle, and started from its AOF: nothing begins meanwhile, nothing is lost."""
    stories.redis_away(tmp_path, number, away_s)


@pytest.mark.parametrize(("verb", "each"), [("turn", 8), ("take", 5)])
def test_answers_that_are_lost(tmp_path: Path, verb: str, each: int) -> None:
    """A step whose answer was cut off is sent again, and is made once."""
    stories.cuts(tmp_path, verb, each)


def test_a_redis_that_is_far_away(tmp_path: Path) -> None:
    """With 300 ms of latency the pace is reached, by one worker as by four."""
    stories.latency(tmp_path / "four", 100.0, 4)
    stories.latency(tmp_path / "one", 60.0, 1)


def test_a_redis_that_says_no(tmp_path: Path) -> None:
    """NOSCRIPT, BUSY and OOM: workers go on afterwards, and nothing is lost."""
    stories.upset(tmp_path)
