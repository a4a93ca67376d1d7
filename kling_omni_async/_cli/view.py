"""Progress on stderr: none, or a line now and then; on a terminal there is `Bar` instead."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from kling_omni_async._polling.snapshot import Pulse

from .summary import Tally
from .terminal import note, out


class Silent:
    """Shows no progress.

    Attributes:
        every_s: How often `beat` is to be called, in s, or None for never.
    """

    every_s: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take down what is shown."""

    def show(self, tally: Tally) -> None:
        """Show the counts."""

    def beat(self, pulse: Pulse, oldest: str) -> None:
        """Show how the polling goes.

        Args:
            pulse: What the session tells.
            oldest: The first id that has no outcome yet, or nothing.
        """

    def out(self, line: str) -> None:
        """Write a result to stdout.

        Raises:
            OutputError: It cannot be written.
        """
        out(line)


class Lines(Silent):
    """Writes the counts as plain lines.

    Args:
        every: The least time between two lines, in s.
        clock: Gives s.
    """

    def __init__(self, every: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._next = clock()

    def show(self, tally: Tally) -> None:
        """Write a line, if the last one is old enough and the summary is not due."""
        if tally.done < tally.total and (now := self._clock()) >= self._next:
            self._next = now + self._every
            note(tally.line())
