"""`book`: what a book holds, and what is added to it and taken from it."""

from __future__ import annotations

import errno
import io
import json
import math
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from kling_omni_async import BookError, PollTimeoutError, TaskOutcome
from kling_omni_async._book.sqlite import SqliteStore
from kling_omni_async._cli import book_list
from kling_omni_async._cli.exit import Exit
from kling_omni_async._cli.options import with_action_first
from tests.book.ends import failed, succeeded

from .books import (
    FAST_BOOK,
    Pieces,
    beside,
    counts_of,
    end,
    entry_in,
    in_book,
    interrupt_after,
    make_book,
    park,
)
from .support import Call, OnScreen, bare

IDS = ["842250903629086785", "842250903629086786", "842250903629086787"]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where a book may be made, in the folder where commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tasks.db"


def timed_out(task_id: str) -> TaskOutcome:
    """Return the outcome of an id that was given up."""
    return TaskOutcome(task_id=task_id, error=PollTimeoutError("too late", task_id=task_id))


# Adding.


def test_ids_are_added_once(path: Path, call: Call) -> None:
    """What is there keeps its note; the line tells how many were new."""
    code, stdout, stderr = call("book", "tasks.db", "add", *IDS[:2], "--note", '{"chat": 42}')
    assert (code, stdout) == (Exit.OK, "")
    assert stderr == "kling-omni: 2 added; 0 were there already\n"
    code, stdout, stderr = call("book", "tasks.db", "add", *IDS)
    assert stderr == "kling-omni: 1 added; 2 were there already\n"
    entries = [entry_in(path, each) for each in IDS]
    assert [entry and entry.note for entry in entries] == [{"chat": 42}, {"chat": 42}, None]


def test_a_file_is_added(path: Path, call: Call) -> None:
    """The files are those of `poll`: the column of the ids may have any name."""
    Path("ids.csv").write_text(f"name,id\na,{IDS[0]}\nb,{IDS[1]}\n", encoding="utf-8")
    code, _, stderr = call("book", "tasks.db", "add", "--from", "ids.csv", "--column", "id", IDS[2])
    assert (code, stderr) == (Exit.OK, "kling-omni: 3 added; 0 were there already\n")
    assert counts_of(path).pending == 3


def test_a_stream_is_added_as_it_comes(
    path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before a line that is refused is in the book, and counted."""
    pieces = [f"{IDS[0]}\n".encode(), f"{IDS[1]}\n".encode(), b"8.78106E+17\n"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Pieces(pieces)))
    code, _, stderr = call("book", "tasks.db", "add", IDS[2], IDS[1], "--from", "-")
    assert code == Exit.USAGE
    first, second = stderr.splitlines()
    assert first == "kling-omni: 3 added; 1 was there already"
    assert "line 3: a spreadsheet" in second
    assert counts_of(path).pending == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "no ids: give some, or a file of them with --from"),
        (["1", "--column", "id"], "--column says where a file has its ids: give --from too"),
        (["ids.txt"], "ids.txt is a file, not an id: write book BOOK add --from ids.txt"),
        (["a b"], "task id 'a b' holds white space"),
        (["--from", "ids.txt"], "cannot read ids from ids.txt, line 2: task id 'a b' holds"),
        (
            ["1", "--note", "{chat"],
            "--note cannot be '{chat': write JSON, such as '{\"chat\": 42}'",
        ),
        (["1", "--note", "NaN"], "--note cannot be 'NaN': write JSON"),
        (["1", "--note", "[" * 9999], "--note cannot be '[[["),
        (["1", "--note", f'"{"x" * 70_000}"'], "note has 70,002 bytes as JSON"),
    ],
)
def test_what_cannot_be_added_is_told_before_anything_is(
    arguments: list[str], told: str, path: Path, call: Call
) -> None:
    """The line says what to write instead, and no file is made."""
    Path("ids.txt").write_text("1\na b\n", encoding="utf-8")
    code, stdout, stderr = call("book", "tasks.db", "add", *arguments)
    assert (code, stdout) == (Exit.USAGE, "")
    assert stderr.startswith(f"kling-omni: {told}")
    assert stderr.count("\n") == 1
    assert not path.exists()


# What is there.


def test_the_counts_are_one_line(path: Path, call: Call) -> None:
    """Without a command the book says what it holds."""
    make_book(path, *IDS)
    end(path, failed(IDS[0]))
    code, stdout, stderr = call("book", "tasks.db")
    assert (code, stderr) == (Exit.OK, "")
    counts = "2 pending, 0 succeeded, 1 failed, 0 unresolved; 1 unread, 0 parked; workers: 1"
    assert stdout == f"{counts}\n"


def test_ids_are_listed_in_pages(path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe each id is a line; of what was removed and is remembered nothing is shown."""
    monkeypatch.setattr(book_list, "PAGE", 2)
    ids = [f"{number:03}" for number in range(7)]
    make_book(path, *ids)
    end(path, failed(ids[1]), failed(ids[6]))
    in_book(path, lambda book: book.remove(ids[1]))
    assert call("book", "tasks.db", "list") == (0, "\n".join([ids[0], *ids[2:], ""]), "")
    assert call("book", "tasks.db", "list", "--state", "done") == (0, f"{ids[6]}\n", "")
    assert call("book", "tasks.db", "list", "--state", "parked") == (0, "", "")
    _, stdout, _ = call("book", "tasks.db", "list", "--state", "open")
    assert stdout.split() == [ids[0], *ids[2:6]]


def test_a_terminal_gets_a_table(
    path: Path, on_screen: OnScreen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pages have one header and columns of the same widths; nothing steers the terminal."""
    monkeypatch.setattr(book_list, "PAGE", 1)
    in_book(path, lambda book: book.add_many([(IDS[0], "\x1b[2J"), *IDS[1:]]))
    end(path, failed(IDS[1]), succeeded(IDS[2], "https://i.test/1.png"))
    code, text = on_screen("book", "tasks.db", "list")
    assert code == Exit.OK
    header, _, *rows = [line.rstrip() for line in bare(text).splitlines()]
    assert header.split() == ["task", "state", "how", "added", "note"]
    assert [row.split()[:2] for row in rows] == [
        [IDS[0], "open"],
        [IDS[1], "done"],
        [IDS[2], "done"],
    ]
    assert [row[header.index("how") :].split()[0] for row in rows[1:]] == ["failed", "succeed"]
    assert rows[0].endswith('  "\\u001b[2J"')
    assert "\x1b[2J" not in text
    assert on_screen("book", "tasks.db", "list", "--state", "parked") == (Exit.OK, "")


def test_what_an_open_task_was_last_seen_as_is_shown(path: Path, on_screen: OnScreen) -> None:
    """An id that was asked for has the status of its last answer."""
    with beside() as api:
        (task_id,) = api.create(duration=math.inf)
        make_book(path, task_id)
        api.portal.start_task_soon(interrupt_after, api, 1)
        assert on_screen("work", "tasks.db", "--quiet", *FAST_BOOK)[0] == Exit.INTERRUPTED
    _, text = on_screen("book", "tasks.db", "list", "--state", "open")
    assert bare(text).splitlines()[2].split()[:3] == [task_id, "open", "submitted"]


def test_all_that_is_known_is_json(path: Path, call: Call) -> None:
    """Each line is an entry, to stdout or into a new file."""
    in_book(path, lambda book: book.add_many([(IDS[0], [1]), IDS[1]]))
    end(path, failed(IDS[0]))
    code, stdout, _ = call("book", "tasks.db", "list", "--jsonl", "-")
    assert code == Exit.OK
    first, second = map(json.loads, stdout.splitlines())
    assert list(first) == [
        *("task_id", "external_task_id", "state", "added_at", "note", "task", "outcome"),
    ]
    assert (first["task_id"], first["state"], first["note"]) == (IDS[0], "done", [1])
    assert TaskOutcome.from_dict(first["outcome"]).settled
    assert (second["state"], second["task"], second["outcome"]) == ("open", None, None)
    assert call("book", "tasks.db", "list", "--jsonl", "all.jsonl") == (0, "", "")
    assert Path("all.jsonl").read_text(encoding="ascii") == stdout


def test_a_listing_replaces_nothing(path: Path, call: Call) -> None:
    """A file that is there stays as it is, and a name that cannot be is told."""
    make_book(path, *IDS)
    Path("run.jsonl").write_text("mine", encoding="utf-8")
    code, _, stderr = call("book", "tasks.db", "list", "--jsonl", "run.jsonl")
    assert (code, Path("run.jsonl").read_text(encoding="utf-8")) == (Exit.USAGE, "mine")
    assert stderr == (
        "kling-omni: run.jsonl is there already: move it away, or give another name\n"
    )
    code, _, stderr = call("book", "tasks.db", "list", "--jsonl", "no/where.jsonl")
    assert code == Exit.USAGE
    assert stderr == "kling-omni: cannot write to no/where.jsonl: No such file or directory\n"


def test_a_listing_is_whole_or_not_there(
    path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong in the midst of it leaves no file, whatever that is."""
    make_book(path, *IDS)

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def broken(*_: object) -> NoReturn:
        raise BookError("the book is damaged")

    monkeypatch.setattr("os.replace", full)
    code, _, stderr = call("book", "tasks.db", "list", "--jsonl", "all.jsonl")
    assert code == Exit.NOT_ALL
    assert stderr == "kling-omni: cannot write to all.jsonl: No space left on device\n"
    monkeypatch.setattr(SqliteStore, "list", broken)
    code, _, stderr = call("book", "tasks.db", "list", "--jsonl", "all.jsonl")
    assert (code, stderr) == (Exit.NOT_ALL, "kling-omni: the book is damaged\n")
    assert not list(path.parent.glob("all.jsonl*"))


# Taking out, and trying again.


def test_tasks_are_removed(path: Path, call: Call) -> None:
    """Those that were not there are named, and the exit code says so."""
    make_book(path, *IDS)
    assert call("book", "tasks.db", "remove", IDS[0]) == (0, "", "kling-omni: 1 removed\n")
    code, stdout, stderr = call("book", "tasks.db", "remove", *IDS[:2])
    assert (code, stdout) == (Exit.NOT_ALL, "")
    assert stderr.splitlines() == [
        f"kling-omni: {IDS[0]}: it is not in the book",
        "kling-omni: 1 removed",
    ]
    assert counts_of(path).pending == 1
    assert call("book", "tasks.db", "remove") == (2, "", "kling-omni: no ids: give some\n")


def test_unsettled_ends_are_polled_again(path: Path, call: Call) -> None:
    """By their ids or all of them; what is still polled is passed over."""
    make_book(path, *IDS)
    end(path, timed_out(IDS[0]), timed_out(IDS[1]))
    code, stdout, stderr = call("book", "tasks.db", "retry", IDS[0], IDS[2])
    assert (code, stdout) == (Exit.NOT_ALL, "")
    assert stderr.splitlines() == [
        f"kling-omni: {IDS[2]}: it is not in the book, is still polled, or its end is settled",
        "kling-omni: 1 task is polled or handed out again",
    ]
    assert counts_of(path).pending == 2
    code, _, stderr = call("book", "tasks.db", "retry", "--parked")
    assert (code, stderr) == (0, "kling-omni: 0 tasks are polled or handed out again\n")
    code, _, stderr = call("book", "tasks.db", "retry", "--unsettled")
    assert (code, stderr) == (0, "kling-omni: 1 task is polled or handed out again\n")
    assert counts_of(path).pending == 3
    code, _, stderr = call("book", "tasks.db", "retry")
    assert code == Exit.USAGE
    assert stderr == "kling-omni: nothing to retry: give ids, --parked or --unsettled\n"


def test_parked_outcomes_are_handed_out_again(path: Path, call: Call) -> None:
    """They are no unsettled ends; afterwards a reader gets them."""
    park(path, *IDS[:2])
    assert counts_of(path).parked == 2
    code, _, stderr = call("book", "tasks.db", "retry", "--unsettled")
    assert (code, stderr) == (0, "kling-omni: 0 tasks are polled or handed out again\n")
    code, _, stderr = call("book", "tasks.db", "retry", "--parked")
    assert (code, stderr) == (0, "kling-omni: 2 tasks are polled or handed out again\n")
    assert (counts_of(path).parked, counts_of(path).unread) == (0, 2)


# Backups.


def test_a_book_is_backed_up(path: Path, call: Call) -> None:
    """The copy is a book of its own; nothing is ever replaced by one."""
    make_book(path, *IDS)
    code, stdout, stderr = call("book", "tasks.db", "backup", "copy.db")
    assert (code, stdout, stderr) == (Exit.OK, "", "kling-omni: backed up to copy.db\n")
    assert counts_of(path.with_name("copy.db")).pending == 3
    code, _, stderr = call("book", "tasks.db", "backup", "copy.db")
    assert code == Exit.USAGE
    assert stderr == "kling-omni: copy.db is there already: move it away, or give another name\n"
    code, _, stderr = call("book", "tasks.db", "backup", "no/copy.db")
    assert code == Exit.NOT_ALL
    assert stderr.startswith(f"kling-omni: no backup of the book {path} was made at no/copy.db: ")


# Where a book is.


@pytest.mark.parametrize(
    "arguments",
    [
        ["book", "tasks.db"],
        ["book", "tasks.db", "list"],
        ["book", "tasks.db", "remove", "1"],
        ["book", "tasks.db", "retry", "--parked"],
        ["book", "tasks.db", "backup", "copy.db"],
        ["work", "tasks.db", "--until-empty"],
        ["poll", "--book", "tasks.db"],
    ],
    ids=" ".join,
)
def test_a_wrong_path_makes_no_book(arguments: list[str], path: Path, call: Call) -> None:
    """The line names the file, and none is there afterwards."""
    code, stdout, stderr = call(*arguments)
    assert (code, stdout) == (Exit.USAGE, "")
    assert stderr == (
        "kling-omni: there is no book tasks.db: check the path; kling-omni book tasks.db add "
        "makes one\n"
    )
    assert not list(path.parent.iterdir())


def test_a_file_of_another_kind_is_refused(path: Path, call: Call) -> None:
    """It is wrong usage, and the file stays as it is."""
    path.write_text("no database, but longer than the head of one " * 30, encoding="utf-8")
    before = path.read_bytes()
    code, stdout, stderr = call("book", "tasks.db")
    assert (code, stdout) == (Exit.USAGE, "")
    assert stderr.startswith(f"kling-omni: the book {path} is no SQLite database; ")
    assert path.read_bytes() == before


def test_trouble_that_may_pass_is_no_wrong_usage(
    path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A book that is locked by another program, for instance."""
    make_book(path, *IDS)

    async def locked(_: SqliteStore) -> NoReturn:
        raise BookError("the book is locked", transient=True)

    monkeypatch.setattr(SqliteStore, "open", locked)
    assert call("book", "tasks.db") == (1, "", "kling-omni: the book is locked\n")


@pytest.mark.parametrize(
    "arguments",
    [[], ["list"], ["add", "1"], ["add", "ids.txt"], ["backup", "copy.db"], ["lits"]],
    ids=" ".join,
)
def test_the_password_of_a_url_is_never_told(
    arguments: list[str], path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong is said without the URL."""
    monkeypatch.setitem(sys.modules, "redis", None)  # the extra is missing, so nobody is called
    path.with_name("ids.txt").touch()
    url = "redis://user:secret@host:6379/0"
    for debug in ([], ["--debug"]):
        code, stdout, stderr = call("book", url, *arguments, *debug)
        assert (code, stdout) == (Exit.USAGE, "")
        assert "secret" not in stderr
    for words in (["poll", "--book", url, "1"], ["work", "x", url], ["book", "ad", url]):
        code, _, stderr = call(*words)
        assert (code, "secret" in stderr) == (Exit.USAGE, False)


def test_a_book_may_be_named_by_a_variable(
    path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`env:NAME` is the book that the variable has; a missing one is told, and its value never."""
    monkeypatch.setenv("BOOK_URL", str(path))
    code, _, stderr = call("book", "env:BOOK_URL")
    told = "kling-omni: there is no book env:BOOK_URL: check the path;"
    assert (code, stderr) == (Exit.USAGE, f"{told} kling-omni book env:BOOK_URL add makes one\n")
    assert call("book", "env:BOOK_URL", "add", *IDS)[0] == Exit.OK
    assert call("book", str(path), "list")[1].split() == IDS
    for value in ("", "redis:/:s3cret@host", "REDISS:s3cret@host"):
        monkeypatch.setenv("BOOK_URL", value)
        code, _, stderr = call("book", "env:BOOK_URL", "add", "1")
        assert (code, "s3cret" in stderr) == (Exit.USAGE, False)
    monkeypatch.delenv("BOOK_URL")
    code, _, stderr = call("work", "env:BOOK_URL")
    assert (code, "the environment variable 'BOOK_URL' is not set" in stderr) == (Exit.USAGE, True)


def test_only_books_in_redis_have_names(path: Path, call: Call) -> None:
    """A file holds one book, and a poll without a book has none to name."""
    make_book(path)
    code, _, stderr = call("book", "tasks.db", "--name", "shop")
    assert (code, "name tells books in Redis apart" in stderr) == (Exit.USAGE, True)
    code, _, stderr = call("poll", "1", "--name", "shop")
    assert (code, "--name tells books in Redis apart" in stderr) == (Exit.USAGE, True)


def test_redis_backs_itself_up(call: Call) -> None:
    """The line says by what."""
    code, _, stderr = call("book", "redis://host", "backup", "copy.db")
    assert code == Exit.USAGE
    assert stderr == (
        "kling-omni: a book in Redis is backed up by Redis itself, such as by its BGSAVE\n"
    )


# What is written.


def test_the_command_may_stand_before_the_book(path: Path, call: Call) -> None:
    """As shells complete it; a book that is called like a command is one all the same."""
    assert with_action_first(["book", "x", "add", "1"]) == ["book", "add", "x", "1"]
    named = ["x", "--name", "shop"]
    assert with_action_first(["book", *named, "add", "1"]) == ["book", "add", *named, "1"]
    assert with_action_first(["book", *named]) == ["book", *named]
    assert with_action_first(["book", "add", *named, "add"]) == ["book", "add", *named, "add"]
    assert with_action_first(["book", "add", "--help"]) == ["book", "add", "--help"]
    assert with_action_first(["book", "--help", "add"]) == ["book", "--help", "add"]
    assert with_action_first(["poll", "x", "add"]) == ["poll", "x", "add"]
    make_book(path, *IDS)
    assert call("book", "list", "tasks.db") == call("book", "tasks.db", "list")
    assert call("book", "list", "add", "1")[0] == Exit.OK
    assert counts_of(path.with_name("list")).pending == 1


def test_an_unknown_command_is_told(path: Path, call: Call) -> None:
    """With those that there are; an unknown option leads to the help of its command."""
    make_book(path)
    code, _, stderr = call("book", "tasks.db", "lits")
    assert code == Exit.USAGE
    assert stderr == (
        "kling-omni: nothing is called 'lits' here: behind BOOK write add, backup, list, remove, "
        "retry\n"
    )
    code, _, stderr = call("book", "tasks.db", "list", "--stat", "open")
    assert code == Exit.USAGE
    assert stderr.endswith(" kling-omni book list --help shows what there is\n")
    _, _, stderr = call("book")
    assert stderr.endswith(" kling-omni book --help shows what there is\n")
