"""A book by the rules in Python whose every step is made in Redis too, and must do the same there.

Before a step Redis is given the state that the shelf in memory has; after it the answers and all
that is kept must be equal, field for field.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import redis

from kling_omni_async._book.contract import (
    Addition,
    Found,
    Intent,
    Known,
    Member,
    Receipt,
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
from kling_omni_async._book.memory import NOT_ACKNOWLEDGED, MemoryShelf
from kling_omni_async._book.redis_script import PARTS, key_names, script_of
from kling_omni_async._book.redis_wire import (
    addition_form,
    desk_from,
    dumps,
    found_from,
    intent_form,
    known_from,
    take_form,
    taken_from,
    turn_form,
    turned_from,
)
from tests.book.pure import KEEP_S, LEASE_S, PROBE_S, TERMS, WALL_S, PureBook

R = TypeVar("R")

STATE: Final = script_of("shelf", "entries") + Path(__file__).with_name("lua").joinpath(
    "state.lua"
).read_text(encoding="utf-8")
STEPS: Final = script_of(*PARTS, "steps")
MUCH: Final = 50
EACH: Final = 25
"""From how many rows and lessons on only each so-manieth step is followed, as all is compared."""

REPLY: Final = "{kling:shadow}:reply:"


def state_form(shelf: MemoryShelf) -> dict[str, Any]:
    """Return all that a shelf holds, as the script reads it."""
    desk = attrs.asdict(shelf.desk, filter=_is_something)
    if shelf.desk.terms is not None:
        low, high = desk["terms"].pop("interval")
        desk["terms"] |= {"low": low, "high": high}
    return {
        "desk": desk,
        "rows": [_row_form(row) for row in shelf._rows.values()],
        "contents": {
            key: {name: text for name, text in zip(("note", "order"), pair, strict=True) if text}
            for key, pair in shelf._contents.items()
        },
        "wishes": [attrs.asdict(each, filter=_is_something) for each in shelf._wishes.values()],
        "members": [attrs.asdict(each) for each in shelf.members()],
        "lessons": [attrs.astuple(each) for each in shelf._lessons],
        "replies": [f"{REPLY}{each.name}" for each in shelf.members()],
    }


def _is_something(_: object, value: object) -> bool:
    return value is not None


def _row_form(row: Row) -> dict[str, Any]:
    form = attrs.asdict(row, filter=_is_something)
    if row.doubt is not None:
        form["doubt"] = attrs.astuple(row.doubt)
    return form


def contents_of(shelf: MemoryShelf) -> dict[str, Any]:
    """Return what is compared of a shelf."""
    states = Counter(row.state for row in shelf._rows.values())
    rows = shelf._rows.values()
    ended = states[State.UNREAD] + states[State.PARKED]
    new = sum(row.is_new and row.state is State.OPEN for row in rows)
    texts = shelf._contents.values()
    return {
        "rows": {key: Found(row, *shelf.contents(key)) for key, row in shelf._rows.items()},
        "wishes": dict(shelf._wishes),
        "members": {each.name: each for each in shelf.members()},
        "lessons": [attrs.astuple(each) for each in shelf._lessons],
        "sizes": [
            *(new, states[State.OPEN] - new, states[State.UNREAD], states[State.READ]),
            *(
                states[State.REMOVED],
                ended,
                sum(row.holder is not None and row.state in NOT_ACKNOWLEDGED for row in rows),
            ),
            sum(row.outcome is not None for row in rows),
            *(sum(pair[place] is not None for pair in texts) for place in (0, 1)),
        ],
        "desk": attrs.evolve(shelf.desk, gate=attrs.evolve(shelf.desk.gate)),
    }


class Shadow:
    """The book in Redis that follows one in memory."""

    def __init__(self, client: redis.Redis) -> None:
        self._keys = key_names("shadow")
        self._client = client
        self._state = client.register_script(STATE)
        self._steps = client.register_script(STEPS)

    def set(self, shelf: MemoryShelf) -> None:
        """Put in place what a shelf has."""
        self._state(self._keys, [dumps(state_form(shelf))])

    def step(self, verb: str, form: Mapping[str, object], now: float, name: str = "") -> Any:
        """Make a step there."""
        keys = [*self._keys, REPLY + name]
        args = [verb, dumps(form), repr(WALL_S), repr(KEEP_S), repr(now)]
        return json.loads(self._steps(keys, args))

    def contents(self) -> dict[str, Any]:
        """Return what is compared."""
        kept = json.loads(self._state(self._keys, ["{}"]))
        found = [found_from(each) for each in kept["rows"]]
        return {
            "rows": {each.row.key: each for each in found if each is not None},
            "wishes": {each[0]: Wish(*each) for each in kept["wishes"]},
            "members": {
                name: Member(name, kind, int(seq), float(heard))
                for name, kind, seq, heard in kept["members"]
            },
            "lessons": [
                (int(each[0]), each[1], *(None if one is None else float(one) for one in each[2:]))
                for each in kept["lessons"]
            ],
            "sizes": kept["sizes"],
            "desk": desk_from(self.step("progress", {}, 0.0)),
        }


def plain(answer: object) -> object:
    """Return an answer whose sequences are lists, to be compared."""
    if isinstance(answer, Turned | Taken):
        return {
            name: list(value) if isinstance(value, list | tuple) else value
            for name, value in attrs.asdict(answer, recurse=False).items()
        }
    return answer


class ShadowedBook(PureBook):
    """A book in memory that is followed in Redis, step by step."""

    client: redis.Redis  # set by the tests before one is made

    def __init__(self, terms: Terms | None = TERMS) -> None:
        self.shadow = Shadow(self.client)
        self._steps = count(1)
        super().__init__(terms)

    def _both(
        self,
        step: Callable[[], R],
        verb: str,
        form: Mapping[str, object],
        read: Callable[[Any], object],
        name: str = "",
    ) -> R:
        if not self._is_followed():
            return step()
        self.shadow.set(self.shelf)
        answer = step()
        assert plain(read(self.shadow.step(verb, form, self.now, name))) == plain(answer)
        assert self.shadow.contents() == contents_of(self.shelf)
        return answer

    def _is_followed(self) -> bool:
        """Whether a step is made in Redis too: where there is much, now and then."""
        much = len(self.shelf._rows) + len(self.shelf._lessons) > MUCH
        return not much or next(self._steps) % EACH == 0

    def _next_seq(self) -> int:
        seq = next(self._seqs)
        self._seqs = count(seq)  # the step in memory takes it again
        return seq

    # Users.

    def add(self, *ids: str, **fields: Any) -> list[bool]:
        forms = [addition_form(Addition(task_id, **fields)) for task_id in ids]
        return self._both(
            lambda: super(ShadowedBook, self).add(*ids, **fields), "add", {"additions": forms}, list
        )

    def remove(self, key: str) -> bool:
        step = super().remove
        return self._both(lambda: step(key), "remove", {"key": key}, bool)

    def retry(self, key: str) -> bool:
        step = super().retry
        return self._both(lambda: step(key), "retry", {"key": key}, bool)

    def nudge(self, key: str) -> bool:
        step = super().nudge
        return self._both(lambda: step(key), "nudge", {"key": key}, bool)

    def find(self, key: str) -> Any:
        step = super().find
        return self._both(lambda: step(key), "find", {"key": key}, found_from)

    def intend(self, external_id: str = "x", **fields: Any) -> Known | None:
        given: dict[str, Any] = {
            "digest": "d",
            "is_keyed": False,
            "note": None,
            "order": None,
            "lease_s": 60.0,
        }
        form = intent_form(Intent(external_id, **{**given, **fields}))
        step = super().intend
        return self._both(lambda: step(external_id, **fields), "intend", form, known_from)

    def created(self, external_id: str, task_id: str | None, **fields: Any) -> None:
        form: dict[str, Any] = {"external_id": external_id}
        if task_id is not None:
            form["made"] = addition_form(Addition(task_id, **fields))
        step = super().created
        self._both(lambda: step(external_id, task_id, **fields), "created", form, lambda _: None)

    # Workers and readers.

    def turn(self, *settles: Settle, worker: str = "w", **fields: Any) -> Turned:
        given: dict[str, Any] = {
            "seq": self._next_seq(),
            "lease_s": LEASE_S,
            "probe_s": PROBE_S,
            "account": "a",
            **fields,
        }
        form = turn_form(Turn(worker=worker, settles=settles, **given))
        step = super().turn
        return self._both(
            lambda: step(*settles, worker=worker, **fields), "turn", form, turned_from, worker
        )

    def take(self, *receipts: Receipt, reader: str = "r", **fields: Any) -> Taken:
        given = {"seq": self._next_seq(), **fields}
        form = take_form(Take(reader=reader, receipts=receipts, **given))
        step = super().take
        return self._both(
            lambda: step(*receipts, reader=reader, **fields), "take", form, taken_from, reader
        )
