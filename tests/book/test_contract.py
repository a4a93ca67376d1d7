"""What every store of a book does alike: one contract, whatever keeps the rows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest

from kling_omni_async._book.contract import (
    FAR,
    MOST_AT_ONCE,
    Ack,
    Addition,
    Claim,
    Doubt,
    Found,
    Known,
    Lesson,
    Parcel,
    Said,
    State,
    Taken,
    Turned,
    Wish,
)
from kling_omni_async._book.handing import AGAIN_S, MOST_DELIVERIES
from kling_omni_async._book.memory import READER_S
from kling_omni_async.errors import BookError

from .pure import (
    DENIED,
    GAVE_UP,
    KEEP_S,
    LEASE_S,
    LOW_S,
    PROBE_S,
    TERMS,
    WALL_S,
    WON,
    receipt,
    settle,
)
from .stores import LASTING, STORES, Clock, StoreBook

pytestmark = pytest.mark.anyio

LIMITED: dict[str, Any] = {"said": Said.FAULT, "is_limited": True}
ODD = ["é", "任务-1", "a'b\"c;--", "\N{OLD ITALIC LETTER A}", "x" * 500]


@pytest.fixture
def clock() -> Clock:
    """Return the clocks of a machine."""
    return Clock()


@pytest.fixture(params=STORES)
async def book(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncGenerator[StoreBook]:
    """Open an empty book in each kind of store."""
    made = StoreBook(STORES[request.param](tmp_path, clock), clock)
    await made.begin()
    yield made
    await made.store.aclose()


def keys(reply: Turned | Taken) -> list[str]:
    """Return which ids were claimed, or whose outcomes were taken."""
    if isinstance(reply, Turned):
        return [claim.row.key for claim in reply.claims]
    return [parcel.key for parcel in reply.parcels]


# Entries.


async def test_what_was_added_is_there_with_its_note(book: StoreBook) -> None:
    """Each of several is told apart, and what is there keeps its note."""
    assert await book.add() == []
    assert await book.add("b", "a", note='"1"') == [True, True]
    assert await book.add("a", "c", "c", note=None) == [False, True, False]
    found = await book.found("a")
    assert (found.note, found.order) == ('"1"', None)
    assert (found.row.state, found.row.added_at, found.row.at) == (
        State.OPEN,
        WALL_S,
        book.clock.now,
    )
    assert await book.store.find("d") is None
    assert await book.counts() == (3, 0, 0, 0, 0, 0)


async def test_any_text_is_kept_as_it_is(book: StoreBook) -> None:
    """Ids, notes and outcomes of all alphabets, and long ones."""
    note = '"' + "é" * 32_000 + '"'
    assert await book.add(*ODD, note=note) == [True] * len(ODD)
    claims = (await book.turn(want=9)).claims
    assert [claim.row.key for claim in claims] == ODD
    for claim in claims:
        await book.settle(claim, **{**WON, "outcome": note})
    parcels = (await book.take(want=9)).parcels
    assert [(each.key, each.note, each.outcome) for each in parcels] == [
        (key, note, note) for key in ODD
    ]


async def test_all_fields_of_an_entry_are_kept(book: StoreBook) -> None:
    """What is known of an id comes back as it was, to the last digit."""
    await book.add("t", external_id="x", kind="k", task="1", age_s=1 / 3, first_s=0.1)
    book.clock.spend(0.7)
    fields: dict[str, Any] = {"started_ago": 0.3, "ended_ago": 0.1, "pause_s": 22.2}
    await book.settle(
        await book.claim(), said=Said.DOUBT, doubt=("E", 1, 0.01), fault="2", **fields
    )
    now = book.clock.now
    book.clock.spend(100.0)
    row = (await book.claim()).row
    assert row == (await book.found("t")).row
    assert (row.external_id, row.kind, row.task, row.fault) == ("x", "k", "1", "2")
    assert row.doubt == Doubt("E", 1, now - 0.01)
    assert (row.first, row.answered, row.due) == (now - 0.3, now - 0.1, now - 0.1 + 22.2)
    assert (row.queries, row.looked, row.is_new, row.is_nudged) == (1, None, False, False)
    assert (row.born, row.seen) == (now - 0.7 - 1 / 3, now - 0.7)


async def test_entries_are_listed_by_key(book: StoreBook) -> None:
    """A part at a time, with what belongs to them; ends and intents too, and removed ones not."""
    await book.ended("b")
    await book.add("c", "a", note="1")
    await book.intend("x")
    listed = await book.store.list("", 2)
    assert [found.row.key for found in listed] == ["#x", "a"]
    assert listed[1] == await book.found("a")
    assert [each.row.key for each in await book.store.list("a", 9)] == ["b", "c"]
    assert await book.store.list("c", 9) == []


async def test_a_removed_entry_is_listed_no_more(book: StoreBook) -> None:
    """It is remembered for its pause alone."""
    await book.add("a", "b", "c")
    claim = await book.claim()
    await book.settle(claim, pause_s=25.0)
    assert await book.store.remove("a")
    assert [each.row.key for each in await book.store.list("", 1)] == ["b"]
    assert [each.row.key for each in await book.store.list("", 9)] == ["b", "c"]


async def test_a_removed_id_joins_its_pause_when_it_comes_back(book: StoreBook) -> None:
    """And is polled no sooner, whoever asks for it."""
    assert not await book.store.remove("t")
    await book.add("t", note="1")
    await book.settle(await book.claim(), pause_s=25.0)
    assert await book.store.remove("t")
    assert await book.store.find("t") is None
    assert not await book.store.remove("t")
    assert not await book.store.retry("t")
    assert await book.add("t") == [True]
    assert await book.at("t") == 25.0
    assert (await book.found("t")).note is None
    assert await book.store.nudge("t")
    assert await book.at("t") == LOW_S


async def test_an_id_that_is_removed_while_claimed_waits_for_the_lease(book: StoreBook) -> None:
    """The late answer ends nothing but what was added again, by a final word."""
    await book.add("t")
    claim = await book.claim()
    assert await book.store.remove("t")
    await book.settle(claim, **WON)
    assert await book.counts() == (0,) * 6
    assert await book.add("t") == [True]
    assert await book.at("t") == LEASE_S
    await book.settle(claim, pause_s=1.0)
    assert await book.at("t") == LEASE_S
    await book.settle(claim, **WON)
    assert await book.counts() == (0, 1, 0, 1, 0, 0)


async def test_an_unsettled_end_is_polled_again_when_asked(book: StoreBook) -> None:
    """A settled one is not."""
    await book.ended("no")
    await book.ended("t", **{**GAVE_UP, "is_settled": False})
    assert not await book.store.retry("no")
    assert not await book.store.retry("stranger")
    assert await book.store.retry("t")
    assert not await book.store.retry("t")
    assert await book.at("t") == LOW_S
    assert await book.counts() == (1, 1, 0, 1, 0, 0)


async def test_a_nudge_brings_an_open_id_forward(book: StoreBook) -> None:
    """No sooner than its shortest pause."""
    await book.add("t", first_s=60.0)
    assert await book.store.nudge("t")
    assert await book.at("t") == 0.0
    claim = await book.claim()
    assert await book.store.nudge("t")
    assert await book.at("t") == LEASE_S
    await book.settle(claim, pause_s=30.0)
    assert await book.at("t") == LOW_S
    assert not await book.store.nudge("stranger")


# Workers.


async def test_an_id_has_one_claim_until_its_lease_is_over(book: StoreBook) -> None:
    """Then another worker gets it, and the first one comes too late."""
    await book.add("t")
    first = await book.claim("one")
    assert (first.row.at, first.start_s) == (book.clock.now + LEASE_S, 0.0)
    assert (await book.turn(want=1, worker="two")).next_s == LEASE_S
    book.clock.spend(LEASE_S)
    second = await book.claim("two")
    assert second.row.token != first.row.token
    await book.settle(first, worker="one", pause_s=1.0)
    assert (await book.found("t")).row == second.row
    await book.settle(second, worker="two", pause_s=25.0)
    assert await book.at("t") == 25.0


async def test_the_same_step_gives_the_same_answer(book: StoreBook) -> None:
    """Sent again it changes nothing; an older one is answered by nothing."""
    await book.add("a", "b")
    old = book.new_turn(want=1)
    turn = book.new_turn(want=1)
    reply = await book.store.turn(turn)
    book.clock.spend(1.0)
    assert await book.store.turn(turn) == reply
    assert keys(await book.store.turn(old)) == []
    assert keys(await book.turn(want=9)) == ["b"]
    await book.settle(reply.claims[0], **WON)
    take = book.new_take(want=1, is_handed=True)
    taken = await book.store.take(take)
    assert await book.store.take(take) == taken
    (parcel,) = taken.parcels
    late = book.new_take(receipt(parcel, Ack.FAILED))
    done = book.new_take(receipt(parcel, Ack.DONE))
    assert await book.store.take(done) == await book.store.take(done)
    assert await book.store.take(late) == Taken()
    assert await book.counts() == (1, 0, 0, 1, 0, 0)


async def test_a_step_that_brings_something_twice_brings_it_once(book: StoreBook) -> None:
    """Settles, 429s and receipts of a step that is sent again count once."""
    await book.add("t")
    settled = settle(await book.claim(), pause_s=25.0, fault="1")
    turn = book.new_turn(settled, limits=[(0.0, None, 1.0)])
    for _ in range(3):
        await book.store.turn(turn)
        book.clock.spend(0.25)
    row, desk = (await book.found("t")).row, await book.desk()
    assert (row.queries, row.at) == (1, book.clock.now + 25.0 - 0.75)
    assert (desk.gate.step, desk.gate.until) == (1, book.clock.now + 1.0 - 0.75)


async def test_the_first_final_word_wins(book: StoreBook) -> None:
    """Late, doubled or out of order: there is one end, and it is counted once."""
    await book.add("t")
    first = await book.claim("one")
    book.clock.spend(LEASE_S)
    second = await book.claim("two")
    await book.settle(first, worker="one", **{**WON, "outcome": "1"})
    await book.settle(second, worker="two", **{**WON, "outcome": "2", "count": "failed"})
    await book.settle(first, worker="one", **GAVE_UP)
    await book.settle(second, worker="two", pause_s=1.0)
    assert (await book.found("t")).row.outcome == "1"
    assert await book.counts() == (0, 1, 0, 1, 0, 0)


async def test_a_worker_that_leaves_is_counted_no_more(book: StoreBook) -> None:
    """Nor is one that was not heard of for long."""
    await book.turn(worker="two")
    assert (await book.store.progress())[1] == 2
    await book.turn(worker="two", is_leaving=True)
    assert (await book.store.progress())[1] == 1
    book.clock.spend(31.0)
    assert (await book.store.progress())[1] == 0


async def test_a_book_belongs_to_one_api(book: StoreBook) -> None:
    """A worker of another one is told so, and gets nothing."""
    await book.add("t")
    await book.turn(origin="one")
    reply = await book.turn(origin="two", want=1)
    assert (reply.other_origin, keys(reply)) == ("one", [])
    assert (await book.take()).origin == "one"


async def test_the_policy_of_the_last_worker_that_started_is_in_force(book: StoreBook) -> None:
    """All learn of it, and the one that changed it is told."""
    terms = attrs.evolve(TERMS, interval=(10.0, 15.0), max_rate=1 / 3, timeout=None)
    assert (await book.turn(terms=terms)).differs
    assert not (await book.turn(terms=terms)).differs
    assert (await book.turn(worker="other")).terms == terms


async def test_not_found_by_a_strangers_key_is_not_believed(book: StoreBook) -> None:
    """That worker is told, and the id goes on being polled."""
    await book.add("t")
    await book.settle(await book.claim(), is_task=True)
    book.clock.spend(LOW_S)
    await book.add("u")
    t, u = sorted((await book.turn(want=2)).claims, key=lambda claim: claim.row.key)
    assert (await book.settle(t, account="b", **DENIED)).is_stranger
    assert not (await book.settle(u, account="b", **DENIED)).is_stranger
    assert await book.counts() == (2, 0, 0, 0, 0, 0)


async def test_lessons_are_shared(book: StoreBook) -> None:
    """Each worker gets what it does not know yet, in order."""
    await book.ended("a", lesson=("k", 20.0, 45.0, 1 / 3))
    await book.ended("b", lesson=("", 20.0, 45.0, None))
    first, second = (await book.turn(worker="other")).lessons
    assert first == Lesson(first.number, "k", 20.0, 45.0, 1 / 3)
    assert (second.kind, second.ended_s) == ("", None)
    assert list((await book.turn(lessons_after=first.number)).lessons) == [second]
    assert list(await book.store.lessons_after(0)) == [first, second]
    assert list(await book.store.lessons_after(first.number)) == [second]
    assert list(await book.store.lessons_after(second.number)) == []


# The pace, the order and the gate.


@pytest.mark.parametrize(("rate", "workers"), [(4.0, 1), (4.0, 5), (30.0, 3)])
async def test_all_workers_together_keep_the_pace(
    book: StoreBook, rate: float, workers: int
) -> None:
    """No two starts are nearer than it says, whoever has them, and none is left out."""
    await book.turn(terms=attrs.evolve(TERMS, max_rate=rate))
    await book.add(*(str(number) for number in range(200)))
    starts: list[float] = []
    while book.clock.now < 1003.0:
        for worker in range(workers):
            reply = await book.turn(want=20, reserve=worker == 0, worker=f"w{worker}")
            starts += [reply.now + claim.start_s for claim in reply.claims]
            starts += [reply.now + start_s for start_s in reply.reserved]
            book.clock.spend(0.05)
    starts.sort()
    assert all(after - before >= 1 / rate - 1e-9 for before, after in pairwise(starts))
    assert len(starts) >= min(200, 3.0 * rate - 1)


async def test_newcomers_take_every_second_start_at_most(book: StoreBook) -> None:
    """Where others wait, from whichever workers the steps come."""
    await book.add(*(f"o{number}" for number in range(8)))
    for claim in (await book.turn(want=8)).claims:
        await book.settle(claim)
    book.clock.spend(LOW_S)
    await book.add(*(f"n{number}" for number in range(12)))
    got: list[str] = []
    for number in range(20):
        got += keys(await book.turn(want=1, worker=f"w{number}"))
    assert all("n" not in pair or "o" in pair for pair in pairwise(key[0] for key in got[:16]))
    assert Counter(key[0] for key in got[:16]) == {"n": 8, "o": 8}
    assert len(set(got)) == 20


async def test_a_429_holds_all_back_and_one_goes_first(book: StoreBook) -> None:
    """Its good answer lets the others go; should it die, another takes its place."""
    await book.add("a", "b", "c", "d")
    await book.settle(await book.claim("one"), worker="one", **LIMITED, limit_s=7.0)
    reply = await book.turn(want=4, worker="two")
    assert (keys(reply), reply.gate_s) == ([], 7.0)
    book.clock.spend(7.0)
    assert len((await book.turn(want=4, worker="two")).claims) == 1
    assert keys(await book.turn(want=4, worker="one")) == []
    book.clock.spend(PROBE_S)
    (probe,) = (await book.turn(want=4, worker="one")).claims
    assert keys(await book.turn(want=4, worker="two")) == []
    await book.settle(probe, worker="one", is_readable=True)
    assert len((await book.turn(want=4, worker="two")).claims) == 2


async def test_nobody_starts_more_than_a_moment_after_a_429(book: StoreBook) -> None:
    """No start is given out further ahead."""
    await book.turn(terms=attrs.evolve(TERMS, max_rate=0.5))
    await book.add("a", "b", "c")
    reply = await book.turn(want=3, reserve=3)
    assert len(reply.claims) + len(reply.reserved) == 1
    assert 0.0 < (await book.turn()).next_s <= 2.0  # type: ignore[operator]


async def test_time_never_runs_back(book: StoreBook) -> None:
    """A clock that is put back stands still, and no pause or lease gets shorter."""
    await book.add("t")
    await book.claim()
    book.clock.now -= 0.5
    book.clock.wall -= 7200.0
    reply = await book.turn(want=1)
    assert (reply.now, reply.next_s) == (book.clock.now + 0.5, LEASE_S)
    book.clock.spend(LEASE_S + 0.4)
    assert keys(await book.turn(want=1)) == []
    book.clock.spend(0.2)
    assert keys(await book.turn(want=1)) == ["t"]


# Readers.


async def test_outcomes_come_in_order_of_their_end_to_one_reader_each(book: StoreBook) -> None:
    """With note, order and number, and once acknowledged no more."""
    for key in ("b", "a", "c"):
        await book.ended(key)
        book.clock.spend(1.0)
    first = await book.take(want=2, is_handed=True)
    assert keys(first) == ["b", "a"]
    assert keys(await book.take(want=2, reader="other")) == ["c"]
    row = (await book.found("b")).row
    assert first.parcels[0] == Parcel("b", row.number, "{}", None, None, 1)
    assert (row.holder, row.at, row.handed) == ("r", FAR, book.clock.now)
    assert not (await book.take()).is_empty
    done = [receipt(parcel, Ack.DONE) for parcel in first.parcels]
    assert not (await book.take(*done)).is_empty
    await book.take(is_leaving=True, reader="other")
    parcel = await book.hand()
    assert (parcel.key, parcel.deliveries) == ("c", 1)
    assert (await book.take(receipt(parcel, Ack.DONE))).is_empty
    assert await book.counts() == (0, 0, 0, 3, 0, 0)


async def test_what_failed_comes_again_and_is_parked_at_last(book: StoreBook) -> None:
    """After growing pauses, while others pass; asked for it comes again."""
    await book.ended("t")
    for number, pause_s in enumerate(AGAIN_S, start=1):
        parcel = await book.hand()
        assert parcel.deliveries == number
        reply = await book.take(receipt(parcel, Ack.FAILED), want=1)
        assert (keys(reply), reply.next_s) == ([], pause_s)
        book.clock.spend(pause_s)
    parcel = await book.hand()
    assert parcel.deliveries == MOST_DELIVERIES
    reply = await book.take(receipt(parcel, Ack.FAILED))
    assert (list(reply.parked), reply.is_empty, reply.next_s) == (["t"], True, None)
    assert await book.counts() == (0, 0, 1, 1, 0, 0)
    assert await book.store.retry("t")
    assert (await book.hand()).deliveries == 1


async def test_what_is_given_back_comes_at_once_in_its_place(book: StoreBook) -> None:
    """As if it had not been handed out."""
    await book.ended("a")
    book.clock.spend(1.0)
    await book.ended("b")
    parcel = await book.hand()
    reply = await book.take(receipt(parcel, Ack.BACK), want=2, is_handed=True)
    assert [(each.key, each.deliveries) for each in reply.parcels] == [("a", 1), ("b", 1)]


async def test_what_a_dead_reader_had_comes_to_others(book: StoreBook) -> None:
    """And it may still say what became of it, as long as nothing else is known."""
    await book.ended("t")
    parcel = await book.hand("dead")
    book.clock.spend(READER_S)
    assert keys(await book.take(want=1)) == []
    book.clock.spend(0.5)
    again = await book.hand()
    assert (again.key, again.number, again.deliveries) == ("t", parcel.number, 2)
    reply = await book.take(receipt(parcel, Ack.HANDED), reader="dead")
    assert list(reply.lost) == ["t"]
    await book.take(receipt(parcel, Ack.DONE), reader="dead")
    assert await book.counts() == (0, 0, 0, 1, 0, 0)
    assert (await book.take(receipt(again, Ack.FAILED))).is_empty


async def test_an_outcome_that_was_removed_or_ended_anew_is_acknowledged_no_more(
    book: StoreBook,
) -> None:
    """A receipt names the end that it is for."""
    await book.ended("gone")
    await book.ended("again", **{**GAVE_UP, "is_settled": False})
    parcels = (await book.take(want=2, is_handed=True)).parcels
    assert await book.store.remove("gone")
    assert await book.store.retry("again")
    book.clock.spend(LOW_S)
    await book.settle(await book.claim(), **WON)
    await book.take(*(receipt(parcel, Ack.DONE) for parcel in parcels))
    assert await book.counts() == (0, 1, 0, 1, 0, 0)


# Intents.


async def test_an_intent_becomes_its_task(book: StoreBook) -> None:
    """With note, order and name; what is known of the wish is told whoever asks."""
    assert await book.intend(note="1", order="2", is_keyed=True, kind="k") is None
    intent = await book.found("x")
    assert (intent.note, intent.order, intent.row.is_intent) == ("1", "2", True)
    assert await book.at("x") == 60.0
    assert await book.intend(digest="other") == Known(
        Wish("x", "d", None, is_keyed=True), intent.row
    )
    await book.store.created("x", Addition("t", task="{}", age_s=2.0))
    found = await book.found("x")
    assert found == await book.found("t") == Found(found.row, "1", "2")
    assert await book.intend() == Known(Wish("x", "d", "t", is_keyed=True), found.row)
    assert await book.counts() == (1, 0, 0, 0, 0, 0)


async def test_an_intent_that_made_nothing_leaves_nothing(book: StoreBook) -> None:
    """Its name may be used again."""
    await book.intend()
    await book.store.created("x", None)
    assert await book.store.find("x") is None
    assert await book.counts() == (0,) * 6
    assert await book.intend() is None


async def test_an_intent_is_looked_for_when_its_process_can_post_no_more(
    book: StoreBook,
) -> None:
    """By any worker; found, it is open like any id."""
    await book.intend(note="1")
    assert keys(await book.turn(want=1)) == []
    book.clock.spend(60.0)
    claim = await book.claim()
    assert claim.row.key == "#x"
    found: dict[str, Any] = {"said": Said.FOUND, "task_id": "t", "is_task": True, "task": "{}"}
    await book.settle(claim, **found, pause_s=25.0)
    assert (await book.found("x")).row.key == "t"
    assert (await book.found("t")).note == "1"
    assert await book.at("t") == 25.0


async def test_a_task_that_turns_up_later_replaces_an_uncertain_end(book: StoreBook) -> None:
    """The end is gone, and its receipts with it."""
    await book.intend()
    book.clock.spend(60.0)
    await book.settle(await book.claim(), **GAVE_UP)
    assert await book.counts() == (0, 1, 0, 0, 0, 1)
    parcel = await book.hand()
    await book.store.created("x", Addition("t"))
    await book.take(receipt(parcel, Ack.DONE))
    assert await book.counts() == (1, 0, 0, 0, 0, 0)


async def test_an_uncertain_end_is_looked_for_again_when_asked(book: StoreBook) -> None:
    """By its name."""
    await book.intend()
    book.clock.spend(60.0)
    await book.settle(await book.claim(), **GAVE_UP)
    assert await book.store.retry("x")
    assert await book.at("x") == LOW_S
    assert (await book.found("x")).row.queries == 0


# What is kept.


async def test_what_has_ended_is_kept_for_its_time_and_no_longer(book: StoreBook) -> None:
    """Read or not; who drops an unread one is told, and keys are kept for ever."""
    for name, is_keyed in (("x", False), ("key", True)):
        await book.intend(name, is_keyed=is_keyed)
        await book.store.created(name, Addition(f"of {name}"))
        await book.settle(await book.claim(), **WON)
    await book.take(receipt(await book.hand(), Ack.DONE))
    book.clock.spend(KEEP_S - 1.0)
    assert list((await book.turn()).dropped) == []
    assert await book.counts() == (0, 1, 0, 2, 0, 0)
    book.clock.spend(10.0)
    assert list((await book.turn()).dropped) == ["of key"]
    assert await book.counts() == (0,) * 6
    assert await book.store.list("", 9) == []
    assert await book.intend("key") == Known(Wish("key", "d", "of key", is_keyed=True), None)
    assert await book.intend("x") is None


async def test_a_book_is_read_once_a_reader_has_asked_for_outcomes(book: StoreBook) -> None:
    """For ever; one that only keeps what is its own, or leaves, has not."""
    await book.add("t")
    await book.take(keep=["t"])
    assert not (await book.turn()).is_read
    assert not (await book.desk()).is_read
    await book.take(reader="other", want=1)
    assert (await book.turn()).is_read
    await book.take(reader="other", is_leaving=True)
    assert (await book.turn()).is_read
    assert (await book.desk()).is_read


async def test_one_who_waits_is_told_of_what_has_ended(book: StoreBook) -> None:
    """In order, from the number on that was seen last."""
    number, ended = await book.store.ended_after(1 << 62)
    assert list(ended) == []
    await book.ended("b")
    await book.ended("a")
    later, ended = await book.store.ended_after(number)
    assert list(ended) == ["b", "a"]
    assert list((await book.store.ended_after(later))[1]) == []


async def test_one_who_waits_for_a_change_is_woken(book: StoreBook) -> None:
    """By what others do, and after its time at the latest."""
    loop = asyncio.get_running_loop()
    for change in (
        lambda: book.add("t"),
        lambda: book.store.remove("t"),
        book.intend,
        lambda: book.store.created("x", Addition("t")),
        lambda: book.store.nudge("t"),
        lambda: book.ended("u"),
    ):
        await book.store.changed(0.0)
        waiting = asyncio.create_task(book.store.changed(1000.0))
        await asyncio.sleep(0)
        began = loop.time()
        await change()
        await waiting
        assert loop.time() < began + 1.0
    began = loop.time()
    await book.store.changed(5.0)
    await book.store.changed(5.0)
    assert loop.time() >= began + 5.0


async def test_a_closed_book_lets_go_who_waits(book: StoreBook) -> None:
    """Closing it once more does no harm."""
    waiting = asyncio.create_task(book.store.changed(1e9))
    await asyncio.sleep(0.5)
    await book.store.aclose()
    await book.store.aclose()
    with suppress(BookError):  # or it is said that the book is closed
        await waiting
    assert waiting.done()


async def test_a_step_carries_no_more_than_it_may(book: StoreBook) -> None:
    """However much is wanted."""
    await book.add(*(str(number) for number in range(MOST_AT_ONCE + 5)))
    many = (await book.turn(want=10_000)).claims
    assert len(many) == MOST_AT_ONCE
    await book.turn(*(settle(claim, **WON) for claim in many))
    for claim in (await book.turn(want=10_000)).claims:
        await book.settle(claim, **WON)
    assert len((await book.take(want=10_000)).parcels) == MOST_AT_ONCE


# Books that last.


@pytest.mark.parametrize("kind", LASTING)
async def test_all_is_there_after_a_restart(kind: str, tmp_path: Path, clock: Clock) -> None:
    """Leases, pauses, holds, the gate, the pace and the policy go on, and replies are given."""
    book = StoreBook(STORES[kind](tmp_path, clock), clock)
    await book.begin(max_rate=8.0)
    await book.add("t", "u", note="1")
    await book.intend()
    t, u = (await book.turn(want=2)).claims
    await book.settle(u, **WON, lesson=("k", 20.0, 45.0, 1 / 3))
    parcel = await book.hand()
    await book.turn(limits=[(0.0, 7.0, 1.0)])
    desk, listed = await book.desk(), await book.store.list("", 9)
    await book.store.aclose()
    again = StoreBook(STORES[kind](tmp_path, clock), clock)
    await again.store.open()
    assert (await again.desk(), await again.store.list("", 9)) == (desk, listed)
    reply = await again.turn(want=9, seq=100)
    assert (reply.gate_s, reply.terms, len(reply.lessons)) == (7.0, desk.terms, 1)
    assert keys(await again.take(want=9, seq=100, reader="other")) == []
    await again.turn(settle(t, **WON), seq=101)
    await again.take(receipt(parcel, Ack.DONE), seq=101)
    assert await again.counts() == (1, 1, 0, 2, 0, 0)
    await again.store.aclose()


@pytest.mark.parametrize("kind", LASTING)
@pytest.mark.parametrize("off_s", [60.0, -3600.0, 3600.0])
async def test_a_boot_voids_leases_but_no_pauses(
    kind: str, off_s: float, tmp_path: Path, clock: Clock
) -> None:
    """Whatever the wall clock says; nothing is asked sooner than a pause after the boot."""
    book = StoreBook(STORES[kind](tmp_path, clock), clock)
    await book.begin()
    await book.add("waits", "claimed")
    waits, _ = (await book.turn(want=2, lease_s=5000.0)).claims
    await book.settle(waits, pause_s=4000.0)
    now = (await book.turn()).now
    await book.store.aclose()
    clock.boot(off_s)
    again = StoreBook(STORES[kind](tmp_path, clock), clock)
    await again.store.open()
    passed = max(0.0, off_s)
    reply = await again.turn(want=9, seq=100)
    assert (keys(reply), reply.now, reply.next_s) == ([], now + passed, LOW_S)
    clock.spend(LOW_S)
    assert keys(await again.turn(want=9, seq=101)) == ["claimed"]
    clock.spend(4000.0 - LOW_S - passed - 1.0)
    assert "waits" not in keys(await again.turn(want=9, seq=102))
    clock.spend(2.0)
    assert "waits" in keys(await again.turn(want=9, seq=103))
    await again.store.aclose()


@pytest.mark.parametrize("kind", LASTING)
async def test_two_openings_share_one_book(kind: str, tmp_path: Path, clock: Clock) -> None:
    """What one does the other sees at its next step, and whoever waits there is told."""
    one = StoreBook(STORES[kind](tmp_path, clock), clock)
    other = StoreBook(STORES[kind](tmp_path, clock), clock)
    await one.begin()
    await other.store.open()
    await other.store.changed(0.0)
    waiting = asyncio.create_task(other.store.changed(1000.0))
    await one.add("t")
    await waiting
    claim = await other.claim("two")
    assert keys(await one.turn(want=1)) == []
    await one.settle(claim, **WON)
    assert (await other.hand("s")).key == "t"
    assert keys(await one.take(want=1)) == []
    await one.store.aclose()
    await other.store.aclose()


async def test_a_claim_of_a_stranger_changes_nothing(book: StoreBook) -> None:
    """What was never in the book cannot be settled into it."""
    await book.add("t")
    claim = await book.claim()
    made_up = Claim(attrs.evolve(claim.row, key="stranger"), 0.0)
    for said in ({}, WON, {"said": Said.FOUND, "task_id": "u"}):
        await book.settle(made_up, **said)
    assert [each.row.key for each in await book.store.list("", 9)] == ["t"]
