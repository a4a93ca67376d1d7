"""Kills, stops and cuts off processes that share a book in a real Redis, and says what was seen.

``python -m tests.program_fleet_kills [NAME ...]`` plays all stories, or some; some five minutes.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from .fleet import failover, stories

STORIES: Final[Mapping[str, Callable[[Path], str]]] = {
    "pace": stories.one_pace,
    "stop": stories.stands_still,
    "restart": partial(stories.redis_away, number=signal.SIGTERM, away_s=30.0),
    "kill": partial(stories.redis_away, number=signal.SIGKILL, away_s=3.0),
    "turn": partial(stories.cuts, verb="turn", each=8),
    "take": partial(stories.cuts, verb="take", each=5),
    "far": partial(stories.latency, rate=200.0, workers=4),
    "far, one": partial(stories.latency, rate=100.0, workers=1),
    "no": stories.upset,
    "failover": failover.fails_over,
    "back": partial(failover.clock_is_set, by_s=-failover.SET_BY_S),
    "forward": partial(failover.clock_is_set, by_s=failover.SET_BY_S),
}


def main() -> None:
    """Play the stories."""
    for name in sys.argv[1:] or STORIES:
        began = time.monotonic()
        with TemporaryDirectory() as folder:
            seen = STORIES[name](Path(folder))
        sys.stdout.write(f"{name}: {seen} [{time.monotonic() - began:.0f} s]\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
