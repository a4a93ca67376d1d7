"""What was asked on the API's side, and when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import attrs

from .batch import INTERVAL_S

TOLERANCE_S = 0.1
"""A server learns a little later than a client that leaves that their query is over."""


@attrs.frozen(kw_only=True)
class Asked:
    """One query as a server saw it.

    Attributes:
        task_id: The id that was asked for.
        started: When it arrived, in s.
        ended: When it was answered or had ended otherwise, in s.
        status: The HTTP status that was answered; 499 if the client had left, 0 if unknown.
        connection: The number of the connection that it came on.
        encoding: The ``Content-Encoding`` of the answer.
        via: The ``Via`` of the request, which a proxy adds.
    """

    task_id: str
    started: float
    ended: float
    status: int = 0
    connection: str = ""
    encoding: str = ""
    via: str = ""


def shortest_pause(asked: Iterable[Asked]) -> float:
    """Give the shortest time from the end of a query to the start of the next of its id, in s."""
    by_id: defaultdict[str, list[Asked]] = defaultdict(list)
    for query in sorted(asked, key=lambda query: query.started):
        by_id[query.task_id].append(query)
    pairs = (pair for queries in by_id.values() for pair in pairwise(queries))
    return min(after.started - before.ended for before, after in pairs)


def assert_polite(asked: Sequence[Asked], *, interval_s: float = INTERVAL_S[0]) -> None:
    """Require that no id was asked for again before its pause was over."""
    assert shortest_pause(asked) >= interval_s - TOLERANCE_S
