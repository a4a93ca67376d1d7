"""What becomes of the entries of a book: pure steps on its shelf; `now` is in s of the book."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kling_omni_async._stats import Count

from .contract import (
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

MOST_DELIVERIES: Final = 10


def clock_of(desk: Desk, now: float) -> float:
    """Return the time of a step, which is never before that of the last one."""
    desk.clock = max(desk.clock, now)
    return desk.clock


def next_number(desk: Desk) -> int:
    """Return a number that no other row or claim of the book has."""
    desk.number += 1
    return desk.number


def move(desk: Desk, row: Row, state: State) -> None:
    """Change how far an entry is, and count it there; nobody else changes a state."""
    _count(desk, row, -1)
    row.state = state
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


def forget(shelf: Shelf, row: Row) -> None:
    """Drop an entry, and count it no more."""
    _count(shelf.desk, row, -1)
    shelf.drop(row.key)


# What users do.


def add(shelf: Shelf, additions: Sequence[Addition], now: float, wall_s: float) -> list[bool]:
    """Keep ids; return which of them are new. What is there keeps its note."""
    now = clock_of(shelf.desk, now)
    return [_add(shelf, addition, now, wall_s) for addition in additions]


def _add(shelf: Shelf, addition: Addition, now: float, wall_s: float) -> bool:
    before = shelf.row(addition.task_id)
    if before is not None and before.state is not State.REMOVED:
        return False
    desk = shelf.desk
    row = Row(addition.task_id, number=next_number(desk), added=now, added_at=wall_s)
    row.at = row.due = now + addition.first_s
    row.external_id, row.kind, row.task = addition.external_id, addition.kind, addition.task
    if addition.age_s is not None:
        row.born, row.seen = now - addition.age_s, now
    if before is not None:  # its pause goes on: to remove and to add must not poll faster
        row.at = row.due = max(now, before.at)
        row.is_new, row.asked, row.answered = False, before.asked, before.answered
    _count(desk, row, 1)
    shelf.put(row)
    if addition.note is not None:
        shelf.put_contents(row.key, addition.note, None)
    return True


def find(shelf: Shelf, key: str) -> Found | None:
    """Return an entry by its task id or its external id."""
    row = _row_of(shelf, key)
    return None if row is None else Found(row, *shelf.contents(row.key))


def _row_of(shelf: Shelf, key: str) -> Row | None:
    row = shelf.row(key) or shelf.row(INTENT + key)
    if row is None and (wish := shelf.wish(key)) is not None and wish.task_id is not None:
        row = shelf.row(wish.task_id)
    return None if row is None or row.state is State.REMOVED else row


def remove(shelf: Shelf, key: str, now: float) -> bool:
    """Remove an entry; it is remembered until its pause or lease is over."""
    desk = shelf.desk
    now = clock_of(desk, now)
    row = _row_of(shelf, key)
    if row is None:
        return False
    kept_until = row.at if row.state is State.OPEN else _pause_over(desk, row)
    if kept_until <= now or (row.is_new and not row.token):
        forget(shelf, row)
        return True
    move(desk, row, State.REMOVED)
    row.at, row.token, row.holder, row.handed = kept_until, 0, None, None
    row.outcome = row.task = row.fault = row.ended = None
    shelf.put_contents(row.key, None, None)
    shelf.put(row)
    return True


def _pause_over(desk: Desk, row: Row) -> float:
    """Return when an entry may be asked again at the earliest, by its last query."""
    low_s = desk.terms.interval[0] if desk.terms else 0.0
    return row.answered + low_s


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
    _count(desk, row, -1)
    row.state, row.count = State.OPEN, None
    _count(desk, row, 1)
    row.at = row.due = max(now, _pause_over(desk, row))
    row.outcome = row.ended = row.holder = row.handed = row.first = row.doubt = None
    row.deliveries = row.token = 0


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
        row.at = row.due = max(now, min(row.at, _pause_over(desk, row)))
    shelf.put(row)
    return True


# What ends.


def end(desk: Desk, row: Row, now: float, outcome: str, count: Count, *, is_settled: bool) -> None:
    """Note a final word; the outcome may be taken from now on."""
    _count(desk, row, -1)
    row.state, row.is_new, row.count = State.UNREAD, False, count
    _count(desk, row, 1)
    row.outcome, row.ended, row.is_settled = outcome, now, is_settled
    row.number, row.at, row.token = next_number(desk), now, 0
    row.holder, row.handed, row.deliveries = None, None, 0


def purge(shelf: Shelf, now: float, keep_s: float) -> list[str]:
    """Forget what is over for long; return the keys of what nobody has acknowledged."""
    for state in (State.READ, State.REMOVED):
        for row in shelf.due(state, now, MOST_AT_ONCE):
            forget(shelf, row)
    dropped = []
    for row in shelf.ended_before(now - keep_s, MOST_AT_ONCE):
        dropped.append(row.key)
        forget(shelf, row)
    return dropped


# Intents.


def intend(shelf: Shelf, intent: Intent, now: float, wall_s: float) -> Known | None:
    """Keep that a task is about to be created; return what is known of that wish, if anything."""
    desk = shelf.desk
    now = clock_of(desk, now)
    key, wish = INTENT + intent.external_id, shelf.wish(intent.external_id)
    if wish is not None:
        return Known(wish, shelf.row(wish.task_id or key))
    shelf.put_wish(Wish(intent.external_id, intent.digest, None, intent.is_keyed))
    row = Row(key, number=next_number(desk), is_new=False, added=now, added_at=wall_s)
    row.external_id, row.asked = intent.external_id, now
    row.at = row.due = now + intent.lease_s
    _count(desk, row, 1)
    shelf.put(row)
    shelf.put_contents(key, intent.note, intent.order)
    return None


def created(
    shelf: Shelf, external_id: str, made: Addition | None, now: float, wall_s: float
) -> None:
    """Keep which task an intent has made; None where it is certain that it made none."""
    now = clock_of(shelf.desk, now)
    wish, row = shelf.wish(external_id), shelf.row(INTENT + external_id)
    note, order = shelf.contents(INTENT + external_id)
    if made is None:
        if wish is not None and wish.task_id is None:
            shelf.drop_wish(external_id)
            if row is not None:
                forget(shelf, row)
        return
    became(shelf, row, wish, made.task_id)
    if _add(shelf, made, now, wall_s):
        shelf.put_contents(made.task_id, note, order)


def became(shelf: Shelf, row: Row | None, wish: Wish | None, task_id: str) -> None:
    """Note which task a wish is, in place of its intent."""
    if wish is not None:
        shelf.put_wish(Wish(wish.external_id, wish.digest, task_id, wish.is_keyed))
    if row is not None:
        forget(shelf, row)


def found(shelf: Shelf, row: Row, settle: Settle, now: float, wall_s: float) -> None:
    """Note the task that an intent has made, which is polled from now on like any id."""
    assert settle.task_id is not None and row.external_id is not None  # noqa: S101, PT018
    made = Addition(
        settle.task_id, external_id=row.external_id, task=settle.task, age_s=settle.born_ago
    )
    created(shelf, row.external_id, made, now, wall_s)
