"""What is known of tasks beside queries: own creates and callbacks that are waited for."""

from __future__ import annotations

from kling_omni_async import ImageTask, TaskStatus
from kling_omni_async._polling.hints import MOST_MISSED, MOST_OWN, OWN_FOR_S, Expected, OwnTasks


def task_of(task_id: str) -> ImageTask:
    """Make a task that was just created."""
    return ImageTask(task_id=task_id, status=TaskStatus.SUBMITTED)


def test_own_tasks_are_remembered_for_an_hour() -> None:
    """Up to the hour, and not at it."""
    own = OwnTasks()
    assert own.number == 0
    assert own.get("a", 100.0) is None
    own.add(task_of("a"), 100.0, "1k")
    assert own.number == 1
    found = own.get("a", 100.0 + OWN_FOR_S - 1)
    assert found is not None
    assert (found.created, found.kind, found.task.task_id) == (100.0, "1k", "a")
    assert not found.is_nudged
    assert own.get("b", 101.0) is None
    assert own.get("a", 100.0 + OWN_FOR_S) is None
    assert own.number == 0
    assert own.get("a", 0.0) is None


def test_own_tasks_are_bounded() -> None:
    """The oldest goes first, and one that is added again is the youngest."""
    own = OwnTasks()
    for number in range(MOST_OWN):
        own.add(task_of(str(number)), 0.0, None)
    own.add(task_of("0"), 1.0, None)
    assert own.number == MOST_OWN
    own.add(task_of("more"), 1.0, None)
    assert own.number == MOST_OWN
    assert own.get("1", 1.0) is None
    assert own.get("0", 1.0) is not None


def missed(expected: Expected, *, ended: bool = True) -> bool:
    """Let a callback be missed."""
    expected.add("a", 60.0)
    return expected.answered("a", ended=ended, started=60.0)


def test_after_three_in_a_row_no_callback_is_waited_for() -> None:
    """It is said once, at the third."""
    expected = Expected()
    assert [missed(expected) for _ in range(MOST_MISSED)] == [False, False, True]
    assert not expected.comes
    assert not missed(expected)


def test_one_that_came_makes_good_for_those_before() -> None:
    """Only misses in a row count."""
    expected = Expected()
    assert not missed(expected)
    assert not missed(expected)
    expected.add("b", 60.0)
    assert expected
    expected.nudged("b")
    assert not expected
    assert not missed(expected)
    assert expected.comes


def test_a_task_that_had_not_ended_has_missed_nothing() -> None:
    """Where there was no final status, no callback was due."""
    expected = Expected()
    assert not any(missed(expected, ended=False) for _ in range(9))
    assert expected.comes


def test_an_id_that_nobody_expects_counts_for_nothing() -> None:
    """Answers to other ids change nothing, and who was dropped is waited for no longer."""
    expected = Expected()
    expected.add("a", 60.0)
    expected.discard("a")
    assert not any(expected.answered("a", ended=True, started=60.0) for _ in range(9))
    assert expected.comes


def test_who_was_asked_for_sooner_has_missed_nothing() -> None:
    """Somebody else wanted to know; the callback had still time to come."""
    expected = Expected()
    for _ in range(9):
        expected.add("a", 60.0)
        assert not expected.answered("a", ended=True, started=59.0)
        assert not expected
    assert expected.comes


def test_the_earliest_end_counts() -> None:
    """Of two who expect one callback, the less patient one is the first to have missed it."""
    expected = Expected()
    for _ in range(MOST_MISSED):
        expected.add("a", 90.0)
        expected.add("a", 60.0)
        expected.add("a", 120.0)
        expected.answered("a", ended=True, started=60.0)
    assert not expected.comes


def test_after_one_that_came_three_more_have_to_be_missed() -> None:
    """What was missed before it counts no more."""
    expected = Expected()
    assert [missed(expected) for _ in range(MOST_MISSED - 1)] == [False, False]
    expected.nudged("b")
    assert [missed(expected) for _ in range(MOST_MISSED)] == [False, False, True]
