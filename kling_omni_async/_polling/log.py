"""What the poller says in the log, under ``kling_omni_async.poller``; never a key, never twice."""

from __future__ import annotations

import logging
from typing import Final

from kling_omni_async._api.answers import foreign_id, status_word
from kling_omni_async._ids import quoted
from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async.errors import ApiError, KlingOmniError, ResponseError, TransportError

from .verdicts import Meaning, Reply, judge
from .waiters import Entry

logger: Final = logging.getLogger("kling_omni_async.poller")

MAX_REMEMBERED: Final = 32
"""How many warnings of one kind are remembered, so that a hostile server cannot fill memory."""


class Reports:
    """The log of one session: each warning once, and each change."""

    __slots__ = ("_said", "_stretch")

    def __init__(self) -> None:
        self._said: dict[str, set[str]] = {}
        self._stretch = 1.0

    def replied(self, entry: Entry, reply: Reply) -> None:
        """Report the reply to a query; `entry` does not know of it yet."""
        if logger.isEnabledFor(logging.INFO):
            self._tell(entry, reply)
        if isinstance(reply, KlingOmniError):
            self._first_fault(reply)
        else:
            self._oddities(reply)

    def ended(self, task_id: str, error: KlingOmniError | None, *, queries: int) -> None:
        """Report how the polling of an id ended: once, however many have waited for it."""
        if logger.isEnabledFor(logging.INFO):
            word = _brief(error) if error else "succeeded"
            count = "1 query" if queries == 1 else f"{queries} queries"
            logger.info("task %s: %s after %s", quoted(task_id), word, count)

    def throttled(self, pause_s: float) -> None:
        """Report a pause of all scheduled queries."""
        if pause_s:
            logger.warning("throttled by the API: no scheduled query for %.1f s", pause_s)

    def stretched(self, factor: float) -> None:
        """Report stretched intervals: when they begin, and each time the factor has doubled."""
        if factor > 1.0 and (self._stretch == 1.0 or factor >= 2 * self._stretch):
            self._stretch = factor
            logger.warning(
                "more ids than max_rate can serve: intervals are stretched by %.2f", factor
            )

    def _tell(self, entry: Entry, reply: Reply) -> None:
        name = quoted(entry.task_id)
        logger.debug("query %d of %s: %s", entry.queries, name, _brief(reply))
        if isinstance(reply, ImageTask) and reply.status is not entry.status:
            before = f" (was {entry.status})" if entry.status else ""
            logger.info("task %s is %s%s", name, reply.status, before)

    def _first_fault(self, error: KlingOmniError) -> None:
        if judge(error).meaning is Meaning.FAULT:
            text = "first %s: %s; the id is asked again after its pause, if somebody still waits"
            self._once("fault", _kind_of(error), text, _kind_of(error), _one_line(error))

    def _oddities(self, task: ImageTask) -> None:
        if task.status is TaskStatus.UNKNOWN:
            word = status_word(task)
            self._once("word", word, "unknown task status %s: taken as not finished", word)
        if other := foreign_id(task):
            text = "asked for task %s, the answer names %s; the id that was asked for is kept"
            self._once("id", "", text, quoted(task.task_id), quoted(other))

    def _once(self, kind: str, key: str, text: str, *args: object) -> None:
        said = self._said.setdefault(kind, set())
        if key not in said and len(said) < MAX_REMEMBERED:
            said.add(key)
            logger.warning(text, *args)


def _brief(reply: Reply) -> str:
    if isinstance(reply, ImageTask):
        return f"{reply.status}, {len(reply.images)} images"
    return f"{type(reply).__name__}: {_one_line(reply)}"


def _one_line(error: KlingOmniError) -> str:
    """Give an error's text without line breaks: the API's words must not forge log lines."""
    text = str(error)
    return text if text.isprintable() else repr(text)[1:-1]


def _kind_of(error: KlingOmniError) -> str:
    name = type(error).__name__
    if isinstance(error, TransportError):
        return f"{name} ({error.reason})"
    if isinstance(error, ApiError | ResponseError):
        return f"{name} (HTTP {error.http_status})"
    return name
