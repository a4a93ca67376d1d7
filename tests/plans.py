"""How many examples of a property are tried."""

from __future__ import annotations

from typing import Final

from hypothesis import settings

USUAL: Final = 100  # hypothesis' own


def share_of(examples: int) -> int:
    """Return so many, or their share where all of them run elsewhere (profile `brief`)."""
    return max(2, examples * settings().max_examples // USUAL)
