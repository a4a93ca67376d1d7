"""One query for each id: what the API says of it now."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async._outcome import task_to_dict
from kling_omni_async._policy import PollPolicy
from kling_omni_async._session import KlingOmniSession
from kling_omni_async.errors import KlingOmniError

from .answers import Answers
from .exit import Exit, code_of, described
from .session import Connection, Talk, logged_as_notes, make_session
from .signals import run
from .terminal import json_line, note, out

_Reply: TypeAlias = ImageTask | KlingOmniError
_Show: TypeAlias = Callable[[str, _Reply], None]


def query(
    task_ids: Iterable[str],
    *,
    connection: Connection,
    policy: PollPolicy,
    json: bool = False,
    talk: Talk,
) -> Exit:
    """Print each task, in the order given: a table on a terminal, else JSON, one a line.

    Args:
        task_ids: What is asked for; repeats count once.
        connection: Which API.
        policy: What bounds queries.
        json: Print JSON on a terminal too.
        talk: How much is told besides.

    Raises:
        OutputError: Stdout takes no more.
        KlingOmniError: Nothing can be asked.
        KeyboardInterrupt: A signal came.
    """
    session = make_session(connection, policy)
    ids = list(dict.fromkeys(task_ids))
    table = None if json or sys.stdout is None or not sys.stdout.isatty() else Answers()
    # A warning would say that the id is asked again; what came is told at the end.
    with logged_as_notes(talk.verbose, least=logging.ERROR):
        code = run(partial(ask, session, ids, print_json if table is None else table.add))
    if table is not None:
        out(table.drawn())
    return code


async def ask(session: KlingOmniSession, task_ids: list[str], show: _Show) -> Exit:
    """Query ids side by side, and close the session.

    Args:
        session: Asks.
        task_ids: The ids.
        show: Takes each answer, in the order of the ids.

    Returns:
        OK if every id was answered with a task that has not failed, else the worst code.
    """
    async with session:
        asked = [asyncio.create_task(_answer(session, task_id)) for task_id in task_ids]
        codes = [Exit.OK]
        try:
            for task_id, answer in zip(task_ids, asked, strict=True):
                reply = await answer
                show(task_id, reply)
                codes.append(_code(reply))
        finally:
            for answer in asked:
                answer.cancel()
    return max(codes)


async def _answer(session: KlingOmniSession, task_id: str) -> _Reply:
    try:
        return await session.query(task_id)
    except KlingOmniError as error:
        return error


def _code(reply: _Reply) -> Exit:
    if isinstance(reply, KlingOmniError):
        return code_of(reply)
    return Exit.NOT_ALL if reply.status is TaskStatus.FAILED else Exit.OK


def print_json(task_id: str, reply: _Reply) -> None:
    """Print a task as JSON, or tell on stderr why there is none.

    Raises:
        OutputError: Stdout takes no more.
    """
    if isinstance(reply, KlingOmniError):
        note(f"{task_id}: {described(reply)}")
    else:
        out(json_line(task_to_dict(reply) or {}))
