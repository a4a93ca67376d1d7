"""The cursor that a view hides: it is shown while the program is stopped, and at a hard end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TextIO

from .signals import installed

_SHOW = b"\x1b[?25h"
# A view has two lines; the cursor is at the end of the second one.
_REMOVE_VIEW = b"\r\x1b[2K\x1b[1A\x1b[2K"
_LEAVE_ROOM = b"\n\x1b[?25l"

if sys.platform == "win32":  # pragma: no cover - not run on other systems

    @contextmanager
    def shown_while_stopped(_: TextIO) -> Generator[None]:
        """Do nothing: Windows stops no programs."""
        yield

else:

    @contextmanager
    def shown_while_stopped(terminal: TextIO) -> Generator[None]:
        """Remove a view and show the cursor while Ctrl-Z stops the program."""

        def write(data: bytes) -> None:
            # Past rich and Python's buffer, which the signal may have met in the midst of a write.
            with suppress(OSError, ValueError):
                os.write(terminal.fileno(), data)

        def stop(*_: object) -> None:
            write(_REMOVE_VIEW + _SHOW)
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)
            # Here it goes on after `fg`; what is drawn next goes over these two lines.
            signal.signal(signal.SIGTSTP, stop)
            write(_LEAVE_ROOM)

        before = signal.getsignal(signal.SIGTSTP)
        if before == signal.SIG_DFL:  # else whoever started the program wants no stops
            signal.signal(signal.SIGTSTP, stop)
        signals = installed()
        signals.farewell = _SHOW
        try:
            yield
        finally:
            signals.farewell = b""
            signal.signal(signal.SIGTSTP, before)
