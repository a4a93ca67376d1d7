"""Ids as people have them: lines, CSV and JSON, in any piece of which they may come."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async._cli import id_rows, records
from kling_omni_async._cli.exit import Exit, UsageError
from kling_omni_async._cli.id_rows import IdRow, IdRows, refuse_rounded

AN_ID = "842250903629086785"


def read(content: bytes, column: str | None = None, *, step: int = 1 << 20) -> Reading:
    """Read an input in pieces of a size."""
    reader = Reading(column)
    for at in range(0, len(content), step):
        reader.rows += reader.feed(content[at : at + step])
    reader.rows += reader.feed(b"", last=True)
    return reader


class Reading(IdRows):
    """Keeps what it has read."""

    def __init__(self, column: str | None) -> None:
        super().__init__("ids.csv", column)
        self.rows: list[IdRow] = []


def ids_of(content: bytes, column: str | None = None, *, step: int = 1 << 20) -> list[str]:
    """Read the ids of an input."""
    rows = read(content, column, step=step).rows
    return [row.task_id for row in rows]


def refusal_of(content: bytes, column: str | None = None) -> str:
    """Read what must be refused, whatever pieces it comes in, and give the line that says so."""
    texts: set[str] = set()
    # What is long comes in pieces as long as those of a file: each is read from its beginning.
    for step in (1, 2, 3, 1 << 20) if len(content) < 1 << 16 else (1 << 16, 1 << 20):
        with pytest.raises(UsageError) as caught:
            read(content, column, step=step)
        assert caught.value.code == Exit.USAGE
        texts.add(str(caught.value))
    (text,) = texts
    assert "\n" not in text
    return text.removeprefix("cannot read ids from ids.csv, ")


FORMS: list[tuple[bytes, str | None, list[str]]] = [
    # Plain lines.
    (b"", None, []),
    (b"\n \n", None, []),
    (b"1\n2\n", None, ["1", "2"]),
    (b"1\n2", None, ["1", "2"]),
    (b"\n  1  \n\t\n# all of them\n   # indented\n2\n", None, ["1", "2"]),
    (b"1 # the first\n2\t#second\n", None, ["1", "2"]),
    (b"1#b\n", None, ["1#b"]),
    (b"1\r\n2\r\n", None, ["1", "2"]),
    (b"1\r2\r3", None, ["1", "2", "3"]),
    (b"2\n1\n2\n", None, ["2", "1", "2"]),
    (b"\xef\xbb\xbf1\n\xef\xbb\xbf2\n\xef\xbb\xbf", None, ["1", "2"]),
    # CSV.
    (b"task_id\n1\n2\n", None, ["1", "2"]),
    (b"name,task_id\nfox,1\nowl,2\n", None, ["1", "2"]),
    (b"name;Task ID\nfox;1\n", None, ["1"]),
    (b"\ttask_id\n0\t1\n1\t2\n", None, ["1", "2"]),
    (b"task_id,name\n1,\n2,,\n,,\n", None, ["1", "2"]),
    (b'"task_id","name"\n"1","a, b"\n"2","a ""b"""\n', None, ["1", "2"]),
    (b'task_id,name\n1,"two\nlines, # no comment\n"\n2,owl\n', None, ["1", "2"]),
    (b"task_id,name\n# those of monday\n1 # first,fox\n", None, ["1"]),
    (b'\xef\xbb\xbf"task_id"\n\xef\xbb\xbf"1"\n', None, ["1"]),
    (b"task_id\n1\ntask_id\n2\n", None, ["1", "2"]),
    (b"1,fox\n2,owl\n", None, ["1", "2"]),
    (b",1\n,2\n", None, ["1", "2"]),
    (b",,\n1,\n2,,\n", None, ["1", "2"]),
    (b'"1" # a, b\n"2", \n', None, ["1", "2"]),
    (b'="1"\n\'2\n', None, ["1", "2"]),
    (b"sep=;\r\nname;task_id\r\nfox, red;1\r\n", None, ["1"]),
    (b'\xef\xbb\xbf"SEP=|"\nname|task_id\nfox|1\n', None, ["1"]),
    (b"id,name\n1,2\n", "id", ["1"]),
    (b"ID,name\n1,2\n", "id", ["1"]),
    (b"id,name\n1,2\n", "2", ["2"]),
    (b"x1,1\nx2,2\n", "2", ["1", "2"]),
    (b"x1\nx2\n", "1", ["x1", "x2"]),
    # JSON.
    (b'["1", 2,\n {"task_id": "3"}]', None, ["1", "2", "3"]),
    (b'{"task_id": "1", "n": null}\n{"task_id": 2}\n', None, ["1", "2"]),
    (b'{\n "task_id": "1"\n}\n{\n "task_id": "2"\n}', None, ["1", "2"]),
    (b'{"id": "1"}', "id", ["1"]),
    (b'{"code": 0, "data": {"task_id": "1"}}', None, ["1"]),
    (b'[{"task_id": ""}, {"task_id": "1"}]', None, ["1"]),
    (b"[" + AN_ID.encode() + b",\n8]\n", None, [AN_ID, "8"]),
    (b"[ ]", None, []),
]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(("content", "column", "ids"), FORMS)
def test_reads_the_forms_that_people_have(
    content: bytes, column: str | None, ids: list[str], step: int
) -> None:
    """Each form gives its ids, and whichever pieces it comes in they are the same."""
    assert ids_of(content, column, step=step) == ids


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8", "utf-8-sig"])
def test_reads_each_encoding_of_spreadsheets_and_shells(encoding: str) -> None:
    """Windows writes UTF-16 with a mark, other programs without one."""
    content = "task_id;名前\r\n1;狐\r\n2;梟\r\n".encode(encoding)
    for step in (1, 2, 1 << 20):
        reading = read(content, step=step)
        assert [row.cells for row in reading.rows] == [("1", "狐"), ("2", "梟")]


def test_each_id_comes_as_soon_as_its_row_is_whole() -> None:
    """A stream that goes on does not hold back what it has brought."""
    rows = IdRows("-")
    assert [row.task_id for row in rows.feed(b"1\n2")] == ["1"]
    assert [row.task_id for row in rows.feed(b"\n3\n")] == ["2", "3"]
    rows = IdRows("-")
    assert [row.task_id for row in rows.feed(b'["1", "2"')] == ["1", "2"]
    assert [row.task_id for row in rows.feed(b", 3")] == []
    assert [row.task_id for row in rows.feed(b"4 ")] == ["34"]


def test_knows_the_line_and_the_other_cells_of_each_id() -> None:
    """They are told with what is wrong, and kept in the table."""
    reading = read(b'name,task_id\n"a\nb",1\n\nc,2,d\n,3\nx,\n')
    assert reading.rows == [
        IdRow("1", 2, ("a\nb", "1")),
        IdRow("2", 5, ("c", "2", "d")),
        IdRow("3", 6, ("", "3")),
    ]
    assert reading.names == ["name", "task_id", "column_3"]
    assert (reading.count, reading.without_id) == (3, 1)


@pytest.mark.parametrize(
    ("content", "names", "cells"),
    [
        (b"1,fox\n", ["task_id", "column_2"], ("1", "fox")),
        (b",1\n", ["column_1", "task_id"], ("", "1")),
        (b"task_id,,\n1,a,b\n", ["task_id", "column_2", "column_3"], ("1", "a", "b")),
        (
            b'[{"task_id": 1, "n": null, "b": true, "tags": ["a", "\xc3\xa4"]}]',
            ["task_id", "n", "b", "tags"],
            ("1", "", "true", '["a", "ä"]'),
        ),
    ],
)
def test_names_the_columns(content: bytes, names: list[str], cells: tuple[str, ...]) -> None:
    """Where there is no header the numbers of columns are their names."""
    reading = read(content)
    assert (reading.names, reading.rows[0].cells) == (names, cells)


def test_objects_may_differ_in_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is new goes to the end; of an input that never ends not every name is kept."""
    monkeypatch.setattr(id_rows, "_MOST_COLUMNS", 3)
    objects = [{"a": "1", "task_id": "2"}, {"b": "3", "task_id": "4"}, {"c": "5", "task_id": "6"}]
    reading = read("\n".join(map(json.dumps, objects)).encode())
    assert reading.names == ["a", "task_id", "b"]
    assert [row.cells for row in reading.rows] == [("1", "2"), ("", "4", "3"), ("", "6", "")]


NOT_TEXT = "line 1: not a text file in UTF-8 or UTF-16; save it as text or as CSV UTF-8"
SAVED_WRONG = "set the column to text before the ids are put in, and save it again"
IS_HEADER = (
    "line 1: 'id' is no task id; if this line is a header, say which column has the ids, such as "
    "--column id"
)


@pytest.mark.parametrize(
    ("content", "column", "text"),
    [
        (b"id\n1\n", None, IS_HEADER),
        (b"\n# all\nid\n", None, IS_HEADER.replace("line 1", "line 3")),
        (b"id,name\n1,fox\n", None, IS_HEADER),
        (b"the id;name\n1;fox\n", None, IS_HEADER.replace("'id'", "'the id'")[:-2] + "'the id'"),
        (b'["id", "1"]', None, IS_HEADER),
        (b"a,b\n1,2\n", "c", "line 1: no column 'c' here; there is 'a', 'b'"),
        (b"a,b\n1,2\n", "3", "line 1: no column '3' here; there is 'a', 'b'"),
        (b"a,b\n1,2\n", "0", "line 1: no column '0' here; there is 'a', 'b'"),
        (
            b",".join(b"x%d" % each for each in range(12)),
            "y",
            "line 1: no column 'y' here; there is "
            + ", ".join(f"'x{each}'" for each in range(10))
            + " …",
        ),
        (
            b'{"task_id": 1}\n{"id": "2"}\n',
            None,
            "line 2: no 'task_id' here; there is 'id': say with --column which one is the id",
        ),
        (
            b"task_id,name\n8.78106E+17,fox\n",
            None,
            f"line 2: a spreadsheet has made the number '8.78106E+17' of an id; {SAVED_WRONG}",
        ),
        (
            b"1\n8,78106E+17\n",
            None,
            f"line 2: a spreadsheet has made the number '8,78106E+17' of an id; {SAVED_WRONG}",
        ),
        (b'task_id,name\n1,"open\n2,x\n', None, "line 2: a quote begins here and does not end"),
        (b'["1",\n"2"', None, "line 2: the JSON array ends too early; it was cut off"),
        (b'["1",\nnull]', None, "line 2: neither an id nor an object with one"),
        (b'{"task_id": "1', None, "line 1: no JSON (Unterminated string starting at)"),
        (b'{"task_id": tru', None, "line 1: no JSON (Expecting value)"),
        (b'["1",\n{"task_id": }, "2", "3", "4"]', None, "line 2: no JSON (Expecting value)"),
        (b"[8.]", None, "line 1: no JSON (an odd number)"),
        (b"[8.,              1]", None, "line 1: no JSON (an odd number)"),
        (b'[{"a":' * 100_000, None, "line 1: no JSON (too deep, or a number too long)"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", None, NOT_TEXT),
        (b"1\n\xff\xfe2\n", None, NOT_TEXT),
        (b"\0\0\0\0", None, NOT_TEXT),
        ("1\n".encode("utf-32"), None, NOT_TEXT),
        (b"\xff\xfe1", None, NOT_TEXT),
    ],
)
def test_refuses_what_cannot_be_meant(content: bytes, column: str | None, text: str) -> None:
    """The number of the line and what to do are told, in one line."""
    assert refusal_of(content, column) == text


@pytest.mark.parametrize(
    "cell",
    [
        *("8.78106E+17", "8,78106E+17", "8.781060e+17", "8E+17", "878106000000000000.0"),
        "878,106,000,000,000,000",
    ],
)
def test_refuses_every_way_in_which_spreadsheets_round(cell: str) -> None:
    """Also in another language, and as data frames write them."""
    assert "a spreadsheet has made" in refusal_of(f'x;task_id\n1;"{cell}"\n'.encode())


def test_refuses_ids_whose_last_digits_are_gone() -> None:
    """Of 18 digits a spreadsheet keeps 15; one id alone, or others beside it, may end so."""
    rounded = ["842250903629086000", "842250903629087000"]
    with pytest.raises(UsageError, match=r"line 1: a spreadsheet has rounded the ids, all of them"):
        refuse_rounded("ids.csv", rows_of(rounded))
    refuse_rounded("ids.csv", rows_of(rounded[:1] * 2))
    refuse_rounded("ids.csv", rows_of([*rounded, AN_ID]))
    refuse_rounded("ids.csv", rows_of(["1000", "2000", "task_000000000000000000"]))


def rows_of(task_ids: Sequence[str]) -> list[IdRow]:
    """Make the rows of some ids."""
    return [IdRow(task_id, line) for line, task_id in enumerate(task_ids, 1)]


@pytest.mark.parametrize(
    ("start", "more"), [(b" ", b" "), (b"1", b"1"), (b'["', b"1"), (b'{"a": ', b" "), (b'"', b"\n")]
)
def test_what_has_no_end_is_refused(
    start: bytes, more: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line, a quote, a value and white space that never end are held only so long."""
    monkeypatch.setattr(records, "LONGEST", 1000)
    with pytest.raises(UsageError, match=r"longer than|field larger than field limit"):
        read(start + more * 200_000, step=1000)


@given(content=st.binary(), step=st.integers(1, 10))
def test_any_bytes_are_read_or_refused(content: bytes, step: int) -> None:
    """Whatever it is, it ends in ids or in one line, and pieces make no difference to ids."""
    try:
        ids = ids_of(content)
    except UsageError:
        return
    assert ids_of(content, step=step) == ids


@given(
    ids=st.lists(st.text("0123456789abc_=-", min_size=1).map("7{}".format), min_size=1),
    others=st.text(),
    step=st.integers(1, 10),
)
def test_any_json_and_csv_that_programs_write_is_read(
    ids: list[str], others: str, step: int
) -> None:
    """What Python's own writers make comes back, id by id, with whatever stands beside it."""
    objects = [{"x": others, "task_id": each} for each in ids]
    assert ids_of(json.dumps(objects).encode(), step=step) == ids
    assert ids_of("\n".join(map(json.dumps, objects)).encode(), step=step) == ids
