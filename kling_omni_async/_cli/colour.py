"""Colours, and what is drawn with rich: only where somebody can see them and wants them."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Mapping
from typing import Final, TextIO

from rich.console import Console, RenderableType

from .terminal import tell_drawn

_ENDLESS: Final = 100_000
"""Columns of what is no terminal: nothing is folded there."""

_CODES: Final = {"good": "32", "bad": "31", "unsure": "33", "dim": "2"}


def wants_colour(file: TextIO | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to write colours: ``NO_COLOR`` goes before ``FORCE_COLOR``, that before the rest."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return is_screen(file, environ)


def is_screen(file: TextIO | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream is a terminal that can move its cursor."""
    return file is not None and file.isatty() and environ.get("TERM", "") != "dumb"


def painted(text: str, style: str, *, colour: bool) -> str:
    """Give a text in a colour.

    Args:
        text: The text.
        style: One of ``good``, ``bad``, ``unsure`` and ``dim``.
        colour: Whether there are colours at all.
    """
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if colour else text


def make_console(file: TextIO | None, *, colour: bool, width: int | None = None) -> Console:
    """Make rich's console; it takes nothing from the environment but the width.

    Args:
        file: Where it writes; None for stderr.
        colour: Whether it writes colours.
        width: In columns; None for the terminal's.
    """
    return Console(
        file=file,
        stderr=file is None,
        force_terminal=True,
        color_system="standard" if colour else None,
        no_color=not colour,
        legacy_windows=False,
        width=width,
    )


def rendered(what: RenderableType, file: TextIO | None) -> str:
    """Give as text what fits a stream; lines are folded for terminals only.

    Args:
        what: What rich can draw.
        file: Where the text is to be written.
    """
    target = io.StringIO()
    width = shutil.get_terminal_size().columns if file and file.isatty() else _ENDLESS
    make_console(target, colour=wants_colour(file), width=width).print(what)
    return "\n".join(line.rstrip() for line in target.getvalue().splitlines())


def draw(what: RenderableType) -> None:
    """Draw on stderr what rich can draw."""
    tell_drawn(rendered(what, sys.stderr))
