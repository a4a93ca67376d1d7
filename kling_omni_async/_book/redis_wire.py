"""What a book in Redis asks and gets, as JSON: numbers come as text, as Lua's JSON cuts them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from .contract import (
    Addition,
    Claim,
    Desk,
    Doubt,
    Found,
    Gate,
    Intent,
    Known,
    Lesson,
    Parcel,
    Row,
    Settle,
    State,
    Take,
    Taken,
    Terms,
    Turn,
    Turned,
    Wish,
)

LONGEST_BRIEF: Final = 64
"""A task that is longer as JSON, in characters, is kept as its status alone."""

_BRIEF: Final = "="  # by which no JSON begins

_TIMES: Final = frozenset({"purged", "clock", "next_start"})

Form = dict[str, Any]


def dumps(form: object) -> str:
    """Return a message."""
    return json.dumps(form, separators=(",", ":"), ensure_ascii=False)


# What is asked.


def turn_form(turn: Turn) -> Form:
    """Return what a worker brings."""
    return {
        **_without_nothing(
            worker=turn.worker,
            seq=turn.seq,
            want=int(turn.want),
            reserve=int(turn.reserve),
            ahead_s=turn.ahead_s,
            lease_s=turn.lease_s,
            probe_s=turn.probe_s,
            account=turn.account,
            origin=turn.origin,
            lessons_after=turn.lessons_after,
            is_leaving=turn.is_leaving,
            terms=None if turn.terms is None else _terms_form(turn.terms),
        ),
        "settles": [_settle_form(settle) for settle in turn.settles],
        "limits": list(turn.limits),
    }


def _terms_form(terms: Terms) -> Form:
    low, high = terms.interval
    return _without_nothing(
        low=low,
        high=high,
        max_rate=terms.max_rate,
        confirmations=terms.confirmations,
        timeout=terms.timeout,
    )


def _settle_form(settle: Settle) -> Form:
    return _without_nothing(
        key=settle.key,
        token=settle.token,
        said=settle.said.name,
        started_ago=settle.started_ago,
        ended_ago=settle.ended_ago,
        pause_s=settle.pause_s,
        doubt=settle.doubt,
        is_not_found=settle.is_not_found,
        is_readable=settle.is_readable,
        fault=settle.fault,
        is_task=settle.is_task,
        task=brief_of(settle.task),
        born_ago=settle.born_ago,
        outcome=settle.outcome,
        count=settle.count,
        is_settled=settle.is_settled,
        is_word=settle.is_word,
        is_limited=settle.is_limited,
        limit_s=settle.limit_s,
        jitter=settle.jitter,
        lesson=settle.lesson,
        task_id=settle.task_id,
    )


def take_form(take: Take) -> Form:
    """Return what a reader brings."""
    return {
        "reader": take.reader,
        "seq": take.seq,
        "after": take.after,
        "receipts": [[each.key, each.number, each.ack.name] for each in take.receipts],
        "keep": list(take.keep),
        "release": list(take.release),
        "want": take.want,
        "is_handed": take.is_handed,
        "is_leaving": take.is_leaving,
    }


def addition_form(addition: Addition) -> Form:
    """Return an id to be kept."""
    return _without_nothing(
        task_id=addition.task_id,
        note=addition.note,
        external_id=addition.external_id,
        task=brief_of(addition.task),
        kind=addition.kind,
        age_s=addition.age_s,
        first_s=addition.first_s,
        order=addition.order,
        holder=addition.holder,
    )


def intent_form(intent: Intent) -> Form:
    """Return what is about to be created."""
    return _without_nothing(
        external_id=intent.external_id,
        digest=intent.digest,
        is_keyed=intent.is_keyed,
        note=intent.note,
        order=intent.order,
        lease_s=intent.lease_s,
        kind=intent.kind,
    )


def _without_nothing(**values: object) -> Form:
    """Leave out what is None: JSON's null is a value to Lua."""
    return {name: value for name, value in values.items() if value is not None}


def brief_of(task: str | None) -> str | None:
    """Return what is kept of a task that has not ended: bodies of answers stay out of Redis."""
    if task is None or len(task) <= LONGEST_BRIEF:
        return task
    return f"{_BRIEF}{json.loads(task)['status']}"


# What is answered.


def turned_from(form: Mapping[str, Any]) -> Turned:
    """Return what a worker gets."""
    now, terms = float(form["now"]), _terms_from(form.get("terms"))
    if "claims" not in form:  # no step was made
        return Turned(now=now, terms=terms, other_origin=form.get("other_origin"))
    return Turned(
        now=now,
        claims=tuple(Claim(row_from(row), float(start_s)) for row, start_s in form["claims"]),
        reserved=tuple(float(start_s) for start_s in form["reserved"]),
        next_s=_or_none(float, form["next_s"]),
        gate_s=float(form["gate_s"]),
        terms=terms,
        lessons=lessons_from(form["lessons"]),
        is_stranger=form["is_stranger"],
        differs=form["differs"],
        dropped=list(form["dropped"]),
        is_read=form["is_read"],
    )


def _terms_from(values: Sequence[Any] | None) -> Terms | None:
    if values is None:
        return None
    low, high, max_rate, confirmations, timeout = values
    pace, limit = _or_none(float, max_rate), _or_none(float, timeout)
    return Terms((float(low), float(high)), pace, int(confirmations), limit)


def lessons_from(forms: Sequence[Sequence[Any]]) -> list[Lesson]:
    """Return how long tasks have taken."""
    return [_lesson_from(values) for values in forms]


def _lesson_from(values: Sequence[Any]) -> Lesson:
    number, kind, after_s, until_s, ended_s = values
    return Lesson(int(number), kind, float(after_s), float(until_s), _or_none(float, ended_s))


def taken_from(form: Mapping[str, Any]) -> Taken:
    """Return what a reader gets."""
    if "parked" not in form:  # it wanders late
        return Taken()
    return Taken(
        parcels=tuple(
            Parcel(key, int(number), outcome, note, order, int(deliveries))
            for key, number, outcome, note, order, deliveries in form["parcels"]
        ),
        next_s=_or_none(float, form.get("next_s")),
        is_empty=form["is_empty"],
        parked=list(form["parked"]),
        lost=list(form["lost"]),
        origin=form.get("origin"),
    )


def row_from(values: Sequence[Any]) -> Row:
    """Return an entry."""
    fields = [_or_none(read, value) for read, value in zip(_READS, values, strict=True)]
    row = Row(*fields)
    if row.task is not None and row.task.startswith(_BRIEF):
        row.task = dumps({"task_id": row.key, "status": row.task.removeprefix(_BRIEF)})
    return row


def found_from(values: Sequence[Any] | None) -> Found | None:
    """Return an entry with its note and order, or None."""
    if values is None:
        return None
    row, note, order = values
    return Found(row_from(row), note, order)


def known_from(values: Sequence[Any] | None) -> Known | None:
    """Return what is known of a wish, or None."""
    if values is None:
        return None
    wish, row, now = values
    return Known(Wish(*wish), None if row is None else row_from(row), float(now))


def desk_from(form: Mapping[str, Any]) -> Desk:
    """Return what is known beside the entries."""
    numbers: Mapping[str, str] = form["numbers"]
    is_closed, until, step, probe, probe_until = form["gate"]
    desk = Desk(
        origin=form["origin"],
        gate=Gate(is_closed, float(until), int(step), int(probe), float(probe_until)),
        terms=_terms_from(form["terms"]),
        accounts=tuple(form["accounts"]),
        is_read=form["is_read"],
    )
    for name, text in numbers.items():
        setattr(desk, name, float(text) if name in _TIMES else int(text))
    return desk


def _or_none(read: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else read(value)


def _as_it_is(value: Any) -> Any:
    return value


def _doubt_from(values: Sequence[Any]) -> Doubt:
    kind, count, counted = values
    return Doubt(kind, int(count), float(counted))


_READS: Final[Sequence[Callable[[Any], Any]]] = (
    *(_as_it_is, State, float, int, _as_it_is, float, int, float, float, _as_it_is, _as_it_is),
    *(int, float, float, float, _doubt_from, _as_it_is, _as_it_is, float, float, _as_it_is),
    *(float, _as_it_is, _as_it_is, _as_it_is, _as_it_is, int, float),
)
"""How the fields of a row are read, in their order."""
