"""What an answer means: for the id it is about, and for the whole session."""

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs

from kling_omni_async._models import FAILED, SUCCEED, ImageTask
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


class VerdictKind(Enum):
    """What a reply means for its id."""

    PENDING = "the task is being worked on"
    FINAL = "nothing more will come"
    UNCONFIRMED = "final, if it is said again"
    FAULT = "no word about the task; it may pass"


# Each answer is compared with most of them, and Python 3.11 needs 0.1 µs to find a member of an
# enum, but nothing to speak of for a name.
PENDING: Final = VerdictKind.PENDING
FINAL: Final = VerdictKind.FINAL
UNCONFIRMED: Final = VerdictKind.UNCONFIRMED
FAULT: Final = VerdictKind.FAULT


@attrs.define
class Verdict:
    """What a reply means for its id, with what one who waits would get."""

    kind: VerdictKind
    task: ImageTask | None = None
    error: KlingOmniError | None = None  # what was met instead of a task, or is wrong with it


def verdict_on(reply: Reply) -> Verdict:
    """Say what a reply means for its id."""
    if not isinstance(reply, ImageTask):
        return _verdict_on_error(reply)
    if reply.status is FAILED:
        reason = reply.status_message or "the API gave no reason"
        error = TaskFailedError(reason, task_id=reply.task_id, task=reply)
        return Verdict(FINAL, reply, error)
    if reply.status is not SUCCEED:
        return Verdict(PENDING, reply)
    if reply.images:
        return Verdict(FINAL, reply)
    message = "the task succeeded without one usable image URL"
    no_images = NoImagesError(message, task_id=reply.task_id, task=reply)
    return Verdict(UNCONFIRMED, reply, no_images)


def _verdict_on_error(error: KlingOmniError) -> Verdict:
    if isinstance(error, TaskNotFoundError):
        return Verdict(UNCONFIRMED, error=error)
    if error.transient or isinstance(error, (*_KEY_FAULTS, ConfigurationError)):
        return Verdict(FAULT, error=error)
    return Verdict(FINAL, error=error)


@attrs.frozen
class Unconfirmed:
    """A final word that has to be said again, in a row, before it is believed."""

    kind: type[KlingOmniError]
    count: int
    counted_at: float  # the last time, in s


def say_again(
    before: Unconfirmed | None, error: KlingOmniError, *, now: float, interval_s: float
) -> Unconfirmed:
    """Count an unconfirmed word."""
    if before is None or before.kind is not type(error):
        return Unconfirmed(type(error), 1, now)
    # Answers less than the shortest pause apart count as one, whoever asked.
    if now < before.counted_at + interval_s:
        return before
    return Unconfirmed(before.kind, before.count + 1, now)


class SetupCheck:
    """Tells a wrong set-up, which ends all waiting at once, from a passing fault."""

    def __init__(self, interval_s: float) -> None:
        self.heard = False  # whether a readable answer of the API has come
        # And nothing spoke against the key since: then one more good answer changes nothing.
        self.is_fine = False
        self._interval_s = interval_s
        self._suspect_since: float | None = None

    def is_wrong(self, reply: Reply, *, started: float, now: float) -> bool:
        """Note a reply to a query of a start in s; return whether it shows a wrong set-up."""
        if is_readable(reply):
            self.heard = self.is_fine = True
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
            self.is_fine = False
            return False
        # Queries that were under way when the first one came say nothing of what lasts.
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


def kind_of(error: KlingOmniError) -> str:
    """Return the name of a kind of fault: of these there are few, however many faults."""
    name = type(error).__name__
    if isinstance(error, TransportError):
        return f"{name} ({error.reason})"
    if isinstance(error, ApiError | ResponseError):
        return f"{name} (HTTP {error.http_status})"
    return name
