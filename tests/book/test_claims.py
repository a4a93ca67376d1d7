"""One step of a worker, rule by rule, without a store."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import attrs
import pytest

from kling_omni_async._book import claims
from kling_omni_async._book.contract import (
    FAR,
    MOST_AT_ONCE,
    Ack,
    Claim,
    Desk,
    Doubt,
    Gate,
    Lesson,
    Member,
    Said,
    State,
    Terms,
    Turned,
)
from kling_omni_async._policy import MAX_RETRY_AFTER_S
from kling_omni_async._polling.limits import BACKOFF_S

from .pure import (
    DENIED,
    GAVE_UP,
    KEEP_S,
    LEASE_S,
    LOW_S,
    PROBE_S,
    START_S,
    TERMS,
    WON,
    PureBook,
    receipt,
    settle,
)

RATE: Terms = attrs.evolve(TERMS, max_rate=8.0)
GAP_S = 0.125
SLOW: Terms = attrs.evolve(TERMS, max_rate=0.125)


def keys(turned: Turned) -> list[str]:
    """Return which ids were claimed, in order."""
    return [claim.row.key for claim in turned.claims]


def limited(**fields: Any) -> dict[str, Any]:
    """Return what a 429 says."""
    return {"said": Said.FAULT, "is_limited": True, **fields}


# Who comes.


def test_a_book_belongs_to_one_api() -> None:
    """The first worker says to which; one of another is told, and changes nothing."""
    book = PureBook()
    book.add("t")
    book.turn(origin="one")
    book.turn()
    terms = attrs.evolve(TERMS, timeout=1.0)
    reply = book.turn(origin="two", want=1, worker="other", terms=terms)
    assert reply == Turned(now=book.now, other_origin="one")
    assert book.desk.terms == TERMS
    assert book.shelf.member("other") is None
    assert book.turn(origin="one", want=1).other_origin is None
    assert book.desk.origin == "one"


def test_a_worker_is_known_until_it_leaves() -> None:
    """Its last step and its time are kept; who leaves gets nothing more."""
    book = PureBook()
    book.now += 3.0
    book.turn(worker="w", seq=41)
    assert book.shelf.member("w") == Member("w", "worker", 41, book.now)
    book.add("t")
    assert not book.turn(worker="w", seq=42, want=1, reserve=1, is_leaving=True).claims
    assert book.shelf.member("w") is None
    assert book.row("t").token == 0
    assert book.desk.next_start == -FAR


@pytest.mark.parametrize("seq", [40, 41])
def test_a_step_that_comes_late_again_changes_nothing(seq: int) -> None:
    """It was made, or its worker has gone on without it."""
    book = PureBook()
    book.add("t")
    claim = book.claim()
    book.turn(seq=41)
    book.now += 1.0
    reply = book.turn(settle(claim, **WON), seq=seq, want=1, reserve=1, terms=RATE)
    assert reply == Turned(now=book.now, terms=TERMS)
    assert book.row("t").state is State.OPEN
    assert book.desk.terms == TERMS
    assert book.turn(seq=42).terms == TERMS


def test_the_policy_of_the_worker_that_started_last_is_in_force() -> None:
    """Whoever puts another one in its place is told."""
    book = PureBook(terms=None)
    first = book.turn(terms=TERMS)
    assert (first.terms, first.differs) == (TERMS, False)
    again = book.turn(terms=attrs.evolve(TERMS))
    assert (again.terms, again.differs) == (TERMS, False)
    other = book.turn(terms=RATE)
    assert (other.terms, other.differs) == (RATE, True)
    assert (book.turn().terms, book.turn().differs) == (RATE, False)


def test_a_book_without_a_policy_starts_nothing() -> None:
    """It has lost all: no pace is known until a worker brings one, whose turn then counts whole."""
    book = PureBook(terms=None)
    book.add("t")
    turn = book.turn(want=1, origin="o", seq=7)
    assert turn == Turned(now=book.now)
    assert turn.needs_terms
    assert (book.desk.origin, book.shelf.members()) == (None, [])
    turn = book.turn(want=1, origin="o", seq=8, terms=TERMS)
    assert [claim.row.key for claim in turn.claims] == ["t"]
    assert not turn.needs_terms
    assert not book.turn(origin="other").needs_terms


def test_workers_of_long_ago_are_forgotten() -> None:
    """Those that crashed do not pile up; readers are let go by readers."""
    book = PureBook()
    book.turn(worker="gone")
    book.take(reader="r")
    book.now += 3.0
    book.turn(worker="there")
    book.now += claims.MEMBER_KEPT_S - 3.0
    book.turn(worker="w")
    assert book.shelf.member("gone") is not None
    book.now += claims.PURGE_S
    book.turn(worker="w")
    assert {member.name for member in book.shelf.members()} == {"r", "w"}


# Claims.


def test_a_claim_shows_the_entry_as_it_is_kept() -> None:
    """Its token is a number of its own, and the lease is its score."""
    book = PureBook()
    book.add("t")
    book.now += 1.0
    claim = book.claim()
    assert claim == Claim(book.row("t"), 0.0)
    assert claim.row.token == book.desk.number
    assert (claim.row.at, claim.row.due) == (book.now + LEASE_S, START_S)
    assert claim.row.is_new


def test_nobody_gets_a_claimed_id_before_its_lease_is_over() -> None:
    """Then another one does, by another token."""
    book = PureBook()
    book.add("t")
    first = book.claim()
    book.now += LEASE_S - 0.1
    assert not book.turn(want=1, worker="other").claims
    book.now += 0.2
    second = book.claim(worker="other")
    assert second.row.token > first.row.token
    assert second.row.at == book.now + LEASE_S


def test_a_worker_gets_no_more_than_it_wants() -> None:
    """Nor more than a step carries."""
    book = PureBook()
    book.add(*(f"t{number:03}" for number in range(MOST_AT_ONCE + 10)))
    assert not book.turn(want=0).claims
    assert keys(book.turn(want=3)) == ["t000", "t001", "t002"]
    assert len(book.turn(want=1000).claims) == MOST_AT_ONCE
    assert len(book.turn(want=1000).claims) == 7


def test_what_is_not_due_is_not_given_out() -> None:
    """An id is due at its time, neither sooner nor later."""
    book = PureBook()
    book.add("t", first_s=5.0)
    book.now += 4.9
    assert not book.turn(want=1).claims
    book.now = START_S + 5.0
    assert book.turn(want=1).claims


def test_ids_are_served_in_order_of_their_due_times() -> None:
    """Those of one moment in order of coming."""
    book = PureBook()
    book.add("c", "b")
    book.add("late", first_s=2.0)
    book.add("a", first_s=1.0)
    book.now += 5.0
    assert keys(book.turn(want=9)) == ["c", "b", "a", "late"]


def overdue(book: PureBook, *ids: str) -> None:
    """Let ids be due whose first query is over."""
    book.add(*ids)
    for claim in book.turn(want=99).claims:
        book.settle(claim)
    book.now += LOW_S


def test_a_newcomer_goes_first_but_has_every_second_start_at_most() -> None:
    """Where both wait they take turns, also from one step to the next."""
    book = PureBook()
    overdue(book, "o1", "o2", "o3")
    book.desk.line = claims.Line.OVERDUE
    book.add("n1", "n2", "n3")
    assert keys(book.turn(want=1)) == ["n1"]
    assert keys(book.turn(want=3)) == ["o1", "n2", "o2"]
    assert keys(book.turn(want=2)) == ["n3", "o3"]


def test_newcomers_have_all_starts_where_nobody_else_waits() -> None:
    """And so have the others."""
    book = PureBook()
    book.add("n1", "n2", "n3")
    assert keys(book.turn(want=3)) == ["n1", "n2", "n3"]
    book = PureBook()
    overdue(book, "o1", "o2", "o3")
    assert keys(book.turn(want=3)) == ["o1", "o2", "o3"]


def test_starts_that_are_lent_take_turns_with_claims() -> None:
    """What is no claim goes first, but takes at most every second start where others wait."""
    book = PureBook()
    overdue(book, "o1", "o2")
    book.add("n1", "n2")
    book.turn(terms=SLOW)
    lines = []
    book.desk.line = claims.Line.OVERDUE
    for _ in range(7):
        book.now = max(book.now, book.desk.next_start - claims.HORIZON_S)
        reply = book.turn(want=4, reserve=4)
        lines.append([*keys(reply), *("-" for _ in reply.reserved)])
    assert lines == [["-"], ["n1"], ["o1"], ["-"], ["n2"], ["o2"], ["-"]]


# The pace.


def test_starts_keep_the_pace_within_the_horizon() -> None:
    """Nothing is given out for later than that: a 429 may come meanwhile."""
    book = PureBook(RATE)
    book.add("a", "b", "c", "d")
    reply = book.turn(want=4)
    assert [claim.start_s for claim in reply.claims] == [0.0, GAP_S]
    assert not book.turn(want=4).claims
    book.now += 0.05 + 1e-9
    assert [claim.start_s for claim in book.turn(want=4).claims] == [pytest.approx(0.2)]
    assert book.desk.next_start == START_S + 3 * GAP_S


def test_a_step_gives_out_all_starts_that_the_horizon_has_left() -> None:
    """Whatever the rate: no more entries are looked at, and no fewer."""
    for rate, first, second in ((0.5, 1, 1), (8.0, 2, 1), (64.0, 13, 7), (1024.0, 200, 103)):
        book = PureBook(attrs.evolve(TERMS, max_rate=rate))
        book.add(*(str(number) for number in range(400)))
        assert len(book.turn(want=300).claims) == first
        book.desk.next_start = book.now + claims.HORIZON_S / 2
        assert len(book.turn(want=300).claims) == second


def test_turns_that_nobody_has_used_are_not_made_up_for() -> None:
    """There is no burst after a quiet time."""
    book = PureBook(RATE)
    book.add("a", "b", "c", "d")
    book.turn(want=1)
    book.now += 100.0
    assert [claim.start_s for claim in book.turn(want=4).claims] == [0.0, GAP_S]


def test_a_worker_whose_way_is_long_gets_its_starts_earlier() -> None:
    """Else it would have none while its turn is under way; it is told to come again as early."""
    book = PureBook(RATE)
    book.add("a", "b", "c", "d", "e", "f", "g", "h")
    reply = book.turn(want=9, ahead_s=2 * GAP_S)
    assert [claim.start_s for claim in reply.claims] == [0.0, GAP_S, 2 * GAP_S, 3 * GAP_S]
    assert reply.next_s == pytest.approx(2 * GAP_S - claims.HORIZON_S / 2)
    assert not book.turn(want=9).claims
    most = [claim.start_s for claim in book.turn(want=9, ahead_s=60.0).claims]
    assert most == [4 * GAP_S, 5 * GAP_S]  # 0.7 s ahead at most


def test_without_a_rate_all_start_at_once() -> None:
    """Nothing but what is due and wanted limits the starts."""
    book = PureBook()
    book.add("a", "b", "c")
    reply = book.turn(want=3, reserve=2)
    assert [claim.start_s for claim in reply.claims] == [0.0] * 3
    assert reply.reserved == (0.0, 0.0)


def test_starts_that_are_lent_keep_the_pace_too() -> None:
    """What does not fit into the horizon is to be asked for again."""
    book = PureBook(RATE)
    reply = book.turn(reserve=5)
    assert reply.reserved == (0.0, GAP_S)
    assert reply.next_s == pytest.approx(2 * GAP_S - claims.HORIZON_S / 2)
    assert not reply.claims


def test_no_more_starts_are_lent_than_a_step_carries() -> None:
    """Also without a rate."""
    assert len(PureBook().turn(reserve=1000).reserved) == MOST_AT_ONCE


def test_another_rate_holds_from_the_last_start_on() -> None:
    """A pause of a slow pace is not waited out by a fast one, nor cut short the other way."""
    book = PureBook(SLOW)
    book.add("a", "b", "c")
    assert len(book.turn(want=3).claims) == 1
    assert book.desk.next_start == START_S + 8.0
    book.turn(terms=RATE)
    assert book.desk.next_start == START_S + GAP_S
    book.turn(terms=TERMS)
    assert book.desk.next_start == START_S
    book.turn(terms=SLOW)
    assert book.desk.next_start == START_S + 8.0


# When to come again.


def test_a_worker_learns_when_there_may_be_more() -> None:
    """The earliest of what is due, newcomer or not, counted from the step."""
    book = PureBook()
    assert book.turn().next_s is None
    book.add("old", first_s=9.0)
    assert book.turn().next_s == 9.0
    book.now += 4.0
    assert book.turn().next_s == 5.0
    book.add("new", first_s=2.0)
    assert book.turn().next_s == 2.0
    book.now += 10.0
    assert book.turn().next_s == 0.0
    claim, _ = book.turn(want=2).claims
    assert book.settle(claim, pause_s=25.0).next_s == 25.0


def test_a_worker_comes_again_before_the_next_start() -> None:
    """Half of the horizon ahead, so that no start is missed."""
    book = PureBook(RATE)
    book.add("a", "b", "c")
    assert book.turn(want=1).next_s == pytest.approx(GAP_S - claims.HORIZON_S / 2)
    assert book.turn(want=1).next_s == pytest.approx(2 * GAP_S - claims.HORIZON_S / 2)


def test_a_worker_comes_again_when_the_gate_opens() -> None:
    """It holds claims back, but no start that is lent."""
    book = PureBook(RATE)
    book.add("a", "b")
    claim = book.claim()
    reply = book.settle(claim, **limited(limit_s=9.0))
    assert reply.next_s == 9.0
    assert book.turn(reserve=1).next_s == 9.0
    assert book.turn(reserve=9).next_s == pytest.approx(book.desk.next_start - 0.1 - book.now)
    book.now += 9.0
    assert len(book.turn(want=2).claims) == 1
    assert book.turn().next_s == PROBE_S


# Settles.


def test_a_task_that_is_worked_on_is_asked_again_after_its_pause() -> None:
    """Counted from the end of the query; what it has brought is kept."""
    book = PureBook()
    book.add("t")
    claim = book.claim()
    book.now += 10.0
    fields: dict[str, Any] = {"started_ago": 6.0, "ended_ago": 4.0, "pause_s": 25.0}
    book.settle(claim, **fields, is_task=True, task="{}", born_ago=8.0)
    row = book.row("t")
    assert (row.token, row.is_new, row.queries) == (0, False, 1)
    assert (row.first, row.answered, row.seen, row.looked) == (
        book.now - 6.0,
        *[book.now - 4.0] * 3,
    )
    assert row.at == row.due == book.now + 21.0
    assert (row.task, row.born, row.fault, row.doubt) == ("{}", book.now - 8.0, None, None)
    assert row.state is State.OPEN


def test_what_a_second_query_brings_is_kept_beside_the_first() -> None:
    """The first start, the birth and an unchanged task stay; all else is the newer one's."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), is_task=True, task="1", born_ago=3.0, started_ago=1.0)
    book.now += LOW_S
    book.settle(book.claim(), is_task=True, born_ago=9.0, fault="{}")
    row = book.row("t")
    assert (row.first, row.born, row.task) == (START_S - 1.0, START_S - 3.0, "1")
    assert (row.queries, row.seen, row.fault) == (2, book.now, "{}")
    book.now += LOW_S
    book.settle(book.claim(), is_task=True, task="2")
    assert (book.row("t").task, book.row("t").fault) == ("2", None)


def test_no_pause_is_under_the_shortest_one() -> None:
    """Whatever a settle asks for."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), pause_s=1.0, ended_ago=2.0)
    assert book.at("t") == LOW_S - 2.0


def test_a_fault_says_nothing_of_the_task() -> None:
    """It is kept as the last one; doubts and looks stay as they are."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), said=Said.DOUBT, doubt=("E", 1, 2.0), fault="1")
    before = book.row("t")
    book.now += LOW_S
    book.settle(book.claim(), said=Said.FAULT, fault="2", pause_s=25.0)
    row = book.row("t")
    assert row.doubt == before.doubt == Doubt("E", 1, START_S - 2.0)
    assert (row.fault, row.queries, row.looked, row.seen) == ("2", 2, None, None)
    assert book.at("t") == 25.0


@pytest.mark.parametrize("said", [Said.PENDING, Said.FINAL])
def test_a_doubt_ends_with_a_clear_word(said: Said) -> None:
    """Final words that need to be said again need to be so in a row."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), said=Said.DOUBT, doubt=("E", 1, 2.0))
    book.now += LOW_S
    book.settle(book.claim(), **{**WON, "said": said}, doubt=("E", 2, 0.0))
    assert book.row("t").doubt is None


def test_a_claim_of_which_no_query_was_sent_goes_back_as_it_was() -> None:
    """It keeps its place in the order, and may be claimed at once."""
    book = PureBook()
    book.add("t", "u")
    before = book.row("t")
    claim = book.claim()
    book.now += 1.0
    book.settle(claim, said=Said.UNASKED)
    assert book.row("t") == before
    assert keys(book.turn(want=2)) == ["t", "u"]


def test_a_query_that_was_given_up_costs_a_pause() -> None:
    """It counts as no answer, but its time has begun; what was known stays."""
    book = PureBook()
    book.add("t")
    claim = book.claim()
    book.settle(claim, said=Said.CUT, started_ago=3.0, ended_ago=1.0, pause_s=LOW_S)
    row = book.row("t")
    assert (row.queries, row.is_new, row.token) == (0, False, 0)
    assert (row.first, row.answered) == (book.now - 3.0, book.now - 1.0)
    assert book.at("t") == LOW_S - 1.0


def test_a_query_that_was_given_up_may_say_why() -> None:
    """Its fault is kept; without one the last fault stays."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), said=Said.FAULT, fault="1", is_task=True)
    for fault, kept in ((None, "1"), ("2", "2")):
        book.now += LOW_S
        book.settle(book.claim(), said=Said.CUT, fault=fault, born_ago=1.0)
        assert book.row("t").fault == kept
    assert book.row("t").born is None


def test_who_comes_back_late_changes_nothing() -> None:
    """Another one has the claim, or has settled it."""
    book = PureBook()
    book.add("t")
    late = book.claim()
    book.now += LEASE_S
    claim = book.claim(worker="other")
    before = book.row("t")
    book.settle(late, pause_s=99.0, fault="1")
    book.settle(late, said=Said.UNASKED)
    book.settle(late, **GAVE_UP)
    assert book.row("t") == before
    book.settle(claim, worker="other", is_task=True, task="2")
    before = book.row("t")
    book.settle(late, is_task=True, task="1", ended_ago=9.0)
    assert book.row("t") == before


def test_who_comes_back_late_may_have_seen_the_task() -> None:
    """That it is one is known from then on, and nothing else is changed."""
    book = PureBook()
    book.add("t")
    late = book.claim()
    book.now += LEASE_S
    book.claim(worker="other")
    before = book.row("t")
    book.settle(late, is_task=True, task="1", ended_ago=9.0)
    before.seen = book.now - 9.0
    assert book.row("t") == before


def test_what_is_no_more_open_is_settled_no_more() -> None:
    """An end, a removed id and a stranger stay what they are."""
    book = PureBook()
    before = book.ended("t")
    book.add("r")
    claim = book.claim()
    book.remove("r")
    removed = book.row("r")
    for row in (before, removed):
        for said in ({}, WON, GAVE_UP):
            book.settle(Claim(attrs.evolve(row, token=claim.row.token), 0.0), **said)
    book.settle(Claim(attrs.evolve(before, key="stranger"), 0.0), said=Said.FOUND, task_id="u")
    assert (book.row("t"), book.row("r")) == (before, removed)
    assert book.shelf.row("stranger") is None
    assert book.shelf.row("u") is None


def test_the_first_final_word_wins_whoever_brings_it() -> None:
    """A late word of the API ends the id; the other claim's own comes too late."""
    book = PureBook()
    book.add("t")
    late = book.claim()
    book.now += LEASE_S
    claim = book.claim(worker="other")
    book.settle(late, **{**WON, "outcome": "1"}, ended_ago=5.0)
    book.settle(claim, worker="other", **{**WON, "outcome": "2"})
    row = book.row("t")
    assert (row.state, row.outcome, row.queries) == (State.UNREAD, "1", 1)
    # The other one may still be asking: whoever takes the id up again waits for that.
    assert row.answered == book.now + LEASE_S - LOW_S
    assert book.remove("t")
    assert book.at("t") == LEASE_S


def test_a_final_word_of_a_claim_ends_its_query() -> None:
    """The id is asked no sooner than a pause after it, should it come back."""
    book = PureBook()
    book.add("t")
    claim = book.claim()
    book.now += 10.0
    book.settle(claim, **WON, ended_ago=4.0, task="{}", fault="{}", born_ago=9.0)
    row = book.row("t")
    assert (row.answered, row.queries, row.task, row.seen) == (
        book.now - 4.0,
        1,
        "{}",
        row.answered,
    )
    assert (row.fault, row.born, row.looked) == ("{}", book.now - 9.0, None)
    book.remove("t")
    assert book.at("t") == LOW_S - 4.0


def test_a_late_word_takes_no_later_query_back() -> None:
    """The last end of a query that is known stays known."""
    book = PureBook()
    book.add("t")
    late = book.claim()
    book.now += LEASE_S
    book.settle(book.claim())
    book.settle(late, **WON, ended_ago=25.0)
    assert book.row("t").answered == book.now


def test_giving_up_is_for_the_claim_alone() -> None:
    """It is no word of the API; by the claim that is open it ends the id."""
    book = PureBook()
    row = book.ended("t", **{**GAVE_UP, "is_word": False, "is_settled": False})
    assert (row.state, row.count, row.is_settled) == (State.UNREAD, "unresolved", False)
    assert book.desk.unresolved == 1


# Not found.


@pytest.mark.parametrize("before", [{}, {"age_s": 1.0}, {"task": "{}"}])
def test_an_id_that_nobody_knows_ends_unless_it_was_seen(before: dict[str, Any]) -> None:
    """What was once seen as a task never ends as not found."""
    book = PureBook()
    book.add("t", **before)
    book.settle(book.claim(), **DENIED, fault="1", doubt=("E", 2, 0.0), pause_s=25.0)
    row = book.row("t")
    if not before:
        assert (row.state, row.outcome) == (State.UNREAD, '"denied"')
        return
    assert (row.state, row.fault, row.doubt, row.queries) == (State.OPEN, "1", None, 1)
    assert book.at("t") == 25.0


def test_a_doubt_whether_a_task_exists_that_was_seen_is_a_fault() -> None:
    """It is counted nowhere."""
    book = PureBook()
    book.add("t", task="{}")
    book.settle(book.claim(), said=Said.DOUBT, is_not_found=True, doubt=("E", 1, 0.0), fault="1")
    assert (book.row("t").doubt, book.row("t").fault) == (None, "1")


def test_a_task_that_was_seen_may_be_given_up() -> None:
    """Its time is over, though its last answer was that nobody knows it."""
    book = PureBook()
    book.add("t", task="{}")
    book.settle(book.claim(), **GAVE_UP, is_not_found=True)
    assert book.row("t").outcome == '"up"'


def test_not_found_by_an_account_that_has_seen_no_task_is_not_believed() -> None:
    """Once another account has seen one: to a stranger's key all are unknown."""
    book = PureBook()
    book.add("seen", "t")
    seen, claim = book.turn(want=2).claims
    book.settle(seen, is_task=True)
    said: dict[str, Any] = {**DENIED, "fault": "1", "doubt": ("E", 2, 0.0), "pause_s": 25.0}
    reply = book.settle(claim, account="b", **said)
    row = book.row("t")
    assert (row.state, row.fault, row.doubt, row.queries) == (State.OPEN, None, None, 0)
    assert book.at("t") == 25.0
    assert not reply.is_stranger
    book.remove("seen")
    book.now += 25.0
    book.settle(book.claim(), account="a", **said)
    assert book.row("t").outcome == '"denied"'


def test_a_doubt_of_a_stranger_is_not_counted() -> None:
    """And by a claim that is no more its own it changes nothing."""
    book = PureBook()
    book.add("seen", "t")
    seen, claim = book.turn(want=2).claims
    book.settle(seen, is_task=True)
    said: dict[str, Any] = {"said": Said.DOUBT, "is_not_found": True, "doubt": ("E", 1, 0.0)}
    book.settle(claim, account="b", **said)
    assert book.row("t").doubt is None
    before = book.row("t")
    book.settle(claim, account="b", **said, pause_s=99.0)
    assert book.row("t") == before


def test_before_anybody_has_seen_a_task_not_found_is_believed() -> None:
    """Else an id that is wrong would never end where all are."""
    book = PureBook()
    book.add("t")
    assert not book.settle(book.claim(), account="b", **DENIED).is_stranger
    assert book.row("t").outcome == '"denied"'


@pytest.mark.parametrize(("after_s", "is_stranger"), [(3599.0, True), (3600.0, False)])
def test_a_key_that_does_not_know_what_others_see_is_of_another_account(
    after_s: float,
    is_stranger: bool,  # noqa: FBT001
) -> None:
    """If they have seen it lately: it gets no more claims, and gives nothing up."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), is_task=True, task="{}")
    book.now += after_s
    claim = book.claim()
    book.add("u")
    reply = book.turn(settle(claim, **GAVE_UP, is_not_found=True), account="b", want=1, reserve=1)
    assert reply.is_stranger is is_stranger
    assert bool(reply.claims) is bool(reply.reserved) is not is_stranger
    assert book.row("t").state is (State.OPEN if is_stranger else State.UNREAD)


def test_a_key_that_sees_a_task_is_believed_from_then_on() -> None:
    """Also where that task is no more in the book."""
    book = PureBook()
    book.add("a", "b", "c")
    first, second, third = book.turn(want=3).claims
    book.settle(first, account="a", is_task=True)
    book.remove("b")
    book.settle(second, account="b", is_task=True)
    book.settle(third, account="b", **DENIED)
    assert book.row("c").outcome == '"denied"'
    assert book.desk.accounts == ("a", "b")


def test_accounts_are_remembered_once_and_the_last_ones_alone() -> None:
    """Keys that are changed often do not pile up."""
    book = PureBook()
    book.add("t")
    claim = book.claim()
    for number in (0, 0, *range(9), 8):
        book.settle(claim, account=str(number), is_task=True)
    assert book.desk.accounts == tuple(str(number) for number in range(1, 9))


def test_finding_what_an_intent_made_proves_an_account() -> None:
    """It is a task that was seen."""
    book = PureBook()
    book.intend("x")
    book.now += 60.0
    reply = book.settle(book.claim(), said=Said.FOUND, task_id="t", is_task=True, account="b")
    assert book.desk.accounts == ("b",)
    assert not reply.is_stranger


# Lessons.


def test_lessons_are_for_all_workers_in_order() -> None:
    """Each gets what it does not know yet."""
    book = PureBook()
    book.ended("a", lesson=("k", 20.0, 45.0, 30.0))
    book.ended("b", lesson=("", 0.0, 9.0, None))
    first, second = book.turn().lessons
    assert first == Lesson(first.number, "k", 20.0, 45.0, 30.0)
    assert second == Lesson(second.number, "", 0.0, 9.0, None)
    assert first.number < second.number == book.desk.number
    assert book.turn(lessons_after=first.number).lessons == [second]


def test_a_word_that_comes_too_late_teaches_nothing() -> None:
    """What was learned of an end is learned once."""
    book = PureBook()
    book.add("t")
    claim = book.claim()
    for _ in range(2):
        book.settle(claim, **WON, lesson=("k", 20.0, 45.0, 30.0))
    assert len(book.turn().lessons) == 1


def test_only_the_last_lessons_are_kept() -> None:
    """They do not grow without bound."""
    book = PureBook()
    for number in range(claims.LESSONS_KEPT + 2):
        book.ended(str(number), lesson=(str(number), 20.0, 45.0, 30.0))
    lessons = book.turn().lessons
    assert len(lessons) == claims.LESSONS_KEPT
    assert lessons[0].kind == "2"


# The gate.


def closed(asked_s: float | None = None, ids: int = 4, **fields: Any) -> PureBook:
    """Return a book whose gate a 429 has closed."""
    book = PureBook()
    book.add(*(f"t{number}" for number in range(ids)))
    claim = book.claim()
    book.settle(claim, **limited(limit_s=asked_s, **fields))
    return book


@pytest.mark.parametrize(
    ("asked_s", "pause_s"),
    [(7.0, 7.0), (0.0, 0.0), (MAX_RETRY_AFTER_S + 1.0, MAX_RETRY_AFTER_S), (None, 1.25)],
)
def test_a_429_closes_the_gate_for_all(asked_s: float | None, pause_s: float) -> None:
    """For as long as it asks, within reason, or by the backoff with its jitter."""
    book = closed(asked_s, jitter=1.25)
    assert book.desk.gate.until == book.now + pause_s
    reply = book.turn(want=4, worker="other")
    assert reply.gate_s == pause_s
    assert len(reply.claims) == (pause_s == 0.0)
    book.now += pause_s
    assert book.turn().gate_s == 0.0


def test_a_429_costs_its_id_a_pause() -> None:
    """It is a fault like others."""
    book = closed(7.0, pause_s=25.0)
    assert book.at("t0") == 25.0


def test_a_429_that_met_no_claim_closes_the_gate_too() -> None:
    """Such as that of a plain verb; its start tells whether it is of the last burst."""
    book = PureBook()
    book.turn(limits=[(1.0, 7.0, 1.0)])
    assert book.desk.gate == Gate(is_closed=True, until=book.now + 7.0)
    book.now += 10.0
    book.turn(limits=[(3.5, 9.0, 1.0)])
    assert book.desk.gate.until == START_S + 7.0
    book.turn(limits=[(3.0, None, 1.5)])
    assert book.desk.gate.until == book.now + 1.5


def test_the_backoff_grows_with_each_pause_and_no_further_than_its_last() -> None:
    """A burst of 429s is one step of it; a good answer begins anew."""
    book = closed()
    gate = book.desk.gate
    for step, pause_s in enumerate((*BACKOFF_S[1:], BACKOFF_S[-1], BACKOFF_S[-1]), start=1):
        assert gate.step == step
        until = gate.until
        book.turn(limits=[(0.0, None, 1.0)])
        assert (gate.step, gate.until) == (step, until)
        book.now = gate.until
        claim = book.claim()
        book.settle(claim, **limited())
        assert gate.until == pytest.approx(book.now + pause_s)
        book.add(f"more{step}")
    book.now = gate.until
    book.settle(book.claim(), is_readable=True)
    assert (gate.is_closed, gate.step, gate.probe) == (False, 0, 0)


def test_what_was_asked_for_is_no_step_of_the_backoff() -> None:
    """The server knows better."""
    assert closed(7.0).desk.gate.step == 0


def test_after_a_pause_one_goes_first() -> None:
    """Its good answer opens the gate for the others."""
    book = closed(7.0)
    book.now += 7.0
    probe = book.turn(want=4)
    assert len(probe.claims) == 1
    gate = book.desk.gate
    assert (gate.probe, gate.probe_until) == (probe.claims[0].row.token, book.now + PROBE_S)
    assert not book.turn(want=4, worker="other").claims
    reply = book.settle(probe.claims[0], is_readable=True)
    assert (reply.gate_s, gate.is_closed, gate.probe) == (0.0, False, 0)
    assert len(book.turn(want=4).claims) == 2


@pytest.mark.parametrize("said", [Said.FAULT, Said.CUT, Said.UNASKED])
def test_where_the_first_one_says_nothing_another_goes_first(said: Said) -> None:
    """The gate stays closed until the API itself has answered."""
    book = closed(7.0)
    book.now += 7.0
    probe = book.claim()
    book.settle(probe, said=said)
    assert book.desk.gate.is_closed
    assert book.desk.gate.probe == 0
    assert len(book.turn(want=4).claims) == 1


def test_a_probe_of_one_who_died_is_void_after_its_time() -> None:
    """Then another one goes first."""
    book = closed(7.0)
    book.now += 7.0
    book.claim()
    book.now += PROBE_S - 0.1
    assert not book.turn(want=4).claims
    book.now += 0.1
    assert len(book.turn(want=4).claims) == 1


def test_an_answer_from_before_the_pause_opens_nothing() -> None:
    """It was under way when the 429 came."""
    book = PureBook()
    book.add("a", "b")
    one, other = book.turn(want=2).claims
    book.now += 1.0
    book.settle(one, **limited(limit_s=1.0))
    book.now += 2.0
    book.settle(other, is_readable=True, started_ago=1.1)
    assert book.desk.gate.is_closed
    book.settle(other, is_readable=True, started_ago=1.0)
    assert not book.desk.gate.is_closed


def test_an_answer_of_another_leaves_the_probe_alone() -> None:
    """It is still under way."""
    book = closed(7.0)
    book.now += 7.0
    probe = book.claim()
    book.settle(Claim(attrs.evolve(probe.row, token=1), 0.0), said=Said.FAULT)
    assert book.desk.gate.probe == probe.row.token


def test_a_429_to_the_first_one_closes_the_gate_anew() -> None:
    """The next pause is followed by another first one."""
    book = closed(7.0)
    book.now += 7.0
    probe = book.claim()
    book.settle(probe, **limited(limit_s=3.0))
    gate = book.desk.gate
    assert (gate.is_closed, gate.until, gate.probe) == (True, book.now + 3.0, 0)


def test_a_429_of_a_query_that_was_given_up_counts() -> None:
    """Whatever became of its claim, the API has said that it is enough."""
    book = PureBook()
    book.add("t")
    book.settle(book.claim(), said=Said.CUT, is_limited=True, limit_s=3.0)
    assert book.desk.gate.until == book.now + 3.0


def test_an_open_gate_needs_nobody_to_go_first() -> None:
    """Good answers change nothing."""
    book = PureBook()
    book.add("a", "b")
    assert len(book.turn(want=2).claims) == 2
    assert book.desk.gate == Gate()
    assert book.turn().gate_s == 0.0


def test_starts_that_are_lent_are_not_held_back_by_the_gate() -> None:
    """Whoever asked for them is told of the gate, and knows what they are for."""
    book = closed(7.0)
    reply = book.turn(want=1, reserve=2)
    assert (reply.reserved, reply.gate_s) == ((0.0, 0.0), 7.0)
    assert not reply.claims
    book.now += 7.0
    reply = book.turn(want=3, reserve=2)
    assert (len(reply.claims), len(reply.reserved)) == (1, 2)
    assert book.desk.gate.probe == reply.claims[0].row.token


# What is over.


def test_a_worker_is_told_of_what_was_dropped_unread() -> None:
    """It is looked for now and then alone."""
    book = PureBook()
    book.ended("t")
    book.turn()
    purged = book.desk.purged
    book.now = START_S + KEEP_S + 0.1
    book.desk.purged = book.now - claims.PURGE_S + 0.1
    assert book.turn().dropped == []
    book.now += 0.1
    assert book.turn().dropped == ["t"]
    assert book.desk.purged == book.now > purged


def test_where_much_is_over_each_step_forgets_some() -> None:
    """Forgetting keeps up with ending."""
    book = PureBook()
    ids = [f"t{number:03}" for number in range(MOST_AT_ONCE + 1)]
    book.add(*ids)
    for claim in (*book.turn(want=1000).claims, *book.turn(want=1).claims):
        book.settle(claim, **WON)
    book.now += KEEP_S + 0.1
    assert [book.turn().dropped, book.turn().dropped] == [ids[:-1], ids[-1:]]


def test_what_was_read_is_forgotten_in_silence() -> None:
    """Somebody has it."""
    book = PureBook()
    book.ended("t")
    book.take(receipt(book.hand(), Ack.DONE))
    book.now += KEEP_S + 0.1
    assert book.turn().dropped == []
    assert book.shelf.row("t") is None


# Boots.


def test_after_a_boot_nobody_has_a_claim() -> None:
    """What was claimed is asked again after a pause; what was not stays as it was."""
    book = PureBook()
    book.add("waits", first_s=99.0)
    overdue(book, "old")
    book.add("new")
    assert keys(book.turn(want=2)) == ["old", "new"]
    book.intend("x", lease_s=40.0)
    before = book.row("waits"), book.row("#x")
    book.now += 10.0
    claims.void_leases(book.shelf, book.now, up_s=5.0)
    assert (book.row("waits"), book.row("#x")) == before
    for key in ("old", "new"):
        row = book.row(key)
        assert (row.token, row.is_new, row.answered) == (0, key == "new", book.now)
        assert row.at == row.due == book.now + LOW_S


@pytest.mark.parametrize(("up_s", "wait_s"), [(5.0, LOW_S - 5.0), (LOW_S, 0.0), (3600.0, 0.0)])
def test_after_a_boot_nothing_starts_within_a_pause_from_it(up_s: float, wait_s: float) -> None:
    """A wall clock that was set may say that all pauses are over: no query has ended since."""
    book = PureBook()
    overdue(book, "old")
    claims.void_leases(book.shelf, book.now, up_s=up_s)
    reply = book.turn(want=9)
    assert keys(reply) == ([] if wait_s else ["old"])
    if wait_s:
        assert reply.next_s == pytest.approx(wait_s - claims.HORIZON_S / 2)
        book.now += wait_s
        assert keys(book.turn(want=9)) == ["old"]


def test_another_pace_does_not_cut_the_pause_after_a_boot_short() -> None:
    """The first worker may bring another policy."""
    book = PureBook(SLOW)
    book.add("t")
    claims.void_leases(book.shelf, book.now, up_s=5.0)
    assert not book.turn(terms=TERMS, want=1).claims
    book.now += LOW_S - 5.0 - claims.HORIZON_S - 0.01
    assert not book.turn(want=1).claims
    book.now += 0.01
    (claim,) = book.turn(want=1).claims
    assert claim.start_s == pytest.approx(claims.HORIZON_S)


def test_a_lease_whose_end_is_near_is_kept_at_a_boot() -> None:
    """It is over sooner than a pause after the boot."""
    book = PureBook()
    book.add("t")
    book.claim()
    book.now += LEASE_S - 5.0
    claims.void_leases(book.shelf, book.now, up_s=5.0)
    assert book.at("t") == 5.0
    assert book.nudge("t")
    assert book.at("t") == 5.0


def test_steps_at_one_moment_have_numbers_that_grow() -> None:
    """No two claims have one token."""
    book = PureBook()
    book.add("a", "b", "c")
    tokens = [claim.row.token for claim in book.turn(want=3).claims]
    assert all(after > before for before, after in pairwise(tokens))


def test_a_book_begins_with_an_overdue_line_behind_it() -> None:
    """The first start of all is a newcomer's, where starts are not lent."""
    assert Desk().line == claims.Line.RESERVED
