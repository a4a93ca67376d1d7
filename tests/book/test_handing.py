"""One step of a reader, rule by rule, without a store."""

from __future__ import annotations

import pytest

from kling_omni_async._book import handing
from kling_omni_async._book.contract import (
    FAR,
    MOST_AT_ONCE,
    Ack,
    Member,
    Parcel,
    Receipt,
    State,
    Taken,
)
from kling_omni_async._book.handing import AGAIN_S, MOST_DELIVERIES
from kling_omni_async._book.memory import READER_S

from .pure import GAVE_UP, KEEP_S, START_S, WON, PureBook, receipt


def ended(*keys: str) -> PureBook:
    """Return a book in which ids have ended, one a second."""
    book = PureBook()
    for key in keys:
        book.ended(key)
        book.now += 1.0
    return book


def taken(reply: Taken) -> list[str]:
    """Return which outcomes were given, in order."""
    return [parcel.key for parcel in reply.parcels]


# Handing out.


def test_an_outcome_is_handed_out_with_all_that_belongs_to_it() -> None:
    """Its note, its order, the number of its end, and how often it was handed out."""
    book = PureBook()
    book.intend("x", note="1", order="2")
    book.created("x", "t")
    book.settle(book.claim(), **WON)
    book.now += 1.0
    assert book.take(want=1, is_handed=True).parcels == (
        Parcel("t", book.row("t").number, "{}", "1", "2", 1),
    )
    row = book.row("t")
    assert (row.holder, row.at, row.handed) == ("r", FAR, book.now)
    assert row.state is State.UNREAD


def test_an_outcome_may_be_held_before_it_is_handed_out() -> None:
    """Such as while its images are saved: it counts as handed out when that is said, once."""
    book = ended("t")
    (parcel,) = book.take(want=1).parcels
    assert parcel.deliveries == 0
    assert book.row("t").handed is None
    for _ in range(2):
        book.take(receipt(parcel, Ack.HANDED))
        row = book.row("t")
        assert (row.deliveries, row.handed, row.holder) == (1, START_S + 1.0, "r")
        book.now += 5.0


def test_outcomes_come_in_order_of_their_end_to_one_reader_each() -> None:
    """As many as are wanted, and at most what a step carries."""
    book = ended("b", "a", "c")
    assert taken(book.take()) == []
    assert taken(book.take(want=2)) == ["b", "a"]
    assert taken(book.take(want=2, reader="other")) == ["c"]
    assert book.take(want=9).parcels == ()
    many = PureBook()
    many.add(*(str(number) for number in range(MOST_AT_ONCE + 1)))
    for claim in (*many.turn(want=1000).claims, *many.turn(want=1).claims):
        many.settle(claim, **WON)
    assert len(many.take(want=1000).parcels) == MOST_AT_ONCE


def test_outcomes_of_one_moment_come_in_order_of_their_end() -> None:
    """Not of their ids, nor of their coming."""
    book = PureBook()
    book.add("a", "b")
    a, b = book.turn(want=2).claims
    book.settle(b, **WON)
    book.settle(a, **WON)
    assert taken(book.take(want=2)) == ["b", "a"]


def test_a_reader_learns_when_there_may_be_more() -> None:
    """At once, after a pause, or not before something ends; what others hold is not counted."""
    book = ended("a", "b")
    assert book.take(want=1, is_handed=True).next_s == 0.0
    assert book.take(want=1, is_handed=True, reader="other").next_s is None
    a = Receipt("a", book.row("a").number, Ack.FAILED)
    assert book.take(a).next_s == 1.0
    book.now += 0.25
    assert book.take().next_s == 0.75
    book.now += 5.0
    assert book.take().next_s == 0.0
    assert PureBook().take().next_s is None


def test_a_book_is_empty_where_nothing_is_open_and_nothing_unread() -> None:
    """What is held is unread still; what was parked or read is not."""
    book = PureBook()
    assert book.take().is_empty
    book.add("t")
    assert not book.take().is_empty
    book.settle(book.claim(), **WON)
    assert not book.take().is_empty
    parcel = book.hand()
    assert not book.take(reader="other").is_empty
    assert book.take(receipt(parcel, Ack.DONE)).is_empty


def test_a_book_knows_whether_somebody_has_asked_for_its_outcomes() -> None:
    """Workers tell it in their log: outcomes that nobody reads are a mistake."""
    book = PureBook()
    book.add("t")
    assert not book.turn().is_read
    book.take(want=1)
    turned = book.turn()
    assert (turned.is_read, turned.now) == (True, book.now)


def test_a_reader_is_known_until_it_leaves() -> None:
    """Its last step and its time are kept; who leaves gets nothing more."""
    book = ended("t")
    book.take(seq=41)
    assert book.shelf.member("r") == Member("r", "reader", 41, book.now)
    reply = book.take(seq=42, want=1, is_leaving=True)
    assert reply == Taken(next_s=0.0, parked=[], lost=[])
    assert book.shelf.member("r") is None
    assert book.row("t").holder is None


@pytest.mark.parametrize("seq", [40, 41])
def test_a_step_that_comes_late_again_changes_nothing(seq: int) -> None:
    """It was made, or its reader has gone on without it."""
    book = ended("t", "u")
    parcel = book.hand()
    book.take(seq=41)
    assert book.take(receipt(parcel, Ack.DONE), seq=seq, want=1) == Taken()
    assert book.row("t").state is State.UNREAD
    assert book.row("u").holder is None
    assert taken(book.take(want=1, seq=42)) == ["u"]


def test_a_book_that_lacks_a_step_gives_again_what_the_reader_has() -> None:
    """A failover lost what was acknowledged with that step: it comes again, to the same reader."""
    book = ended("t", "u", "v")
    assert taken(book.take(want=2, is_handed=True)) == ["t", "u"]
    last = book.shelf.member("r")
    assert last is not None
    after = last.seq + 5
    assert taken(book.take(want=2, seq=after + 1, after=after)) == ["t", "u"]
    assert [book.row(key).deliveries for key in ("t", "u", "v")] == [1, 1, 0]
    assert taken(book.take(want=2, seq=after + 2, after=after + 1)) == ["v"]
    assert taken(book.take(want=2, seq=after + 9, after=after + 8, is_leaving=True)) == []


def test_the_time_of_a_reader_never_runs_back() -> None:
    """An outcome counts as handed out at the latest time that was seen."""
    book = ended("t")
    book.now = START_S
    book.turn()
    book.now = START_S - 50.0
    book.hand()
    assert book.row("t").handed == START_S
    assert book.shelf.member("r") == Member("r", "reader", 5, START_S)


# Receipts.


def test_an_acknowledged_outcome_is_read_and_kept_for_its_time() -> None:
    """It comes out no more; its time runs from its end."""
    book = ended("t")
    parcel = book.hand()
    book.now += 9.0
    book.take(receipt(parcel, Ack.DONE))
    row = book.row("t")
    assert (row.state, row.holder, row.handed) == (State.READ, None, None)
    assert row.at == START_S + KEEP_S
    assert (row.deliveries, row.outcome) == (1, "{}")
    assert book.take(want=1).parcels == ()
    assert (book.desk.unread, book.desk.succeeded) == (0, 1)


def test_an_outcome_is_acknowledged_by_whoever_has_handled_it() -> None:
    """Also where another one has it by now, or where it was parked meanwhile."""
    book = ended("t", "p")
    t = book.hand("slow")
    p = book.hand("slow")
    book.take(receipt(t, Ack.BACK), reader="slow")
    book.hand("other")
    row = book.row("p")
    row.deliveries = MOST_DELIVERIES
    book.shelf.put(row)
    assert book.take(receipt(p, Ack.FAILED), reader="slow").parked == ["p"]
    book.take(receipt(t, Ack.DONE), receipt(p, Ack.DONE), reader="slow")
    assert book.row("t").state is book.row("p").state is State.READ
    assert book.row("p").at == START_S + 1.0 + KEEP_S
    assert (book.desk.unread, book.desk.parked) == (0, 0)


@pytest.mark.parametrize("ack", list(Ack))
def test_a_receipt_of_what_is_no_more_unread_changes_nothing(ack: Ack) -> None:
    """Doubled, of another end of the same id, of a removed one, or of a stranger."""
    book = PureBook()
    book.ended("done")
    book.ended("again", **GAVE_UP, is_settled=False)
    book.ended("gone")
    done, again, gone = book.take(want=3, is_handed=True).parcels
    book.take(receipt(done, Ack.DONE))
    book.retry("again")
    book.remove("gone")
    before = [book.row(key) for key in ("done", "again", "gone")]
    receipts = [receipt(each, ack) for each in (done, again, gone)]
    stranger = Receipt("stranger", done.number, ack)
    assert book.take(*receipts, stranger).parked == []
    assert [book.row(key) for key in ("done", "again", "gone")] == before
    book.now += 50.0
    book.settle(book.claim(), **WON)
    (new,) = book.take(want=1).parcels
    before = [book.row("again")]
    book.take(receipt(again, ack))
    assert [book.row("again")] == before
    assert new.number > again.number


@pytest.mark.parametrize("ack", [Ack.HANDED, Ack.BACK, Ack.FAILED])
def test_only_the_reader_that_has_an_outcome_may_give_it_back(ack: Ack) -> None:
    """One that was taken for dead has it no more."""
    book = ended("t")
    parcel = book.hand("slow")
    book.take(receipt(parcel, Ack.BACK), reader="slow")
    book.take(reader="other", want=1)
    before = book.row("t")
    assert book.take(receipt(parcel, ack), reader="slow").parked == []
    assert book.row("t") == before


def test_what_is_given_back_stands_in_its_old_place() -> None:
    """As if it had not been handed out: at once, and without being counted."""
    book = ended("a", "b")
    handed = book.hand()
    (held,) = book.take(want=1).parcels
    book.take(receipt(held, Ack.BACK), receipt(handed, Ack.BACK))
    for key, since in (("a", START_S), ("b", START_S + 1.0)):
        row = book.row(key)
        assert (row.holder, row.handed, row.deliveries, row.at) == (None, None, 0, since)
    assert taken(book.take(want=2)) == ["a", "b"]


def test_what_failed_comes_again_after_growing_pauses_and_is_parked_at_last() -> None:
    """Counted from the hand-out; others pass by, and it is said which one was parked."""
    book = ended("t")
    assert AGAIN_S[0] == 1.0
    assert len(AGAIN_S) == MOST_DELIVERIES - 1 == 9
    for number, pause_s in enumerate(AGAIN_S, start=1):
        parcel = book.hand()
        assert parcel.deliveries == number
        handed = book.now
        book.now += 0.5
        assert book.take(receipt(parcel, Ack.FAILED)).parked == []
        row = book.row("t")
        assert (row.holder, row.handed, row.at) == (None, None, handed + pause_s)
        book.now = handed + pause_s - 0.01
        assert book.take(want=1).parcels == ()
        book.now = handed + pause_s
    parcel = book.hand()
    assert parcel.deliveries == MOST_DELIVERIES
    assert book.take(receipt(parcel, Ack.FAILED)).parked == ["t"]
    row = book.row("t")
    assert (row.state, row.at, row.holder, row.handed) == (State.PARKED, FAR, None, None)
    assert book.take(want=1, reader="other").parcels == ()
    assert (book.desk.unread, book.desk.parked, book.desk.succeeded) == (0, 1, 1)
    assert book.take().is_empty


def test_a_pause_is_counted_from_now_where_nothing_was_handed_out() -> None:
    """Such as where saving failed by a defect; it costs the first pause."""
    book = ended("t")
    (parcel,) = book.take(want=1).parcels
    book.now += 5.0
    book.take(receipt(parcel, Ack.FAILED))
    assert book.at("t") == 1.0
    assert book.row("t").deliveries == 0


def test_a_failed_outcome_lets_others_pass() -> None:
    """A poison outcome at the head holds nobody back."""
    book = ended("poison", "b")
    parcel = book.hand()
    assert taken(book.take(receipt(parcel, Ack.FAILED), want=2)) == ["b"]


def test_a_reader_learns_what_it_does_not_have_any_more() -> None:
    """What was removed, has ended anew, or went to another is not to be handed out."""
    book = PureBook()
    for key in ("kept", "gone", "again", "theirs"):
        book.ended(key, is_settled=key != "again")
    parcels = book.take(want=4).parcels
    book.remove("gone")
    book.retry("again")
    book.now += READER_S + 1.0
    book.settle(book.claim(), **WON)
    book.take(reader="other", want=4)
    book.take(Receipt("kept", book.row("kept").number, Ack.BACK), reader="other")
    book.take(want=1)
    handed = [receipt(parcel, Ack.HANDED) for parcel in parcels]
    assert book.take(*handed).lost == ["gone", "again", "theirs"]
    others = [receipt(parcel, Ack.BACK) for parcel in parcels]
    assert book.take(*others).lost == []


def test_a_reader_learns_of_which_api_the_book_is() -> None:
    """Images are fetched by the rules of that one."""
    book = PureBook()
    assert book.take().origin is None
    book.turn(origin="https://api.example")
    assert book.take().origin == "https://api.example"


# Readers that go.


def test_a_reader_that_leaves_gives_all_back() -> None:
    """What it has not handed out at once, what it has after its pause."""
    book = ended("a", "b", "c")
    book.hand()
    book.take(want=1)
    book.hand("other")
    book.now += 0.25
    handed = book.row("a").handed
    assert handed is not None
    book.take(is_leaving=True)
    a, b, c = (book.row(key) for key in ("a", "b", "c"))
    assert (a.holder, a.deliveries, a.at) == (None, 1, handed + 1.0)
    assert (b.holder, b.deliveries, b.at) == (None, 0, START_S + 1.0)
    assert c.holder == "other"


def test_a_receipt_counts_before_its_reader_leaves() -> None:
    """What it acknowledges with its last step does not come again."""
    book = ended("t")
    parcel = book.hand()
    book.take(receipt(parcel, Ack.DONE), is_leaving=True)
    assert book.row("t").state is State.READ


def test_a_tenth_delivery_that_nobody_acknowledges_is_parked_when_its_reader_goes() -> None:
    """Whether it leaves or dies."""
    for is_leaving in (True, False):
        book = ended("t")
        row = book.row("t")
        row.deliveries = MOST_DELIVERIES - 1
        book.shelf.put(row)
        book.hand("r")
        if is_leaving:
            reply = book.take(reader="r", is_leaving=True)
        else:
            book.now += READER_S + 1.0
            reply = book.take(reader="other")
        assert reply.parked == ["t"]
        assert book.row("t").state is State.PARKED


def test_what_a_dead_reader_has_goes_to_others() -> None:
    """It is found dead by the next one who steps, who may get it at once."""
    book = ended("a", "b")
    book.hand("dead")
    book.take(reader="dead", want=1)
    handed = book.row("a").handed
    assert handed is not None
    book.now += READER_S
    assert book.take(want=2).parcels == ()
    book.now += 0.1
    assert taken(book.take(want=2)) == ["b", "a"]
    assert book.shelf.member("dead") is None
    assert book.row("a").deliveries == 1


def test_a_reader_that_stood_still_keeps_what_nobody_took() -> None:
    """It is not dead to itself."""
    book = ended("t")
    parcel = book.hand()
    book.now += READER_S + 100.0
    book.take()
    assert book.row("t").holder == "r"
    book.take(receipt(parcel, Ack.HANDED))
    assert book.row("t").deliveries == 1


def test_an_outcome_whose_reader_has_gone_is_nobodys() -> None:
    """It was to have it alone, and left before the end."""
    book = PureBook()
    book.take(reader="own")
    book.add("t", holder="own")
    book.take(reader="own", is_leaving=True)
    assert book.row("t").holder == "own"
    book.settle(book.claim(), **WON)
    assert (book.row("t").holder, book.at("t")) == (None, 0.0)


def test_an_outcome_for_one_reader_waits_for_it() -> None:
    """Nobody else gets it; released it is given back as it was, also when it was handed out."""
    book = PureBook()
    book.take(reader="own")
    book.add("t", holder="own")
    book.settle(book.claim(), **WON)
    row = book.row("t")
    assert (row.holder, row.at) == ("own", FAR)
    book.take(Receipt("t", row.number, Ack.HANDED), reader="own")
    assert book.row("t").deliveries == 1
    book.take(reader="own", release=["t"])
    row = book.row("t")
    assert (row.holder, row.handed, row.deliveries, row.at) == (None, None, 0, row.ended)


def test_workers_are_no_readers() -> None:
    """Whoever is silent among them is left to the workers."""
    book = ended("t")
    book.now += READER_S * 1000
    book.take()
    assert book.shelf.member("w") is not None


def test_a_reader_that_lives_keeps_what_it_has() -> None:
    """However long it needs, as long as it is heard of."""
    book = ended("t")
    book.hand("slow")
    for _ in range(10):
        book.now += READER_S
        book.take(reader="slow")
        assert book.take(want=1).parcels == ()


def test_outcomes_that_are_parked_in_one_step_are_all_named() -> None:
    """Those of dead readers, of receipts, and of who leaves."""
    book = ended("a", "b", "c")
    for reader in ("dead", "r", "r"):
        book.hand(reader)
    for key in ("a", "b", "c"):
        row = book.row(key)
        row.deliveries = MOST_DELIVERIES
        book.shelf.put(row)
    book.now += READER_S + 1.0
    failed = Receipt("b", book.row("b").number, Ack.FAILED)
    assert book.take(failed, is_leaving=True).parked == ["a", "b", "c"]


def test_pauses_grow_to_five_minutes() -> None:
    """As the docs say."""
    assert handing.AGAIN_S == (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 300.0)
