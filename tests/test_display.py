"""What people see of a record: a short line, and in a notebook a card with thumbnails."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from attrs import evolve

from kling_omni_async import (
    ApiError,
    ImageTask,
    InvalidTaskIdError,
    KlingOmniSession,
    Progress,
    SavedImage,
    TaskFailedError,
    TaskImage,
    TaskOutcome,
    TaskStatus,
)

URLS = ("https://a.example/1.png?sig=a&b=%2f", "http://127.0.0.1:8/2.png")
TASK = ImageTask(
    task_id="1", status=TaskStatus.SUCCEED, images=tuple(TaskImage(url=url) for url in URLS)
)
SAVED = SavedImage(key="1-0.png", url=URLS[0], size=1, sha256="00", content_type="image/png")
HOSTILE = "\"'><script>alert(1)</script>&amp;<img src=x onerror=alert(1)>"


def failed(reason: str) -> TaskOutcome:
    """Give the outcome of a failed task."""
    return TaskOutcome(task_id="1", error=TaskFailedError(reason))


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (TASK, "1: succeed, 2 images"),
        (evolve(TASK, status=TaskStatus.PROCESSING, images=()), "1: processing"),
        (
            evolve(TASK, images=TASK.images[:1], status_message="1 of 2 without a URL"),
            "1: succeed, 1 image, 1 of 2 without a URL",
        ),
        (
            ImageTask(task_id="1", status=TaskStatus.FAILED, status_message="too small"),
            "1: failed, too small",
        ),
        (TaskOutcome(task_id="1", task=TASK), "1: succeed, 2 images"),
        (
            TaskOutcome(task_id="1", task=TASK, saved=(SAVED,)),
            "1: succeed, 2 images, 1 image saved",
        ),
        (TaskOutcome(task_id="1"), "1: succeed"),
        (
            TaskOutcome(task_id="", external_task_id="o-1", error=ApiError("no", http_status=400)),
            "order o-1: ApiError: HTTP 400: no",
        ),
        (
            TaskOutcome(task_id="", error=InvalidTaskIdError("empty")),
            "'': InvalidTaskIdError: empty",
        ),
        (failed("too\n small"), "1: TaskFailedError: too small"),
        (failed("a\x1b[31m\u202eb"), r"1: TaskFailedError: a\x1b[31m\u202eb"),
        (
            Progress(total=9, pending=2, succeeded=4, failed=2, unresolved=1),
            "7 of 9: 4 succeeded, 2 failed, 1 unresolved",
        ),
        (KlingOmniSession("sk-key"), "session with https://api.cometapi.com, not started"),
    ],
)
def test_line(record: object, line: str) -> None:
    """`str` gives one short, printable line."""
    assert str(record) == line


def test_no_line_is_long() -> None:
    """A long reason is cut."""
    line = str(failed("word " * 1000))
    assert len(line) == 200
    assert len(str(failed("\u202e" * 1000))) == 200
    assert line.endswith("…")


class Reader(HTMLParser):
    """Collects what a browser would make of a card: its tags and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Give the attributes of each tag of that name."""
        return [attributes for name, attributes in self.tags if name == tag]


def shown(record: ImageTask | TaskOutcome | Progress) -> Reader:
    """Read what a notebook shows."""
    return Reader(record._repr_html_())


@pytest.mark.parametrize("record", [TASK, TaskOutcome(task_id="1", task=TASK)])
def test_thumbnails(record: ImageTask | TaskOutcome) -> None:
    """Each image is a thumbnail of its URL, byte for byte, fetched late and without a referrer."""
    card = shown(record)
    assert [image["src"] for image in card.all("img")] == list(URLS)
    assert [link["href"] for link in card.all("a")] == list(URLS)
    for image in card.all("img"):
        assert (image["loading"], image["referrerpolicy"]) == ("lazy", "no-referrer")
    assert card.text.startswith(str(record))


def test_the_images_of_a_task_that_was_not_saved_are_shown() -> None:
    """A failure to save hides no picture; where there is no task there is only the line."""
    outcome = evolve(failed("the disk is full"), task=TASK)
    assert len(shown(outcome).all("img")) == 2
    assert {tag for tag, _ in shown(failed("gone")).tags} == {"div"}


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:image/png;base64,AA", "file:///etc/passwd", "//a.example"]
)
def test_only_the_web_is_fetched(url: str) -> None:
    """A URL of another scheme is no thumbnail."""
    assert not shown(evolve(TASK, images=(TaskImage(url=url),))).all("img")


def test_nothing_gets_out_of_its_place() -> None:
    """Whatever a stranger wrote into ids, reasons and URLs stays text."""
    url = f"https://a.example/{HOSTILE}"
    task = ImageTask(
        task_id=HOSTILE,
        status=TaskStatus.FAILED,
        status_message=HOSTILE,
        images=(TaskImage(url=url),),
    )
    for record in (task, TaskOutcome(task_id=HOSTILE, task=task, error=TaskFailedError(HOSTILE))):
        card = shown(record)
        assert [tag for tag, _ in card.tags] == ["div", "div", "a", "img"]
        assert card.all("img")[0]["src"] == url
        assert HOSTILE in card.text


def test_an_answer_cannot_flood_a_notebook() -> None:
    """Of a thousand images some are shown and the others counted."""
    images = tuple(TaskImage(url=f"https://a.example/{number}") for number in range(1000))
    card = shown(evolve(TASK, images=images))
    assert len(card.all("img")) == 18
    assert card.text.endswith("982 more images")


@pytest.mark.parametrize(
    ("progress", "value", "most"),
    [(Progress(total=9, pending=2, succeeded=7), "7", "9"), (Progress(), "0", "1")],
)
def test_bar(progress: Progress, value: str, most: str) -> None:
    """Counts are a bar and their line; before anything is known it is empty, not full."""
    card = shown(progress)
    assert card.tags == [("progress", {"max": most, "value": value})]
    assert card.text.strip() == str(progress)


def test_the_line_of_a_malformed_id_holds_no_line_break() -> None:
    """An id that can be none may hold anything; its line is a line."""
    outcome = TaskOutcome(task_id="a\x00b\nc", error=InvalidTaskIdError("no"))
    assert re.fullmatch(r"[ -~]+", str(outcome))
