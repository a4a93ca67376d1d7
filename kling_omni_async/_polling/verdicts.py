"""What an answer means: for the id it is about, and for the whole session."""

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs

from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async.errors import (
    AccountError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    KlingOmniError,
    NoImagesError,
    ResponseError,
    TaskFailedError,
    TaskNotFoundError,
    TransportError,
)

Reply = ImageTask | KlingOmniError
"""What one query brought."""

_KEY_FAULTS: Final = (AuthenticationError, AccountError)


class Meaning(Enum):
    """What a reply means for its id."""

    PENDING = "the task is being worked on"
    FINAL = "nothing more will come"
    DOUBTFUL = "final, if it is said again"
    FAULT = "no word about the task; it may pass"


@attrs.define
class Judgement:
    """What a reply means for its id, with what a waiter would get."""

    meaning: Meaning
    task: ImageTask | None = None
    error: KlingOmniError | None = None


def judge(reply: Reply) -> Judgement:
    """Say what a reply means for its id."""
    if isinstance(reply, ImageTask):
        return _judge_task(reply)
    if isinstance(reply, TaskNotFoundError):
        return Judgement(Meaning.DOUBTFUL, error=reply)
    if reply.transient or isinstance(reply, (*_KEY_FAULTS, ConfigurationError)):
        return Judgement(Meaning.FAULT, error=reply)
    return Judgement(Meaning.FINAL, error=reply)


def _judge_task(task: ImageTask) -> Judgement:
    if task.status is TaskStatus.FAILED:
        reason = task.status_message or "the API gave no reason"
        return Judgement(
            Meaning.FINAL, task, TaskFailedError(reason, task_id=task.task_id, task=task)
        )
    if task.status is not TaskStatus.SUCCEED:
        return Judgement(Meaning.PENDING, task)
    if task.images:
        return Judgement(Meaning.FINAL, task)
    message = "the task succeeded without one usable image URL"
    error = NoImagesError(message, task_id=task.task_id, task=task)
    return Judgement(Meaning.DOUBTFUL, task, error)


class Setup:
    """Tells a wrong set-up, which ends all waiting at once, from weather, which passes.

    Attributes:
        heard: Whether the session has had a readable answer of the API.
    """

    __slots__ = ("_interval_s", "_suspect_since", "heard")

    def __init__(self, interval_s: float) -> None:
        self.heard = False
        self._interval_s = interval_s
        self._suspect_since: float | None = None

    def is_wrong(self, reply: Reply, *, started: float, now: float) -> bool:
        """Take a reply in and say whether it shows that the set-up is wrong.

        Args:
            reply: What a query brought.
            started: When that query started, in s.
            now: In s.
        """
        if is_readable(reply):
            self.heard = True
            self._suspect_since = None
            return False
        if isinstance(reply, ConfigurationError):
            return True
        if not self.heard:
            return _is_setup_fault(reply)
        return isinstance(reply, _KEY_FAULTS) and self._is_confirmed(started, now)

    def _is_confirmed(self, started: float, now: float) -> bool:
        if self._suspect_since is None:
            self._suspect_since = now
            return False
        if started < self._suspect_since + self._interval_s:
            return False
        self._suspect_since = None
        return True


def is_readable(reply: Reply) -> bool:
    """Whether a reply is the API's own word, said to a key that it accepts."""
    if isinstance(reply, ImageTask):
        return True
    if isinstance(reply, _KEY_FAULTS) or not isinstance(reply, ApiError):
        return False
    return not reply.transient or reply.code is not None


def _is_setup_fault(reply: Reply) -> bool:
    if isinstance(reply, TransportError):
        return reply.reason == "certificate"
    return isinstance(reply, (*_KEY_FAULTS, ResponseError))
