"""Prompts as they are read: lines, CSV and JSON, each row an order or an error with its line."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kling_omni_async import ImageOrder
from kling_omni_async._cli import inputs
from kling_omni_async._cli.exit import UsageError
from kling_omni_async._cli.prompts import make_order, read_prompts
from kling_omni_async._cli.wanted import without_repeats

Read = Callable[..., list[ImageOrder]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return what reads a file of that name and those contents."""

    def read(name: str, contents: str | bytes, **usual: Any) -> list[ImageOrder]:
        path = tmp_path / name
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return [each.order for each in read_prompts(str(path), usual)]

    return read


def test_each_line_of_a_text_is_a_prompt(read: Read) -> None:
    """Commas and semicolons are a part of it; blank lines and comments are none."""
    orders = read("p.txt", "a fox, red; in snow\r\n\r\n# later: a wolf\n  a hen  \n", n=2)
    assert orders == [ImageOrder("a fox, red; in snow", n=2), ImageOrder("a hen", n=2)]


def test_a_text_may_be_utf16(read: Read) -> None:
    """As some editors save it."""
    assert read("p.txt", "ein Fuchs für dich".encode("utf-16")) == [
        ImageOrder("ein Fuchs für dich")
    ]


def test_a_table_has_a_column_for_each_field(read: Read, tmp_path: Path) -> None:
    """Names are found whatever their case; files are those beside the table."""
    table = (
        "Prompt,model_name,Image,elements,resolution,n,result type,series_amount,aspect_ratio,"
        "watermark,callback_url,key,extra\n"
        "a fox,kling-v3-omni,fox.png | https://images.test/hen.png,3|4,2k,2,series,auto,1:1,yes,"
        'https://shop.test/cb,42/1,"{""strength"": 3}"\n'
        ",,,,,,,,,,,,\n"
        'a hen,,"[""a|b.png""]",[5],,,,4,,no,,,\n'
        "a wolf\n"
    )
    fox = ImageOrder(
        "a fox",
        model="kling-v3-omni",
        images=[tmp_path / "fox.png", "https://images.test/hen.png"],
        elements=[3, 4],
        resolution="2k",
        n=2,
        result_type="series",
        series_amount="auto",
        aspect_ratio="1:1",
        watermark=True,
        callback_url="https://shop.test/cb",
        key="42/1",
        extra={"strength": 3},
    )
    hen = ImageOrder(
        "a hen", images=[tmp_path / "a|b.png"], elements=[5], series_amount=4, watermark=False
    )
    assert read("p.csv", table) == [fox, hen, ImageOrder("a wolf")]


def test_json_has_an_object_or_a_text_for_each(read: Read) -> None:
    """Numbers stay numbers; null is the same as nothing, and a row overrides what is usual."""
    lines = (
        '{"prompt": "a fox", "n": 3, "extra": {"strength": 0.5}, "key": null}\n"a hen"\n'
        '{"prompt": "a wolf", "watermark": true, "elements": [1, 2]}\n'
    )
    wanted = [
        ImageOrder("a fox", n=3, extra={"strength": 0.5}),
        ImageOrder("a hen", n=2),
        ImageOrder("a wolf", n=2, watermark=True, elements=[1, 2]),
    ]
    assert read("p.jsonl", lines, n=2) == wanted
    assert read("p.txt", f"[{','.join(lines.splitlines())}]", n=2) == wanted


def test_columns_of_no_field_are_named(read: Read, capfd: pytest.CaptureFixture[str]) -> None:
    """A field that is misspelt costs money; there may be many objects with other names each."""
    read("p.csv", "prompt,resolutoin,\na fox,4k,\n")
    assert "no column of an order: 'resolutoin'; passed over in" in capfd.readouterr().err
    many = "".join(f'{{"prompt": "a fox", "x{number}": 1}}\n' for number in range(300))
    assert len(read("p.jsonl", many)) == 300
    assert "'x0', 'x1'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "contents", "told"),
    [
        ("p.csv", "wish\na fox\n", "line 1: no column 'prompt' here; there is 'wish'"),
        ("p.csv", "", "line 1: no column 'prompt' here; there is nothing"),
        ("p.csv", "prompt\n", "no prompts in"),
        ("p.txt", "\n# nothing\n", "no prompts in"),
        ("p.csv", "prompt\na fox, red\n", "line 2: 2 cells under 1 columns; put a prompt with"),
        ("p.csv", "prompt,n\na fox,ten\n", "line 2: n must be a whole number from 1 to 9, not"),
        ("p.csv", "prompt,n\n,2\n", "line 2: prompt must be a text of 1 to 2,500 characters"),
        ("p.csv", "prompt,watermark\na,maybe\n", "line 2: watermark cannot be 'maybe': write true"),
        ("p.csv", "prompt,elements\na,x|y\n", "line 2: elements cannot be 'x|y': write whole"),
        ("p.csv", "prompt,images\na,[1]\n", "line 2: images cannot be '[1]': write paths or"),
        ("p.csv", "prompt,extra\na,3\n", "line 2: extra cannot be '3': write an object of JSON"),
        ("p.jsonl", '{"wish": "a"}\n', "line 1: no column 'prompt' here; there is 'wish'"),
        ("p.jsonl", '{"prompt": "a"}\n{"n": 1', "line 2: no JSON"),
        ("p.jsonl", f'{{"prompt": "a", "n": {"9" * 5000}}}', "line 1: no JSON (too deep, or a num"),
        ("p.txt", b"a fox \xff\n", "line 1: not a text file in UTF-8 or UTF-16"),
        ("p.txt", b"PK\0\0\x01\x02zip", "line 1: not a text file in UTF-8 or UTF-16"),
        ("p.txt", f"a fox\n{'x' * 2501}\n", "line 2: prompt must be a text of 1 to 2,500"),
    ],
)
def test_what_is_no_order_is_told_with_its_line(
    name: str, contents: str | bytes, told: str, read: Read
) -> None:
    """Nothing of the file is created: a part of it would be paid for twice later."""
    with pytest.raises(UsageError) as caught:
        read(name, contents)
    assert told in str(caught.value)


def test_stdin_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As lines or JSON; its files are those of the current directory."""
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "a", "image": "x"}'))
    )
    (prompt,) = read_prompts("-", {})
    assert prompt.order == ImageOrder("a", images=[Path("x")])


def test_a_terminal_is_told_how_to_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Else it would look as if nothing happened."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "rb", buffering=0) as raw:
        os.write(ours, b"a fox\n\x04")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(raw)))
        assert [each.order.prompt for each in read_prompts("-", {})] == ["a fox"]
    os.close(ours)
    assert "reading prompts from the terminal, one a line" in capfd.readouterr().err


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """In the words of prompts."""
    with pytest.raises(UsageError, match=r"cannot read prompts from .*No such file"):
        read_prompts(str(tmp_path / "none.csv"), {})


def test_an_input_without_end_is_refused(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is held, so there is an end to that."""
    monkeypatch.setattr(inputs, "_MOST_BYTES", 10)
    with pytest.raises(UsageError, match="more than 256 MiB"):
        read("p.txt", "a fox in the snow")


def test_an_order_of_the_command_line_is_told_by_its_options() -> None:
    """No class of ours is named."""
    with pytest.raises(UsageError, match=r"^n must be a whole number from 1 to 9, not 0$"):
        make_order({"prompt": "a fox", "n": 0})


def test_one_key_is_one_order(read: Read, tmp_path: Path) -> None:
    """The same twice is one; two wishes with one key are a mistake."""
    table = tmp_path / "p.csv"
    table.write_text("prompt,key\na fox,1\na fox,1\na fox,\na fox,\n")
    assert len(without_repeats(read_prompts(str(table), {}))) == 3
    table.write_text("prompt,key\na fox,1\na hen,1\n")
    with pytest.raises(UsageError, match="key '1' names two orders, lines 2 and 3"):
        without_repeats(read_prompts(str(table), {}))
