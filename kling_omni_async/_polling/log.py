"""What polling says in the log, under ``kling_omni_async.poller``; never a key, never twice."""

from __future__ import annotations

import logging
from typing import Final

from kling_omni_async._api.answers import status_word, unusable_images
from kling_omni_async._ids import quoted
from kling_omni_async._models import SUCCEED, UNKNOWN, ImageTask, TaskStatus
from kling_omni_async._results import one_line
from kling_omni_async.errors import KlingOmniError

from .hints import MOST_MISSED
from .limits import NEVER
from .verdicts import FAULT, Reply, kind_of
from .waiters import Entry
from .watchlist import Decision

logger: Final = logging.getLogger("kling_omni_async.poller")

BLOCKED_S: Final = 2.0
"""How late a timer has to be, in s, for somebody to be told."""

MAX_REMEMBERED: Final = 32
"""How many warnings of one kind are remembered, so that a hostile server cannot fill memory."""


class PollingLog:
    """The log of one session: each warning once, and each change."""

    def __init__(self) -> None:
        self._said: dict[str, set[str]] = {}
        self._stretch = 1.0
        self._next_block = -NEVER  # when a standstill may be told again, in s

    def answered(self, entry: Entry, decision: Decision, before: TaskStatus | None) -> None:
        """Log what an answer brought; `before` is the status that was known until then."""
        reply = decision.reply
        if logger.isEnabledFor(logging.INFO):
            self._log_answer(entry, reply, before)
        if isinstance(reply, ImageTask):
            if reply.status is UNKNOWN:
                word = status_word(reply)
                self._once("unknown task status %s: taken as not finished", word, word)
            if decision.foreign_id is not None:
                self._warn_of_foreign_id(reply, decision.foreign_id)
            # A message is there wherever an image is unusable: without one, the images of a task
            # that succeeded need not be read once more.
            if reply.status is SUCCEED and reply.status_message:
                self._warn_of_images(reply, unusable_images(reply))
            return
        if decision.verdict.kind is FAULT:
            self._warn_of_fault(reply, ends_all=decision.ends_all)
        if decision.pause_s:
            self.throttled(decision.pause_s)

    def throttled(self, pause_s: float) -> None:
        """Log a pause of all scheduled queries, each time."""
        logger.warning("throttled by the API: no scheduled query for %.1f s", pause_s)

    def no_callbacks(self) -> None:
        """Log that no callback is waited for any more."""
        text = "%d callbacks in a row did not come: ids are asked for as without them"
        logger.warning(text, MOST_MISSED)

    def stood_still(self, late_s: float, now: float) -> None:
        """Log that something held the loop, at most once a minute."""
        if late_s > BLOCKED_S and now >= self._next_block:
            self._next_block = now + 60.0
            text = "the event loop stood still for %.1f s: it is blocked, or the machine slept"
            logger.warning(text, late_s)

    def stretched(self, factor: float) -> None:
        """Log stretched gaps: when they begin, and each time the factor has doubled."""
        if factor > 1.0 and (self._stretch == 1.0 or factor >= 2 * self._stretch):
            self._stretch = factor
            text = "more ids than max_rate can serve: they are asked at %.2f times their intervals"
            logger.warning(text, factor)

    def _log_answer(self, entry: Entry, reply: Reply, before: TaskStatus | None) -> None:
        name = quoted(entry.task_id)
        logger.debug("query %d of %s: %s", entry.queries, name, _brief(reply))
        if isinstance(reply, ImageTask) and reply.status is not before:
            was = f" (was {before})" if before else ""
            logger.info("task %s is %s%s", name, reply.status, was)

    def _warn_of_fault(self, error: KlingOmniError, *, ends_all: bool) -> None:
        kind = kind_of(error)
        if ends_all:
            # Apart from the faults that pass: one of this kind may have been said to pass before.
            text = "%s: %s%s; the set-up is wrong: all waiting ends"
            self._once(text, kind, kind, one_line(error), error.hint and f"; {error.hint}")
        else:
            text = "first %s: %s; the id is asked again after its pause, if somebody still waits"
            self._once(text, kind, kind, one_line(error))

    def _warn_of_foreign_id(self, task: ImageTask, other: str) -> None:
        text = "asked for task %s, the answer names %s; the id that was asked for is kept"
        self._once(text, "", quoted(task.task_id), quoted(other))

    def _warn_of_images(self, task: ImageTask, unusable: int) -> None:
        if unusable:
            name = quoted(task.task_id)
            self._once("task %s: images without a usable URL: %d", name, name, unusable)

    def _once(self, text: str, key: str, *args: object) -> None:
        said = self._said.setdefault(text, set())
        if key not in said and len(said) < MAX_REMEMBERED:
            said.add(key)
            logger.warning(text, *args)


def _brief(reply: Reply) -> str:
    if isinstance(reply, ImageTask):
        return f"{reply.status}, {len(reply.images)} images"
    return f"{type(reply).__name__}: {one_line(reply)}"
