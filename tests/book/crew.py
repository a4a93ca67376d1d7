"""The processes of a story, which a test starts one by one."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.cli.support import neighbour

from .child import FAST, Child, Job, child, each_of
from .kills import LATENCY_S, Story

FASTER = {**FAST, "query_timeout": 1.0, "max_rate": 500.0, "max_concurrency": 40}
MANY = 100
"""How many handlers run at once where many outcomes are to be read."""


@contextmanager
def told(
    folder: Path, ids: int, seconds: float, *, latency: float = LATENCY_S, **options: Any
) -> Generator[Story]:
    """Begin a story."""
    folder.mkdir(exist_ok=True)
    with neighbour(latency=latency, **options) as api:
        story = Story(api, folder, random.Random(1), ())
        story.make_tasks(ids, seconds)
        yield story


class Crew:
    """The processes of a story, which end with it."""

    def __init__(self, story: Story, stack: ExitStack) -> None:
        self._story = story
        self._stack = stack

    def start(self, *roles: str, **changes: Any) -> Child:
        """Start one."""
        story = self._story
        story.number += 1
        given: dict[str, Any] = {
            "book": story.book,
            "base_url": story.api.api.base_url,
            "api_key": story.api.api.api_key,
            "log": str(story.log),
            "roles": roles,
            "ids": tuple(story.task_ids),
        }
        return self._stack.enter_context(child(story.number, Job(**{**given, **changes})))

    def add_all(self) -> None:
        """Fill the book."""
        assert self.start("add", batch=500).finish() == 0

    def finish(self, **changes: Any) -> None:
        """Let another one bring all to its end."""
        last = self.start("poll", "each", until_empty=True, limit=MANY, **changes)
        assert last.finish() == 0


@contextmanager
def crew_of(story: Story) -> Generator[Crew]:
    """Give what starts the processes of a story."""
    with ExitStack() as stack:
        yield Crew(story, stack)


def has_said(story: Story, what: str, of: Child | None = None) -> bool:
    """Whether a process has written such a line."""
    return any(of is None or line.child == of.number for line in each_of(story.lines(), what))
