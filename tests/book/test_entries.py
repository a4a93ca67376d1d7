"""What becomes of the entries of a book, rule by rule, without a store."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from kling_omni_async._book import entries
from kling_omni_async._book.contract import (
    FAR,
    INTENT,
    MOST_AT_ONCE,
    Ack,
    Desk,
    Found,
    Known,
    Row,
    Said,
    State,
    Wish,
)

from .pure import (
    DENIED,
    GAVE_UP,
    KEEP_S,
    LEASE_S,
    LOW_S,
    START_S,
    TERMS,
    WALL_S,
    WON,
    PureBook,
    receipt,
)


def counts(book: PureBook) -> tuple[int, ...]:
    """Return what the desk counts: open, unread, parked, and the three ends."""
    desk = book.desk
    ends = desk.succeeded, desk.failed, desk.unresolved
    return (desk.open, desk.unread, desk.parked, *ends)


# The clock and the numbers.


def test_the_time_of_a_step_is_never_before_that_of_the_last_one() -> None:
    """A clock that is behind stands still until it has caught up."""
    desk = Desk()
    times = [entries.clock_of(desk, now) for now in (5.0, 3.0, 5.5)]
    assert times == [5.0, 5.0, 5.5]


def test_every_step_of_an_entry_goes_by_the_latest_time() -> None:
    """With a clock that has gone back each verb acts at the latest time that was seen."""
    book = PureBook()
    book.now = START_S + 100.0
    book.add("first")
    book.now = START_S
    book.add("late")
    assert book.row("late").added == START_S + 100.0
    assert book.row("late").at == START_S + 100.0
    book.intend("x")
    assert book.row("#x").added == START_S + 100.0
    book.created("x", "made")
    assert book.row("made").added == START_S + 100.0


@pytest.mark.parametrize("verb", ["remove", "retry", "nudge"])
def test_a_verb_moves_the_clock_of_the_book(verb: str) -> None:
    """What a step has seen of the time holds for the next ones, also of a stranger's id."""
    book = PureBook()
    book.now += 7.0
    assert not getattr(book, verb)("stranger")
    assert book.desk.clock == START_S + 7.0


def test_a_number_is_given_once() -> None:
    """Rows, claims and ends draw from one count."""
    desk = Desk(number=4)
    assert [entries.next_number(desk), entries.next_number(desk), desk.number] == [5, 6, 6]


def test_without_a_worker_there_is_no_shortest_pause() -> None:
    """The pause is that of the policy in force; a book that nobody has polled has none."""
    assert entries.low_s(Desk()) == 0.0
    assert entries.low_s(PureBook().desk) == LOW_S


@pytest.mark.parametrize("state", list(State))
def test_a_state_is_counted_where_it_belongs(state: State) -> None:
    """The desk counts what is open, unread and parked, and the ends of all that has ended."""
    desk, row = Desk(open=1), Row("t", count="failed")
    entries.move(desk, row, state)
    assert row.state is state
    assert row.is_new is (state is State.OPEN)
    counted = (desk.open, desk.unread, desk.parked)
    assert counted == tuple(state is each for each in (State.OPEN, State.UNREAD, State.PARKED))
    assert desk.failed == (state in (State.UNREAD, State.READ, State.PARKED))
    assert (desk.succeeded, desk.unresolved) == (0, 0)


def test_a_state_is_counted_no_more_where_it_was() -> None:
    """Each move takes an entry out of its old counts."""
    desk, row = Desk(open=1), Row("t", count="succeeded")
    for state in (State.UNREAD, State.PARKED, State.READ, State.UNREAD, State.REMOVED):
        entries.move(desk, row, state)
    assert desk == Desk()


# Adding and finding.


def test_an_id_is_new_once_and_keeps_its_note() -> None:
    """What is there keeps its note; each of several is told apart."""
    book = PureBook()
    assert book.add("a", note='"first"') == [True]
    assert book.add("a", "b", note='"second"') == [False, True]
    assert book.found("a").note == '"first"'
    assert book.found("b").note == '"second"'
    assert counts(book) == (2, 0, 0, 0, 0, 0)


def test_a_new_id_is_due_at_once_and_a_newcomer() -> None:
    """It has no query behind it, and keeps when it came by both clocks."""
    book = PureBook()
    book.now += 5.0
    book.add("t")
    now = START_S + 5.0
    row = Row("t", at=now, due=now, added=now, added_at=WALL_S, number=book.desk.number)
    assert book.row("t") == row
    assert row.number > 0
    assert row.is_new
    assert book.find("t") == Found(row, None, None)


def test_an_order_is_kept_with_its_task() -> None:
    """With a note or without one."""
    book = PureBook()
    book.add("a", order="1")
    book.add("b", order="2", note="3")
    assert book.shelf.contents("a") == (None, "1")
    assert book.shelf.contents("b") == ("3", "2")


def test_what_is_known_of_a_created_task_is_kept() -> None:
    """A task that was created here has a name, a kind, an answer, an age and a first look."""
    book = PureBook()
    fields = {"external_id": "x", "kind": "k", "task": "{}", "age_s": 3.0, "first_s": 24.0}
    book.add("t", **fields)
    row = book.row("t")
    assert (row.external_id, row.kind, row.task) == ("x", "k", "{}")
    assert (row.born, row.seen) == (START_S - 3.0, START_S)
    assert (row.at, row.due) == (START_S + 24.0, START_S + 24.0)


@pytest.mark.parametrize("known", [{"age_s": 0.0}, {"task": "{}"}])
def test_a_task_whose_answer_or_age_is_known_was_seen(known: dict[str, object]) -> None:
    """Such an id never ends as not found; of an id alone nothing is known."""
    book = PureBook()
    book.add("seen", **known)
    book.add("unseen")
    assert book.row("seen").seen == START_S
    assert book.row("unseen").seen is None
    assert book.row("unseen").born is None


def test_an_entry_is_found_by_its_id_and_by_its_name() -> None:
    """The name leads to the intent, and then to the task that it has made."""
    book = PureBook()
    assert book.find("x") is None
    book.intend("x", note="1", order="2")
    assert book.find("x") == Found(book.row("#x"), "1", "2")
    book.created("x", "t")
    assert book.find("x") == book.find("t") == Found(book.row("t"), "1", "2")


def test_a_name_whose_entry_is_gone_finds_nothing() -> None:
    """A key that is kept for ever is no entry."""
    book = PureBook()
    book.lost_intent(is_keyed=True)
    book.now += KEEP_S + 1.0
    book.turn()
    assert book.shelf.wish("x") is not None
    assert book.find("x") is None


# Removing.


def test_a_stranger_cannot_be_removed() -> None:
    """There is nothing to remove where nothing is."""
    assert not PureBook().remove("t")


def test_an_id_that_was_never_asked_for_is_forgotten_at_once() -> None:
    """No pause is to be remembered, whatever its first look was to be."""
    book = PureBook()
    book.add("t", first_s=60.0, note="1")
    assert book.remove("t")
    assert book.shelf.row("t") is None
    assert book.find("t") is None
    assert book.shelf.contents("t") == (None, None)
    assert counts(book) == (0,) * 6


def test_a_removed_id_is_remembered_until_its_pause_is_over() -> None:
    """It is polled no further and found no more, and added again it joins its due time."""
    book = PureBook()
    book.add("t", note="1", external_id="x")
    book.settle(book.claim(), pause_s=25.0, task="{}")
    assert book.remove("t")
    row = book.row("t")
    assert (row.state, row.at, row.task) == (State.REMOVED, START_S + 25.0, None)
    assert book.find("t") is None
    assert not book.remove("t")
    assert not book.nudge("t")
    assert counts(book) == (0,) * 6
    book.now += 5.0
    assert book.add("t", first_s=99.0) == [True]
    row = book.row("t")
    assert (row.state, row.at, row.due) == (State.OPEN, START_S + 25.0, START_S + 25.0)
    assert not row.is_new
    assert row.answered == START_S
    assert row.external_id == "x"
    assert book.found("t").note is None
    assert counts(book) == (1, 0, 0, 0, 0, 0)


def test_an_id_that_comes_back_after_its_pause_is_due_at_once() -> None:
    """What is remembered for longer than needed does no harm."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), pause_s=25.0)
    book.remove("t")
    book.now += 40.0
    book.add("t", external_id="y")
    assert book.row("t").at == book.row("t").due == book.now
    assert book.row("t").external_id == "y"


def test_an_id_whose_pause_is_over_is_forgotten_when_it_is_removed() -> None:
    """Nothing has to be remembered from its due time on."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), pause_s=25.0)
    book.now += 25.0
    assert book.remove("t")
    assert book.shelf.row("t") is None


def test_a_claimed_id_is_remembered_until_its_lease_is_over() -> None:
    """Whoever has it may still ask; nobody else may before that is certainly over."""
    book = PureBook()
    book.add("t")
    book.claim()
    assert book.remove("t")
    assert (book.row("t").state, book.at("t"), book.row("t").token) == (State.REMOVED, LEASE_S, 0)
    book.add("t")
    assert book.at("t") == LEASE_S
    assert book.nudge("t")
    assert book.at("t") == LEASE_S


def test_a_lease_that_was_taken_away_counts_as_a_query_that_ended_a_pause_before() -> None:
    """Removed while claimed, added again, removed again: the pause stays the same."""
    book = PureBook()
    book.add("t")
    book.claim()
    for _ in range(2):
        book.remove("t")
        assert (book.row("t").state, book.at("t")) == (State.REMOVED, LEASE_S)
        assert book.row("t").answered == book.now + LEASE_S - LOW_S
        book.add("t")


def test_a_lease_that_is_over_takes_no_query_back() -> None:
    """The last query that is known to have ended may be later than what a lease says."""
    desk, row = PureBook().desk, Row("t", answered=START_S, token=7, at=START_S - 50.0)
    entries.break_claim(desk, row)
    assert (row.token, row.answered) == (0, START_S)


def test_a_removed_end_is_remembered_until_its_pause_is_over() -> None:
    """Nobody gets its outcome, and it is asked for again no sooner than after a pause."""
    book = PureBook()
    book.ended("t", fault="{}")
    book.hand()
    book.now += 5.0
    assert book.remove("t")
    row = book.row("t")
    assert (row.state, row.at) == (State.REMOVED, START_S + LOW_S)
    assert (row.holder, row.handed, row.outcome, row.fault, row.ended) == (None,) * 5
    assert counts(book) == (0,) * 6
    assert book.shelf.held("r") == []


def test_a_removed_end_of_long_ago_is_forgotten_at_once() -> None:
    """Its pause is over."""
    book = PureBook()
    book.ended("t")
    book.now += LOW_S
    assert book.remove("t")
    assert book.shelf.row("t") is None
    assert counts(book) == (0,) * 6


@pytest.mark.parametrize(("is_keyed", "is_kept"), [(True, True), (False, False)])
def test_a_name_that_nobody_gave_goes_with_its_entry(is_keyed: bool, is_kept: bool) -> None:  # noqa: FBT001
    """A caller's key is kept for ever, so that nothing is paid for twice."""
    book = PureBook()
    book.intend("x", is_keyed=is_keyed)
    book.created("x", "t")
    book.remove("t")
    assert (book.shelf.wish("x") is not None) is is_kept


def test_a_removed_intent_is_remembered_while_its_process_may_be_posting() -> None:
    """What it makes meanwhile is not polled: whoever removed it wants none of it."""
    book = PureBook()
    book.intend("x", is_keyed=True, note="1")
    assert book.remove("x")
    assert (book.row("#x").state, book.at("#x")) == (State.REMOVED, 60.0)
    assert book.find("x") is None
    book.created("x", "t")
    assert book.shelf.row("t") is None
    assert book.shelf.wish("x") == Wish("x", "d", "t", is_keyed=True)
    assert book.intend("x") == Known(Wish("x", "d", "t", is_keyed=True), None)


def test_the_wish_of_a_removed_intent_is_known_without_an_entry() -> None:
    """The caller learns that the name was used, and that there is no task to give."""
    book = PureBook()
    book.intend("x", is_keyed=True)
    book.remove("x")
    assert book.intend("x", is_keyed=True) == Known(Wish("x", "d", None, is_keyed=True), None)


# Trying again.


def test_there_is_nothing_to_try_again_in_a_stranger_or_an_open_id() -> None:
    """It is polled already, or not at all."""
    book = PureBook()
    book.add("t")
    before = book.row("t")
    assert not book.retry("t")
    assert book.row("t") == before


def test_a_settled_end_is_not_tried_again() -> None:
    """Asking again brings nothing new."""
    book = PureBook()
    before = book.ended("t")
    assert not book.retry("t")
    assert book.row("t") == before


@pytest.mark.parametrize("is_read", [False, True])
def test_an_end_that_was_not_settled_is_polled_again(is_read: bool) -> None:  # noqa: FBT001
    """Its time begins anew, and its pause is kept."""
    book = PureBook()
    book.add("t", note="1")
    book.settle(book.claim(), said=Said.DOUBT, doubt=("E", 1, 0.0), started_ago=2.0)
    book.now += LOW_S
    book.settle(book.claim(), **GAVE_UP, ended_ago=1.0, fault="{}")
    parcel = book.hand()
    if is_read:
        book.take(receipt(parcel, Ack.DONE))
    book.now += 1.0
    assert book.retry("t")
    row = book.row("t")
    assert (row.state, row.is_new, row.count, row.outcome, row.ended) == (
        State.OPEN,
        False,
        None,
        None,
        None,
    )
    assert (row.holder, row.handed, row.first, row.doubt, row.deliveries) == (None,) * 4 + (0,)
    assert row.at == row.due == START_S + LOW_S - 1.0 + LOW_S
    assert (row.queries, row.fault) == (2, "{}")
    assert counts(book) == (1, 0, 0, 0, 0, 0)
    assert book.found("t").note == "1"


def test_an_end_of_long_ago_is_due_at_once_when_it_is_tried_again() -> None:
    """Its pause is over."""
    book = PureBook()
    book.ended("t", **GAVE_UP, is_settled=False)
    book.now += 100.0
    book.retry("t")
    assert book.row("t").at == book.row("t").due == book.now


def test_a_parked_outcome_is_handed_out_again_at_once() -> None:
    """Its deliveries begin anew, also where the end was not settled."""
    book = PureBook()
    row = book.ended("t", is_settled=False)
    entries.move(book.desk, row, State.PARKED)
    row.deliveries, row.at = 10, FAR
    book.shelf.put(row)
    book.now += 5.0
    assert counts(book) == (0, 0, 1, 1, 0, 0)
    assert book.retry("t")
    row = book.row("t")
    assert (row.state, row.at, row.deliveries) == (State.UNREAD, START_S + 5.0, 0)
    assert counts(book) == (0, 1, 0, 1, 0, 0)


def test_an_intent_that_is_tried_again_is_looked_for_as_often_as_at_first() -> None:
    """Its looks begin anew; it is found by its name."""
    book = PureBook()
    book.lost_intent()
    assert book.row("#x").queries == 1
    assert book.retry("x")
    row = book.row("#x")
    assert (row.state, row.queries, row.at) == (State.OPEN, 0, book.now + LOW_S)
    assert not row.is_new


# Nudging.


def test_a_nudge_is_for_open_ids_alone() -> None:
    """A stranger, an end and an intent cannot be asked for sooner."""
    book = PureBook()
    book.intend("x")
    book.ended("t")
    before = book.row("t"), book.row("#x")
    assert not any(book.nudge(key) for key in ("s", "t", "x", "#x"))
    assert (book.row("t"), book.row("#x")) == before


def test_a_nudge_brings_an_id_forward_to_the_end_of_the_shortest_pause() -> None:
    """Asked for lately it waits out that pause, and no longer."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), pause_s=30.0)
    book.now += 5.0
    assert book.nudge("t")
    assert book.row("t").at == book.row("t").due == START_S + LOW_S
    book.now += LOW_S
    assert book.nudge("t")
    assert book.row("t").at == book.row("t").due == book.now


def test_a_nudge_never_puts_an_id_off() -> None:
    """What is due sooner stays so."""
    book = PureBook()
    book.add("t")
    row = book.row("t")
    row.at = row.due = START_S + 3.0
    row.answered = START_S
    book.shelf.put(row)
    assert book.nudge("t")
    assert book.row("t").at == START_S + 3.0


def test_a_nudge_before_the_first_query_asks_at_once() -> None:
    """A first look that was put off until a callback comes is made now, still by a newcomer."""
    book = PureBook()
    book.add("t", first_s=60.0, external_id="x")
    book.shelf.put_wish(Wish("x", "d", "t"))
    assert book.nudge("x")
    assert book.row("t").at == book.row("t").due == book.now
    assert book.row("t").is_new


def test_a_nudge_while_claimed_asks_a_shortest_pause_after_the_answer() -> None:
    """What is under way may be from before the change, so one more look is made soon after."""
    book = PureBook()
    book.add("t")
    claim = book.claim()
    assert book.nudge("t")
    assert book.at("t") == LEASE_S
    book.settle(claim, pause_s=30.0)
    assert book.at("t") == LOW_S
    assert not book.row("t").is_nudged


def test_a_nudge_of_fast_pauses_waits_for_no_longer_than_one() -> None:
    """Also where all pauses are below a second."""
    book = PureBook(attrs.evolve(TERMS, interval=(0.25, 0.5)))
    book.add("t")
    claim = book.claim()
    book.nudge("t")
    book.settle(claim, pause_s=0.5)
    assert (book.at("t"), book.row("t").is_nudged) == (0.25, False)


def test_a_nudge_after_a_lease_asks_at_once() -> None:
    """Nobody is asking any more; the next claim starts after the nudge, and pauses as ever."""
    book = PureBook()
    book.add("t")
    book.claim()
    book.now += LEASE_S
    assert book.nudge("t")
    assert not book.row("t").is_nudged
    assert book.row("t").at == book.row("t").due == book.now


def test_a_nudge_counts_for_the_claim_that_it_met() -> None:
    """Whoever claims the id later asks after the nudge, and pauses as ever."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), pause_s=0.0)
    book.now += LOW_S
    book.claim()
    book.nudge("t")
    book.now += LEASE_S
    book.settle(book.claim(), pause_s=30.0)
    assert book.at("t") == 30.0


# Ends.


def test_an_end_is_unread_from_now_on() -> None:
    """The outcome is kept with its count, in order of ending."""
    book = PureBook()
    book.add("t")
    claim = book.claim()
    book.now += 4.0
    book.settle(claim, **WON, ended_ago=3.0)
    row = book.row("t")
    assert (row.state, row.is_new, row.outcome, row.count) == (
        State.UNREAD,
        False,
        "{}",
        "succeeded",
    )
    assert (row.ended, row.at, row.number) == (book.now, book.now, book.desk.number)
    assert (row.is_settled, row.token, row.is_nudged) == (True, 0, False)
    assert counts(book) == (0, 1, 0, 1, 0, 0)


def test_an_end_is_no_more_nudged() -> None:
    """Polled again it pauses as ever."""
    book = PureBook()
    book.add("t")
    claim = book.claim()
    book.nudge("t")
    book.settle(claim, **GAVE_UP)
    assert not book.row("t").is_nudged


# What is over.


def test_what_was_read_is_kept_for_its_time() -> None:
    """Then it is forgotten, and is new again when it is added."""
    book = PureBook()
    book.ended("t")
    book.take(receipt(book.hand(), Ack.DONE))
    for passed, is_kept in ((KEEP_S - 1.0, True), (0.9, True), (0.2, False)):
        book.now += passed
        assert entries.purge(book.shelf, book.now, KEEP_S) == ([], False)
        assert (book.find("t") is not None) is is_kept
    assert book.add("t") == [True]


def test_what_nobody_has_read_is_dropped_in_its_time_and_named() -> None:
    """Unread, handed out and parked ones alike, in order of their end."""
    book = PureBook()
    for key in ("a", "b", "c"):
        book.ended(key)
    book.hand()
    row = book.row("c")
    entries.move(book.desk, row, State.PARKED)
    row.at = FAR
    book.shelf.put(row)
    assert entries.purge(book.shelf, book.now + KEEP_S, KEEP_S) == ([], False)
    dropped = entries.purge(book.shelf, book.now + KEEP_S + 0.1, KEEP_S)
    assert dropped == (["a", "b", "c"], False)
    assert counts(book) == (0,) * 6


def test_what_was_removed_is_forgotten_when_its_pause_is_over() -> None:
    """Nothing is kept without an end; nobody is told of these."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), pause_s=25.0)
    book.remove("t")
    assert entries.purge(book.shelf, book.now + 24.9, KEEP_S) == ([], False)
    assert book.shelf.row("t") is not None
    assert entries.purge(book.shelf, book.now + 25.0, KEEP_S) == ([], False)
    assert book.shelf.row("t") is None


@pytest.mark.parametrize("what", ["read", "removed", "unread"])
def test_what_is_over_is_forgotten_a_part_at_a_time(what: str) -> None:
    """A step stays short, and says that there is more to do."""
    book = PureBook()
    ids = [f"t{number:03}" for number in range(MOST_AT_ONCE + 1)]
    book.add(*ids)
    for claim in (*book.turn(want=1000).claims, *book.turn(want=1000).claims):
        book.settle(claim, **WON)
    for key in ids if what == "read" else ():
        book.take(receipt(book.hand(), Ack.DONE))
        assert book.row(key).state is State.READ
    for key in ids if what == "removed" else ():
        book.remove(key)
    later = book.now + KEEP_S + 1.0
    dropped = ids if what == "unread" else []
    first, second = dropped[:MOST_AT_ONCE], dropped[MOST_AT_ONCE:]
    assert entries.purge(book.shelf, later, KEEP_S) == (first, True)
    assert entries.purge(book.shelf, later, KEEP_S) == (second, False)
    assert not any(book.shelf.row(key) for key in ids)


def test_the_name_of_what_is_forgotten_goes_with_it() -> None:
    """Names that nobody gave do not grow for ever; keys stay."""
    book = PureBook()
    for name, is_keyed in (("x", False), ("key", True)):
        book.intend(name, is_keyed=is_keyed)
        book.created(name, f"task-{name}")
        book.settle(book.claim(), **WON)
    book.turn()
    book.now += KEEP_S + 1.0
    assert sorted(book.turn().dropped) == ["task-key", "task-x"]
    assert book.shelf.wish("x") is None
    assert book.shelf.wish("key") == Wish("key", "d", "task-key", is_keyed=True)


# Intents.


def test_an_intent_is_kept_until_it_may_be_looked_for() -> None:
    """Its process may be posting until then; it is no newcomer and has no task id."""
    book = PureBook()
    book.now += 1.0
    assert book.intend("x", note="1", order="2", kind="k", is_keyed=True) is None
    row = book.row(INTENT + "x")
    now = START_S + 1.0
    expected = Row("#x", at=now + 60.0, due=now + 60.0, added=now, added_at=WALL_S)
    expected.number, expected.is_new = book.desk.number, False
    expected.external_id, expected.kind = "x", "k"
    assert row == expected
    assert row.is_intent
    assert book.shelf.contents("#x") == ("1", "2")
    assert book.shelf.wish("x") == Wish("x", "d", None, is_keyed=True)
    assert counts(book) == (1, 0, 0, 0, 0, 0)


def test_an_intent_of_a_name_that_is_known_gives_what_is_known() -> None:
    """Nothing is changed: whoever asks compares the digest, and sends nothing."""
    book = PureBook()
    book.intend("x")
    known = book.intend("x", digest="other", is_keyed=True, note="9")
    assert known == Known(Wish("x", "d", None, is_keyed=False), book.row("#x"))
    book.created("x", "t")
    known = book.intend("x", digest="other")
    assert known == Known(Wish("x", "d", "t", is_keyed=False), book.row("t"))
    assert book.found("t").note is None


def test_a_task_takes_the_place_of_its_intent() -> None:
    """It is open with note, order and name, and the intent is gone."""
    book = PureBook()
    book.intend("x", note="1", order="2", is_keyed=True)
    book.created("x", "t", task="{}", age_s=1.0, first_s=24.0, kind="k")
    row = book.row("t")
    assert (row.state, row.external_id, row.kind, book.at("t")) == (State.OPEN, "x", "k", 24.0)
    assert row.added_at == WALL_S
    assert book.shelf.contents("t") == ("1", "2")
    assert book.shelf.row("#x") is None
    assert book.shelf.wish("x") == Wish("x", "d", "t", is_keyed=True)
    assert counts(book) == (1, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(("note", "kept"), [("3", "3"), (None, "1")])
def test_a_task_that_was_added_before_its_create_was_noted_keeps_its_note(
    note: str | None, kept: str
) -> None:
    """It gets its name and its order, and the note of its intent where it has none."""
    book = PureBook()
    book.intend("x", note="1", order="2")
    book.add("t", note=note)
    before = book.row("t")
    book.created("x", "t", task="{}")
    before.external_id, before.seen = "x", book.now
    assert book.row("t") == before
    assert book.shelf.contents("t") == (kept, "2")
    assert book.shelf.row("#x") is None


def test_a_create_that_certainly_made_nothing_leaves_nothing() -> None:
    """The name may be used again, and nothing is polled."""
    book = PureBook()
    book.intend("x", is_keyed=True)
    book.created("x", None)
    assert book.shelf.wish("x") is None
    assert book.shelf.row("#x") is None
    assert counts(book) == (0,) * 6
    assert book.intend("x") is None


def test_a_create_that_made_nothing_leaves_a_task_that_was_found_alone() -> None:
    """Somebody has seen it, so it is not certain; of a stranger nothing is known."""
    book = PureBook()
    book.intend("x")
    book.created("x", "t")
    book.created("x", None)
    book.created("stranger", None)
    assert book.shelf.wish("x") is not None
    assert book.row("t").state is State.OPEN


def test_a_create_that_made_nothing_forgets_the_name_of_a_lost_intent() -> None:
    """Also where the entry itself was forgotten before."""
    book = PureBook()
    book.lost_intent(is_keyed=True)
    book.now += KEEP_S + 1.0
    book.turn()
    book.created("x", None)
    assert book.shelf.wish("x") is None


def test_a_task_that_turns_up_later_replaces_the_uncertain_end() -> None:
    """Unread or read, the end is gone, and the task is polled."""
    book = PureBook()
    book.lost_intent(note="1")
    parcel = book.hand()
    assert counts(book) == (0, 1, 0, 0, 0, 1)
    book.created("x", "t")
    assert counts(book) == (1, 0, 0, 0, 0, 0)
    assert book.find("x") == Found(book.row("t"), "1", None)
    book.take(receipt(parcel, Ack.DONE))
    assert counts(book) == (1, 0, 0, 0, 0, 0)


def test_a_task_of_a_key_whose_end_was_forgotten_is_polled() -> None:
    """The name leads to it from now on."""
    book = PureBook()
    book.lost_intent(is_keyed=True)
    book.now += KEEP_S + 1.0
    book.turn()
    book.created("x", "t")
    assert book.found("x").row.key == "t"
    assert (book.row("t").external_id, book.row("t").added_at) == ("x", WALL_S)


def test_a_task_of_a_name_that_is_not_known_is_polled() -> None:
    """No id is lost, whatever became of its intent."""
    book = PureBook()
    book.created("x", "t")
    assert book.row("t").external_id == "x"


def test_a_create_that_is_noted_twice_changes_nothing() -> None:
    """Nor does it bring back what was removed meanwhile."""
    book = PureBook()
    book.intend("x")
    book.created("x", "t")
    before = book.row("t")
    book.created("x", "t")
    assert book.row("t") == before
    book.intend("key", is_keyed=True)
    book.created("key", "u")
    book.remove("u")
    book.created("key", "u")
    assert book.shelf.row("u") is None


def test_a_second_task_of_one_name_is_polled_too() -> None:
    """Should a gateway have made two, both are kept, and the name stays the first one's."""
    book = PureBook()
    book.intend("x")
    book.created("x", "t")
    book.created("x", "u")
    assert book.found("x").row.key == "t"
    assert book.row("u").state is State.OPEN


def test_a_task_that_a_worker_found_is_open_like_any_id() -> None:
    """It was seen, it is due a pause after the look, and it has the intent's note and kind."""
    book = PureBook()
    book.intend("x", note="1", order="2", kind="k")
    book.now += 60.0
    claim = book.claim()
    found: dict[str, Any] = {"said": Said.FOUND, "task_id": "t", "is_task": True, "task": "{}"}
    book.settle(claim, **found, pause_s=25.0, ended_ago=2.0, born_ago=50.0)
    row = book.row("t")
    assert (row.state, row.kind, row.external_id, row.task) == (State.OPEN, "k", "x", "{}")
    assert (row.born, row.seen, row.answered) == (book.now - 50.0, book.now, book.now - 2.0)
    assert row.at == row.due == book.now + 23.0
    assert row.added_at == WALL_S
    assert book.shelf.contents("t") == ("1", "2")
    assert book.shelf.row("#x") is None


def test_a_task_that_was_found_is_not_asked_before_the_shortest_pause() -> None:
    """Whatever the pause says."""
    book = PureBook()
    book.intend("x")
    book.now += 60.0
    book.settle(book.claim(), said=Said.FOUND, task_id="t", ended_ago=2.0)
    assert book.at("t") == book.row("t").due - book.now == LOW_S - 2.0
    assert book.row("t").seen == book.now


def test_a_task_that_was_found_and_is_there_already_keeps_what_it_has() -> None:
    """A claim of it stays, and an end of it too."""
    book = PureBook()
    book.ended("ended")
    book.intend("x")
    book.intend("y")
    book.now += 60.0
    one, two = book.turn(want=2).claims
    book.add("claimed")
    book.claim()
    before = book.row("claimed"), book.row("ended")
    book.settle(one, said=Said.FOUND, task_id="claimed")
    book.settle(two, said=Said.FOUND, task_id="ended")
    before[0].external_id, before[0].seen = "x", book.now
    before[1].external_id = "y"
    assert before[1].seen is not None
    assert (book.row("claimed"), book.row("ended")) == before


def test_a_look_counts_for_a_task_that_waits_already() -> None:
    """It is asked no sooner than a pause after the look."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), pause_s=25.0)
    book.intend("x", lease_s=10.0)
    book.now += 10.0
    book.settle(book.claim(), said=Said.FOUND, task_id="t", ended_ago=1.0)
    assert book.row("t").answered == book.now - 1.0
    assert book.at("t") == LOW_S - 1.0


def test_a_task_is_found_late_after_its_intent_was_given_up() -> None:
    """The uncertain end is replaced, whoever still held the claim."""
    book = PureBook()
    book.intend("x")
    book.now += 60.0
    late = book.claim()
    book.now += LEASE_S
    book.settle(book.claim(), **GAVE_UP)
    book.settle(late, said=Said.FOUND, task_id="t")
    assert counts(book) == (1, 0, 0, 0, 0, 0)
    assert book.found("x").row.key == "t"


def test_a_task_that_was_found_for_a_removed_intent_is_not_polled() -> None:
    """But the name is known to have made it."""
    book = PureBook()
    book.intend("x", is_keyed=True)
    book.now += 60.0
    claim = book.claim()
    book.remove("x")
    book.settle(claim, said=Said.FOUND, task_id="t")
    assert book.shelf.row("t") is None
    assert book.shelf.wish("x") == Wish("x", "d", "t", is_keyed=True)


def test_a_task_that_was_found_twice_stays_removed() -> None:
    """A settle that comes late again brings nothing back."""
    book = PureBook()
    book.intend("x", is_keyed=True)
    book.now += 60.0
    claim = book.claim()
    book.settle(claim, said=Said.FOUND, task_id="t")
    book.now += LOW_S
    book.remove("t")
    book.settle(claim, said=Said.FOUND, task_id="t")
    assert book.find("t") is None


def test_a_key_that_was_denied_is_polled_no_more() -> None:
    """Not found is a settled end."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), **DENIED)
    assert not book.retry("t")


def test_what_is_known_of_a_wish_is_of_the_time_of_its_step() -> None:
    """By which whoever asks can tell how old it is."""
    book = PureBook()
    book.intend("x")
    book.now += 7.0
    known = book.intend("x")
    assert known is not None
    assert known.now == book.now
