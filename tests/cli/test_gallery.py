"""The gallery: which files and outcomes it shows, and what it leaves alone."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async import (
    ApiError,
    DownloadError,
    ImageOrder,
    ImageTask,
    InvalidTaskIdError,
    KlingOmniError,
    PollTimeoutError,
    SavedImage,
    ServerError,
    TaskFailedError,
    TaskImage,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._cli import gallery
from kling_omni_async._cli.app import run
from kling_omni_async._cli.cards import (
    Card,
    Figures,
    Group,
    Picture,
    cards_of,
    count,
    unlisted,
)
from kling_omni_async._cli.exit import CliError, Exit, OutputError, UsageError
from kling_omni_async._cli.gallery import write_outcomes
from kling_omni_async._cli.journal import Journal, read_outcomes
from kling_omni_async._cli.report import Kind

from .support import success, trouble, write_gallery

Captured = pytest.CaptureFixture[str]
URL = "https://images.test/1.png"


def saved(key: str, url: str = URL) -> SavedImage:
    """Make the record of a stored image."""
    return SavedImage(key=key, url=url, size=3, sha256="0" * 64, content_type="image/png")


def stored(task_id: str, *keys: str) -> TaskOutcome:
    """Make the outcome of a task whose images were saved."""
    urls = [f"https://images.test/{task_id}/{at}.png" for at in range(len(keys))]
    images = tuple(map(saved, keys, urls))
    return attrs.evolve(success(task_id, *urls), saved=images)


def with_task(**fields: Any) -> TaskOutcome:
    """Make the outcome of a task that succeeded."""
    task = ImageTask(task_id="a", status=TaskStatus.SUCCEED, **fields)
    return TaskOutcome(task_id="a", task=task)


def only_card(outcome: TaskOutcome, *files: str) -> Card:
    """Return the card of one outcome."""
    return cards_of([outcome], files)[0]


def put(folder: Path, *names: str) -> None:
    """Make image files of three bytes."""
    for name in names:
        (folder / name).write_bytes(b"png")


def write(path: Path, *outcomes: TaskOutcome) -> Path:
    """Append outcomes to a journal."""
    with Journal(str(path)) as journal:
        for outcome in outcomes:
            journal.write(outcome)
    return path


def titles(page: Path) -> list[str]:
    """Return the heading of each card, those without an image last."""
    return re.findall(r"<h3><bdi>(.*?)</bdi></h3>", page.read_text("utf-8"))


def sources(page: Path) -> list[str]:
    """Return the address of each image."""
    return re.findall(r'<img src="([^"]*)"', page.read_text("utf-8"))


def test_the_command_prints_where_the_page_is(tmp_path: Path, capfd: Captured) -> None:
    """The path goes to stdout, the counts to stderr, and nothing but the page is new."""
    put(tmp_path, "a-0.png", "holiday.jpg")
    write(tmp_path / "out.jsonl", stored("a", "a-0.png"), trouble(TaskFailedError("no"), "b"))
    assert run(["gallery", str(tmp_path)]) == Exit.OK
    stdout, stderr = capfd.readouterr()
    assert stdout == f"{tmp_path / 'index.html'}\n"
    assert stderr == (
        "kling-omni: 2 tasks: 1 succeeded, 1 failed, 0 other; 2 images; 1 name in no journal\n"
    )
    assert sorted(os.listdir(tmp_path)) == ["a-0.png", "holiday.jpg", "index.html", "out.jsonl"]  # noqa: PTH208 - hidden names too


def test_a_demo_can_write_it_without_a_journal(tmp_path: Path, capfd: Captured) -> None:
    """Outcomes at hand make the same page as a journal, and nothing is printed."""
    put(tmp_path, "a-0.png")
    outcomes = [stored("a", "a-0.png"), trouble(TaskFailedError("no"), "b")]
    page = tmp_path / "index.html"
    assert write_outcomes(tmp_path, iter(outcomes)).tasks == 2
    direct = page.read_bytes()
    write(tmp_path / "out.jsonl", *outcomes)
    assert write_gallery(tmp_path) == page
    assert page.read_bytes() == direct
    assert capfd.readouterr() == ("", "")


def test_every_journal_of_the_folder_is_read(tmp_path: Path, capfd: Captured) -> None:
    """Hidden journals and folders are left out, and an id's last line counts."""
    write(tmp_path / "2.jsonl", trouble(TaskFailedError("no"), "b"))
    write(tmp_path / "1.jsonl", success("a"), success("b"), success("c"))
    write(tmp_path / ".3.jsonl", success("hidden"))
    (tmp_path / "4.jsonl").mkdir()
    page = write_gallery(tmp_path)
    assert capfd.readouterr().err == ""
    assert titles(page) == ["b", "a", "c"]  # the failed one before those without images
    assert page.read_text("utf-8").count('<li class="f"') == 1


def test_journals_of_the_folder_come_by_name(tmp_path: Path) -> None:
    """In whatever order a system lists them."""
    names = list("hbdgcfae")
    for name in names:
        write(tmp_path / f"{name}.jsonl", success(name))
    assert titles(write_gallery(tmp_path)) == sorted(names)


def test_named_journals_take_the_place_of_those_in_the_folder(tmp_path: Path) -> None:
    """With --jsonl, which may be repeated, the folder's own journals are not read."""
    folder = tmp_path / "images"
    folder.mkdir()
    write(folder / "own.jsonl", success("own"))
    first = write(tmp_path / "1.jsonl", success("a"))
    second = write(tmp_path / "2.jsonl", success("b"))
    assert run(["gallery", str(folder), "--jsonl", str(first), "--jsonl", str(second)]) == Exit.OK
    assert titles(folder / "index.html") == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "reason"), [("typo.jsonl", "No such file or directory"), ("folder", "no plain file")]
)
def test_a_journal_that_is_named_must_be_there(
    name: str, reason: str, tmp_path: Path, capfd: Captured
) -> None:
    """A typo is wrong usage, and writes no page in which the tasks are missing."""
    (tmp_path / "folder").mkdir()
    assert run(["gallery", str(tmp_path), "--jsonl", str(tmp_path / name)]) == Exit.USAGE
    assert capfd.readouterr() == ("", f"kling-omni: cannot read {tmp_path / name}: {reason}\n")
    assert not (tmp_path / "index.html").exists()


def test_a_journal_that_is_found_may_be_unreadable(
    tmp_path: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the folder has beside the images is told in one line, and the rest is shown."""
    write(tmp_path / "1.jsonl", success("a"))
    write(tmp_path / "2.jsonl", success("b"))
    monkeypatch.setattr(gallery, "read_outcomes", refuse_the_first(read_outcomes))
    assert titles(write_gallery(tmp_path)) == ["b"]
    told = f"kling-omni: cannot read {tmp_path / '1.jsonl'}: Input/output error"
    assert capfd.readouterr().err == f"{told}; going on without it\n"


Read = Callable[[Path], Generator[TaskOutcome]]


def refuse_the_first(read: Read) -> Read:
    """Read journals as before, but fail on that whose name begins with 1, as a broken disk does."""

    def read_others(path: Path) -> Generator[TaskOutcome]:
        if path.name[0] == "1":
            raise OSError(errno.EIO, "Input/output error")
        yield from read(path)

    return read_others


def test_a_torn_journal_in_use_is_read(tmp_path: Path) -> None:
    """While a poll writes, the page shows what is whole, and the journal stays as it is."""
    path = tmp_path / "out.jsonl"
    with Journal(str(path)) as journal:
        journal.write(success("a"))
        with path.open("ab") as file:
            file.write(b'{"task_id": "b')
        before = path.read_bytes()
        assert titles(write_gallery(tmp_path)) == ["a"]
        assert path.read_bytes() == before


def test_a_named_journal_of_another_format_is_refused(tmp_path: Path, capfd: Captured) -> None:
    """One line names the file and the line; no page is written."""
    notes = tmp_path / "notes.jsonl"
    notes.write_text('{"my": "notes"}\n')
    assert run(["gallery", str(tmp_path), "--jsonl", str(notes)]) == Exit.USAGE
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert stderr == (
        f"kling-omni: {notes} is left as it is: line 1 is not an outcome of this program\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["notes.jsonl"]


def test_a_foreign_file_of_the_folder_does_not_block_it(tmp_path: Path, capfd: Captured) -> None:
    """Whatever else lies there as *.jsonl is told in one line, and the page is written."""
    (tmp_path / "a-notes.jsonl").write_text('{"my": "notes"}\n')
    write(tmp_path / "b.jsonl", success("a"))
    assert titles(write_gallery(tmp_path)) == ["a"]
    assert capfd.readouterr().err == (
        f"kling-omni: {tmp_path / 'a-notes.jsonl'} is left as it is: "
        "line 1 is not an outcome of this program; going on without it\n"
    )


def test_the_title_can_be_chosen(tmp_path: Path) -> None:
    """It stands at the head and in the tab; without it that is the folder's name."""
    assert run(["gallery", str(tmp_path), "--title", "Spring <3"]) == Exit.OK
    assert "<h1><bdi>Spring &lt;3</bdi></h1>" in (tmp_path / "index.html").read_text("utf-8")
    assert f"<h1><bdi>{tmp_path.name}</bdi></h1>" in write_gallery(tmp_path).read_text("utf-8")
    assert run(["gallery", str(tmp_path), "--title", " "]) == Exit.OK
    assert f"<title>{tmp_path.name} " in (tmp_path / "index.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["none", "file.png"])
def test_what_is_no_folder_is_refused(name: str, tmp_path: Path, capfd: Captured) -> None:
    """A missing folder and a file are wrong calls, told in one line."""
    put(tmp_path, "file.png")
    assert run(["gallery", str(tmp_path / name)]) == Exit.USAGE
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert stderr.startswith(f"kling-omni: cannot read the folder {tmp_path / name}: ")
    assert stderr.count("\n") == 1


def test_a_moved_folder_is_shown(tmp_path: Path) -> None:
    """Images are found by base name, whatever path the journal has, and files say nothing else."""
    put(tmp_path, "a-0.png", "b-0.png", "c-0.png")
    outcomes = [
        stored("a", "/old/a-0.png"),
        stored("b", r"D:\old\b-0.png"),
        stored("c", "s/c-0.png"),
    ]
    write_outcomes(tmp_path, outcomes)
    page = tmp_path / "index.html"
    assert titles(page) == ["a", "b", "c"]
    assert sources(page) == ["a-0.png", "b-0.png", "c-0.png"]


def test_only_plain_image_files_of_the_folder_are_linked(tmp_path: Path) -> None:
    """Links, folders, hidden and other files are passed over, even if a journal names them."""
    folder = tmp_path / "images"
    folder.mkdir()
    put(tmp_path, "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "folder.png").mkdir()
    put(folder, ".a-0.png.part", ".hidden.png", "notes.txt", "good.avif")
    names = ["../outside.png", "link.png", "folder.png", ".hidden.png", "notes.txt", "..", ""]
    write_outcomes(folder, [stored("a", *names)])
    page = folder / "index.html"
    assert sources(page) == ["good.avif"]
    text = page.read_text("utf-8")
    assert "The images are not in this folder." in text
    assert not any(f'href="{name}"' in text for name in names)


def test_files_without_a_journal_are_shown(tmp_path: Path) -> None:
    """Image files alone make cards by their stems, in order of their indices."""
    put(tmp_path, "b-10.png", "b-9.webp", "b-9-watermarked.webp", "a.gif", "c d#?.jpg")
    page = write_gallery(tmp_path)
    assert titles(page) == ["a", "b", "c d#?"]
    assert sources(page) == ["a.gif", "b-9.webp", "b-10.png", "c%20d%23%3F.jpg"]


def test_a_name_that_is_no_text_is_linked_byte_for_byte(tmp_path: Path) -> None:
    """A name in another encoding is found under its own bytes."""
    try:
        put(tmp_path, os.fsdecode(b"caf\xe9.png"))
    except (OSError, UnicodeError):
        pytest.skip("this system has no such names")
    assert sources(write_gallery(tmp_path)) == ["caf%E9.png"]


def test_a_page_of_its_own_is_replaced(tmp_path: Path) -> None:
    """The gallery can be written again and again."""
    write_gallery(tmp_path)
    put(tmp_path, "a-0.png")
    assert sources(write_gallery(tmp_path)) == ["a-0.png"]


@pytest.mark.parametrize("content", ["<h1>My page</h1>", "", "x" * 5000 + "kling-omni"])
def test_a_page_of_somebody_else_stays(content: str, tmp_path: Path, capfd: Captured) -> None:
    """Another index.html is only replaced with --overwrite."""
    page = tmp_path / "index.html"
    page.write_text(content)
    assert run(["gallery", str(tmp_path)]) == Exit.USAGE
    assert capfd.readouterr().err == (
        f"kling-omni: {page} is not of this program; --overwrite replaces it\n"
    )
    assert page.read_text() == content
    assert run(["gallery", str(tmp_path), "--overwrite"]) == Exit.OK
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_a_folder_named_like_the_page_stays(tmp_path: Path) -> None:
    """What cannot be read is not ours, and what cannot be replaced is told."""
    (tmp_path / "index.html").mkdir()
    with pytest.raises(UsageError, match="is not of this program"):
        write_gallery(tmp_path)
    with pytest.raises(OutputError, match="cannot write to") as caught:
        write_gallery(tmp_path, overwrite=True)
    assert caught.value.code == Exit.NOT_ALL
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def fail_with(error: BaseException, folder: Path) -> Callable[..., Iterator[str]]:
    """Return a page that breaks off after its first piece."""

    def pieces(*_: object) -> Iterator[str]:
        yield "half"
        assert all(name == "index.html" or name[0] == "." for name in os.listdir(folder))  # noqa: PTH208 - hidden names too
        raise error

    return pieces


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), CliError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_page_is_written_whole_or_not_at_all(
    error: BaseException,
    raised: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full disk or a signal half-way leaves the old page, and nothing beside it."""
    before = write_gallery(tmp_path).read_bytes()
    monkeypatch.setattr(gallery, "page", fail_with(error, tmp_path))
    with pytest.raises(raised):
        write_gallery(tmp_path)
    assert (tmp_path / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_a_page_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    """Who may read a file made here may read the page."""
    put(tmp_path, "a.png")
    page = write_gallery(tmp_path)
    assert page.stat().st_mode == (tmp_path / "a.png").stat().st_mode


def test_the_last_outcome_of_an_id_counts_and_has_its_place() -> None:
    """Cards stand in the order of completion."""
    late = trouble(PollTimeoutError("late"), "a")
    cards = cards_of([late, success("b"), success("a")], ())
    assert [(card.title, card.kind) for card in cards] == [
        ("b", Kind.SUCCEEDED),
        ("a", Kind.SUCCEEDED),
    ]


@pytest.mark.parametrize(
    ("error", "group"),
    [
        (TaskFailedError("no"), Group.FAILED),
        (PollTimeoutError("late"), Group.OTHER),
        (KlingOmniError("of tomorrow"), Group.OTHER),
    ],
)
def test_every_error_gives_its_reason(error: KlingOmniError, group: Group) -> None:
    """Only what the API called failed is failed; each has its text."""
    card = only_card(trouble(error))
    assert (card.group, card.reason, card.last_fault) == (group, str(error), None)


def test_a_time_out_tells_the_last_fault() -> None:
    """Why the last query failed stands beside the time-out."""
    fault = ServerError(http_status=502)
    card = only_card(trouble(PollTimeoutError("late", last_error=fault)))
    assert card.last_fault == "HTTP 502: Bad Gateway"


def test_what_was_not_saved_keeps_its_place() -> None:
    """Each image has its number in the task, whichever of them are in the folder."""
    urls = tuple(f"https://images.test/{at}.png" for at in range(3))
    error = DownloadError("image 1: HTTP 500", reason="http", http_status=500)
    kept = (saved("a-1.png", urls[1]), saved("a-2.png", urls[2]))
    outcome = attrs.evolve(success("a", *urls), saved=kept, error=error)
    card = only_card(outcome, "a-1.png", "a-2.png")
    assert card.pictures == (
        Picture(number=1),
        Picture(number=2, file="a-1.png"),
        Picture(number=3, file="a-2.png"),
    )
    assert (card.group, card.ending, card.count) == (Group.OTHER, "Not all saved", 3)
    assert (card.figures.status, card.reason) == (None, "image 1: HTTP 500")
    assert only_card(outcome).ending == "Not saved"
    assert only_card(outcome).pictures == tuple(Picture(number=at) for at in (1, 2, 3))


def test_an_image_is_known_by_its_name_if_its_url_is_new() -> None:
    """URLs are signed anew with each answer; what is of no image at all stands last."""
    urls = ("https://images.test/0.png?sign=new", "https://images.test/1.png?sign=new")
    kept = (
        saved("a-1.png", "https://images.test/1.png?sign=old"),
        saved("other.png", "https://images.test/7.png"),
    )
    outcome = attrs.evolve(success("a", *urls), saved=kept)
    assert only_card(outcome, "a-1.png", "other.png").pictures == (
        Picture(number=1),
        Picture(number=2, file="a-1.png"),
        Picture(file="other.png"),
    )


def test_no_signed_url_is_in_the_page(tmp_path: Path) -> None:
    """Neither that of an image, missing or not, nor one in a reason keeps its query."""
    put(tmp_path, "a-0.png")
    secret = "https://images.test/1.png?Signature=secret#secret"
    failed = TaskFailedError(f"cannot fetch {secret}, sorry")
    late = PollTimeoutError("late", last_error=ServerError(http_status=502, message=secret))
    outcomes = [
        attrs.evolve(success("a", secret, URL), saved=(saved("a-0.png", secret),)),
        attrs.evolve(success("b", secret), error=DownloadError(secret, reason="http")),
        trouble(failed, "c"),
        trouble(late, "d"),
    ]
    write_outcomes(tmp_path, outcomes)
    text = (tmp_path / "index.html").read_text("utf-8")
    assert "secret" not in text
    assert "cannot fetch https://images.test/1.png sorry" in text
    assert "Image 2 of 2 is not in this folder" in text


def test_what_was_never_created_is_a_task_of_its_own() -> None:
    """Outcomes without an id do not take each other's place, and have another name."""
    refused = ApiError("no prompt", http_status=400)
    order = ImageOrder("a fox")
    outcomes = [
        TaskOutcome(task_id="", error=refused, external_task_id="x", order=order),
        TaskOutcome(task_id="", error=refused, external_task_id="y"),
        TaskOutcome(task_id="", error=refused),
    ]
    cards = cards_of(outcomes, ())
    assert [card.title for card in cards] == ["x", "y", "not created"]
    assert [card.prompt for card in cards] == ["a fox", None, None]
    assert all(card.external_task_id is None for card in cards)


def test_a_watermarked_copy_stands_for_its_image() -> None:
    """An image of which only the marked copy was saved is not missing."""
    image = TaskImage(url=URL, watermark_url="https://images.test/w.png")
    outcome = attrs.evolve(
        with_task(images=(image,)),
        saved=(saved("a-0-watermarked.png", "https://images.test/w.png"),),
    )
    assert only_card(outcome, "a-0-watermarked.png").pictures == (
        Picture(number=1, file="a-0-watermarked.png"),
    )


@pytest.mark.parametrize(
    ("names", "pictures"),
    [
        (["a-0.png", "a-0-watermarked.jpg"], [("a-0.png", "a-0-watermarked.jpg")]),
        (["a-0-watermarked.png", "a-0.png"], [("a-0.png", "a-0-watermarked.png")]),
        (["a-0-watermarked.png"], [("a-0-watermarked.png", None)]),
        (["a-0.png", "a-1-watermarked.png"], [("a-0.png", None), ("a-1-watermarked.png", None)]),
        (["a-0.png", "a-0.jpg"], [("a-0.jpg", None), ("a-0.png", None)]),
    ],
)
def test_watermarked_copies_go_with_their_images(
    names: list[str], pictures: list[tuple[str, str | None]]
) -> None:
    """A copy is found by its name, whatever its type and place."""
    (card,) = unlisted(names)
    assert [(picture.file, picture.watermarked) for picture in card.pictures] == pictures


@given(
    names=st.lists(
        st.builds(
            "{}{}.{}".format,
            st.sampled_from(["a", "a-0", "a-1", "-", "b-007", "b-x-2"]),
            st.sampled_from(["", "-watermarked", "-watermarked-watermarked"]),
            st.sampled_from(["png", "jpg"]),
        ),
        unique=True,
    ),
    known=st.integers(0, 5),
)
def test_each_file_is_shown_once(names: list[str], known: int) -> None:
    """However files are named, none is left out and none is shown twice."""
    cards = cards_of([stored("task", *names[:known])], names)
    shown = [
        name
        for card in cards
        for picture in card.pictures
        for name in (picture.file, picture.watermarked)
        if name is not None
    ]
    assert sorted(shown) == sorted(names)


def test_stems_without_an_index_are_whole_names() -> None:
    """A name of another pattern is a card of its own."""
    cards = unlisted(["x-1-watermarked.png", "-5.png", "x.png", "x-y.png", "-watermarked.png"])
    assert [card.title for card in cards] == ["-watermarked.png", "-5", "x", "x-y"]


def test_figures_of_a_task() -> None:
    """Time, cost and name come from the task, the rest from the polling of it."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    outcome = attrs.evolve(
        with_task(
            external_task_id="mine",
            created_at=start,
            updated_at=start + timedelta(seconds=75),
            final_unit_deduction=Decimal("0.5"),
        ),
        queries=3,
        elapsed=80.0,
    )
    card = only_card(outcome)
    assert card.external_task_id == "mine"
    assert card.figures == Figures(
        duration=75.0, elapsed=80.0, queries=3, units=Decimal("0.5"), status=None
    )


@pytest.mark.parametrize(
    "times",
    [
        {},
        {"created_at": datetime(2026, 3, 1, tzinfo=UTC)},
        {"updated_at": datetime(2026, 3, 1, tzinfo=UTC)},
        {
            "created_at": datetime(2026, 3, 1, tzinfo=UTC),
            "updated_at": datetime(2026, 3, 2),  # noqa: DTZ001 - a journal may hold it
        },
        {
            "created_at": datetime(2026, 3, 2, tzinfo=UTC),
            "updated_at": datetime(2026, 3, 1, tzinfo=UTC),
        },
        {
            "created_at": datetime(2026, 3, 1, tzinfo=UTC),
            "updated_at": datetime(2026, 3, 1, tzinfo=UTC),
        },
    ],
)
def test_a_time_that_makes_no_sense_is_left_out(times: dict[str, datetime]) -> None:
    """One time alone, times of two kinds, or a task that ended before it began, or then."""
    assert only_card(with_task(**times)).figures.duration is None


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (Figures(duration=29.14, elapsed=1.3, queries=1), ["took 29.1 s", "1 query"]),
        (Figures(duration=30.0), ["took 30.0 s"]),
        (Figures(elapsed=59.96, queries=1200), ["polled for 1 min 0 s", "1,200 queries"]),
        (Figures(units=Decimal("1234.50")), ["1,234.5 units"]),
    ],
)
def test_numbers_are_written_alike(figures: Figures, words: list[str]) -> None:
    """One digit behind the point, a comma in thousands; polling is told where nothing better is."""
    assert figures.words() == words


@pytest.mark.parametrize("elapsed", [float("nan"), float("inf"), -1.0])
def test_an_elapsed_time_that_makes_no_sense_is_left_out(elapsed: float) -> None:
    """Whatever number a journal holds."""
    assert only_card(attrs.evolve(success(), elapsed=elapsed, queries=1)).figures.elapsed is None


def test_what_was_never_asked_for_has_no_figures() -> None:
    """An id that can be none took no query and no time."""
    card = only_card(TaskOutcome(task_id="a b", error=InvalidTaskIdError("no id")))
    assert card.figures.words() == []


def test_a_huge_reason_is_cut() -> None:
    """Whatever a gateway sends, a card stays one that can be looked at."""
    card = only_card(TaskOutcome(task_id="1", error=TaskFailedError("x" * 1_000_000)))
    assert card.reason == "x" * 2500 + "…"


@pytest.mark.parametrize("units", ["NaN", "sNaN", "Infinity", "1E+999999", "1E-999999"])
def test_units_that_make_no_sense_are_left_out(units: str) -> None:
    """No number of a journal can spoil the sum or fill the page with zeros."""
    card = only_card(with_task(final_unit_deduction=Decimal(units)))
    assert card.figures.units is None
    assert count([card], {}).units == 0


def test_totals() -> None:
    """Units are added exactly, and each file counts with its size."""
    cards = [
        only_card(with_task(final_unit_deduction=Decimal("0.1"))),
        only_card(with_task(final_unit_deduction=Decimal("0.2"))),
        *unlisted(["x.png", "x-watermarked.png"]),
    ]
    totals = count(cards, {"x.png": 10, "x-watermarked.png": 5})
    assert totals.units == Decimal("0.3")
    assert (totals.tasks, totals.images, totals.size) == (2, 1, 15)


def test_a_page_is_small(tmp_path: Path) -> None:
    """Five hundred tasks with two images each take less than 1 kB a task, style and all."""
    outcomes = [
        stored(str(10**17 + number), f"{10**17 + number}-0.png", f"{10**17 + number}-1.png")
        for number in range(500)
    ]
    put(tmp_path, *(image.key for outcome in outcomes for image in outcome.saved))
    write_outcomes(tmp_path, outcomes)
    assert (tmp_path / "index.html").stat().st_size < 500_000
