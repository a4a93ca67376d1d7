"""What a session is doing, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import attrs

from .errors import KlingOmniError, TaskFailedError

Count = Literal["succeeded", "failed", "unresolved"]
COUNTS: Final[tuple[Count, ...]] = ("succeeded", "failed", "unresolved")


def count_of(error: KlingOmniError | None) -> Count:
    """Return among which of `COUNTS` an id counts that ended so."""
    if error is None:
        return "succeeded"
    return "failed" if isinstance(error, TaskFailedError) else "unresolved"


@attrs.frozen(kw_only=True)
class SessionStats:
    """What a session is doing at one moment; cheap at a million ids.

    Attributes:
        watched: Ids that somebody waits for.
        in_flight: Queries under way.
        saving: Tasks whose images are being saved.
        creating: Tasks that are being created.
        oldest: How long the longest wait has lasted, in s; None where nobody waits.
        next_query: Until the next scheduled query, in s; None where none is scheduled.
        queries: Queries that were started, ever.
        stretch: The factor by which pauses are longer than the policy says, as there are more ids
            than ``max_rate`` can serve.
        throttled: How long a pause after a 429 still lasts, in s.
        faults: How often each kind of passing fault was met, ever.
        succeeded: Polled ids that came back with images, ever.
        failed: Polled ids of which the API said that they failed, ever.
        unresolved: Polled ids that ended otherwise, ever.
    """

    # Thirteen: what is shown beside each other, and each by its own name.
    watched: int = 0
    in_flight: int = 0
    saving: int = 0
    creating: int = 0
    oldest: float | None = None
    next_query: float | None = None
    queries: int = 0
    stretch: float = 1.0
    throttled: float = 0.0
    faults: Mapping[str, int] = attrs.field(factory=dict[str, int])
    succeeded: int = 0
    failed: int = 0
    unresolved: int = 0
