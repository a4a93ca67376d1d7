"""One query for each id: what the API says of it now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

from kling_omni_async import KlingOmniSession
from kling_omni_async._records import ImageTask, TaskStatus
from kling_omni_async._serial import task_to_dict
from kling_omni_async.errors import KlingOmniError

from ._exit import Exit, code_of, described
from ._session import Connection, logged_as_notes, make_session
from ._signals import run
from ._terminal import json_line, note, out


def query(task_ids: Iterable[str], *, connection: Connection) -> Exit:
    """Print each task as one line of JSON, in the order given; errors go to stderr.

    Raises:
        OutputError: Stdout takes no more.
        KlingOmniError: Nothing can be asked.
        KeyboardInterrupt: A signal came.
    """
    session = make_session(connection)
    with logged_as_notes():
        return run(partial(ask, session, list(dict.fromkeys(task_ids))))


async def ask(session: KlingOmniSession, task_ids: list[str]) -> Exit:
    """Query ids side by side, and close the session.

    Returns:
        OK if every id was answered with a task that has not failed, else the worst code.
    """
    async with session:
        asked = [asyncio.create_task(_answer(session, task_id)) for task_id in task_ids]
        try:
            codes = [
                _show(task_id, await answer)
                for task_id, answer in zip(task_ids, asked, strict=True)
            ]
        finally:
            for answer in asked:
                answer.cancel()
    return max(codes, default=Exit.OK)


async def _answer(session: KlingOmniSession, task_id: str) -> ImageTask | KlingOmniError:
    try:
        return await session.query(task_id)
    except KlingOmniError as error:
        return error


def _show(task_id: str, answer: ImageTask | KlingOmniError) -> Exit:
    if isinstance(answer, KlingOmniError):
        note(f"{task_id}: {described(answer)}")
        return code_of(answer)
    out(json_line(task_to_dict(answer) or {}))
    return Exit.NOT_ALL if answer.status is TaskStatus.FAILED else Exit.OK
