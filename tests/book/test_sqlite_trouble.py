"""A file that is no book, or that something has happened to: one clear error, and no harm."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from kling_omni_async import BookError, TaskBook
from kling_omni_async._book import mounts, sqlite_opening
from kling_omni_async._book.mounts import mounted, remote_kind
from kling_omni_async._book.sqlite_errors import in_our_words
from kling_omni_async._book.sqlite_log import QUIET_S, has_reset_bug, name_reset_bug
from kling_omni_async._book.sqlite_schema import APPLICATION_ID, FORM, MIGRATIONS

from .sqlite_support import Machine, add, end, in_its_thread, opened, outside, run_sql, take

pytestmark = pytest.mark.anyio


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SQLite wait for others for a moment only."""
    monkeypatch.setattr(sqlite_opening, "BUSY_S", 0.05)


async def refused(path: Path, match: str) -> BookError:
    """Open what is to be refused, and check that nothing was changed."""
    before = contents(path.parent)
    with pytest.raises(BookError, match=match) as caught:
        async with TaskBook(path):
            pass
    assert contents(path.parent) == before
    assert str(path) in str(caught.value)
    return caught.value


def contents(folder: Path) -> dict[str, bytes | None]:
    """Give what lies in a folder."""
    if not folder.is_dir():
        return {}
    return {each.name: each.read_bytes() if each.is_file() else None for each in folder.iterdir()}


# Opening.


async def test_a_file_of_text_is_refused(tmp_path: Path) -> None:
    """What is no database stays as it is."""
    path = tmp_path / "tasks.db"
    path.write_text("task ids, one a line\n" * 500)
    error = await refused(path, "is no SQLite database")
    assert not error.transient


@pytest.mark.parametrize("journal", ["wal", "delete"])
async def test_a_database_of_another_program_is_refused(tmp_path: Path, journal: str) -> None:
    """It stays as it is, and nothing is left beside it."""
    path = tmp_path / "tasks.db"
    outside(path, f"PRAGMA journal_mode = {journal}")
    outside(path, "CREATE TABLE theirs (a)")
    await refused(path, "database of another program")


async def test_a_book_in_use_by_a_newer_version_is_refused(tmp_path: Path) -> None:
    """What the newer one has logged, and not taken over yet, tells it, too."""
    path = tmp_path / "tasks.db"
    async with opened(path):
        pass
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA wal_autocheckpoint = 0")
    newer.execute(f"PRAGMA user_version = {FORM + 1}")
    with pytest.raises(BookError, match="newer version"):
        async with TaskBook(path):
            pass
    newer.close()
    await refused(path, "newer version of kling-omni-async .form 2; this one knows 1")


async def test_the_log_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """What it had no time to take over into its file stays there for it."""
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    async with opened(tmp_path / "tasks.db") as store:
        await run_sql(store, f"PRAGMA user_version = {FORM + 1}")
        for name in ("tasks.db", "tasks.db-wal"):
            shutil.copy(tmp_path / name, crashed)
    before = contents(crashed)
    with pytest.raises(BookError, match="newer version"):
        async with TaskBook(crashed / "tasks.db"):
            pass
    after = contents(crashed)
    assert {name: after[name] for name in before} == before


async def test_an_empty_file_becomes_a_book(tmp_path: Path) -> None:
    """A file that somebody has made beforehand, such as for its permissions, is used."""
    path = tmp_path / "tasks.db"
    path.touch()
    async with opened(path) as store:
        await add(store, "a")
    assert outside(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert outside(path, "PRAGMA user_version") == [(FORM,)]
    assert outside(path, "PRAGMA journal_mode") == [("wal",)]


async def test_a_book_that_another_process_makes_meanwhile_is_a_book(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what appears between two questions all is seen, or nothing: it is not taken for theirs."""
    path, ask = tmp_path / "tasks.db", sqlite_opening.value
    outside(path, "PRAGMA journal_mode = wal")
    asked: list[str] = []

    def value(connection: sqlite3.Connection, sql: str) -> int:
        found = ask(connection, sql)
        asked.append(sql)
        if asked.count("PRAGMA application_id") == 2 and sql == "PRAGMA application_id":
            others.append(sqlite_opening.connect(path))
        return found

    others: list[sqlite3.Connection] = []
    monkeypatch.setattr(sqlite_opening, "value", value)
    async with opened(path) as store:
        assert await add(store, "a") == [True]
        (other,) = others  # made in that thread, and closed there
        await in_its_thread(store, lambda _: other.close())


async def test_every_commit_is_on_the_disk(tmp_path: Path) -> None:
    """SQLite is told to wait for the disk, for others, and to leave its log to us."""
    path, machine = tmp_path / "tasks.db", Machine()
    async with opened(path, machine) as store:
        await add(store, *(f"id-{number}" for number in range(200)))
        machine.pass_time(QUIET_S)
        await in_its_thread(store, lambda _: store._file.rest())
        for pragma, value in (
            ("synchronous", 2),
            ("wal_autocheckpoint", 0),
            ("busy_timeout", 5000),
        ):
            assert await run_sql(store, f"PRAGMA {pragma}") == [(value,)]


async def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    """The folder must be there, and the path must not be a folder."""
    await refused(tmp_path / "missing" / "tasks.db", "make it first")
    (tmp_path / "folder").mkdir()
    await refused(tmp_path / "folder", "is no file")
    with pytest.raises(BookError, match="cannot be opened"):
        async with TaskBook("/proc/tasks.db"):
            pass


async def test_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's log does not work there."""
    table = tmp_path / "mounts"
    table.write_text(f"host:/x {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    await refused(tmp_path / "tasks.db", "network file system .nfs4.")


MOUNTED = """\
/dev/sda1 / ext4 rw 0 0
host:/home /home nfs rw 0 0
/dev/sdb1 /home/local ext4 rw 0 0
drive /mnt/with\\040space 9p rw 0 0
broken
one /over ext4 rw 0 0
two /over cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", None),
        ("/homework", None),
        ("/home", "nfs"),
        ("/home/me", "nfs"),
        ("/home/local/me", None),
        ("/mnt/with space/me", "9p"),
        ("/over", "cifs"),
    ],
)
def test_the_mount_of_a_folder_tells_its_file_system(folder: str, kind: str | None) -> None:
    """The longest place counts, of two at one place the later one."""
    assert remote_kind(PurePosixPath(folder), MOUNTED) == kind


def test_where_mounts_are_not_told_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other systems have no such list."""
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "missing")
    assert mounted() == ""


async def test_a_disk_without_shared_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SQLite keeps no log, several processes would harm each other."""
    monkeypatch.setattr(sqlite_opening, "_use_log", lambda _: "delete")
    with pytest.raises(BookError, match=r"keep no log \(journal mode delete\)"):
        async with TaskBook(tmp_path / "tasks.db"):
            pass


@pytest.mark.usefixtures("impatient")
async def test_a_file_that_is_locked_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried for a while, and then said; it is opened once it is free."""
    path = tmp_path / "tasks.db"
    path.touch()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BookError, match="is locked") as caught:
        async with TaskBook(path):
            pass
    assert caught.value.transient
    monkeypatch.setattr(time, "sleep", lambda _: other.rollback())
    async with TaskBook(path) as book:
        assert await book.add("a")
    other.close()


# Older forms.


def make_form_0(path: Path) -> None:
    """Make an artificial older book of one of today, with one id in it."""
    outside(path, "ALTER TABLE entries RENAME TO items")
    outside(path, "PRAGMA user_version = 0")


@pytest.fixture
def form_0_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the artificial form be one that can be changed."""

    def bring_up(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE items RENAME TO entries")

    monkeypatch.setitem(MIGRATIONS, 0, bring_up)


@pytest.mark.usefixtures("form_0_is_known")
async def test_an_older_book_is_changed_and_a_copy_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it holds is there, in the form of today; as it was, it lies beside it."""
    path = tmp_path / "tasks.db"
    async with opened(path) as store:
        await add(store, "a")
    make_form_0(path)
    (tmp_path / f"tasks.db-form0.{os.getpid()}.part").write_bytes(b"of a change that was killed")
    async with opened(path) as store:
        assert await store.find("a") is not None
    assert outside(path, "PRAGMA user_version") == [(FORM,)]
    copy = tmp_path / "tasks.db-form0"
    assert outside(copy, "SELECT key FROM items") == [("a",)]
    assert outside(copy, "PRAGMA user_version") == [(0,)]
    assert str(copy) in caplog.text


async def test_a_change_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older book stays as it was where its change does not come to its end."""
    path = tmp_path / "tasks.db"
    async with opened(path):
        pass
    make_form_0(path)

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE items RENAME TO entries")
        connection.execute("SELECT * FROM nothing")

    monkeypatch.setitem(MIGRATIONS, 0, half)
    with pytest.raises(BookError, match="cannot be used"):
        async with TaskBook(path):
            pass
    assert outside(path, "SELECT count(*) FROM items") == [(0,)]
    assert outside(path, "PRAGMA user_version") == [(0,)]


@pytest.mark.usefixtures("form_0_is_known")
async def test_another_process_may_change_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes second finds the form of today, and changes nothing more."""
    path = tmp_path / "tasks.db"
    async with opened(path):
        pass
    make_form_0(path)
    copy_of = sqlite_opening._copy

    def after_the_other(connection: sqlite3.Connection, path: Path, form: int) -> Path:
        outside(path, "ALTER TABLE items RENAME TO entries")
        outside(path, f"PRAGMA user_version = {FORM}")
        return copy_of(connection, path, form)

    monkeypatch.setattr(sqlite_opening, "_copy", after_the_other)
    async with opened(path) as store:
        assert await add(store, "a") == [True]


async def test_a_newer_version_may_come_while_a_book_is_open(tmp_path: Path) -> None:
    """Then this one stops at its next step, to read or to write."""
    path = tmp_path / "tasks.db"
    async with opened(path) as store:
        await add(store, "a")
        outside(path, f"PRAGMA user_version = {FORM + 1}")
        with pytest.raises(BookError, match="another version"):
            await store.find("a")
        with pytest.raises(BookError, match="another version") as caught:
            await add(store, "b")
        assert not caught.value.transient
    assert outside(path, "SELECT key FROM entries") == [("a",)]


# While it is open.


@pytest.mark.usefixtures("impatient")
async def test_a_lock_of_another_program_is_waited_for(tmp_path: Path) -> None:
    """Longer than SQLite waits it is an error that passes; afterwards all goes on."""
    path = tmp_path / "tasks.db"
    async with opened(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BookError, match="is locked by another program") as caught:
            await add(store, "a")
        assert caught.value.transient
        assert await store.find("a") is None  # reading goes on
        other.execute("ROLLBACK")
        other.close()
        assert await add(store, "a") == [True]


async def test_a_full_disk(tmp_path: Path) -> None:
    """Nothing of the step is kept, and all goes on when there is room."""
    async with opened(tmp_path / "tasks.db") as store:
        await add(store, "a")
        await run_sql(store, "PRAGMA max_page_count = 20")
        with pytest.raises(BookError, match="disk is full; make room") as caught:
            await add(store, *(f"{number:0500}" for number in range(200)))
        assert caught.value.transient
        await run_sql(store, "PRAGMA max_page_count = 100000")
        assert await add(store, "b") == [True]
        assert [found.row.key for found in await store.list("", 9)] == ["a", "b"]


async def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """Who may only read is told what to look at."""
    async with opened(tmp_path / "tasks.db") as store:
        await run_sql(store, "PRAGMA query_only = 1")
        with pytest.raises(BookError, match="permissions") as caught:
            await add(store, "a")
        assert not caught.value.transient
        await run_sql(store, "PRAGMA query_only = 0")
        assert await add(store, "a") == [True]


async def test_structural_damage(tmp_path: Path) -> None:
    """It is said at the first step that meets it, and the file is left alone."""
    path = tmp_path / "tasks.db"
    async with opened(path) as store:
        await add(store, *(f"id-{number}" for number in range(500)))
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    before = path.read_bytes()
    with pytest.raises(BookError, match="is damaged; go back to a backup") as caught:
        async with opened(path) as store:
            await add(store, "a")
    assert not caught.value.transient
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entries SET state = 'unheard of'",
        "UPDATE entries SET doubt = '{'",
        "UPDATE entries SET doubt = '[1]'",
    ],
)
async def test_an_entry_that_cannot_be_read(tmp_path: Path, damage: str) -> None:
    """Whoever needs it is told; the others go on."""
    path = tmp_path / "tasks.db"
    async with opened(path) as store:
        await add(store, "a")
        outside(path, damage)
        with pytest.raises(BookError, match="holds an entry that cannot be read"):
            await store.find("a")
        assert await add(store, "b") == [True]


@pytest.mark.parametrize("damage", ["{", '{"number":"x"}', '{"terms":{}}'])
async def test_counts_that_cannot_be_read(tmp_path: Path, damage: str) -> None:
    """Nothing is done without what is known beside the entries."""
    path = tmp_path / "tasks.db"
    async with opened(path) as store:
        await add(store, "a")
        outside(path, f"UPDATE desk SET desk = '{damage}'")  # noqa: S608
        with pytest.raises(BookError, match="holds counts that cannot be read"):
            await add(store, "b")


def _delete(path: Path) -> None:
    path.unlink()


def _move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def _replace(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


def _lose_log(path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()


@pytest.mark.parametrize("happens", [_delete, _move, _replace, _lose_log])
async def test_a_file_that_is_taken_away(tmp_path: Path, happens: Callable[[Path], None]) -> None:
    """Nothing more is written or read: what takes its place is not harmed, and none is misled."""
    path = tmp_path / "tasks.db"
    async with opened(path) as store:
        await add(store, "a")
        happens(path)
        before = path.read_bytes() if path.exists() else None
        for step in (store.find("a"), add(store, "b"), store.find("a")):
            with pytest.raises(BookError, match="deleted, moved or replaced") as caught:
                await step
            assert not caught.value.transient
    if happens is not _lose_log:
        assert (path.read_bytes() if path.exists() else None) == before


async def test_the_log_of_a_file_that_was_replaced_is_left_alone(tmp_path: Path) -> None:
    """What is not in the file yet may be needed to put things right by hand."""
    path, machine = tmp_path / "tasks.db", Machine()
    async with opened(path, machine) as store:
        await add(store, *(f"id-{number}" for number in range(200)))
        _replace(path)
        with pytest.raises(BookError, match="deleted, moved or replaced"):
            await store.find("a")
        log = (tmp_path / "tasks.db-wal").read_bytes()
        machine.pass_time(QUIET_S)
        assert await in_its_thread(store, lambda _: store._file.rest()) is None
        assert (tmp_path / "tasks.db-wal").read_bytes() == log != b""


async def test_a_file_that_is_taken_away_during_a_step(tmp_path: Path) -> None:
    """It is looked for once more just before the commit."""
    path = tmp_path / "tasks.db"

    def at(point: str) -> None:
        if point == "stepped" and is_armed:
            path.unlink()

    is_armed = False
    async with opened(path, at=at) as store:
        await add(store, "a")
        is_armed = True
        with pytest.raises(BookError, match="deleted, moved or replaced"):
            await add(store, "b")


async def test_the_lock_file_of_readers_may_be_out_of_reach(tmp_path: Path) -> None:
    """Who reads is told so, and may go on later."""
    path = tmp_path / "tasks.db"
    locks = tmp_path / "tasks.db-readers"
    async with opened(path) as store:
        await end(store, "a")
        locks.mkdir()
        with pytest.raises(BookError, match="cannot be used") as caught:
            await store.take(take(1))
        assert caught.value.transient
        locks.rmdir()
        assert (await store.take(take(1))).parcels


def test_an_error_that_nobody_knows_is_told_as_it_is(tmp_path: Path) -> None:
    """Its name and its text come with the path."""
    error = in_our_words(sqlite3.OperationalError("strange"), tmp_path)
    assert str(error) == f"the book {tmp_path} cannot be used (OperationalError: strange)"


async def test_a_log_is_taken_over_and_cut(tmp_path: Path) -> None:
    """What was written lies in the file itself soon, and the log does not grow for ever."""
    path, machine = tmp_path / "tasks.db", Machine()
    log = tmp_path / "tasks.db-wal"
    async with opened(path, machine) as store:
        for number in range(100):
            await add(store, *(f"{number}-{each}" for each in range(100)))
        await in_its_thread(store, lambda _: None)
        assert path.stat().st_size > 1_000_000
        assert log.stat().st_size < 5_000_000
        await add(store, *(f"more-{each}" for each in range(100)))
        machine.pass_time(QUIET_S)
        await store.find("a")
        await in_its_thread(store, lambda _: None)
        assert log.stat().st_size == 0
        await add(store, "a")
        machine.pass_time(QUIET_S)
        assert await in_its_thread(store, lambda _: store._file.rest()) is None
        assert log.stat().st_size > 0  # too little to be worth it
    assert not log.exists()


@pytest.mark.usefixtures("impatient")
async def test_a_log_that_cannot_be_taken_over_grows_until_it_can(tmp_path: Path) -> None:
    """Who reads for long holds nothing up, and nothing is lost."""
    path, machine = tmp_path / "tasks.db", Machine()
    async with opened(path, machine) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM entries").fetchall()
        for number in range(30):
            await add(store, *(f"{number}-{each}" for each in range(100)))
        assert (await store.progress())[0].open == 3_000
        other.close()
    assert outside(path, "SELECT count(*) FROM entries") == [(3_000,)]


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ((3, 40, 1), 1),
        ((3, 44, 5), 1),
        ((3, 44, 6), 0),
        ((3, 45, 0), 1),
        ((3, 50, 7), 0),
        ((3, 51, 2), 1),
        ((3, 51, 3), 0),
        ((3, 53, 0), 0),
    ],
)
def test_versions_of_sqlite_with_a_fault_are_named_once(
    version: tuple[int, ...], said: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says by name which one is used, at the first opening."""
    with caplog.at_level(logging.INFO, "kling_omni_async.book"):
        name_reset_bug((*version, 0))
        name_reset_bug((*version, 0))
    assert has_reset_bug(version) is bool(said)
    assert caplog.text.count("WAL-reset bug") == said
