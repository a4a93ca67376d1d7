"""The time of a book that lies in a file: it never runs back, and goes on across boots."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_STEP_BACK_S: Final = 1.0
"""By how much a clock is earlier, in s, than it was written, if the machine was booted since."""


def boot_id() -> str:
    """Return what names this boot of the machine, or nothing where nobody tells.

    A clock that counts from the boot tells it there: it is earlier after the next one, or at
    least no later than the time that has really passed, so no pause gets shorter.
    """
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def since_boot() -> float:
    """Return the time in s on a clock of this boot that counts sleep, too."""
    clock: int | None = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    # Windows has neither; its monotonic clock counts sleep.
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@attrs.frozen
class Clocks:
    """The clocks of the machine, in s."""

    boot: Callable[[], str] = boot_id
    since_boot: Callable[[], float] = since_boot
    wall: Callable[[], float] = time.time


@attrs.frozen
class Anchor:
    """What the clocks said at the last step."""

    boot: str
    ahead: float  # of the book's time before the clock of the boot
    clock: float
    wall: float


class BookClock:
    """Counts the time of one book."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._boot = clocks.boot()
        self._ahead = 0.0

    def since_boot(self) -> float:
        """Return the time in s of this boot."""
        return self._clocks.since_boot()

    def wall(self) -> float:
        """Return the wall clock in s."""
        return self._clocks.wall()

    def now(self) -> float:
        """Return the time of the book in s."""
        return self._clocks.since_boot() + self._ahead

    def begin(self) -> Anchor:
        """Return where the clock of a new book begins."""
        self._ahead = 0.0
        return self.anchor()

    def anchor(self) -> Anchor:
        """Return what the clocks say now."""
        return Anchor(self._boot, self._ahead, self._clocks.since_boot(), self._clocks.wall())

    def follow(self, anchor: Anchor, latest: float) -> bool:
        """Go on from what was kept at the last step; return whether there was a boot since.

        Args:
            anchor: What the clocks said at the last step.
            latest: The time of the book at the last step, in s.
        """
        clock = self._clocks.since_boot()
        if anchor.boot == self._boot and clock >= anchor.clock - _STEP_BACK_S:
            self._ahead = anchor.ahead
            return False
        passed = max(0.0, self._clocks.wall() - anchor.wall)
        self._ahead = latest + passed - clock
        return True
