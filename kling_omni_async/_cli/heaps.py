"""Tasks without an image to show, put together by why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from .cards import Card, Group

NO_REASON: Final = "No reason was given."
_NOT_HERE: Final = "The images are not in this folder."
_FEW: Final = 5
_ORDER: Final = (Group.FAILED, Group.OTHER, Group.SUCCEEDED)


@attrs.frozen(kw_only=True)
class Row:
    """One task of a heap, with what of its reason the heap does not say."""

    card: Card
    reason: str | None = None


@attrs.frozen(kw_only=True)
class Heap:
    """Tasks that ended alike; without a `gist` each has a reason of its own."""

    group: Group
    ending: str
    gist: str | None
    rows: tuple[Row, ...]

    @property
    def is_small(self) -> bool:
        """Whether its rows may be shown at once."""
        return len(self.rows) <= _FEW


def heaps_of(cards: Iterable[Card]) -> list[Heap]:
    """Return the heaps of cards: those that failed first, then by their size."""
    by_gist: dict[tuple[Group, str, str | None], list[Card]] = {}
    for card in cards:
        by_gist.setdefault((card.group, card.ending, _gist_of(card)), []).append(card)
    heaps: list[Heap] = []
    singles: dict[tuple[Group, str], list[Heap]] = {}
    for (group, ending, gist), own in by_gist.items():
        rows = tuple(_row(card, gist) for card in own)
        heap = Heap(group=group, ending=ending, gist=gist, rows=rows)
        (heaps if len(own) > 1 else singles.setdefault((group, ending), [])).append(heap)
    heaps += [_together(own) for own in singles.values()]
    return sorted(heaps, key=lambda heap: (_ORDER.index(heap.group), -len(heap.rows)))


def _gist_of(card: Card) -> str:
    if card.reason is None:
        return _NOT_HERE
    return (card.gist or card.reason) if card.reason else NO_REASON


def _row(card: Card, gist: str | None) -> Row:
    return Row(card=card, reason=card.reason if card.reason and card.reason != gist else None)


def _together(singles: list[Heap]) -> Heap:
    """Return one heap of those that hold one task each."""
    if len(singles) == 1:
        return singles[0]
    rows = [_row(row.card, None) for heap in singles for row in heap.rows]
    return attrs.evolve(singles[0], gist=None, rows=tuple(rows))
