"""What `query` shows on a terminal: a table of tasks, and the URLs of their images."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async.errors import KlingOmniError

from .colour import rendered
from .exit import in_words
from .terminal import plain

_STYLES: Final = {TaskStatus.SUCCEED: "green", TaskStatus.FAILED: "red"}


class Answers:
    """The answers to some queries, for a table; nothing is shown of those still to come."""

    def __init__(self) -> None:
        self._table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        self._table.add_column("task", overflow="fold")
        self._table.add_column("status", no_wrap=True)
        self._table.add_column("images", justify="right", no_wrap=True)
        self._table.add_column("updated", no_wrap=True)
        self._table.add_column("message", overflow="fold")
        self._urls: list[str] = []

    def add(self, task_id: str, reply: ImageTask | KlingOmniError) -> None:
        """Add the row of a task, or that of why there is none."""
        name = Text(plain(task_id))
        if isinstance(reply, KlingOmniError):
            self._table.add_row(name, Text("no answer", "yellow"), "", "", _text(in_words(reply)))
            return
        self._table.add_row(
            name,
            Text(reply.status, _STYLES.get(reply.status, "")),
            str(len(reply.images)) if reply.images else "",
            _time(reply.updated_at),
            _text(reply.status_message or ""),
        )
        self._urls += [f"{plain(task_id)}  {plain(image.url)}" for image in reply.images]

    def drawn(self) -> str:
        """Give the table, then a line for each image: a URL that is folded cannot be clicked."""
        return "\n".join([rendered(self._table, sys.stdout), *self._urls])


def _text(words: str) -> Text:
    return Text(plain(words))


def _time(moment: datetime | None) -> str:
    """Give a time as the user's clock shows it."""
    return "" if moment is None else f"{moment.astimezone():%d %b %H:%M:%S}"
