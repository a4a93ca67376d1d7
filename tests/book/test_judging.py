"""What an answer means for a claim: pure, at times that a test sets."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

import attrs
import pytest

from kling_omni_async import (
    CreateUncertainError,
    ImageTask,
    NoImagesError,
    PollPolicy,
    PollTimeoutError,
    RateLimitError,
    ResponseError,
    ServerError,
    TaskImage,
    TaskNotFoundError,
    TaskOutcome,
    TaskStatus,
    TransportError,
)
from kling_omni_async._book.contract import Claim, Doubt, Lesson, Row, Said, Settle, Terms
from kling_omni_async._book.forms import task_to_json
from kling_omni_async._book.judging import Held, Judge, Judged, Query, aged, cut, hold, unasked

POLICY: Final = PollPolicy(timing="uniform", timeout=100.0)
QUERY: Final = Query(started=50.0, ended=51.0)
BOOK_S: Final = 1000.0
"""The time of the book when the loop's clock shows 0."""


def task(status: TaskStatus = TaskStatus.PROCESSING, **fields: Any) -> ImageTask:
    """Make a task as an answer describes it."""
    images = (TaskImage(url="https://x.example/1.png"),) if status is TaskStatus.SUCCEED else ()
    return ImageTask(**{"task_id": "1", "status": status, "images": images, **fields})


def held(**fields: Any) -> Held:
    """Make a claim of an id as its worker holds it, at 40 s of the loop."""
    row = Row("1", token=7, added=BOOK_S, **fields)
    return hold(Claim(row, 0.0), BOOK_S + 40.0, 40.0)


def judged(claim: Held, reply: Any, query: Query = QUERY, **policy: Any) -> Judged:
    """Judge a reply by a policy."""
    judge = Judge(attrs.evolve(POLICY, **policy), Random(1))
    return judge.judge(claim, reply, query, None, ())


def outcome_in(settle: Settle) -> TaskOutcome:
    """Return the outcome that a settle brings."""
    assert settle.outcome is not None
    return TaskOutcome.from_dict(json.loads(settle.outcome))


def test_a_task_that_is_worked_on_waits_for_its_pause() -> None:
    """A pending answer is kept with its task, and the id is due within the interval."""
    result = judged(held(), task())
    settle = result.settle
    assert (settle.key, settle.token, settle.said) == ("1", 7, Said.PENDING)
    assert (settle.started_ago, settle.ended_ago) == (1.0, 0.0)
    assert 20.0 <= settle.pause_s <= 30.0
    assert settle.is_task
    assert settle.is_readable
    assert settle.task == task_to_json(task())
    assert result.outcome is None


def test_a_task_that_has_not_changed_is_not_written_again() -> None:
    """The same status as before leaves what the book keeps as it is."""
    settle = judged(held(task=task_to_json(task())), task()).settle
    assert settle.is_task
    assert settle.task is None


def test_a_success_is_a_word_of_the_api() -> None:
    """A finished task ends its id: a word that counts whoever holds the claim by then."""
    result = judged(held(queries=2, external_id="ext"), task(TaskStatus.SUCCEED))
    settle = result.settle
    assert settle.said is Said.FINAL
    assert (settle.count, settle.is_settled, settle.is_word) == ("succeeded", True, True)
    outcome = outcome_in(settle)
    assert outcome.ok
    assert (outcome.queries, outcome.external_task_id) == (3, "ext")
    assert outcome.elapsed == 51.0


def test_not_found_is_believed_when_it_was_said_before() -> None:
    """The doubt of the book counts on, a pause apart, and then the id ends, by no word of ours."""
    missing = TaskNotFoundError("no", http_status=400, task_id="1")
    first = judged(held(), missing).settle
    assert (first.said, first.doubt) == (Said.DOUBT, ("TaskNotFoundError", 1, 0.0))
    assert first.is_not_found
    doubt = Doubt("TaskNotFoundError", 1, BOOK_S + 20.0)
    second = judged(held(doubt=doubt), missing).settle
    assert (second.said, second.count, second.is_word) == (Said.FINAL, "unresolved", False)
    early = Doubt("TaskNotFoundError", 1, BOOK_S + 45.0)
    assert judged(held(doubt=early), missing).settle.doubt == ("TaskNotFoundError", 1, 6.0)


def test_a_success_without_images_is_doubted_too() -> None:
    """A task without one usable image is asked again before that is believed."""
    bare = task(TaskStatus.SUCCEED, images=())
    settle = judged(held(), bare).settle
    assert settle.doubt == ("NoImagesError", 1, 0.0)
    doubt = Doubt("NoImagesError", 1, BOOK_S)
    again = judged(held(doubt=doubt), bare)
    assert again.outcome is not None
    assert isinstance(again.outcome.error, NoImagesError)


def test_what_was_seen_is_never_not_found() -> None:
    """For an id that was a task once, "not found" is a fault, and its doubt stays as it was."""
    missing = TaskNotFoundError("no", http_status=400, task_id="1")
    doubt = Doubt("TaskNotFoundError", 1, BOOK_S)
    settle = judged(held(seen=BOOK_S, doubt=doubt), missing).settle
    assert settle.said is Said.FAULT
    assert settle.doubt == ("TaskNotFoundError", 1, 51.0)


def test_an_id_is_given_up_behind_its_deadline() -> None:
    """A query that ended behind the deadline gives an id up, with what was seen and met last."""
    fault = TransportError("no answer", task_id="1")
    known = held(first=BOOK_S - 60.0, task=task_to_json(task()))
    result = judged(known, fault)
    assert result.outcome is not None
    error = result.outcome.error
    assert isinstance(error, PollTimeoutError)
    assert isinstance(error.last_error, TransportError)
    assert error.task == task()
    assert not result.outcome.settled
    assert "no final answer in 111.0 s" in str(error)
    assert not result.settle.is_word


@pytest.mark.parametrize(("first", "least", "most"), [(-28.0, 21.0, 21.0), (-48.5, 20.0, 20.0)])
def test_a_look_is_due_at_the_deadline(first: float, least: float, most: float) -> None:
    """Before its deadline an id is due then at the latest, and never before its shortest pause."""
    settle = judged(held(first=BOOK_S + first), task(), interval=(20.0, 30.0)).settle
    assert least <= settle.pause_s <= most


def test_without_a_time_limit_nothing_is_given_up() -> None:
    """`timeout=None` asks for ever."""
    assert judged(held(first=0.0), task(), timeout=None).settle.said is Said.PENDING


def test_a_429_asks_the_book_to_pause() -> None:
    """A 429 brings what it asks for, and the jitter of a backoff from the worker's own chance."""
    settle = judged(held(), RateLimitError("slow", http_status=429, retry_after=9.0)).settle
    assert (settle.is_limited, settle.limit_s) == (True, 9.0)
    assert 1.0 <= settle.jitter <= 1.5
    assert settle.said is Said.FAULT
    assert settle.fault is not None


def test_an_answer_about_another_claim_is_none() -> None:
    """An answer that names another id that this worker holds is no answer of the API."""
    judge = Judge(POLICY, Random(1))
    stray = task(TaskStatus.SUCCEED, raw={"task_id": "2", "task_status": "succeed"})
    result = judge.judge(held(), stray, QUERY, None, {"2"})
    assert isinstance(result.decision.reply, ResponseError)
    assert result.settle.said is Said.FAULT
    assert judge.judge(held(), stray, QUERY, None, {"3"}).settle.said is Said.FINAL


def test_what_the_book_knows_goes_with_the_claim() -> None:
    """Fault, status, birth and last look of a row are those of the entry that is polled."""
    fault = '{"type": "ServerError", "message": "down", "http_status": 502}'
    known = held(fault=fault, task=task_to_json(task()), born=BOOK_S - 5.0, looked=BOOK_S + 3.0)
    entry = known.entry
    assert isinstance(entry.fault, ServerError)
    assert entry.status is TaskStatus.PROCESSING
    assert (entry.born, entry.looked) == (-5.0, 3.0)
    assert held(born=BOOK_S - 5.0).entry.looked == -5.0


def test_an_end_teaches_how_long_tasks_take() -> None:
    """An end of an id of known age is a lesson for all workers; one that others had is learned."""
    judge = Judge(PollPolicy(), Random(1))
    known = held(born=BOOK_S, looked=BOOK_S + 20.0, kind="k")
    settle = judge.judge(known, task(TaskStatus.SUCCEED), QUERY, None, ()).settle
    assert settle.lesson == ("k", 20.0, 51.0, None)
    before = judge.timing.left_s(0.0, "k")
    judge.learn([Lesson(number, "k", 60.0, 61.0, None) for number in range(1, 40)])
    assert judge.taught == 39
    after = judge.timing.left_s(0.0, "k")
    assert before is not None
    assert after is not None
    assert after > before


def test_the_lessons_of_a_book_that_has_lost_all_are_learned() -> None:
    """Their numbers begin anew, and none of them is taken for one that is known."""
    judge = Judge(PollPolicy(), Random(1))
    judge.learn([Lesson(500, "k", 20.0, 21.0, None)])
    judge.learn_anew()
    assert judge.taught == 0
    known = judge.timing.left_s(0.0, "k")
    judge.learn([Lesson(1, "k", 60.0, 61.0, None)])
    assert judge.taught == 1
    assert judge.timing.left_s(0.0, "k") != known


def test_the_terms_of_the_book_are_adopted() -> None:
    """A change of the policy in force is one of the pauses; what was learned is learned anew."""
    judge = Judge(POLICY, Random(1))
    judge.setup.heard = True
    judge.learn([Lesson(5, "", 10.0, 20.0, None)])
    same = Terms(POLICY.interval, POLICY.max_rate, POLICY.confirmations, POLICY.timeout)
    judge.adopt(same)
    assert judge.taught == 5
    judge.adopt(attrs.evolve(same, interval=(50.0, 60.0), confirmations=5))
    assert judge.taught == 0
    assert judge.setup.heard
    assert judge.policy.confirmations == 5
    settle = judge.judge(held(), task(), QUERY, None, ()).settle
    assert 50.0 <= settle.pause_s <= 60.0


def intent(looks: int = 0, **fields: Any) -> Held:
    """Make the claim of an intent that some looks have not found."""
    doubt = Doubt("TaskNotFoundError", looks, BOOK_S) if looks else None
    row = Row("#ext", token=7, added=BOOK_S, external_id="ext", doubt=doubt, **fields)
    return hold(Claim(row, 0.0), BOOK_S + 40.0, 40.0)


def looked(claim: Held, found: Any) -> Settle:
    """Return what a look at an intent brings."""
    return Judge(POLICY, Random(1)).judge_intent(claim, found, QUERY).settle


def test_an_intent_that_made_a_task_is_found() -> None:
    """What was found is brought as the task that it is."""
    settle = looked(intent(), task())
    assert (settle.said, settle.task_id, settle.task) == (Said.FOUND, "1", task_to_json(task()))
    assert settle.started_ago == 1.0


def test_an_intent_is_looked_for_three_times() -> None:
    """Two looks that find nothing prove nothing; after the third its end is called unknown."""
    second = looked(intent(1), None)
    assert (second.said, second.doubt) == (Said.DOUBT, ("TaskNotFoundError", 2, 0.0))
    settle = looked(intent(2), None)
    assert (settle.said, settle.count, settle.is_settled) == (Said.FINAL, "unresolved", False)
    outcome = outcome_in(settle)
    assert outcome.task_id == ""
    assert isinstance(outcome.error, CreateUncertainError)
    assert outcome.error.external_task_id == "ext"


def test_a_look_that_met_a_fault_is_none() -> None:
    """A look that met a fault says nothing of an intent; its time ends it all the same."""
    settle = looked(intent(2, first=BOOK_S), TransportError("no"))
    assert settle.said is Said.FAULT
    assert not settle.is_readable
    assert 20.0 <= settle.pause_s <= 30.0
    assert looked(intent(first=BOOK_S - 60.0), TransportError("no")).said is Said.FINAL


def test_what_is_given_back() -> None:
    """A claim that was not asked goes back as it was; a query that was cut off costs a pause."""
    assert unasked(held()) == Settle(key="1", token=7, said=Said.UNASKED)
    assert cut(held(), 20.0) == Settle(key="1", token=7, said=Said.CUT, pause_s=20.0)


def test_a_settle_grows_older_until_it_is_sent() -> None:
    """All spans of a settle count back from the moment of sending."""
    settle = Settle(
        key="1",
        token=7,
        said=Said.DOUBT,
        started_ago=1.0,
        doubt=("TaskNotFoundError", 1, 3.0),
        born_ago=50.0,
        pause_s=20.0,
    )
    later = aged(settle, 10.0)
    assert (later.started_ago, later.ended_ago, later.born_ago) == (11.0, 10.0, 60.0)
    assert later.doubt == ("TaskNotFoundError", 1, 13.0)
    assert later.pause_s == 20.0
    bare = aged(unasked(held()), 10.0)
    assert (bare.doubt, bare.born_ago) == (None, None)
