"""One query for each id: what the API says of it now, as a table or as JSON."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Final, TypeAlias

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async._outcome import task_to_dict
from kling_omni_async._session import KlingOmniSession
from kling_omni_async.errors import InvalidTaskIdError, KlingOmniError, TaskNotFoundError

from . import options
from .exit import Exit, UsageError, code_of, described, in_words
from .inputs import refuse_paths
from .session import logged_as_notes, make_session
from .signals import run
from .terminal import json_line, note, out, out_as_read, plain, rendered

Reply: TypeAlias = ImageTask | KlingOmniError

_REFUSED: Final[dict[type[KlingOmniError], str]] = {
    TaskNotFoundError: "not found",
    InvalidTaskIdError: "not a task id",
}
_STYLES: Final = {TaskStatus.SUCCEED: "green", TaskStatus.FAILED: "red"}


def query(
    *ids: options.Ids,
    json: options.AsJson = False,
    talk: options.TalkOptions = options.USUAL_TALK,
    limits: options.LimitOptions = options.USUAL_LIMITS,
    connection: options.ApiOptions = options.USUAL_API,
) -> Exit:
    """Print tasks as the API sees them now.

    A table on a terminal, JSON elsewhere, one task a line.

    Args:
        ids: The task ids.
        json: Print JSON on a terminal too.
        talk: How much is told.
        limits: What bounds queries.
        connection: Which API.
    """
    if not ids:
        raise UsageError("no ids: give some")
    refuse_paths(ids)
    session = make_session(connection, options.policy_of(limits))
    task_ids = list(dict.fromkeys(ids))
    table = None if json or sys.stdout is None or not sys.stdout.isatty() else Answers()
    # A warning would say that the id is asked again; what came is told at the end.
    with logged_as_notes(talk.verbose, least=logging.ERROR):
        code = run(partial(ask, session, task_ids, print_json if table is None else table.add))
    if table is not None:
        out(table.drawn())
    return code


async def ask(
    session: KlingOmniSession, task_ids: list[str], show: Callable[[str, Reply], Awaitable[None]]
) -> Exit:
    """Query ids side by side, show each answer in order, and return the worst code."""
    async with session:
        asked = [asyncio.create_task(_answer(session, task_id)) for task_id in task_ids]
        codes = [Exit.OK]
        try:
            for task_id, answer in zip(task_ids, asked, strict=True):
                reply = await answer
                await show(task_id, reply)
                codes.append(_code(reply))
        finally:
            # Where stdout takes no more nobody waits for the rest.
            for answer in asked:
                answer.cancel()
    return max(codes)


async def _answer(session: KlingOmniSession, task_id: str) -> Reply:
    try:
        return await session.query(task_id)
    except KlingOmniError as error:
        return error


def _code(reply: Reply) -> Exit:
    if isinstance(reply, KlingOmniError):
        return code_of(reply)
    return Exit.NOT_ALL if reply.status is TaskStatus.FAILED else Exit.OK


async def print_json(task_id: str, reply: Reply) -> None:
    """Print a task as JSON, or tell on stderr why there is none."""
    if isinstance(reply, KlingOmniError):
        note(f"{task_id}: {described(reply)}")
    else:
        await out_as_read(json_line(task_to_dict(reply) or {}))


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

    async def add(self, task_id: str, reply: Reply) -> None:
        """Add the row of a task, or that of why there is none."""
        if isinstance(reply, KlingOmniError):
            status = Text(_REFUSED.get(type(reply), "no answer"), "yellow")
            self._table.add_row(_text(task_id), status, "", "", _text(in_words(reply)))
            return
        self._table.add_row(
            _text(task_id),
            Text(reply.status, _STYLES.get(reply.status, "")),
            str(len(reply.images)) if reply.images else "",
            _time(reply.updated_at),
            _text(reply.status_message or ""),
        )
        self._urls += [f"{plain(task_id)}  {plain(image.url)}" for image in reply.images]

    def drawn(self) -> str:
        """Return the table, then a line for each image: a URL that is folded cannot be clicked."""
        return "\n".join([rendered(self._table, sys.stdout), *self._urls])


def _text(words: str) -> Text:
    """Return what an API sent as a cell; in a plain string rich would read markup."""
    return Text(plain(words))


def _time(moment: datetime | None) -> str:
    """Return a time as the user's clock shows it."""
    return "" if moment is None else f"{moment.astimezone():%d %b %H:%M:%S}"
