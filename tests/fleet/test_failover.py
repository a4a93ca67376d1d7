"""A Redis that loses its last second, and one whose clock is set."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import failover

pytestmark = [pytest.mark.many, pytest.mark.timeout(300)]


def test_a_failover_to_a_replica_that_lacks_the_last_second(tmp_path: Path) -> None:
    """What is missing is to be added again, is asked again and comes again; nothing else is."""
    failover.fails_over(tmp_path)


@pytest.mark.skipif(failover.COMPILER is None, reason="NOT TESTED: no compiler here for a clock")
@pytest.mark.parametrize("by_s", [-failover.SET_BY_S, failover.SET_BY_S])
def test_a_clock_that_is_set(tmp_path: Path, by_s: int) -> None:
    """Set back it changes nothing; set forward it may cut one pause of an id short."""
    failover.clock_is_set(tmp_path, by_s)
