"""How the polling of a session goes at one moment."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Pulse:
    """What a live view shows of a session besides its outcomes.

    Attributes:
        now: The loop's time in s.
        starts: Queries started so far.
        in_flight: Queries under way.
        next_in: The time until the next query may start, in s; infinite while it waits for answers.
        watched: How long somebody has waited for the id that was asked about, in s, or None.
    """

    now: float
    starts: int
    in_flight: int
    next_in: float
    watched: float | None
