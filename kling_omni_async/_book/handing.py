"""One step of a reader: what it has done with outcomes is kept, and it gets others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .contract import (
    FAR,
    MOST_AT_ONCE,
    Ack,
    Member,
    Parcel,
    Receipt,
    Row,
    Shelf,
    State,
    Take,
    Taken,
)
from .entries import clock_of, move

AGAIN_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 300.0)
"""After how long an outcome comes again that was handed out in vain, by how often it was."""

MOST_DELIVERIES: Final = len(AGAIN_S) + 1


def take(shelf: Shelf, given: Take, now: float, *, keep_s: float) -> Taken:
    """Make one step of a reader; a store answers a `seq` that was there before from memory."""
    now = clock_of(shelf.desk, now)
    member = shelf.member(given.reader)
    if member is not None and given.seq <= member.seq:  # it wanders late, and was answered before
        return Taken()
    parked = list(_free(shelf, given.reader, now))
    for receipt in given.receipts:
        parked += _receive(shelf, given.reader, receipt, now, keep_s)
    for key in given.keep:
        _keep(shelf, given.reader, key)
    for key in given.release:
        _release(shelf, given.reader, key)
    if given.want:
        shelf.desk.is_read = True
    parcels: tuple[Parcel, ...] = ()
    if given.is_leaving:
        parked += _leave(shelf, given.reader)
        shelf.drop_member(given.reader)
    else:
        shelf.put_member(Member(given.reader, "reader", given.seq, now))
        if member is not None and member.seq < given.after:
            parcels = tuple(_again(shelf, given.reader))
        else:
            parcels = tuple(_parcels(shelf, given, now))
    first = shelf.first_at(State.UNREAD)
    return Taken(
        parcels=parcels,
        next_s=None if first is None or first >= FAR else max(0.0, first - now),
        is_empty=not shelf.desk.open and not shelf.desk.unread,
        parked=parked,
        lost=[each.key for each in given.receipts if _is_lost(shelf, given.reader, each)],
        origin=shelf.desk.origin,
    )


def _is_lost(shelf: Shelf, reader: str, receipt: Receipt) -> bool:
    """Whether an outcome that was to be handed out is removed, or somebody else's."""
    if receipt.ack is not Ack.HANDED:
        return False
    row = shelf.row(receipt.key)
    return row is None or row.number != receipt.number or row.holder != reader


def _free(shelf: Shelf, reader: str, now: float) -> Iterator[str]:
    """Take back what dead readers have; return what is parked for that."""
    for member in shelf.members():
        if member.kind == "reader" and member.name != reader and shelf.is_dead(member, now):
            yield from _leave(shelf, member.name)
            shelf.drop_member(member.name)


def _leave(shelf: Shelf, reader: str) -> Iterator[str]:
    """Take back all that a reader has; what it has handed out was in vain."""
    for row in shelf.held(reader):
        if _give_back(shelf, row, row.handed):
            yield row.key
        shelf.put(row)


def _receive(
    shelf: Shelf, reader: str, receipt: Receipt, now: float, keep_s: float
) -> Iterator[str]:
    """Note what became of an outcome; return its key if it is parked for that."""
    row = shelf.row(receipt.key)
    if row is None or row.number != receipt.number or row.state not in (State.UNREAD, State.PARKED):
        return  # removed, ended anew, or acknowledged already
    if receipt.ack is Ack.DONE:  # whoever has it now: it was handled
        move(shelf.desk, row, State.READ)
        row.holder = row.handed = None
        row.at = _ended(row) + keep_s
    elif row.holder != reader:
        return
    elif receipt.ack is Ack.HANDED:
        if row.handed is None:
            row.deliveries, row.handed = row.deliveries + 1, now
    elif _give_back(shelf, row, _in_vain(row, receipt.ack, now)):
        yield row.key
    shelf.put(row)


def _in_vain(row: Row, ack: Ack, now: float) -> float | None:
    """Return when an outcome was handed out in vain, or None if it was not."""
    if ack is Ack.BACK:
        return None
    return now if row.handed is None else row.handed


def _give_back(shelf: Shelf, row: Row, vain: float | None) -> bool:
    """Let others have an outcome.

    Args:
        shelf: Where it lies.
        row: Its entry.
        vain: When it was handed out in vain: a pause runs from then on, so that who starts again
            after a crash waits no longer than that. None gives it back at once, in its old place.

    Returns:
        Whether it is parked.
    """
    was_handed, row.holder, row.handed = row.handed is not None, None, None
    if vain is None:
        row.deliveries -= was_handed
        row.at = _ended(row)
    elif row.deliveries >= MOST_DELIVERIES:
        move(shelf.desk, row, State.PARKED)
        row.at = FAR
    else:
        row.at = vain + AGAIN_S[max(0, row.deliveries - 1)]
    return row.state is State.PARKED


def _keep(shelf: Shelf, reader: str, key: str) -> None:
    """Let a reader alone have an outcome, also one that is still to come, unless another is to."""
    row = shelf.row(key)
    if row is None or row.state not in (State.OPEN, State.UNREAD):
        return
    if row.holder is not None and shelf.member(row.holder) is not None:
        return
    row.holder = reader
    if row.state is State.UNREAD:
        row.at = FAR
    shelf.put(row)


def _release(shelf: Shelf, reader: str, key: str) -> None:
    """Let others have an outcome that a reader was to have."""
    row = shelf.row(key)
    if row is None or row.holder != reader:
        return
    row.holder = None
    if row.state is State.UNREAD:
        _give_back(shelf, row, None)
    shelf.put(row)


def _ended(row: Row) -> float:
    assert row.ended is not None  # noqa: S101 - it has an outcome
    return row.ended


def _again(shelf: Shelf, reader: str) -> Iterator[Parcel]:
    """Return what a reader has, as a book sees it that lacks a step of it.

    A failover has lost that, and with it what the reader acknowledged then: it comes again. What it
    has still it knows by its number.
    """
    for row in shelf.held(reader)[:MOST_AT_ONCE]:
        yield _parcel(shelf, row)


def _parcels(shelf: Shelf, given: Take, now: float) -> Iterator[Parcel]:
    for row in shelf.due(State.UNREAD, now, min(given.want, MOST_AT_ONCE)):
        row.holder, row.at = given.reader, FAR
        if given.is_handed:
            row.deliveries, row.handed = row.deliveries + 1, now
        shelf.put(row)
        yield _parcel(shelf, row)


def _parcel(shelf: Shelf, row: Row) -> Parcel:
    assert row.outcome is not None  # noqa: S101 - it has ended
    note, order = shelf.contents(row.key)
    return Parcel(row.key, row.number, row.outcome, note, order, row.deliveries)
