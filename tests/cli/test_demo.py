"""The demo: as scripted, in time, and honest when it is not."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from kling_omni_async._cli import demo
from kling_omni_async._cli.demo import Script, in_words, play, table
from kling_omni_async._cli.exit import Exit, OutputError, UsageError
from kling_omni_async._cli.progress import Silent
from kling_omni_async._cli.report import Tally
from tests.program_demo_picture import COMMAND, lines_in, steady

from .support import finish, start

PICTURE = Path(__file__).parent.parent.parent / "docs" / "demo.svg"

SCRIPTED = {
    "created from prompts": 170,
    "answers to creates lost": 1,
    "images paid for": 404,
    "succeeded": 170,
    "failed, with the right reason": 20,
    "not found": 10,
    "different images saved": 404,
    "answers 502 met on the way": 24,
    "answers 429 met on the way": 1,
    "queries that hung": 1,
}


@pytest.mark.heavy
def test_the_demo_runs_without_a_key(tmp_path: Path) -> None:
    """As a program it shows progress, prints matching counts and ends well.

    Its images and their page are where its last line says, in a temporary directory. The picture
    in the docs shows what it writes.
    """
    code, stdout, stderr = finish(start("demo", env={"TMPDIR": str(tmp_path)}))
    assert code == 0
    *lines, words, last = stdout.splitlines()
    counts = [line.rsplit(maxsplit=2) for line in lines[1:]]
    assert counts == [[row, f"{n:,}", f"{n:,}"] for row, n in SCRIPTED.items()]
    assert words.startswith("everything came as scripted, in ")
    page = Path(last.partition("look at the images: ")[2])
    assert page.parent.parent == tmp_path
    assert page.read_text("utf-8").count("<img ") == 404
    assert len(list(page.parent.glob("*.png"))) == 404
    assert " of 200 done: " in stderr
    told = [line for line in stderr.splitlines() if "on purpose: " in line]
    assert len(told) == 4
    assert max(map(len, told)) < 80
    assert "warning" not in stderr
    command, *shown = lines_in(PICTURE.read_text("utf-8"))
    assert command == f"$ {COMMAND}"
    assert steady(shown) == steady([*stderr.splitlines(), *stdout.splitlines()])


class Watching(Silent):
    """Notes what is shown."""

    def __init__(self) -> None:
        self.totals: list[int] = []

    def show(self, tally: Tally) -> None:
        """Note of how many ids is spoken."""
        self.totals.append(tally.total)


@pytest.mark.anyio
async def test_everything_comes_as_scripted(tmp_path: Path) -> None:
    """Whatever the clock, 200 ids end in the counts that the script foretells.

    Their number is shown before anything has ended.
    """
    view = Watching()
    script, counted = await play(view, tmp_path)
    assert view.totals == [200] * 201
    assert script.expected == SCRIPTED
    assert counted == SCRIPTED


@pytest.mark.anyio
async def test_the_page_tells_times_of_one_kind(tmp_path: Path) -> None:
    """Tasks run faster than the clock, so polling is told in their time: two looks take 20 s."""
    await play(Silent(), tmp_path)
    page = (tmp_path / "index.html").read_text("utf-8")
    polled = re.findall(r"polled for (?:(\d+) min )?([0-9.]+) s", page)
    assert len(polled) == 10
    assert all(60 * int(minutes or 0) + float(rest) >= 20 for minutes, rest in polled)
    assert "<h1><bdi>Kling Omni demo</bdi></h1>" in page


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "first ServerError (HTTP 502): HTTP 502: Bad Gateway; asked again",
            "HTTP 502: Bad Gateway",
        ),
        ("throttled by the API: no query for 1.0 s", "throttled by the API: no query for 1.0 s"),
        (
            "first TransportError (timeout): no full answer within 3 s; more",
            "no full answer within 3 s",
        ),
    ],
)
def test_scripted_trouble_is_on_purpose(text: str, line: str) -> None:
    """Each warning of the script is one short line that says so."""
    assert in_words(logging.makeLogRecord({"msg": text})) == f"on purpose: {line}"


def test_other_trouble_is_a_warning() -> None:
    """What the script does not foresee is told whole, as by every command."""
    text = "first TransportError (reset): cut off; asked again"
    record = logging.makeLogRecord({"msg": text, "levelname": "WARNING"})
    assert in_words(record) == f"warning: {text}"


def test_the_demo_tells_when_something_is_amiss(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A count that differs is shown beside the scripted one, and the exit code is 1."""

    async def play(_: Silent, __: Path) -> tuple[Script, dict[str, int]]:
        return Script([], {}, {"succeeded": 170}, ""), {"succeeded": 169}

    monkeypatch.setattr(demo, "play", play)
    assert demo.demo(save=str(tmp_path)) == Exit.NOT_ALL
    assert "not as scripted, in " in capfd.readouterr().out


def test_the_demo_saves_to_a_directory_only(tmp_path: Path) -> None:
    """What is refused, such as a directory with a foreign page, is so before anything is played."""
    with pytest.raises(UsageError, match="give its path"):
        demo.demo(save="s3://bucket")
    (tmp_path / "file").touch()
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UsageError, match="not of this program: move it away"):
        demo.demo(save=str(tmp_path))
    with pytest.raises(OutputError, match="Not a directory"):
        demo.demo(save=str(tmp_path / "file" / "below"))


def test_the_table_has_aligned_columns() -> None:
    """Both counts stand right-aligned under their heads."""
    lines = table({"images": 1404}, {"images": 7}).splitlines()
    assert [line.split() for line in lines] == [["scripted", "seen"], ["images", "1,404", "7"]]
    assert len(set(map(len, lines))) == 1
