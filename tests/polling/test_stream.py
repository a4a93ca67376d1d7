"""The inside of a stream: its input, its ids, their deadlines, and its end."""

# What is kept is only visible inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

from kling_omni_async import (
    ApiError,
    AuthenticationError,
    ImageTask,
    InvalidTaskIdError,
    KlingOmniError,
    Progress,
    TaskFailedError,
    TaskImage,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._polling.inputs import read_input
from kling_omni_async._polling.limits import NEVER
from kling_omni_async._polling.stream import (
    Deadlines,
    IdState,
    Intake,
    Phase,
    StreamState,
    StreamWaiter,
    TaskIds,
)
from kling_omni_async._polling.verdicts import Verdict, VerdictKind, verdict_on
from kling_omni_async._polling.waiters import Alarms, Entry, Waiter
from kling_omni_async._results import End, Outlet

from .scripted import PENDING
from .scripted import SUCCEED as SUCCEED_ANSWER

pytestmark = pytest.mark.anyio

SUCCEED = ImageTask(
    task_id="a", status=TaskStatus.SUCCEED, images=(TaskImage(url="https://img.example/0.png"),)
)
DEFECT = ZeroDivisionError("a defect")
REFUSAL = ApiError("no such model")
NO_KEY = AuthenticationError("no")


async def feed() -> AsyncIterator[str]:
    """Be a source that is read by hand here."""
    yield "never"


def new_stream(
    source: TaskIds = (), *, timeout: float | None = None, most_pending: int = 9
) -> StreamState:
    """Make the inside of a stream whose input is being read."""
    stream = StreamState(source, timeout=timeout, outlet=Outlet(), most_pending=most_pending)
    stream.begin()
    return stream


def outcome(task_id: str, error: KlingOmniError | None = None) -> TaskOutcome:
    """Make an outcome."""
    return TaskOutcome(task_id=task_id, task=SUCCEED, error=error)


def give(stream: StreamState, *given: object) -> list[StreamWaiter]:
    """Read and add what an input gives, as the watchlist does; return who waits for it."""
    ids = [task_id for each in given if (task_id := stream.read(each)) is not None]
    waiters = [stream.add(task_id, 0.0) for task_id in ids]
    for task_id, waiter in zip(ids, waiters, strict=True):
        Entry(task_id).join(waiter)
    return waiters


def finish(stream: StreamState, *task_ids: str) -> None:
    """Pass outcomes on for ids that are polled."""
    for task_id in task_ids:
        stream.finished(outcome(task_id))


async def take(stream: StreamState) -> str:
    """Hand an outcome out, as a step of the stream does; return its id."""
    found = await stream.outlet.take()
    stream.handed_out(found)
    return found.task_id


def pending(stream: StreamState) -> dict[str, object]:
    """Return what is not handed out, with how far each id is."""
    stream.know_all()
    return {
        task_id: "waits" if isinstance(state, Waiter) else state
        for task_id, state in stream.ids.items()
    }


UNREAD, DONE = IdState.UNREAD, IdState.DONE


# Intake: where the ids come from.


class Breaking:
    """A sized container whose iteration breaks off."""

    def __len__(self) -> int:
        return 3

    def __contains__(self, task_id: object) -> bool:
        return False

    def __iter__(self) -> Iterator[str]:
        yield "a"
        yield "b"
        raise LookupError("the page has gone")


class SizedFeed:
    """A feed that has a length: it is read like a feed."""

    def __len__(self) -> int:
        return 1

    def __contains__(self, task_id: object) -> bool:
        return False

    def __iter__(self) -> Iterator[str]:
        yield "a"

    def __aiter__(self) -> AsyncIterator[str]:
        return feed()


@pytest.mark.parametrize(
    ("source", "is_feed", "is_bounded"),
    [
        (["a"], False, True),
        ({"a": 1}.keys(), False, True),
        (iter(["a"]), False, False),
        (feed(), True, False),
        (SizedFeed(), True, False),
    ],
    ids=["list", "view", "iterator", "feed", "sized feed"],
)
def test_tells_inputs_apart(source: TaskIds, *, is_feed: bool, is_bounded: bool) -> None:
    """What is in memory needs no bound, and all its ids can be known; a feed may go on for ever."""
    intake = Intake(source)
    assert (intake.is_feed, intake.is_bounded) == (is_feed, is_bounded)
    assert (intake.is_known, intake.source, intake.task) == (not is_bounded, source, None)
    assert (intake.error, intake.seen, intake.remembers) == (None, set(), not is_feed)
    assert not intake.closed.is_set()


def test_a_container_is_copied() -> None:
    """What is changed later changes nothing, and the container itself is not kept."""
    given = ["a", "b"]
    intake = Intake(given)
    intake.copy()
    given.append("c")
    intake.copy()
    assert list(intake.ids()) == ["a", "b"]
    assert intake.source is None


@pytest.mark.parametrize("source", [iter(["a"]), feed()], ids=["iterator", "feed"])
def test_what_has_no_length_is_not_copied(source: TaskIds) -> None:
    """A generator and a feed are left alone until they are read."""
    intake = Intake(source)
    intake.copy()
    assert intake.source is source
    assert intake.not_handed_out() == {}


async def test_a_container_that_breaks_off_gives_what_it_gave() -> None:
    """Its ids come first, then what it raised."""
    taken: list[object] = []
    stream = new_stream(Breaking())
    assert pending(stream) == {"a": UNREAD, "b": UNREAD}
    await read_input(stream, lambda _stream, given, _now: taken.append(given))
    assert taken == ["a", "b"]
    with pytest.raises(LookupError, match="page"):
        await take(stream)


def test_an_iterator_is_read_itself() -> None:
    """Nothing stands between, so that nobody closes what is not ours."""
    source = iter(["a", "b"])
    assert Intake(source).ids() is source


def test_nothing_is_known_before_a_stream_has_begun() -> None:
    """What a container holds may still change; looking too early hides nothing later."""
    intake = Intake(["a"])
    assert (intake.not_handed_out(), intake.is_known) == ({}, False)
    intake.copy()
    assert (intake.not_handed_out(), intake.is_known) == ({"a": UNREAD}, True)


def test_ids_are_known_by_their_names() -> None:
    """Trimmed, and described where they are no text, as they will come out."""
    names = "a", "17 (int)", "b-c", "b'd' (bytes)"
    given: list[Any] = [" a ", 17, "b-c", "a", b"d"]
    for source, expected in ((given, names), (given[1:], (*names[1:3], "a", names[3]))):
        intake = Intake(source)
        intake.copy()
        assert tuple(intake.not_handed_out()) == expected


def test_plain_ids_are_known_without_a_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million of letters and digits must not hold the loop for long."""
    monkeypatch.setattr("kling_omni_async._polling.stream.read_id", pytest.fail)
    intake = Intake(["a1", "b2", "a1"])
    intake.copy()
    assert intake.not_handed_out() == {"a1": UNREAD, "b2": UNREAD}


async def test_only_a_list_and_an_iterator_remember_what_was_handed_out() -> None:
    """A feed may go on for ever, so that what it has given is not kept."""
    for source, seen in ((["a"], {"a"}), (iter(["a"]), {"a"}), (feed(), set[str]())):
        stream = new_stream(source)
        stream.handed_out(outcome("a"))
        assert stream.intake.seen == seen


async def test_what_was_only_needed_to_read_is_given_back() -> None:
    """An input that was read to its end keeps neither its source, its copy, nor its repeats."""
    stream = new_stream(["a", "b"])
    intake = stream.intake
    stream.handed_out(outcome("a"))
    intake.close(whole=True)
    stream.handed_out(outcome("b"))
    assert (intake.source, intake._copy, intake.seen) == (None, None, set())
    assert (intake.is_known, intake.closed.is_set()) == (True, True)


async def test_an_input_that_was_left_is_kept_until_all_is_known() -> None:
    """What was handed out before and after the end of reading is not pending."""
    stream = new_stream(["a", "b", "c"])
    intake = stream.intake
    stream.handed_out(outcome("a"))
    intake.close(whole=False)
    stream.handed_out(outcome("b"))
    assert intake.not_handed_out() == {"c": UNREAD}
    assert (intake._copy, intake.seen, intake.remembers) == (None, set(), False)


async def test_an_input_that_nobody_has_begun_to_read_is_closed_at_once() -> None:
    """Whoever waits for its end waits for nothing; what it holds stays known."""
    intake = Intake(["a"])
    intake.stop()
    assert (intake.closed.is_set(), intake.is_known) == (True, False)
    assert intake.not_handed_out() == {"a": UNREAD}


async def test_who_reads_an_input_is_cancelled() -> None:
    """Its own reader is not, as one that closes its own stream would wait for itself."""
    intake = Intake(["a"])
    intake.task = asyncio.current_task()
    intake.stop()
    assert intake.task is not None
    assert intake.task.cancelling() == 0
    intake.task = asyncio.ensure_future(asyncio.Event().wait())
    intake.stop()
    assert intake.task.cancelling() == 1
    assert not intake.closed.is_set()


class Page:
    """An iterator that can be closed, as a file can."""

    def __init__(self) -> None:
        self.closed = False

    def __iter__(self) -> Page:
        return self

    def __next__(self) -> str:
        return "a"

    def close(self) -> None:
        self.closed = True


async def read_one(source: Iterable[str]) -> StreamState:
    """Read one id of an input, and leave its stream with that."""
    taken: list[object] = []

    def take(stream: StreamState, given: object, now: float) -> None:
        taken.append((given, now))
        stream.stop()

    stream = new_stream(source)
    await read_input(stream, take)
    assert taken == [("a", 0.0)]
    assert stream.intake.closed.is_set()
    return stream


async def test_a_generator_is_closed_when_its_stream_is_left() -> None:
    """Its clean-up runs then, also where somebody else holds it."""
    closed: list[bool] = []

    def generate() -> Iterator[str]:
        try:
            yield from "ab"
        finally:
            closed.append(True)

    source = generate()
    await read_one(source)
    assert closed == [True]
    assert list(source) == []


async def test_a_file_is_its_owners_to_close() -> None:
    """What is no generator is only read no further."""
    page = Page()
    await read_one(page)
    assert not page.closed


async def test_nothing_is_read_for_a_stream_that_was_left() -> None:
    """A reader that begins after that touches nothing."""
    stream = new_stream(iter("a"))
    stream.stop()
    await read_input(stream, lambda *_: pytest.fail("it was read"))
    assert (stream.intake.task, stream.intake.source) == (None, None)


# Deadlines: who is next.


def timed(*deadlines: float) -> tuple[Deadlines, list[StreamWaiter]]:
    """Make waiters with deadlines, in a queue."""
    queue, stream = Deadlines(), new_stream(timeout=0.0)
    waiters = [StreamWaiter(stream, added=0.0) for _ in deadlines]
    for waiter, deadline in zip(waiters, deadlines, strict=True):
        Entry("a").join(waiter)
        waiter.started = deadline
        queue.add(waiter)
    return queue, waiters


def lose(queue: Deadlines, waiter: StreamWaiter) -> None:
    """Let one of them be done."""
    waiter.entry = None
    queue.lost()


def test_the_first_deadline_is_next() -> None:
    """It comes out when its time has come, and not before."""
    queue, (first, second) = timed(5.0, 6.0)
    assert queue.first() is first
    assert queue.pop_due(4.9) is None
    assert queue.pop_due(5.0) is first
    assert queue.first() is second
    assert (queue.pop_due(9.0), queue.pop_due(9.0), queue.first()) == (second, None, None)


def test_who_is_done_is_passed_over() -> None:
    """One whose id has an outcome is not in the way of those behind him."""
    queue, (first, second, third) = timed(5.0, 6.0, 7.0)
    lose(queue, second)
    lose(queue, first)
    assert queue.first() is third
    assert (len(queue), queue._done) == (1, 0)


def test_one_that_is_stuck_keeps_none_of_those_behind_it() -> None:
    """Of many that are done behind the first, no more than half and 64 are kept."""
    queue, (stuck, *others) = timed(*map(float, range(1000)))
    for waiter in others[:564]:
        lose(queue, waiter)
    assert len(queue) == 1000
    lose(queue, others[564])
    assert (len(queue), queue._done) == (435, 0)
    for waiter in others[565:]:
        lose(queue, waiter)
    assert queue.first() is stuck
    assert len(queue) < 130


def test_one_that_came_out_before_it_was_done_is_counted_once() -> None:
    """Who has his grace at his deadline is in the queue no more when he is done."""
    queue, waiters = timed(*map(float, range(200)))
    for waiter in waiters[:100]:
        assert queue.pop_due(waiter.deadline or 0.0) is waiter
    for waiter in waiters[:100]:
        lose(queue, waiter)
    assert (len(queue), queue._done) == (100, 0)


# StreamWaiter: one who waits for an id of a stream.


async def test_the_time_of_an_id_runs_from_its_first_query() -> None:
    """The deadline of a stream's id is set by its first query and moved by no other."""
    stream, alarms = new_stream(timeout=60.0), Alarms()
    waiter = stream.add("a", 3.0)
    assert (waiter.added, waiter.deadline, waiter.when) == (3.0, None, NEVER)
    assert (waiter.entry, waiter.queries_before, waiter.must_query) == (None, 0, True)
    Entry("a").join(waiter)
    assert waiter.queried(100.0, alarms) is True
    assert waiter.queried(130.0, alarms) is True
    assert (waiter.deadline, len(stream.deadlines)) == (160.0, 1)
    assert (stream.when, alarms.first) == (160.0, 160.0)


async def test_an_id_of_a_stream_may_have_no_time_at_all() -> None:
    """Its deadline is the start of its first query, at whatever time that is."""
    stream, alarms = new_stream(timeout=0.0), Alarms()
    (waiter,) = give(stream, "a")
    waiter.queried(0.0, alarms)
    assert (waiter.deadline, alarms.first) == (0.0, 0.0)
    alarms.pop_due(0.0)
    assert stream.due(0.0, alarms) is waiter


async def test_an_id_of_a_stream_may_have_no_deadline() -> None:
    """Without a time limit nothing is kept for one."""
    stream, alarms = new_stream(), Alarms()
    (waiter,) = give(stream, "a")
    waiter.queried(100.0, alarms)
    waiter.left(alarms)
    assert (waiter.deadline, len(stream.deadlines), len(alarms)) == (None, 0, 0)


async def test_a_final_word_becomes_an_outcome() -> None:
    """It counts the queries and the time since the id was added; an end of all adds nothing."""
    stream, entry = new_stream(), Entry("a")
    waiter = stream.add("a", 10.0)
    entry.queries = 3
    entry.join(waiter)
    entry.queries = 5
    waiter.told(entry, verdict_on(SUCCEED), 25.0)
    waiter.end(DEFECT, "a")
    stream.input_ended(None)
    expected = TaskOutcome(task_id="a", task=SUCCEED, queries=2, elapsed=15.0)
    assert await stream.outlet.take() == expected
    with pytest.raises(StopAsyncIteration):
        await stream.outlet.take()


async def test_an_error_carries_the_last_task() -> None:
    """A word without a task comes out with the one that was seen before it."""
    stream, entry = new_stream(), Entry("a")
    entry.body = PENDING.body
    waiter = stream.add("a", 0.0)
    waiter.told(entry, Verdict(VerdictKind.FINAL, error=REFUSAL), 1.0)
    entry.body = SUCCEED_ANSWER.body
    waiter.told(entry, Verdict(VerdictKind.FINAL, SUCCEED, REFUSAL), 1.0)
    found = await stream.outlet.take()
    assert found.task is not None
    assert (found.task.status, found.error) == (TaskStatus.PROCESSING, REFUSAL)
    assert (await stream.outlet.take()).task is SUCCEED


async def test_an_id_of_a_stream_that_was_left_is_not_wanted() -> None:
    """No query is made for it, though its waiters are let go later, and its clock stands."""
    stream, alarms = new_stream(timeout=60.0), Alarms()
    (waiter,) = give(stream, "a")
    stream.cut(End())
    assert waiter.queried(0.0, alarms) is False
    assert (waiter.deadline, len(alarms)) == (None, 0)


# Alarms of a stream.


async def test_one_alarm_is_set_for_the_first_deadline() -> None:
    """It goes with the last one who needs it, and serves the next when its time has come."""
    stream, alarms = new_stream(timeout=10.0), Alarms()
    first, second, third = give(stream, "a", "b", "c")
    for now, waiter in enumerate((first, second, third)):
        waiter.queried(float(now), alarms)
    assert alarms.pop_due(10.0) is stream
    assert stream.due(10.0, alarms) is first
    assert (stream.when, alarms.first) == (11.0, 11.0)
    for waiter in (first, second):
        waiter.entry = None
        waiter.left(alarms)
    assert alarms.pop_due(11.0) is stream
    assert stream.due(11.0, alarms) is None
    assert alarms.first == 12.0
    third.entry = None
    third.left(alarms)
    assert (stream.when, len(alarms)) == (NEVER, 0)


async def test_the_alarm_stays_while_anybody_needs_it() -> None:
    """However many are done, also of those who had their grace: who is left is told in time."""
    stream, alarms = new_stream(timeout=10.0, most_pending=999), Alarms()
    waiters = give(stream, *map(str, range(155)))
    for waiter in waiters:
        waiter.queried(0.0, alarms)
    alarms.pop_due(10.0)
    graced = [stream.due(10.0, alarms) for _ in range(5)]
    assert graced == waiters[:5]
    for waiter in (*waiters[6:151], *waiters[:5]):
        waiter.entry = None
        waiter.left(alarms)
    assert (len(stream.deadlines), stream.when) == (5, 10.0)
    alarms.pop_due(10.0)
    assert stream.due(10.0, alarms) is waiters[5]


async def test_a_waiter_takes_his_own_alarm_along() -> None:
    """One who has his grace is let go with the alarm that was set for it."""
    stream, alarms = new_stream(timeout=10.0), Alarms()
    first, second = give(stream, "a", "b")
    first.queried(0.0, alarms)
    second.queried(1.0, alarms)
    alarms.pop_due(10.0)
    stream.due(10.0, alarms)
    alarms.set(first, 15.0)
    first.entry = None
    first.left(alarms)
    assert (len(alarms), stream.when) == (1, 11.0)


# What the input brings.


async def test_goes_through_its_phases() -> None:
    """New, reading, polling what is left, ended; each end of an input is told."""
    stream = StreamState(["a"], timeout=3.0, outlet=Outlet(), most_pending=9)
    assert (stream.phase, stream.timeout, stream.turn) == (Phase.NEW, 3.0, None)
    stream.begin()
    assert (stream.phase, stream.is_left) == (Phase.READING, False)
    give(stream, "a")
    stream.input_ended(None)
    assert (stream.phase, stream.is_left) == (Phase.POLLING, False)
    assert stream.intake.closed.is_set()
    finish(stream, "a")
    assert (stream.phase, stream.is_left) == (Phase.ENDED, True)


async def test_a_container_that_changes_while_it_is_polled() -> None:
    """What it held when the stream began is pending, whatever becomes of it."""
    given = {"a", "b"}
    stream = new_stream(given)
    given.clear()
    assert pending(stream) == {"a": UNREAD, "b": UNREAD}


async def test_knows_all_ids_of_a_container() -> None:
    """Those that are polled or done keep their state; those handed out are not pending."""
    stream = new_stream(["a", "b", "c", "d"])
    give(stream, "a", "b", "c")
    finish(stream, "a", "b")
    assert await take(stream) == "a"
    assert pending(stream) == {"b": DONE, "c": "waits", "d": UNREAD}
    assert await take(stream) == "b"
    assert pending(stream) == {"c": "waits", "d": UNREAD}
    assert list(map(stream.read, ["a", "b", "c", "d"])) == [None, None, None, "d"]


@pytest.mark.parametrize("source", [["a", "b"], iter(["a", "b"])], ids=["list", "iterator"])
async def test_a_list_drops_repeats(source: TaskIds) -> None:
    """An id that is polled, done or handed out already is not taken again."""
    stream = new_stream(source)
    give(stream, "a", "b")
    finish(stream, "a")
    assert [stream.read("a"), stream.read("b")] == [None, None]
    await take(stream)
    assert (stream.read("a"), stream.progress.total) == (None, 2)


async def test_a_feed_takes_an_id_anew() -> None:
    """While it is pending it is a repeat; after it was handed out it counts anew."""
    stream = new_stream(feed())
    give(stream, "a")
    assert stream.read("a") is None
    finish(stream, "a")
    assert stream.read("a") is None
    await take(stream)
    assert stream.read("a") == "a"


@pytest.mark.parametrize(
    ("given", "name", "words"),
    [
        (" a b\n", "a b", "white space"),
        (17, "17 (int)", "write str(17)"),
        (b"x", "b'x' (bytes)", "decode"),
    ],
    ids=["malformed", "int", "bytes"],
)
async def test_what_can_be_no_id_comes_out(
    caplog: pytest.LogCaptureFixture, given: object, name: str, words: str
) -> None:
    """With its reason, once, and with one line in the log; the others go on."""
    caplog.set_level(logging.INFO)
    stream = new_stream(iter(["x"]))
    assert (stream.read(given), stream.read(given)) == (None, None)
    assert stream.read(" y\n") == "y"
    assert pending(stream) == {name: DONE}
    found = await stream.outlet.take()
    assert isinstance(found.error, InvalidTaskIdError)
    assert words in str(found.error)
    assert (found.task_id, found.error.task_id, found.queries) == (name, name, 0)
    (line,) = caplog.messages
    assert line.startswith(f"task {name!r}: InvalidTaskIdError: ")
    assert line.endswith("after 0 queries")


@pytest.mark.parametrize(
    ("source", "is_full"),
    [(["x"], False), (iter(["x"]), True), (feed(), True)],
    ids=["list", "iterator", "feed"],
)
async def test_an_input_without_a_length_waits_for_consumers(
    source: TaskIds, *, is_full: bool
) -> None:
    """At `max_pending` ids it is full until one is handed out; a list is in memory already."""
    stream = new_stream(source, most_pending=2)
    assert stream.most_pending == (2 if is_full else NEVER)
    give(stream, "a")
    finish(stream, "a")
    await take(stream)
    assert stream.room is None  # nobody has had to wait
    stream.room = asyncio.Event()
    give(stream, "b")
    finish(stream, "b")
    assert not stream.room.is_set()
    await take(stream)
    assert stream.room.is_set()


# Counts.


async def test_outcomes_are_counted_when_they_are_handed_out() -> None:
    """At each moment the counts add up: success, failed task, any other error, pending."""
    errors = [None, None, TaskFailedError("no"), InvalidTaskIdError("no"), REFUSAL]
    stream = new_stream()
    give(stream, *map(str, range(5)))
    for number, error in enumerate(errors):
        stream.finished(outcome(str(number), error))
    assert stream.progress == Progress(total=5, pending=5)
    for number in range(5):
        assert await take(stream) == str(number)
        progress = stream.progress
        assert progress.pending == 4 - number
        assert progress.pending + progress.succeeded + progress.failed + progress.unresolved == 5
    assert stream.progress == Progress(total=5, succeeded=2, failed=1, unresolved=2)
    assert repr(stream) == f"<StreamState reading {stream.progress}>"


async def test_what_is_handed_out_after_a_refused_key_is_counted_once() -> None:
    """A stream that ends in the middle of its list knows all of it, and nothing twice."""
    stream = new_stream(["a b", "a", "b", "c"])
    give(stream, "a b", "a")
    stream.end(End(NO_KEY))
    stream.intake.close(whole=False)
    assert await take(stream) == "a b"
    with pytest.raises(AuthenticationError):
        await take(stream)
    assert pending(stream) == {"a": "waits", "b": UNREAD, "c": UNREAD}
    assert stream.progress == Progress(total=4, pending=3, unresolved=1)


# Ends.


async def test_ends_behind_what_it_holds() -> None:
    """A stream that is done gives what is there, then ends, at every further step."""
    stream = new_stream()
    give(stream, "a", "b")
    finish(stream, "a")
    stream.input_ended(None)
    assert not stream.outlet.has_ended
    finish(stream, "b")
    assert [await take(stream), await take(stream)] == ["a", "b"]
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await take(stream)


async def test_an_input_without_ids_ends_at_once() -> None:
    """Nothing is waited for when nothing came."""
    stream = new_stream()
    stream.input_ended(None)
    with pytest.raises(StopAsyncIteration):
        await take(stream)


async def test_does_not_end_while_its_input_is_read() -> None:
    """All that came so far is done, and more may come."""
    stream = new_stream(iter(["a"]))
    give(stream, "a")
    finish(stream, "a")
    assert (stream.phase, stream.outlet.has_ended) == (Phase.READING, False)


async def test_the_exception_of_an_input_comes_behind_its_ids() -> None:
    """Ids that were read come out first, then what the input raised, at every further step."""
    stream = new_stream()
    give(stream, "a")
    stream.input_ended(DEFECT)
    finish(stream, "a")
    assert await take(stream) == "a"
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await take(stream)


async def test_an_ended_stream_takes_nothing_more() -> None:
    """An outcome that comes after the end stays pending and uncounted; the first end counts."""
    stream = new_stream()
    give(stream, "a", "b")
    finish(stream, "a")
    stream.end(End(NO_KEY))
    finish(stream, "b")
    stream.input_ended(DEFECT)
    assert await take(stream) == "a"
    with pytest.raises(AuthenticationError):
        await take(stream)
    assert pending(stream) == {"b": "waits"}
    assert stream.progress == Progress(total=2, pending=1, succeeded=1)
    assert stream.phase is Phase.ENDED


@pytest.mark.parametrize(
    ("first", "raised"), [(End(REFUSAL), ApiError), (None, StopAsyncIteration)]
)
async def test_a_cut_stream_gives_nothing_more_out(
    first: End | None, raised: type[Exception]
) -> None:
    """What was ready but not taken stays pending, and the end is the first that was given."""
    stream = new_stream()
    give(stream, "a", "b")
    finish(stream, "a")
    if first:
        stream.end(first)
    stream.cut(End())
    stream.cut(End(DEFECT))
    for _ in range(2):
        with pytest.raises(raised):
            await take(stream)
    assert pending(stream) == {"a": DONE, "b": "waits"}


@pytest.mark.parametrize("way", ["end", "cut", "stop"])
async def test_whatever_ends_a_stream_cancels_its_input_once(way: str) -> None:
    """An input may await in its clean-up, and is not cancelled again there."""
    stream = new_stream(feed())
    reader = stream.intake.task = asyncio.ensure_future(asyncio.Event().wait())
    for _ in range(2):
        if way == "stop":
            stream.stop()
        else:
            getattr(stream, way)(End())
    assert (reader.cancelling(), stream.phase) == (1, Phase.ENDED)


async def test_a_stream_that_polls_only_has_no_input_to_stop() -> None:
    """What was read to its end stays closed."""
    stream = new_stream(["a"])
    give(stream, "a")
    stream.input_ended(None)
    stream.cut(End())
    assert (stream.intake.task, stream.intake.is_known) == (None, True)


async def test_a_stream_that_is_left_before_it_began_keeps_its_ids() -> None:
    """They are pending, and its input is closed."""
    stream = StreamState(["a", "b"], timeout=None, outlet=Outlet(), most_pending=9)
    assert pending(stream) == {}
    stream.cut(End())
    stream.begin()
    assert pending(stream) == {"a": UNREAD, "b": UNREAD}
    assert (stream.phase, stream.intake.closed.is_set()) == (Phase.ENDED, True)


def test_a_stream_knows_its_youngest_task() -> None:
    """Whichever order they are noted in."""
    stream = new_stream()
    first, second = give(stream, "a", "b")
    assert stream.youngest is None
    found: list[float | None] = []
    for waiter, born in ((first, 5.0), (second, 7.0), (first, 6.0)):
        waiter.aged(born)
        found.append(stream.youngest)
    assert found == [5.0, 7.0, 7.0]


async def test_who_reads_an_input_does_not_wait_for_its_end() -> None:
    """An input may close its own stream; all others wait until it is closed."""
    stream = new_stream(feed())
    stream.intake.task = asyncio.current_task()
    await stream.closed()
    stream.intake.task = None
    closing = asyncio.ensure_future(stream.closed())
    await asyncio.sleep(0)
    assert not closing.done()
    stream.intake.closed.set()
    await closing
