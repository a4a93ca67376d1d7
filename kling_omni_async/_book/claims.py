"""One step of a worker: what it brings is kept, and what may be asked now is given out."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Final

from kling_omni_async._policy import MAX_RETRY_AFTER_S
from kling_omni_async._polling.limits import BACKOFF_S

from .contract import (
    MOST_AT_ONCE,
    Claim,
    Desk,
    Doubt,
    Gate,
    Lesson,
    Member,
    Row,
    Said,
    Settle,
    Shelf,
    State,
    Terms,
    Turn,
    Turned,
)
from .entries import clock_of, end, found, next_number, purge

HORIZON_S: Final = 0.2
"""How far ahead starts are given out, in s: after a 429 nobody starts later than this."""

LESSONS_KEPT: Final = 200
WORKER_S: Final = 30.0
"""A worker that was not heard of for so long, in s, counts no more."""

PURGE_S: Final = 5.0
MEMBER_KEPT_S: Final = 3600.0
_PROVED_S: Final = 3600.0
_MOST_ACCOUNTS: Final = 8


def turn(shelf: Shelf, given: Turn, now: float, *, wall_s: float, keep_s: float) -> Turned:
    """Make one step of a worker; a store answers a `seq` that was there before from memory."""
    desk = shelf.desk
    now = clock_of(desk, now)
    if given.origin is not None and desk.origin not in (None, given.origin):
        return Turned(now=now, other_origin=desk.origin)
    desk.origin = desk.origin or given.origin
    differs = _join(desk, given)
    strange = [_settle(shelf, settle, given, now, wall_s) for settle in given.settles]
    for started_ago, asked_s, jitter in given.limits:
        limit(desk.gate, now - started_ago, asked_s, jitter, now)
    if given.is_leaving:
        shelf.drop_member(given.worker)
    else:
        shelf.put_member(Member(given.worker, "worker", given.seq, now))
    reserved = tuple(start - now for start in _reserve(desk, given.reserve, now))
    claims = tuple(_claims(shelf, given, now))
    return Turned(
        now=now,
        claims=claims,
        reserved=reserved,
        next_s=_next_s(shelf, now),
        gate_s=max(0.0, desk.gate.until - now) if desk.gate.is_closed else 0.0,
        terms=desk.terms,
        lessons=shelf.lessons_after(given.lessons_after),
        is_stranger=any(strange),
        differs=differs,
        dropped=_purge(shelf, now, keep_s),
    )


def _purge(shelf: Shelf, now: float, keep_s: float) -> list[str]:
    if now < shelf.desk.purged + PURGE_S:
        return []
    shelf.desk.purged = now
    return purge(shelf, now, keep_s)


def _join(desk: Desk, given: Turn) -> bool:
    """Put the policy of a worker that starts in force; return whether another one was."""
    if given.terms is None or given.terms == desk.terms:
        return False
    before, desk.terms = desk.terms, given.terms
    return before is not None


# What a worker brings.


def _settle(shelf: Shelf, settle: Settle, given: Turn, now: float, wall_s: float) -> bool:
    """Keep what became of a claim; return whether it shows another account's key."""
    desk = shelf.desk
    started, ended = now - settle.started_ago, now - settle.ended_ago
    _pass_gate(desk.gate, settle, started, now)
    if settle.lesson is not None:
        shelf.add_lesson(Lesson(next_number(desk), *settle.lesson), LESSONS_KEPT)
    row = shelf.row(settle.key)
    if row is None or row.state is not State.OPEN:
        return False
    is_mine = row.token == settle.token
    if settle.is_task and given.account not in desk.accounts:
        desk.accounts = (*desk.accounts, given.account)[-_MOST_ACCOUNTS:]
    if settle.is_not_found and desk.accounts and given.account not in desk.accounts:
        # Not believed: for a key that has seen none of the tasks that others see, all are unknown.
        if is_mine:
            _wait_on(desk, row, settle, started, ended)
            shelf.put(row)
        return row.seen is not None and now - row.seen < _PROVED_S
    if settle.said is Said.FOUND:
        found(shelf, row, settle, now, wall_s)
        return False
    # The first final word wins; what is no word of the API counts by its claim alone.
    if settle.said is Said.FINAL and (is_mine or settle.is_word):
        _note(row, settle, ended, now)
        assert settle.outcome is not None and settle.count is not None  # noqa: S101, PT018
        end(desk, row, now, settle.outcome, settle.count, is_settled=settle.is_settled)
    elif is_mine and settle.said is Said.UNASKED:
        row.token, row.at, row.asked = 0, row.due, row.answered
    elif is_mine:
        _note(row, settle, ended, now)
        _wait_on(desk, row, settle, started, ended)
    else:
        return False
    shelf.put(row)
    return False


def _note(row: Row, settle: Settle, ended: float, now: float) -> None:
    """Keep what a query has brought."""
    row.queries += settle.said is not Said.CUT
    row.fault = settle.fault
    if settle.is_task:
        row.seen, row.task = ended, settle.task or row.task
    if settle.born_ago is not None and row.born is None:
        row.born = now - settle.born_ago
    if settle.said is Said.PENDING:
        row.looked = ended
    if settle.said in (Said.PENDING, Said.FINAL):
        row.doubt = None
    elif settle.doubt is not None:
        kind, count, counted_ago = settle.doubt
        row.doubt = Doubt(kind, count, now - counted_ago)


def _wait_on(desk: Desk, row: Row, settle: Settle, started: float, ended: float) -> None:
    """Give an entry its next due time, once for its claim."""
    row.token, row.is_new = 0, False
    row.answered = ended
    if row.first is None:
        row.first = started
    pause_s = settle.pause_s
    if row.is_nudged and desk.terms is not None:
        row.is_nudged, pause_s = False, desk.terms.interval[0]
    row.at = row.due = ended + pause_s


# The gate.


def _pass_gate(gate: Gate, settle: Settle, started: float, now: float) -> None:
    if settle.said in (Said.UNASKED, Said.CUT):
        if gate.probe and gate.probe == settle.token:
            gate.probe = 0  # another goes first
    elif settle.is_limited:
        limit(gate, started, settle.limit_s, settle.jitter, now)
    elif gate.is_closed and started >= gate.until:
        if gate.probe == settle.token:
            gate.probe = 0
        if settle.is_readable:
            gate.is_closed, gate.step = False, 0


def limit(gate: Gate, started: float, asked_s: float | None, jitter: float, now: float) -> None:
    """Close the gate for a 429; those of one burst are one step of the backoff."""
    if started < gate.until:
        return
    if asked_s is None:
        pause_s = BACKOFF_S[min(gate.step, len(BACKOFF_S) - 1)] * jitter
        gate.step += 1
    else:
        pause_s = min(asked_s, MAX_RETRY_AFTER_S)
    gate.is_closed, gate.until, gate.probe = True, now + pause_s, 0


def _gate_opens(gate: Gate, now: float) -> float:
    """Return when a claim may be given out, as far as the gate goes."""
    if not gate.is_closed:
        return now
    return max(gate.until, gate.probe_until if gate.probe else now)


# What a worker gets.


def _gap_s(terms: Terms | None) -> float:
    return 0.0 if terms is None or terms.max_rate is None else 1.0 / terms.max_rate


def _reserve(desk: Desk, number: int, now: float) -> Iterator[float]:
    """Take starts of the pace for what is no claim; the generic cell rate algorithm, no burst."""
    for _ in range(number):
        start = max(now, desk.next_start)
        desk.next_start = start + _gap_s(desk.terms)
        yield start


def _claims(shelf: Shelf, given: Turn, now: float) -> Iterator[Claim]:
    """Give out what is due, as far as the pace goes within the horizon."""
    desk = shelf.desk
    gate, want = desk.gate, min(given.want, MOST_AT_ONCE)
    if _gate_opens(gate, now) > now or want <= 0:
        return
    if gate.is_closed:
        want = 1
    for row in _in_order(shelf, want, now):
        start = max(now, desk.next_start)
        if start > now + HORIZON_S:
            return
        desk.next_start = start + _gap_s(desk.terms)
        desk.newcomer_went = row.is_new
        row.token, row.asked = next_number(desk), now
        # One score for lease and due time: who comes back late finds it given to another.
        row.at = now + given.lease_s
        if gate.is_closed:
            gate.probe, gate.probe_until = row.token, now + given.probe_s
        shelf.put(row)
        yield Claim(copy(row), start - now)


def _in_order(shelf: Shelf, want: int, now: float) -> Iterator[Row]:
    """Return what is due, newcomers first, who have at most every second start where both wait."""
    new = shelf.due(State.OPEN, now, want, is_new=True)
    old = shelf.due(State.OPEN, now, want)
    new.reverse()
    old.reverse()
    went = shelf.desk.newcomer_went
    for _ in range(want):
        if new and not (went and old):
            yield new.pop()
            went = True
        elif old:
            yield old.pop()
            went = False


def _next_s(shelf: Shelf, now: float) -> float | None:
    """Return when there may be something to claim, in s after a step, or None."""
    desk = shelf.desk
    firsts = [shelf.first_at(State.OPEN), shelf.first_at(State.OPEN, is_new=True)]
    known = [first for first in firsts if first is not None]
    if not known:
        return None
    first = max(min(known), _gate_opens(desk.gate, now), desk.next_start - HORIZON_S / 2)
    return max(0.0, first - now)


def void_leases(shelf: Shelf, low_s: float) -> None:
    """Let everything be claimed anew whose worker has gone with the last boot of the machine."""
    for row in shelf.due(State.OPEN, float("inf"), 1 << 62):
        _void(shelf, row, low_s)
    for row in shelf.due(State.OPEN, float("inf"), 1 << 62, is_new=True):
        _void(shelf, row, low_s)


def _void(shelf: Shelf, row: Row, low_s: float) -> None:
    if row.token and not row.is_intent:
        row.token, row.at = 0, max(row.due, row.asked + low_s)
        shelf.put(row)
