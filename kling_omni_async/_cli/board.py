"""Two lines on a terminal that are drawn anew now and then, and results above them."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, suppress

from rich.console import Group, OverflowMethod, RenderableType
from rich.live import Live
from rich.text import Text

from .cursor import shown_while_stopped
from .exit import OutputError
from .terminal import has_room, make_console, out_as_read, room_in, wants_colour


class Board:
    """Draws on stderr, which is a terminal: a first line of any kind, and a second one of text."""

    def __init__(self) -> None:
        self.console = make_console(None, colour=wants_colour(sys.stderr))
        self.is_ascii = self.console.options.ascii_only
        # rich's ellipsis is one letter, which ASCII has not.
        overflow: OverflowMethod = "crop" if self.is_ascii else "ellipsis"
        self.first: RenderableType = ""
        self.second = Text(no_wrap=True, overflow=overflow)
        # No thread draws it: whoever works does, as only there the session may be looked at.
        self._live = Live(
            get_renderable=lambda: Group(self.first, self.second),
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
        )
        self._hiding = ExitStack()
        self._terminal = sys.stderr
        self._shares_terminal = _stdout_is_stderr()

    def start(self) -> None:
        """Begin; the lines are drawn with the first `draw`, when there is something to say."""
        self._hiding.enter_context(shown_while_stopped(self._terminal))
        self._live.start()

    def stop(self) -> None:
        """Remove what is drawn."""
        with self._hiding, suppress(OSError):  # the terminal is gone: nobody is left to see it
            self._live.stop()

    def draw(self) -> None:
        """Draw, unless the terminal is held up: the work does not wait for it."""
        if has_room(self._terminal):
            with suppress(OSError):  # as at the end
                self._live.refresh()

    async def out(self, line: str) -> None:
        """Write a result to stdout, above the lines if that is on the same terminal."""
        if not self._shares_terminal:
            await out_as_read(line)
            return
        await room_in(self._terminal)
        # Through rich, which moves the lines out of the way: beside it they would be torn.
        try:
            self.console.out(line, highlight=False)
        except OSError as error:
            raise OutputError("stdout", error) from None


def _stdout_is_stderr() -> bool:
    if sys.stdout is None:
        return False
    return os.path.samestat(os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno()))
