"""What becomes of the entries of a book: pure steps on its shelf; `now` is in s of the book."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import evolve

from kling_omni_async._stats import Count

from .contract import (
    FAR,
    INTENT,
    MOST_AT_ONCE,
    Addition,
    Desk,
    Found,
    Intent,
    Known,
    Row,
    Settle,
    Shelf,
    State,
    Wish,
)

ENDED: Final = (State.UNREAD, State.READ, State.PARKED)


def clock_of(desk: Desk, now: float) -> float:
    """Return the time of a step, which is never before that of the last one."""
    desk.clock = max(desk.clock, now)
    return desk.clock


def next_number(desk: Desk) -> int:
    """Return a number that no other row or claim of the book has."""
    desk.number += 1
    return desk.number


def low_s(desk: Desk) -> float:
    """Return the shortest pause between two queries of an id, in s."""
    return desk.terms.interval[0] if desk.terms else 0.0


def move(desk: Desk, row: Row, state: State) -> None:
    """Change how far an entry is, and count it there."""
    _become(desk, row, state, row.count)


def _become(desk: Desk, row: Row, state: State, count: Count | None) -> None:
    _count(desk, row, -1)
    row.state, row.count = state, count
    if state is not State.OPEN:
        row.is_new = False
    _count(desk, row, 1)


def _count(desk: Desk, row: Row, by: int) -> None:
    if row.state is State.OPEN:
        desk.open += by
    elif row.state is State.UNREAD:
        desk.unread += by
    elif row.state is State.PARKED:
        desk.parked += by
    if row.count is not None and row.state in ENDED:
        setattr(desk, row.count, getattr(desk, row.count) + by)


def _drop(shelf: Shelf, row: Row) -> None:
    _count(shelf.desk, row, -1)
    shelf.drop(row.key)


def _forget(shelf: Shelf, row: Row) -> None:
    """Drop an entry for good, with its name, unless the caller has given that himself."""
    _drop(shelf, row)
    wish = None if row.external_id is None else shelf.wish(row.external_id)
    if wish is not None and not wish.is_keyed:
        shelf.drop_wish(wish.external_id)


# What users do.


def add(shelf: Shelf, additions: Sequence[Addition], now: float, wall_s: float) -> list[bool]:
    """Keep ids; return which of them are new. What is there keeps its note."""
    now = clock_of(shelf.desk, now)
    return [_add(shelf, addition, now, wall_s) for addition in additions]


def _add(shelf: Shelf, addition: Addition, now: float, wall_s: float) -> bool:
    before = shelf.row(addition.task_id)
    if before is not None and before.state is not State.REMOVED:
        return False
    row = _new_row(shelf.desk, addition.task_id, now, wall_s)
    row.at = row.due = now + addition.first_s
    row.external_id, row.kind, row.task = addition.external_id, addition.kind, addition.task
    row.holder = addition.holder
    if addition.age_s is not None:
        row.born = now - addition.age_s
    if addition.age_s is not None or addition.task is not None:
        row.seen = now
    if before is not None:  # its pause goes on: to remove and to add must not poll faster
        row.at = row.due = max(now, before.at)
        row.is_new, row.answered = False, before.answered
        row.external_id = row.external_id or before.external_id
    shelf.put(row)
    if addition.note is not None or addition.order is not None:
        shelf.put_contents(row.key, addition.note, addition.order)
    return True


def _new_row(desk: Desk, key: str, now: float, wall_s: float) -> Row:
    row = Row(key, number=next_number(desk), added=now, added_at=wall_s)
    _count(desk, row, 1)
    return row


def find(shelf: Shelf, key: str) -> Found | None:
    """Return an entry by its task id or its external id."""
    row = _row_of(shelf, key)
    return None if row is None else Found(row, *shelf.contents(row.key))


def _row_of(shelf: Shelf, key: str) -> Row | None:
    row = shelf.row(key) or shelf.row(INTENT + key)
    if row is None and (wish := shelf.wish(key)) is not None:
        return _row_of_wish(shelf, wish)
    return _unless_removed(row)


def _row_of_wish(shelf: Shelf, wish: Wish) -> Row | None:
    return _unless_removed(shelf.row(wish.task_id or INTENT + wish.external_id))


def _unless_removed(row: Row | None) -> Row | None:
    return None if row is None or row.state is State.REMOVED else row


def remove(shelf: Shelf, key: str, now: float) -> bool:
    """Remove an entry; it is remembered until its pause or lease is over."""
    desk = shelf.desk
    now = clock_of(desk, now)
    row = _row_of(shelf, key)
    if row is None:
        return False
    break_claim(desk, row)
    kept_until = row.at if row.state is State.OPEN else may_be_asked(desk, row)
    was_asked = row.answered > -FAR or row.is_intent  # its process may be posting
    if kept_until <= now or not was_asked:
        _forget(shelf, row)
        return True
    move(desk, row, State.REMOVED)
    row.at, row.holder, row.handed = kept_until, None, None
    row.outcome = row.task = row.fault = row.ended = None
    shelf.put_contents(row.key, None, None)
    shelf.put(row)
    return True


def may_be_asked(desk: Desk, row: Row) -> float:
    """Return when an entry that is not claimed may be asked again at the earliest."""
    return row.answered + low_s(desk)


def break_claim(desk: Desk, row: Row) -> None:
    """Take the claim of an entry away: its query has ended a pause before its lease is over."""
    if row.token:
        row.token, row.answered = 0, max(row.answered, row.at - low_s(desk))


def retry(shelf: Shelf, key: str, now: float) -> bool:
    """Hand a parked outcome out again, or poll an unsettled end again."""
    desk = shelf.desk
    now = clock_of(desk, now)
    row = _row_of(shelf, key)
    if row is None:
        return False
    if row.state is State.PARKED:
        move(desk, row, State.UNREAD)
        row.at, row.deliveries = now, 0
    elif row.state is not State.OPEN and not row.is_settled:
        _reopen(desk, row, now)
    else:
        return False
    shelf.put(row)
    return True


def _reopen(desk: Desk, row: Row, now: float) -> None:
    _become(desk, row, State.OPEN, None)
    row.at = row.due = max(now, may_be_asked(desk, row))
    row.outcome = row.ended = row.holder = row.handed = row.first = row.doubt = None
    row.deliveries = 0
    if row.is_intent:
        row.queries = 0  # it is looked for as often as at first


def nudge(shelf: Shelf, key: str, now: float) -> bool:
    """Ask for an id as soon as its pause allows; return whether it is open."""
    desk = shelf.desk
    now = clock_of(desk, now)
    row = _row_of(shelf, key)
    if row is None or row.state is not State.OPEN or row.is_intent:
        return False
    if row.token and row.at > now:
        row.is_nudged = True  # the answer to what is under way may be from before
    else:
        row.at = row.due = max(now, min(row.at, may_be_asked(desk, row)))
    shelf.put(row)
    return True


# What ends.


def end(desk: Desk, row: Row, now: float, outcome: str, count: Count, *, is_settled: bool) -> None:
    """Note a final word; the outcome may be taken from now on."""
    _become(desk, row, State.UNREAD, count)
    row.outcome, row.ended, row.is_settled = outcome, now, is_settled
    row.number, row.at, row.is_nudged = next_number(desk), now, False


def hold(shelf: Shelf, row: Row) -> None:
    """Keep an outcome for the reader that is to have it, if that is still there."""
    if row.holder is None or shelf.member(row.holder) is None:
        row.holder = None
    else:
        row.at = FAR


def purge(shelf: Shelf, now: float, keep_s: float) -> tuple[list[str], bool]:
    """Forget what is over for long, some of it at a time.

    Returns:
        The keys of what nobody has acknowledged, and whether there may be more to forget.
    """
    over = shelf.due(State.READ, now, MOST_AT_ONCE)
    gone = shelf.due(State.REMOVED, now, MOST_AT_ONCE)
    unread = shelf.ended_before(now - keep_s, MOST_AT_ONCE)
    for row in (*over, *gone, *unread):
        _forget(shelf, row)
    is_more = MOST_AT_ONCE in (len(over), len(gone), len(unread))
    return [row.key for row in unread], is_more


# Intents.


def intend(shelf: Shelf, intent: Intent, now: float, wall_s: float) -> Known | None:
    """Keep that a task is about to be created; return what is known of that wish, if anything."""
    desk = shelf.desk
    now = clock_of(desk, now)
    key, wish = INTENT + intent.external_id, shelf.wish(intent.external_id)
    if wish is not None:
        return Known(wish, _row_of_wish(shelf, wish), now)
    shelf.put_wish(Wish(intent.external_id, intent.digest, None, intent.is_keyed))
    row = _new_row(desk, key, now, wall_s)
    row.is_new, row.external_id, row.kind = False, intent.external_id, intent.kind
    row.at = row.due = now + intent.lease_s
    shelf.put(row)
    shelf.put_contents(key, intent.note, intent.order)
    return None


def created(
    shelf: Shelf, external_id: str, made: Addition | None, now: float, wall_s: float
) -> None:
    """Keep which task an intent has made; None where it is certain that it made none."""
    now = clock_of(shelf.desk, now)
    if made is None:
        _made_none(shelf, external_id)
    else:
        _made(shelf, external_id, made, now, wall_s)


def _made_none(shelf: Shelf, external_id: str) -> None:
    wish, row = shelf.wish(external_id), shelf.row(INTENT + external_id)
    if wish is None or wish.task_id is not None:
        return
    shelf.drop_wish(external_id)
    if row is not None:
        _drop(shelf, row)


def _made(shelf: Shelf, external_id: str, made: Addition, now: float, wall_s: float) -> None:
    wish, intent = shelf.wish(external_id), shelf.row(INTENT + external_id)
    if wish is not None and wish.task_id is None:
        shelf.put_wish(evolve(wish, task_id=made.task_id))
    made = evolve(made, external_id=external_id)
    if intent is None:
        # Where it was found before, it is there, or was removed since.
        if wish is None or wish.task_id != made.task_id:
            _take_up(shelf, made, now, wall_s)
    elif intent.state is not State.REMOVED:
        note, order = shelf.contents(intent.key)
        _drop(shelf, intent)
        _take_up(shelf, made, now, wall_s)
        own_note, own_order = shelf.contents(made.task_id)
        shelf.put_contents(made.task_id, own_note or note, own_order or order)


def _take_up(shelf: Shelf, made: Addition, now: float, wall_s: float) -> None:
    """Keep a task that was created; one that is there already has a name, and was seen."""
    _add(shelf, made, now, wall_s)
    row = shelf.row(made.task_id)
    assert row is not None  # noqa: S101 - it is there
    row.external_id = made.external_id
    if row.seen is None:
        row.seen = now
    shelf.put(row)


def found(shelf: Shelf, intent: Row, settle: Settle, now: float, wall_s: float) -> None:
    """Note the task that an intent has made, which is polled from now on like any id."""
    assert settle.task_id is not None and intent.external_id is not None  # noqa: S101, PT018 - of what was found
    made = Addition(
        settle.task_id,
        task=settle.task,
        kind=intent.kind,
        age_s=settle.born_ago,
        first_s=settle.pause_s - settle.ended_ago,
    )
    _made(shelf, intent.external_id, made, now, wall_s)
    row = shelf.row(made.task_id)
    if row is not None and row.state is State.OPEN and not row.token:
        # The look for it has asked for it, too.
        row.answered = max(row.answered, now - settle.ended_ago)
        row.at = row.due = max(row.at, may_be_asked(shelf.desk, row))
        shelf.put(row)
