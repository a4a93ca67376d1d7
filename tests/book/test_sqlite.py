"""A book in a file of SQLite: what is kept there, when, and for whom."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import attrs
import pytest

from kling_omni_async import BookError, ConfigurationError, TaskBook
from kling_omni_async._book import sqlite_thread
from kling_omni_async._book.contract import (
    Addition,
    Doubt,
    Intent,
    Lesson,
    Member,
    Row,
    Said,
    Settle,
)
from kling_omni_async._book.sqlite_schema import COLUMNS
from kling_omni_async._book.sqlite_shelf import HEARD_S

from .sqlite_support import (
    TERMS,
    Machine,
    add,
    done,
    end,
    keys,
    new_store,
    opened,
    outside,
    run_sql,
    succeeded,
    take,
    turn,
)

pytestmark = pytest.mark.anyio


T = TypeVar("T")


class Points:
    """Counts the points that a store has passed, and does what a test wants at one."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Event()
        self._may_go_on = threading.Event()
        self._may_go_on.set()

    def __call__(self, point: str) -> None:
        self.passed.append(point)
        if point == "begun":
            self._loop.call_soon_threadsafe(self._begun.set)
            self._may_go_on.wait(10)
        if point == "stepped" and self.error is not None:
            raise self.error

    async def hold(self, work: Awaitable[T]) -> asyncio.Future[T]:
        """Begin a work, and hold its transaction open."""
        self._begun.clear()
        self._may_go_on.clear()
        working = asyncio.ensure_future(work)
        await self._begun.wait()
        return working

    def go_on(self) -> None:
        """Let the transaction that is held go on."""
        self._may_go_on.set()

    @property
    def commits(self) -> int:
        """How many transactions were kept."""
        return self.passed.count("committed")


def names(folder: Path) -> list[str]:
    """Give what lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def an_intent(external_id: str) -> Intent:
    """Give an intent with all that may belong to it."""
    return Intent(
        external_id, "digest", is_keyed=True, note='"note"', order='{"a":1}', lease_s=30.0
    )


def full() -> sqlite3.OperationalError:
    """Give what SQLite raises on a full disk."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
    return error


# What is kept.


async def test_what_was_added_is_there_when_the_book_is_opened_again(tmp_path: Path) -> None:
    """An id and its note outlive the book object that has kept them."""
    async with TaskBook(tmp_path / "tasks.db") as book:
        assert await book.add("one", note={"chat": 42})
        assert not await book.add("one", note="another")
    async with TaskBook(str(tmp_path / "tasks.db")) as book:
        entry = await book.get("one")
        assert entry is not None
        assert entry.note == {"chat": 42}
        assert (await book.progress()).pending == 1


async def test_a_row_comes_back_as_it_was_put(tmp_path: Path) -> None:
    """Each attribute of a row has a column, and keeps its type."""
    assert set(COLUMNS) == set(attrs.fields_dict(Row))
    row = Row(
        "key", at=3, doubt=Doubt("TaskNotFoundError", 2, 7.5), is_nudged=True, holder="reader"
    )
    async with opened(tmp_path / "tasks.db") as store:

        def put() -> tuple[Row | None, list[Row]]:
            store._shelf.put(row)
            return store._shelf.row("key"), store._shelf.held("reader")

        found, held = await store._write(put)
    assert found == row
    assert held == []  # it is open
    assert found is not None
    assert found.is_nudged is True
    assert isinstance(found.at, float)


async def test_all_columns_are_those_of_the_table(tmp_path: Path) -> None:
    """The table has the columns of a row, in their order."""
    async with opened(tmp_path / "tasks.db") as store:
        found = await run_sql(store, "SELECT name FROM pragma_table_info('entries')")
    assert tuple(name for (name,) in found) == COLUMNS


async def test_wishes_and_lessons_are_kept(tmp_path: Path) -> None:
    """An intent, the task that it made and what was learned outlive the store."""
    path, intent = tmp_path / "tasks.db", an_intent("wish")
    async with opened(path) as store:
        assert await store.intend(intent) is None
        await store.created("wish", Addition("made"))
        claims = (await store.turn(turn(1))).claims
        settle = attrs.evolve(succeeded(claims[0]), lesson=("kind", 1.0, 2.0, None))
        await store.turn(turn(2, [settle]))
    async with opened(path) as store:
        known = await store.intend(intent)
        assert known is not None
        assert known.wish.task_id == "made"
        found = await store.find("wish")
        assert found is not None
        assert (found.row.key, found.note, found.order) == ("made", '"note"', '{"a":1}')
        (lesson,) = (await store.turn(turn(1, worker="other"))).lessons
        assert (lesson.kind, lesson.after_s, lesson.ended_s) == ("kind", 1.0, None)
        await store.intend(an_intent("never"))
        await store.created("never", None)
        assert await store.find("never") is None


async def test_entries_are_listed_by_key(tmp_path: Path) -> None:
    """They come in pieces, each from behind the last key of the one before, with their notes."""
    async with opened(tmp_path / "tasks.db") as store:
        await store.add([Addition("b", '"note"'), Addition("a"), Addition("c")])
        first = await store.list("", 2)
        assert [(found.row.key, found.note) for found in first] == [("a", None), ("b", '"note"')]
        assert [found.row.key for found in await store.list("b", 2)] == ["c"]


async def test_any_name_of_a_file_will_do(tmp_path: Path) -> None:
    """What SQLite would take for options stays part of the name."""
    path = tmp_path / "ta sks?mode=ro#%41ü.db"
    async with opened(path) as store:
        await add(store, "a")
    assert names(tmp_path) == [path.name]
    async with opened(path) as store:
        assert await store.find("a") is not None


async def test_a_removed_id_is_remembered_without_its_note(tmp_path: Path) -> None:
    """What belongs to it goes at once, its pause later."""
    async with opened(tmp_path / "tasks.db") as store:
        await store.add([Addition("a", '"note"')])
        (claim,) = (await store.turn(turn(1, terms=TERMS))).claims
        wait = Settle(key="a", token=claim.row.token, said=Said.PENDING, pause_s=100.0)
        await store.turn(turn(2, [wait], want=0))
        assert await store.remove("a")
        assert await run_sql(store, "SELECT state FROM entries") == [("removed",)]
        assert await run_sql(store, "SELECT * FROM contents") == []


async def test_a_note_goes_with_its_entry(tmp_path: Path) -> None:
    """An id that was forgotten and comes again has no old note."""
    async with opened(tmp_path / "tasks.db") as store:
        await store.add([Addition("a", '"note"')])
        assert await store.remove("a")
        assert await add(store, "a") == [True]
        found = await store.find("a")
        assert found is not None
        assert found.note is None


async def test_only_the_last_lessons_are_kept(tmp_path: Path) -> None:
    """What was learned does not grow without bound."""
    async with opened(tmp_path / "tasks.db") as store:

        def learn() -> list[Lesson]:
            for number in (1, 2, 3):
                store._shelf.add_lesson(Lesson(number, "kind", 1.0, 2.0, 1.5), keep=2)
            return store._shelf.lessons_after(0)

        assert [lesson.number for lesson in await store._write(learn)] == [2, 3]


async def test_what_users_do_is_kept(tmp_path: Path) -> None:
    """To remove, to retry and to nudge answer as the rules say."""
    async with opened(tmp_path / "tasks.db") as store:
        await end(store, "ended")
        await add(store, "open")
        assert await store.nudge("open")
        assert not await store.retry("ended")
        assert await store.remove("open")
        assert await store.find("open") is None
        assert await store.remove("ended")


async def test_what_ended_is_told_by_number(tmp_path: Path) -> None:
    """Who has seen the ends up to a number gets those behind it, in order."""
    async with opened(tmp_path / "tasks.db") as store:
        await end(store, "a")
        number, ended = await store.ended_after(0)
        assert ended == ["a"]
        await end(store, "b", "c")
        assert (await store.ended_after(number))[1] == ["b", "c"]


async def test_unread_outcomes_are_dropped_when_their_time_is_over(tmp_path: Path) -> None:
    """After `keep` an outcome is forgotten, and the worker that finds it so is told."""
    machine = Machine()
    async with opened(tmp_path / "tasks.db", machine, keep_s=100.0) as store:
        await end(store, "a")
        machine.pass_time(101)
        assert (await store.turn(turn(1))).dropped == ["a"]
        assert await store.find("a") is None


# Steps.


async def test_the_same_step_gives_the_same_answer(tmp_path: Path) -> None:
    """A step that is sent again gives out nothing more; one who has left is forgotten."""
    async with opened(tmp_path / "tasks.db") as store:
        await add(store, "a")
        first = await store.turn(turn(1))
        assert keys(first.claims) == ["a"]
        assert await store.turn(turn(1)) is first
        await store.turn(turn(2, [succeeded(first.claims[0])], is_leaving=True))
        parcels = await store.take(take(1))
        assert keys(parcels.parcels) == ["a"]
        assert await store.take(take(1)) is parcels
        assert (await store.take(take(2, [done(parcels.parcels[0])], is_leaving=True))).is_empty
        assert store._replies == {}


async def test_a_step_whose_commit_failed_is_made_again(tmp_path: Path) -> None:
    """On a full disk nothing of a step is kept; sent again with the same number, it is made."""
    points = Points()
    async with opened(tmp_path / "tasks.db", at=points) as store:
        await add(store, "a", "b")
        points.error = full()
        with pytest.raises(BookError, match="disk is full") as caught:
            await store.turn(turn(1))
        assert caught.value.transient
        points.error = None
        claims = (await store.turn(turn(1))).claims
        assert keys(claims) == ["a", "b"]
        points.error = full()
        settles = [succeeded(claim) for claim in claims]
        with pytest.raises(BookError, match="disk is full"):
            await store.turn(turn(2, settles))
        points.error = None
        assert (await store.progress())[0].open == 2
        await store.turn(turn(2, settles))
        assert (await store.progress())[0].unread == 2


async def test_what_comes_meanwhile_shares_the_next_commit(tmp_path: Path) -> None:
    """Fifty adds that come while one is being kept are kept by one commit."""
    points = Points()
    async with opened(tmp_path / "tasks.db", at=points) as store:
        first = await points.hold(add(store, "first"))
        adding = [asyncio.ensure_future(add(store, f"id-{number}")) for number in range(50)]
        await asyncio.sleep(0)
        points.go_on()
        assert await asyncio.gather(first, *adding) == [[True]] * 51
    assert points.commits == 2


async def test_one_bad_value_fails_nobody_else(tmp_path: Path) -> None:
    """What no database can keep fails its own step, and not those that share its commit."""
    points = Points()
    async with opened(tmp_path / "tasks.db", at=points) as store:
        first = await points.hold(add(store, "first"))
        bad = asyncio.ensure_future(add(store, "good", "half \ud800"))
        long = asyncio.ensure_future(store.add([Addition("long", first_s=1e400 - 1e400)]))
        number = asyncio.ensure_future(store.take(take(1 << 70)))
        good = asyncio.ensure_future(add(store, "second"))
        await asyncio.sleep(0)
        points.go_on()
        await asyncio.gather(first, bad, long, number, good, return_exceptions=True)
        assert [first.result(), good.result()] == [[True], [True]]
        for failed in (bad, long, number):
            with pytest.raises(BookError, match="cannot be"):
                failed.result()
        assert await store.find("good") is None
        assert (await store.progress())[0].open == 2


async def test_a_fault_of_our_own_is_raised_as_it_is(tmp_path: Path) -> None:
    """What is no error of SQLite or of the system stays what it is."""
    async with opened(tmp_path / "tasks.db") as store:
        await add(store, "a")
        claims = (await store.turn(turn(1))).claims
        with pytest.raises(AssertionError):
            await store.turn(turn(2, [attrs.evolve(succeeded(claims[0]), outcome=None)]))
        assert (await store.progress())[0].open == 1


async def test_a_step_that_fails_changes_nothing_in_passing(tmp_path: Path) -> None:
    """Also what it had noted before its fault, such as a 429, is as before."""
    async with opened(tmp_path / "tasks.db") as store:
        await add(store, "a", "b")
        first, second = (await store.turn(turn(1))).claims
        limited = attrs.evolve(succeeded(first), said=Said.FAULT, is_limited=True)
        bad = attrs.evolve(succeeded(second), outcome=None)
        with pytest.raises(AssertionError):
            await store.turn(turn(2, [limited, bad]))
        assert not (await store.progress())[0].gate.is_closed


async def test_a_look_that_fails_changes_nothing_for_those_beside_it(tmp_path: Path) -> None:
    """What is made in earnest afterwards is not seen before."""
    points = Points()
    async with opened(tmp_path / "tasks.db", at=points) as store:
        held = await points.hold(add(store, "a"))
        turning = asyncio.ensure_future(store.turn(turn(1)))
        looking = asyncio.ensure_future(store.progress())
        await asyncio.sleep(0)
        points.go_on()
        assert (await looking)[0].origin is None
        await asyncio.gather(held, turning)
        assert (await store.progress())[0].origin == "api"


async def test_a_caller_that_is_cancelled_harms_nobody(tmp_path: Path) -> None:
    """Its step may be done or not; those beside it are, and nothing is left behind."""
    points = Points()
    async with opened(tmp_path / "tasks.db", at=points) as store:
        running = await points.hold(add(store, "running"))
        waiting = asyncio.ensure_future(add(store, "waiting"))
        beside = asyncio.ensure_future(add(store, "beside"))
        await asyncio.sleep(0)
        running.cancel()
        waiting.cancel()
        points.go_on()
        assert await beside == [True]
        assert [found.row.key for found in await store.list("", 9)] == ["beside", "running"]


async def test_who_gets_nothing_writes_nothing(tmp_path: Path) -> None:
    """Idle workers and readers only read, but to be counted as alive now and then."""
    points, machine = Points(), Machine()
    async with opened(tmp_path / "tasks.db", machine, points) as store:
        await store.turn(turn(1, terms=TERMS))
        await store.take(take(1))
        before = points.commits
        for seq in range(2, 12):
            machine.pass_time(HEARD_S / 12)
            assert not (await store.turn(turn(seq))).claims
            assert (await store.take(take(seq))).is_empty
        assert points.commits == before
        assert await store.turn(turn(11)) is await store.turn(turn(11))
        machine.pass_time(HEARD_S)
        await store.turn(turn(12))
        assert points.commits == before + 1
        assert (await store.progress())[1] == 1
        await add(store, "a")
        assert keys((await store.turn(turn(13))).claims) == ["a"]
        machine.pass_time(100)
        assert (await store.progress())[1] == 0


async def test_a_look_that_learns_something_is_made_in_earnest(tmp_path: Path) -> None:
    """For which API a book is, it learns of a worker that has nothing else to say."""
    async with opened(tmp_path / "tasks.db") as store:
        await store.turn(turn(1, origin=None))
        await store.turn(turn(2, origin="api"))
        assert (await store.turn(turn(3, origin="other"))).other_origin == "api"


async def test_much_at_once_is_done_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much waits, a commit is not put off for ever."""
    monkeypatch.setattr(sqlite_thread, "_MOST_TOGETHER", 20)
    points = Points()
    async with opened(tmp_path / "tasks.db", at=points) as store:
        first = await points.hold(add(store, "first"))
        adding = [asyncio.ensure_future(add(store, f"id-{number}")) for number in range(50)]
        await asyncio.sleep(0)
        points.go_on()
        await asyncio.gather(first, *adding)
    assert points.commits == 4


def test_a_loop_that_is_gone_gets_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A program may end its loop in the midst of a step: that is made, and nobody complains."""
    store = new_store(tmp_path / "tasks.db", Machine())
    may_go_on = threading.Event()

    async def begin() -> list[asyncio.Future[object]]:
        await store.open()
        lane, run = store._thread.calls, asyncio.get_running_loop().run_in_executor
        return [run(lane, may_go_on.wait, 10), run(lane, int, "no number")]

    loop = asyncio.new_event_loop()
    works = loop.run_until_complete(begin())
    loop.close()
    may_go_on.set()
    store._thread.stop()
    store._thread._thread.join(10)
    assert not store._thread._thread.is_alive()
    assert not any(work.done() for work in works)
    assert caplog.records == []


async def test_one_look_may_fail_beside_others(tmp_path: Path) -> None:
    """What only reads shares a transaction, and fails alone, too."""
    async with opened(tmp_path / "tasks.db") as store:
        await add(store, "a")
        good, bad = await asyncio.gather(
            store.find("a"), store.find("half \ud800"), return_exceptions=True
        )
        assert getattr(good, "row", None) is not None
        assert isinstance(bad, BookError)


# Others.


async def test_a_change_wakes_whoever_waits(tmp_path: Path) -> None:
    """A change of this store or of another one is noticed within a look, and none is missed."""
    path, loop = tmp_path / "tasks.db", asyncio.get_running_loop()
    async with opened(path) as store, opened(path) as other:
        await store.changed(5)  # the first one looks only
        began = loop.time()
        await store.changed(5)
        assert loop.time() == began + 5
        await add(store, "own")
        await store.changed(5)
        assert loop.time() == began + 5
        waiting = asyncio.ensure_future(store.changed(60))
        await asyncio.sleep(1.1)
        assert not waiting.done()
        await add(store, "own, while it waits")
        await waiting
        assert loop.time() < began + 7
        await add(other, "of another")
        await store.changed(60)
        assert loop.time() < began + 8


async def test_closing_lets_those_go_who_wait(tmp_path: Path) -> None:
    """Who waits for a change returns when the store is closed, and nothing more can be done."""
    store = new_store(tmp_path / "tasks.db", Machine())
    await store.open()
    await store.changed(5)
    waiting = asyncio.ensure_future(store.changed(600))
    await asyncio.sleep(1)
    await store.aclose()
    await store.aclose()
    await waiting
    await store.changed(5)
    with pytest.raises(BookError, match="closed"):
        await add(store, "late")
    assert names(tmp_path) == ["tasks.db"]


async def test_a_reader_lives_as_long_as_its_store(tmp_path: Path) -> None:
    """However long it is silent it keeps what it has; what it had is others' once it has gone."""
    path, machine = tmp_path / "tasks.db", Machine()
    async with opened(path, machine) as other:
        async with opened(path, machine) as store:
            await end(store, "a")
            assert keys((await store.take(take(1))).parcels) == ["a"]
            machine.pass_time(1_000_000)
            assert not (await other.take(take(1, reader="other"))).parcels
        assert keys((await other.take(take(2, reader="other"))).parcels) == ["a"]


async def test_a_reader_that_leaves_gives_back_what_it_has(tmp_path: Path) -> None:
    """Others get it at once."""
    async with opened(tmp_path / "tasks.db") as store:
        await end(store, "a")
        await store.take(take(1))
        await store.take(take(2, is_leaving=True))
        assert keys((await store.take(take(1, reader="other"))).parcels) == ["a"]
        assert store._lives.is_gone(Member("reader", "reader"), 0.0)


# Time.


async def test_a_boot_voids_leases_but_not_pauses(tmp_path: Path) -> None:
    """What was claimed before is asked for a pause later at most; other pauses go on."""
    path, machine = tmp_path / "tasks.db", Machine()
    async with opened(path, machine) as store:
        await add(store, "claimed", "paused")
        claims = (await store.turn(turn(1, terms=TERMS, lease_s=500.0))).claims
        assert keys(claims) == ["claimed", "paused"]
        wait = Settle(key="paused", token=claims[1].row.token, said=Said.PENDING, pause_s=100.0)
        await store.turn(turn(2, [wait], want=0))
        now = (await store.turn(turn(3))).now
    machine.reboot(off_s=10)
    async with opened(path, machine) as store:
        reply = await store.turn(turn(1, worker="next"))
        assert reply.now == now + 10
        assert not reply.claims
        machine.pass_time(15)
        again = await store.turn(turn(2, worker="next", lease_s=500.0))
        assert keys(again.claims) == ["claimed"]
        machine.pass_time(74)
        assert not (await store.turn(turn(3, worker="next"))).claims
        machine.pass_time(1)
        assert keys((await store.turn(turn(4, worker="next"))).claims) == ["paused"]


async def test_time_never_runs_back(tmp_path: Path) -> None:
    """Neither a wall clock that was set back nor a boot makes the book younger."""
    path, machine = tmp_path / "tasks.db", Machine()
    async with opened(path, machine) as store:
        before = (await store.turn(turn(1, terms=TERMS))).now
    machine.reboot(off_s=10, wall_step=-3600)
    async with opened(path, machine) as store:
        assert (await store.turn(turn(1, worker="next"))).now == before
        machine.pass_time(1)
        assert (await store.turn(turn(2, worker="next"))).now == before + 1


async def test_a_store_tells_the_time_of_its_machine(tmp_path: Path) -> None:
    """Its clock is that of the boot."""
    machine = Machine()
    async with opened(tmp_path / "tasks.db", machine) as store:
        machine.pass_time(7)
        assert store.clock() == machine.since_boot


# Wrong use.


async def test_a_fork_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that was forked off neither a step nor the end touches the file."""
    store = new_store(tmp_path / "tasks.db", Machine())
    await store.open()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(BookError, match="fork"):
            await add(store, "a")
        await store.aclose()
    assert await add(store, "a") == [True]
    await store.aclose()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (b"tasks.db", "not bytes"),
        (7, "not int"),
        ("", "leave it out"),
        (":memory:", "leave it out"),
        ("postgres://user:secret@host/db", "no other URL"),
        ("file:tasks.db?mode=ro", "no other URL"),
        ("tasks\0.db", "no other URL"),
    ],
)
async def test_what_names_no_file_is_refused(where: object, said: str) -> None:
    """Whoever makes a book is told what to write, and reads no secret."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        TaskBook(where)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert "secret" not in str(caught.value)


async def test_a_file_holds_one_book(tmp_path: Path) -> None:
    """A name is refused where it would tell nothing apart."""
    with pytest.raises(ConfigurationError, match="another path"):
        TaskBook(tmp_path / "tasks.db", name="tasks")


async def test_a_path_is_that_of_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that goes to another folder keeps its book where it was."""
    monkeypatch.chdir(tmp_path)
    book = TaskBook("tasks.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    async with book:
        assert (tmp_path / "tasks.db").exists()


async def test_a_book_that_is_forgotten_is_closed(tmp_path: Path) -> None:
    """Its thread and its file do not stay until the end of the program."""
    store = new_store(tmp_path / "tasks.db", Machine())
    await store.open()
    thread = store._thread._thread
    assert thread.daemon  # it keeps no program from its end
    del store
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    assert names(tmp_path) == ["tasks.db"]


async def test_who_gives_up_opening_leaves_nothing_open(tmp_path: Path) -> None:
    """A caller that is cancelled while the file is opened leaves no thread behind."""
    store = new_store(tmp_path / "tasks.db", Machine())
    opening = asyncio.ensure_future(store.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    store._thread._thread.join(10)
    assert not store._thread._thread.is_alive()


# Backups.


async def test_a_backup_is_a_book(tmp_path: Path) -> None:
    """A copy of a book in use holds what was kept before, and can be opened as one."""
    copy = tmp_path / "copy.db"
    async with opened(tmp_path / "tasks.db") as store:
        await add(store, "a")
        await store.backup(copy)
        await add(store, "later")
    assert names(tmp_path) == ["copy.db", "tasks.db"]
    async with opened(copy) as store:
        assert [found.row.key for found in await store.list("", 9)] == ["a"]


async def test_a_backup_takes_no_other_file_away(tmp_path: Path) -> None:
    """Where something is, or nothing can be, no copy is made and the reason is told."""
    taken = tmp_path / "taken.db"
    taken.write_bytes(b"mine")
    async with opened(tmp_path / "tasks.db") as store:
        with pytest.raises(BookError, match="another path"):
            await store.backup(taken)
        with pytest.raises(BookError, match="no backup"):
            await store.backup(tmp_path / "missing" / "copy.db")
    assert taken.read_bytes() == b"mine"
    assert names(tmp_path) == ["taken.db", "tasks.db"]


async def test_a_backup_goes_where_nothing_can_be_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without links it is renamed; a file that came meanwhile stays."""

    def no_link(part: Path, copy: Path) -> None:
        if copy.name == "late.db":
            copy.write_bytes(b"theirs")
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", no_link)
    async with opened(tmp_path / "tasks.db") as store:
        await store.backup(tmp_path / "copy.db")
        with pytest.raises(BookError, match="another path"):
            await store.backup(tmp_path / "late.db")
    assert outside(tmp_path / "copy.db", "SELECT count(*) FROM desk") == [(1,)]
    assert (tmp_path / "late.db").read_bytes() == b"theirs"


async def test_a_file_that_comes_while_a_backup_is_made_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy never takes the place of another file."""
    link = os.link

    def too_late(part: Path, copy: Path) -> None:
        copy.write_bytes(b"theirs")
        link(part, copy)

    monkeypatch.setattr(os, "link", too_late)
    async with opened(tmp_path / "tasks.db") as store:
        with pytest.raises(BookError, match="no backup"):
            await store.backup(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_bytes() == b"theirs"
