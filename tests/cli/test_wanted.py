"""Prompts and journal side by side: what is left to do, and what may still be spent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal

import pytest

from kling_omni_async import (
    ApiError,
    CreateUncertainError,
    ImageOrder,
    ImageTask,
    KlingOmniError,
    PollTimeoutError,
    RateLimitError,
    TaskFailedError,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._cli.intents import Intent, Step, read_intent
from kling_omni_async._cli.journal import Entry, Line
from kling_omni_async._cli.order_journal import Record, Records
from kling_omni_async._cli.wanted import Todo, Wanted, budget_of, match

FOX = ImageOrder("a fox")
POSTING = Intent(external_id="x", step=Step.POSTING, order=FOX, digest="fox", units=8)
CREATED = Intent(external_id="x", step=Step.CREATED, task_id="7")
NOTHING = Intent(external_id="x", step=Step.NOTHING)


def ended(
    error: KlingOmniError | None = None,
    task_id: str = "7",
    status: TaskStatus = TaskStatus.SUCCEED,
    units: str | None = None,
) -> TaskOutcome:
    """Make an outcome of the order."""
    deduction = None if units is None else Decimal(units)
    task = ImageTask(task_id=task_id, status=status, final_unit_deduction=deduction)
    return TaskOutcome(
        task_id=task_id,
        task=task if task_id else None,
        error=error,
        order=FOX,
        external_task_id="x",
    )


UNCERTAIN = ended(CreateUncertainError("?", external_task_id="x"), "")
LATE = ended(PollTimeoutError("late"), status=TaskStatus.PROCESSING)
REFUSED = ended(ApiError("no", http_status=400), "")
FULL = ended(RateLimitError("full", http_status=429), "")
FAILED = ended(TaskFailedError("no"), status=TaskStatus.FAILED)


def recorded(*lines: Intent | TaskOutcome, is_done: bool = True) -> Record:
    """Read lines of a journal."""
    records = Records(lambda _: is_done)
    for line in lines:
        entry = None if isinstance(line, Intent) else Entry(line)
        records.take(Line(0, 0, entry, line if isinstance(line, Intent) else None))
    (record,) = records.by_name.values()
    return record


@pytest.mark.parametrize(
    ("lines", "todo", "reserved", "spent"),
    [
        ([POSTING], Todo.LOOK, 8, "0"),
        ([POSTING, CREATED], Todo.POLL, 8, "0"),
        ([POSTING, NOTHING], Todo.CREATE, 0, "0"),
        ([POSTING, NOTHING, POSTING], Todo.LOOK, 8, "0"),
        ([POSTING, NOTHING, FULL], Todo.CREATE, 0, "0"),
        ([POSTING, NOTHING, REFUSED], Todo.NOTHING, 0, "0"),
        ([POSTING, UNCERTAIN], Todo.LOOK, 8, "0"),
        ([POSTING, UNCERTAIN, CREATED], Todo.POLL, 8, "0"),
        # The first may have been paid for as well as the second.
        ([POSTING, UNCERTAIN, POSTING], Todo.LOOK, 16, "0"),
        ([POSTING, POSTING, CREATED, ended(units="6")], Todo.NOTHING, 8, "6"),
        ([POSTING, CREATED, ended()], Todo.NOTHING, 0, "8"),
        ([POSTING, CREATED, ended(units="6.5")], Todo.NOTHING, 0, "6.5"),
        ([POSTING, CREATED, FAILED], Todo.NOTHING, 0, "8"),
        ([POSTING, CREATED, LATE], Todo.POLL, 0, "8"),
        ([POSTING, CREATED, LATE, ended(units="6")], Todo.NOTHING, 0, "6"),
    ],
)
def test_what_is_left_to_do(
    lines: list[Intent | TaskOutcome], todo: Todo, reserved: int, spent: str
) -> None:
    """Only what is certain to have made nothing is created; units are kept for all doubt."""
    record = recorded(*lines)
    (wanted,) = match([FOX], [record], lambda _: "fox")
    assert (wanted.todo, wanted.external_id) == (todo, "x")
    budget = budget_of(100, [wanted], [record])
    assert (budget.reserved, budget.spent) == (reserved, Decimal(spent))


def test_a_task_whose_images_are_not_here_is_asked_for_again() -> None:
    """Where they were saved somewhere else, or not at all."""
    record = recorded(POSTING, CREATED, ended(), is_done=False)
    assert Wanted(FOX, record=record).todo is Todo.POLL


def test_lines_of_something_else_say_nothing() -> None:
    """A journal of poll has outcomes without an order."""
    record = recorded(POSTING, TaskOutcome(task_id="8", error=TaskFailedError("no")))
    assert record.task_id == ""
    records = Records()
    records.take(Line(0, 0, None, is_later=True))
    assert not records.by_name


def record(name: str, digest: str = "fox", key: str | None = None) -> Record:
    """Make a record of something that is open."""
    return Record(external_id=name, digest=digest, key=key, units=8)


def names(orders: Iterable[ImageOrder], records: Iterable[Record]) -> list[str]:
    """Match, and return the external ids."""
    return [each.external_id for each in match(orders, records, lambda order: order.prompt[2:])]


def test_equal_rows_are_matched_by_their_number() -> None:
    """The first with the first, and one more than before is new; other contents are new."""
    hen = ImageOrder("a hen")
    records = [record("1"), record("2")]
    assert names([FOX, hen, FOX, FOX], records) == ["1", "", "2", ""]


def test_rows_with_a_key_are_matched_by_it() -> None:
    """Wherever they stand; equal contents without it are another wish."""
    one, two = ImageOrder("a fox", key="1"), ImageOrder("a fox", key="2")
    records = [record("x", key="1"), record("y")]
    assert names([two, FOX, one], records) == ["", "y", "x"]


KEYED = ImageOrder("a fox", key="a")
OTHER = ImageOrder("a fox", key="b")


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ([FOX], [KEYED], ["0"]),
        ([KEYED], [FOX], ["0"]),
        ([FOX, FOX], [KEYED, OTHER], ["0", "1"]),
        ([KEYED, OTHER], [FOX, FOX, FOX], ["0", "1", ""]),
        ([FOX], [KEYED, FOX], ["", "0"]),
        ([FOX, KEYED], [OTHER, KEYED], ["0", "1"]),
        ([KEYED, FOX], [FOX, OTHER], ["1", ""]),
        ([KEYED], [OTHER], [""]),
    ],
)
def test_a_column_of_keys_may_come_and_go(
    before: list[ImageOrder], now: list[ImageOrder], found: list[str]
) -> None:
    """A row that was paid for without a key is not paid for again as it has one, nor with one."""
    records = [
        Record(external_id=str(at), digest="fox", key=order.key, units=8)
        for at, order in enumerate(before)
    ]
    wanted = match(now, records, lambda order: order.prompt.removeprefix("a "))
    assert [each.external_id for each in wanted] == found
    assert [each.record.external_id if each.record else "" for each in wanted] == found


def test_a_key_names_what_was_not_paid_for() -> None:
    """A row that made nothing, without a key, is created under the name that its key gives it."""
    free = recorded(POSTING, NOTHING)
    assert [each.record for each in match([KEYED], [free], lambda _: "fox")] == [None]
    refused = recorded(POSTING, NOTHING, REFUSED)
    assert [each.record for each in match([KEYED], [refused], lambda _: "fox")] == [refused]


def test_what_is_created_again_stays_so_until_it_has_ended() -> None:
    """The journal's last word on it is the doubt."""
    wanted = Wanted(FOX, record=recorded(POSTING, UNCERTAIN), is_retry=True)
    assert wanted.todo is Todo.CREATE


@pytest.mark.parametrize("intent", [POSTING, CREATED, NOTHING])
def test_an_intent_is_read_as_it_was_written(intent: Intent) -> None:
    """But for the order, which is there for people."""
    read = read_intent(json.loads(intent.line()))
    assert read == Intent(
        external_id=intent.external_id,
        step=intent.step,
        task_id=intent.task_id,
        digest=intent.digest,
        key=intent.key,
        units=intent.units,
    )


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"intent": []},
        {"intent": "of tomorrow", "external_task_id": "x", "task_id": ""},
        {"intent": "posting", "external_task_id": None, "task_id": ""},
        {"intent": "posting", "external_task_id": "x"},
        {"intent": "posting", "external_task_id": "x", "task_id": "", "digest": 1},
    ],
)
def test_what_is_no_intent_is_none(form: dict[str, object]) -> None:
    """An outcome, a word of a later version, a wrong form."""
    assert read_intent(form) is None
