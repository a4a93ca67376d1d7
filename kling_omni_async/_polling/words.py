"""What an answer says of its id, the same whoever polls it: a session, or a worker of a book."""

from __future__ import annotations

from kling_omni_async._api.answers import foreign_id
from kling_omni_async._ids import quoted
from kling_omni_async._models import ImageTask
from kling_omni_async._policy import PollPolicy
from kling_omni_async.errors import KlingOmniError, PollTimeoutError, ResponseError

from .verdicts import FAULT, FINAL, UNCONFIRMED, Reply, Verdict, say_again
from .waiters import Entry


def remember(entry: Entry, verdict: Verdict, policy: PollPolicy, now: float) -> None:
    """Keep what an answer says of its id; a word said often enough becomes final."""
    if verdict.kind is FAULT:  # says nothing for or against a word before it
        entry.fault = verdict.error
        return
    entry.fault = None
    if verdict.kind is not UNCONFIRMED or verdict.error is None:
        entry.unconfirmed = None
        return
    entry.unconfirmed = say_again(
        entry.unconfirmed, verdict.error, now=now, interval_s=policy.interval[0]
    )
    if entry.unconfirmed.count >= policy.confirmations:
        verdict.kind = FINAL
    else:
        entry.fault = verdict.error


def foreign_id_in(entry: Entry, reply: Reply) -> str | None:
    """Return another id that an answer names; gateways put their provider's there."""
    if not isinstance(reply, ImageTask) or reply.raw.get("task_id") == entry.task_id:
        return None
    return foreign_id(reply)


def stray(entry: Entry, other: str | None) -> ResponseError:
    """Return the error for an answer that is about another id that is polled here."""
    # Such a one lay on an idle connection before we asked: no stranger's id would be ours.
    text = f"the answer is about task {quoted(other)}, which is polled here too"
    return ResponseError(text, task_id=entry.task_id, http_status=200)


def timed_out(
    entry: Entry, task: ImageTask | None, waited_s: float, *, held: KlingOmniError | None = None
) -> PollTimeoutError:
    """Return the error of an id that was given up, which says what was seen last."""
    state = f"its status was {task.status}" if task else "its status was never seen"
    fault = f"; last fault: {entry.fault.what}" if entry.fault else ""
    wait = f"; held back: {held.what}" if held else ""
    text = f"no final answer in {waited_s:.1f} s; {state}{fault}{wait}"
    last_error = entry.fault or held
    return PollTimeoutError(text, task_id=entry.task_id, task=task, last_error=last_error)
