"""One reader of a book: what it has, and what it brings and wants with its next step; no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from .contract import MOST_AT_ONCE, Ack, Parcel, Receipt, Take, Taken

HEARD_S: Final = 10.0
"""How often a reader that has or wants something is heard of, in s."""

LEAST_S: Final = 0.01
"""Between two looks at an outcome that comes again, in s: clocks are not that exact."""


class Got(NamedTuple):
    """What a step has brought."""

    to_save: list[Parcel]
    to_hand_out: list[Parcel]


class Reader:
    """What a reader has of a book: taken ahead, ready for its consumer, or in his hands.

    With `ahead` above 0 it takes so many before they are asked for, such as to save their images,
    and says apart when it hands one out.
    """

    # More than ten attributes: where an outcome may be (5), and what is said with the next step.
    def __init__(self, name: str, *, ahead: int) -> None:
        self.name = name
        self.wanted = 0  # by the consumer, at this moment
        self.taken: dict[str, Parcel] = {}  # ahead, and not handed out
        self.ready: dict[str, Parcel] = {}  # handed out, as the book sees it
        self.out: dict[str, Parcel] = {}  # with the consumer
        self._saved: list[Parcel] = []  # of those that were taken, what may be handed out
        self._handing: list[Parcel] = []  # by the step that is under way
        self._ahead = ahead
        self._receipts: list[Receipt] = []
        self._seq = 0
        self._answered = 0  # the last of its steps of which it has had the answer

    def __repr__(self) -> str:
        return f"<Reader taken={len(self.taken)} ready={len(self.ready)} out={len(self.out)}>"

    # What it says.

    @property
    def want(self) -> int:
        """How many outcomes it could use."""
        if self._ahead:
            return max(0, self._ahead - len(self.taken))
        return min(MOST_AT_ONCE, max(0, self.wanted - len(self.ready)))

    @property
    def has_receipts(self) -> bool:
        """Whether the book does not know yet what became of an outcome."""
        return bool(self._receipts)

    @property
    def has_news(self) -> bool:
        """Whether the book is to be told something."""
        return self.has_receipts or bool(self._saved and self.wanted > len(self.ready))

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing and wants nothing."""
        return not (self.want or self.taken or self.ready or self.out)

    @property
    def is_done(self) -> bool:
        """Whether its consumer waits, and it has nothing for him."""
        return self.wanted > 0 and not (self.taken or self.ready)

    def rest_s(self, next_s: float | None) -> float | None:
        """Return how long nothing needs to be said, in s; None for until something happens."""
        if self.is_idle:
            return None
        if next_s is None or not self.want:
            return HEARD_S
        return min(HEARD_S, max(LEAST_S, next_s))

    def next_take(self) -> Take:
        """Return the next step; it is sent again as it is until the book has answered."""
        self._hand_saved()
        return self._take(want=self.want)

    def last_takes(self) -> Iterator[Take]:
        """Return the steps by which it leaves, with all that it still has to say."""
        while len(self._receipts) > MOST_AT_ONCE:
            yield self._take(want=0)
        yield self._take(want=0, is_leaving=True)

    def _hand_saved(self) -> None:
        number = max(0, self.wanted - len(self.ready))
        self._handing, self._saved = self._saved[:number], self._saved[number:]
        self._receipts += [_receipt(parcel, Ack.HANDED) for parcel in self._handing]

    def _take(self, *, want: int, is_leaving: bool = False) -> Take:
        self._seq += 1
        receipts = tuple(self._receipts[:MOST_AT_ONCE])
        del self._receipts[:MOST_AT_ONCE]
        return Take(
            reader=self.name,
            seq=self._seq,
            after=self._answered,
            receipts=receipts,
            want=want,
            is_handed=not self._ahead,
            is_leaving=is_leaving,
        )

    # What it gets.

    def took(self, reply: Taken) -> Got:
        """Note what a step has brought."""
        self._answered = self._seq
        lost = set(reply.lost)
        handed = [each for each in self._handing if self._hand_out(each, lost)]
        self._handing = []
        new = [parcel for parcel in reply.parcels if not self._has(parcel)]
        if self._ahead:
            self.taken.update((parcel.key, parcel) for parcel in new)
            self._saved = [each for each in self._saved if self.taken.get(each.key) is each]
            return Got(new, handed)
        self.ready.update((parcel.key, parcel) for parcel in new)
        return Got([], handed + new)

    def _hand_out(self, parcel: Parcel, lost: set[str]) -> bool:
        if self.taken.get(parcel.key) is parcel:
            del self.taken[parcel.key]
        if parcel.key in lost:  # removed meanwhile, or we were taken for dead
            return False
        self.ready[parcel.key] = parcel
        return True

    def _has(self, parcel: Parcel) -> bool:
        """Whether it has an outcome already: it was taken for dead, and has got it back."""
        places = (self.taken, self.ready, self.out)
        known = (place.get(parcel.key) for place in places)
        return any(each is not None and each.number == parcel.number for each in known)

    def saved(self, parcel: Parcel) -> None:
        """Note that an outcome that was taken ahead may be handed out."""
        if self.taken.get(parcel.key) is parcel:
            self._saved.append(parcel)

    # What becomes of it.

    def gave(self, parcel: Parcel) -> None:
        """Note that the consumer has an outcome."""
        if self.ready.get(parcel.key) is parcel:
            del self.ready[parcel.key]
        self.out[parcel.key] = parcel

    def settle(self, parcel: Parcel, ack: Ack) -> None:
        """Note what became of an outcome at the consumer."""
        is_here = self.out.get(parcel.key) is parcel
        if is_here:
            del self.out[parcel.key]
        if is_here or ack is Ack.DONE:
            self._receipts.append(_receipt(parcel, ack))

    def refuse(self, parcel: Parcel) -> None:
        """Give back what cannot be handed out, as if that had been in vain: it is parked then."""
        self.taken.pop(parcel.key, None)
        self.ready.pop(parcel.key, None)
        self._receipts += [_receipt(parcel, Ack.HANDED), _receipt(parcel, Ack.FAILED)]

    def give_back(self, *, failed: bool) -> None:
        """Give all back; what the consumer has comes again later if he failed."""
        ack = Ack.FAILED if failed else Ack.BACK
        self._receipts += [_receipt(parcel, ack) for parcel in self.out.values()]
        unused = (*self.taken.values(), *self.ready.values())
        self._receipts += [_receipt(parcel, Ack.BACK) for parcel in unused]
        self.taken, self.ready, self.out, self._saved = {}, {}, {}, []


def _receipt(parcel: Parcel, ack: Ack) -> Receipt:
    return Receipt(parcel.key, parcel.number, ack)
