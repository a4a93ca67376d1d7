"""The first handler of signals, in a module of its own that is quickly imported."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Raised by a signal.

    A class of our own: where code that was made from text raises KeyboardInterrupt itself,
    Python later dies of SIGINT, even if that was caught.
    """


class Once:
    """Interrupts at the first signal, from `heed_signals` on; what comes after it does nothing.

    Modules that are being imported and pending ids that are being told are left in peace:
    ``timeout`` and terminals may send a signal twice.

    Attributes:
        came: Whether a signal has come.
        heeded: Whether the first one interrupts.
        waits: Whether any one interrupts.
    """

    error: type[BaseException] = Interrupted

    def __init__(self) -> None:
        self.came = False
        self.heeded = False
        self.waits = False

    def __call__(self, _: int, __: FrameType | None) -> None:
        """Handle a signal."""
        interrupts = self.waits or (self.heeded and not self.came)
        self.came = True
        self.waits = False
        if interrupts:
            raise self.error


@contextmanager
def interruptible(handler: Handler, *, for_good: bool = False) -> Generator[None]:
    """Have a handler for both signals, even if a shell set them to be ignored.

    Args:
        handler: What is called.
        for_good: Keep it until the process ends.
    """
    before = [signal.signal(number, handler) for number in SIGNALS]
    try:
        yield
    finally:
        if not for_good:
            for number, old in zip(SIGNALS, before, strict=True):
                signal.signal(number, old)


def ignore_signals() -> None:
    """Let no signal spoil the exit code while Python takes the process down."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
