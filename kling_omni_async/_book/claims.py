"""One step of a worker: what it brings is kept, and what may be asked now is given out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import attrs
from attrs import evolve

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
from .entries import break_claim, clock_of, end, found, hold, low_s, next_number, purge

HORIZON_S: Final = 0.2
"""How far ahead starts are given out, in s: after a 429 nobody starts later than this.

But for a worker that is far away, see `MOST_AHEAD_S`.
"""

MOST_AHEAD_S: Final = 0.5
"""How much further at most for a worker whose way to the book is long, in s."""

LESSONS_KEPT: Final = 200
WORKER_S: Final = 30.0
"""A worker that was not heard of for so long, in s, counts no more."""

PURGE_S: Final = 5.0
MEMBER_KEPT_S: Final = 3600.0
PROVED_S: Final = 3600.0
MOST_ACCOUNTS: Final = 8


def turn(shelf: Shelf, given: Turn, now: float, *, wall_s: float, keep_s: float) -> Turned:
    """Make one step of a worker; a store answers a `seq` that was there before from memory."""
    desk = shelf.desk
    now = clock_of(desk, now)
    if given.origin is not None and desk.origin not in (None, given.origin):
        return Turned(now=now, other_origin=desk.origin)
    member = shelf.member(given.worker)
    if member is not None and given.seq <= member.seq:
        return late(shelf, now)
    if desk.terms is None and given.terms is None:  # all was lost: first the pace, then the starts
        return late(shelf, now)
    desk.origin = desk.origin or given.origin
    differs = _join(desk, given)
    strange = [_settle(shelf, settle, given, now, wall_s) for settle in given.settles]
    for started_ago, asked_s, jitter in given.limits:
        limit(desk.gate, now - started_ago, asked_s, jitter, now)
    starts: tuple[Start, ...] = ()
    if given.is_leaving:
        shelf.drop_member(given.worker)
    else:
        shelf.put_member(Member(given.worker, "worker", given.seq, now))
        if not any(strange):
            starts = tuple(_starts(shelf, given, now))
    reserved = tuple(start.at - now for start in starts if start.row is None)
    return Turned(
        now=now,
        claims=tuple(Claim(start.row, start.at - now) for start in starts if start.row is not None),
        reserved=reserved,
        next_s=_next_s(shelf, now, _reach_s(given), is_short=len(reserved) < given.reserve),
        gate_s=max(0.0, desk.gate.until - now),
        terms=desk.terms,
        lessons=shelf.lessons_after(given.lessons_after),
        is_stranger=any(strange),
        differs=differs,
        dropped=_purge(shelf, now, keep_s),
        is_read=desk.is_read,
    )


def late(shelf: Shelf, now: float) -> Turned:
    """Return the answer to a step that is not made: it was before, or nobody has set a policy."""
    return Turned(now=clock_of(shelf.desk, now), terms=shelf.desk.terms)


def _purge(shelf: Shelf, now: float, keep_s: float) -> list[str]:
    """Forget what is over, now and then; at every step where there is much of it."""
    if now < shelf.desk.purged + PURGE_S:
        return []
    for member in shelf.members():
        if member.kind == "worker" and member.heard < now - MEMBER_KEPT_S:
            shelf.drop_member(member.name)
    dropped, is_more = purge(shelf, now, keep_s)
    if not is_more:
        shelf.desk.purged = now
    return dropped


def _join(desk: Desk, given: Turn) -> bool:
    """Put the policy of a worker that starts in force; return whether another one was."""
    before = desk.terms
    if given.terms is None or given.terms == before:
        return False
    desk.terms = given.terms
    desk.next_start += _gap_s(given.terms) - _gap_s(before)  # counted from the last start
    return before is not None


# What a worker brings.


def _settle(shelf: Shelf, settle: Settle, given: Turn, now: float, wall_s: float) -> bool:
    """Keep what became of a claim; return whether it shows another account's key."""
    desk = shelf.desk
    _pass_gate(desk.gate, settle, now)
    is_proved = _prove(desk, settle, given.account)
    row = shelf.row(settle.key)
    if row is not None and settle.said is Said.FOUND:
        found(shelf, row, settle, now, wall_s)
        return False
    if row is None or row.state is not State.OPEN:
        return False
    is_strange = not is_proved and settle.is_not_found and _was_seen_lately(row, now)
    settle = _believed(row, settle, is_proved=is_proved, is_strange=is_strange)
    is_mine = row.token == settle.token
    # The first final word wins; what is no word of the API counts by its claim alone.
    if settle.said is Said.FINAL and (is_mine or settle.is_word):
        _end(shelf, row, settle, now)
    elif is_mine and settle.said is Said.UNASKED:
        row.token, row.at = 0, row.due
    elif is_mine:
        _note(row, settle, now)
        _wait_on(desk, row, settle, now)
    elif settle.is_task and row.seen is None:  # late, but it was seen
        row.seen = now - settle.ended_ago
    else:
        return is_strange
    shelf.put(row)
    return is_strange


def _prove(desk: Desk, settle: Settle, account: str) -> bool:
    """Note by whose key tasks are seen; return whether "not found" means something with this."""
    if settle.is_task and account not in desk.accounts:
        desk.accounts = (*desk.accounts, account)[-MOST_ACCOUNTS:]
    return not desk.accounts or account in desk.accounts


def _was_seen_lately(row: Row, now: float) -> bool:
    return row.seen is not None and now - row.seen < PROVED_S


def _believed(row: Row, settle: Settle, *, is_proved: bool, is_strange: bool) -> Settle:
    """Return what is believed of "not found"; that it was given up is no such word."""
    if not settle.is_not_found:
        return settle
    is_given_up = settle.said is Said.FINAL and not settle.is_settled
    if is_given_up and not is_strange:
        return settle
    # To a key that has seen none of the tasks that others see, all are unknown.
    if not is_proved:
        return evolve(settle, said=Said.CUT, fault=None)
    # What was once seen as a task never ends as not found.
    return settle if row.seen is None else evolve(settle, said=Said.FAULT, doubt=None)


def _end(shelf: Shelf, row: Row, settle: Settle, now: float) -> None:
    """Note a final word that is believed, and learn from it."""
    _note(row, settle, now)
    if row.token != settle.token:
        break_claim(shelf.desk, row)  # somebody else may be asking
    row.token, row.answered = 0, max(row.answered, now - settle.ended_ago)
    assert settle.outcome is not None and settle.count is not None  # noqa: S101, PT018 - it has ended
    end(shelf.desk, row, now, settle.outcome, settle.count, is_settled=settle.is_settled)
    hold(shelf, row)
    if settle.lesson is not None:
        lesson = Lesson(next_number(shelf.desk), *settle.lesson)
        shelf.add_lesson(lesson, LESSONS_KEPT)


def _note(row: Row, settle: Settle, now: float) -> None:
    """Keep what a query has brought."""
    ended = now - settle.ended_ago
    if settle.said is Said.CUT:  # it says nothing, but perhaps why
        row.fault = settle.fault or row.fault
        return
    row.queries += 1
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


def _wait_on(desk: Desk, row: Row, settle: Settle, now: float) -> None:
    """Give an entry its next due time, once for its claim."""
    row.token, row.is_new = 0, False
    row.answered = now - settle.ended_ago
    if row.first is None:
        row.first = now - settle.started_ago
    # Whatever is asked for: a fault costs one pause, and never adds load.
    pause_s = 0.0 if row.is_nudged else settle.pause_s
    row.is_nudged = False
    row.at = row.due = row.answered + max(pause_s, low_s(desk))


# The gate.


def _pass_gate(gate: Gate, settle: Settle, now: float) -> None:
    started = now - settle.started_ago
    if settle.is_limited:
        limit(gate, started, settle.limit_s, settle.jitter, now)
        return
    if gate.probe == settle.token:
        gate.probe = 0  # another goes first, unless this has opened the gate
    if settle.is_readable and started >= gate.until:
        gate.is_closed, gate.step, gate.probe = False, 0, 0


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


class Line(IntEnum):
    """Who waits for starts; where several do, they take turns in this order."""

    RESERVED = 0  # what is no claim
    NEWCOMER = 1
    OVERDUE = 2


@attrs.frozen
class Start:
    """A start of the pace: for a claim, or for what is none."""

    at: float
    row: Row | None


def _gap_s(terms: Terms | None) -> float:
    return 0.0 if terms is None or terms.max_rate is None else 1.0 / terms.max_rate


def _reach_s(given: Turn) -> float:
    """Return how far ahead a worker gets its starts, in s: further where each turn takes long."""
    return HORIZON_S + min(given.ahead_s, MOST_AHEAD_S)


def _starts(shelf: Shelf, given: Turn, now: float) -> Iterator[Start]:
    """Give out the starts of the next moment: the generic cell rate algorithm, no burst."""
    desk = shelf.desk
    waiting = _Waiting(shelf, given, now)
    while (start := max(now, desk.next_start)) <= now + _reach_s(given):
        if (line := waiting.next_line(desk.line)) is None:
            return
        desk.line, desk.next_start = line, start + _gap_s(desk.terms)
        row = waiting.pop(line)
        if row is not None:
            _claim(shelf, row, given, now)
        yield Start(start, row)


def _claim(shelf: Shelf, row: Row, given: Turn, now: float) -> None:
    gate = shelf.desk.gate
    row.token, row.is_nudged = next_number(shelf.desk), False
    # One score for lease and due time: who comes back late finds it given to another.
    row.at = now + given.lease_s
    shelf.put(row)
    if gate.is_closed:
        gate.probe, gate.probe_until = row.token, now + given.probe_s


class _Waiting:
    """Who waits for a start in one step of a worker."""

    def __init__(self, shelf: Shelf, given: Turn, now: float) -> None:
        # The gate holds back no reserved start: who asked for it knows what it is for.
        self._reserve = min(given.reserve, MOST_AT_ONCE)
        self._want = _want(shelf.desk, given, now)
        self._rows = {
            Line.NEWCOMER: deque(shelf.due(State.OPEN, now, self._want, is_new=True)),
            Line.OVERDUE: deque(shelf.due(State.OPEN, now, self._want)),
        }

    def next_line(self, last: int) -> Line | None:
        """Return whose turn it is: no line has two starts in a row while another one waits."""
        for step in range(1, len(Line) + 1):
            line = Line((last + step) % len(Line))
            if self._waits(line):
                return line
        return None

    def _waits(self, line: Line) -> bool:
        if line is Line.RESERVED:
            return self._reserve > 0
        return self._want > 0 and bool(self._rows[line])

    def pop(self, line: Line) -> Row | None:
        """Return the first one of a line; None for a start that is no claim's."""
        if line is Line.RESERVED:
            self._reserve -= 1
            return None
        self._want -= 1
        return self._rows[line].popleft()


def _want(desk: Desk, given: Turn, now: float) -> int:
    """Return how many claims can be given at most: no more entries need be looked at."""
    if _gate_opens(desk.gate, now) > now:
        return 0
    return min(given.want, 1 if desk.gate.is_closed else _starts_left(desk, now, _reach_s(given)))


def _starts_left(desk: Desk, now: float, reach_s: float) -> int:
    """Return how many starts the pace has left within a worker's reach, or one more."""
    if not (gap_s := _gap_s(desk.terms)):
        return MOST_AT_ONCE
    left_s = now + reach_s - max(now, desk.next_start)
    return min(MOST_AT_ONCE, max(0, int(left_s / gap_s) + 2))


def _next_s(shelf: Shelf, now: float, reach_s: float, *, is_short: bool) -> float | None:
    """Return when there may be something to claim or to reserve, in s after a step, or None."""
    desk = shelf.desk
    opens = _gate_opens(desk.gate, now)
    dues = [shelf.first_at(State.OPEN), shelf.first_at(State.OPEN, is_new=True)]
    times = [max(due, opens) for due in dues if due is not None]
    if is_short:
        times.append(now)
    if not times:
        return None
    # Before what was given out has started: half of the horizon is for the turn's own way.
    more = desk.next_start - (reach_s - HORIZON_S / 2)
    return max(0.0, max(min(times), more) - now)


def void_leases(shelf: Shelf, now: float, *, up_s: float) -> None:
    """Let everything be claimed anew whose worker has gone with the boot of `up_s` s ago."""
    low = low_s(shelf.desk)
    # Only the wall clock tells for how long the machine was off, and that may have been set: what
    # is sure is that no query has ended since the boot. It counts as a start of then, as the next
    # one is counted anew where a worker brings another pace.
    first = now + low - up_s + _gap_s(shelf.desk.terms)
    shelf.desk.next_start = max(shelf.desk.next_start, first)
    for row in shelf.claimed():
        # Its query has ended with the boot before, or with its lease.
        row.at = row.due = min(row.at, now + low)
        break_claim(shelf.desk, row)
        shelf.put(row)
