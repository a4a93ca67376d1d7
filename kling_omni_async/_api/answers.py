"""The wire, without I/O: status, headers and bytes become an `ImageTask` or one of our errors.

What is read here is lenient, as gateways differ: each leniency is in ``docs/wire.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async.errors import KlingOmniError, ResponseError, TransportError

from . import values
from .refusals import is_error_body, refusal
from .values import Document, an_object, parse

SNIPPET_LENGTH = 200
_PROXY_AUTHENTICATION_REQUIRED = 407
_PROXY_TEXT = "the proxy wants credentials; put them into its URL, http://user:password@host"

_VENDOR_WORDS = {
    "submitted": TaskStatus.SUBMITTED,
    "processing": TaskStatus.PROCESSING,
    "succeed": TaskStatus.SUCCEED,
    "succeeded": TaskStatus.SUCCEED,
    "failed": TaskStatus.FAILED,
}
_WRAPPER_WORDS = _VENDOR_WORDS | {
    "not_start": TaskStatus.SUBMITTED,
    "queued": TaskStatus.SUBMITTED,
    "in_progress": TaskStatus.PROCESSING,
    "success": TaskStatus.SUCCEED,
    "failure": TaskStatus.FAILED,
}


@attrs.frozen
class Answer:
    """One HTTP answer, read to its end.

    Attributes:
        status: The HTTP status.
        body: After decompression.
        headers: With case-insensitive names.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])


def read_answer(answer: Answer, task_id: str, *, wall_s: float) -> ImageTask | KlingOmniError:
    """Read an answer to a query of one id.

    Args:
        answer: The HTTP answer.
        task_id: The id that was asked for.
        wall_s: Seconds since the epoch, for a ``Retry-After`` that is a date.

    Returns:
        The task as the API described it, or an error to raise; never raises.
    """
    document = parse(answer.body)
    if answer.status == 200 and (task := _task_in(document, task_id)):  # noqa: PLR2004 - a status
        return task
    if error := refusal(
        document.value,
        status=answer.status,
        headers=answer.headers,
        task_id=task_id,
        wall_s=wall_s,
    ):
        return error
    if answer.status == _PROXY_AUTHENTICATION_REQUIRED:
        return TransportError(_PROXY_TEXT, task_id=task_id, reason="proxy")
    return _not_the_api(answer, task_id)


def read_task(body: bytes, task_id: str) -> ImageTask:
    """Read again the body of an answer that was a task before."""
    task = _task_in(parse(body), task_id)
    if task is None:
        raise ValueError("not the body of a task's answer")
    return task


def status_word(task: ImageTask) -> str:
    """Give the word of the wire that became the task's status, cut to 60 characters."""
    _, payload = _layers(task.raw)
    words = (task.raw.get("task_status"), payload.get("task_status"), task.raw.get("status"))
    return ascii(next(filter(None, map(values.text, words)), None))[:60]


def foreign_id(task: ImageTask) -> str | None:
    """Give the id in the answer if it is another than the one asked for."""
    inner = task.raw.get("task_id")
    return None if inner == task.task_id else values.text(inner)


def _task_in(document: Document, task_id: str) -> ImageTask | None:
    """Read a task if this is the API's success answer with a status in it."""
    envelope = an_object(document.value)
    data = an_object(envelope.get("data"))
    if document.more or not data or is_error_body(envelope) or not _says_found(envelope):
        return None
    request_id = values.request_id(envelope)
    if values.text(data.get("task_status")) is None:
        return _unwrap(data, task_id, request_id)
    status = _status(data.get("task_status"), _VENDOR_WORDS)
    if status is None:
        return None
    return _record(data, task_id, status=status, request_id=request_id, raw=data)


def _says_found(envelope: dict[str, Any]) -> bool:
    code = envelope.get("code")
    if isinstance(code, str):
        return code.strip().lower() in {"success", "0", ""}
    return code is None or (type(code) is int and code == 0)


def _status(word: object, known: Mapping[str, TaskStatus]) -> TaskStatus | None:
    """Translate a status word; None where there is no word, or it is the not-found word."""
    text = values.text(word)
    if text is None or values.NOT_FOUND_WORD in text.lower():
        return None
    return known.get(text.strip().lower(), TaskStatus.UNKNOWN)


def _unwrap(outer: dict[str, Any], task_id: str, request_id: str | None) -> ImageTask | None:
    """Read the older wrapped form: outer words, and the payload or an envelope inside."""
    outer_status = _status(outer.get("status"), _WRAPPER_WORDS)
    if outer_status is None:
        return None
    envelope, payload = _layers(outer)
    word = payload.get("task_status")
    inner_status = _status(word, _VENDOR_WORDS)
    if inner_status is None and values.text(word) is not None:
        return None
    return _record(
        _outer_defaults(outer, failed=outer_status is TaskStatus.FAILED) | _said(payload),
        task_id,
        status=_stronger(outer_status, inner_status),
        request_id=request_id or values.request_id(envelope),
        raw=outer,
    )


def _layers(outer: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give what a wrapper holds: an envelope, or the payload in its place, and the payload."""
    envelope = an_object(outer.get("data"))
    payload = envelope if "task_status" in envelope else an_object(envelope.get("data"))
    return envelope, payload


def _stronger(outer: TaskStatus, inner: TaskStatus | None) -> TaskStatus:
    """Choose between the wrapper's word and the payload's.

    The payload is the provider's own answer, so its word counts, but for a wrapper that says
    FAILURE over a stale one: the gateway has given the task up.
    """
    if inner is None or (outer is TaskStatus.FAILED and not inner.is_terminal):
        return outer
    return inner


def _said(payload: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if value not in (None, "")}


def _outer_defaults(outer: dict[str, Any], *, failed: bool) -> dict[str, Any]:
    """Translate what only the wrapper says; ``fail_reason`` of a success can be a URL."""
    return {
        "task_status_msg": outer.get("fail_reason") if failed else None,
        "created_at": outer.get("submit_time"),
        "updated_at": outer.get("finish_time") or outer.get("updated_at"),
    }


def _record(
    payload: Mapping[str, Any],
    task_id: str,
    *,
    status: TaskStatus,
    request_id: str | None,
    raw: Mapping[str, Any],
) -> ImageTask:
    external = an_object(payload.get("task_info")).get("external_task_id")
    return ImageTask(
        task_id=task_id,
        status=status,
        status_message=values.text(payload.get("task_status_msg")),
        images=values.images(payload.get("task_result")),
        external_task_id=values.text(external),
        created_at=values.instant(payload.get("created_at")),
        updated_at=values.instant(payload.get("updated_at")),
        final_unit_deduction=values.units(payload.get("final_unit_deduction")),
        request_id=request_id,
        raw=raw,
    )


def _not_the_api(answer: Answer, task_id: str) -> ResponseError:
    snippet = answer.body[: 4 * SNIPPET_LENGTH].decode("utf-8", "replace")[:SNIPPET_LENGTH]
    redirects = 300 <= answer.status < 400  # noqa: PLR2004 - a status
    location = values.text(answer.headers.get("Location")) if redirects else None
    text = f"HTTP {answer.status}: not an answer of the API: {snippet!r}"
    if location is not None:
        text = f"HTTP {answer.status} points to {location[:SNIPPET_LENGTH]!r}: never followed"
    return ResponseError(
        text,
        task_id=task_id,
        http_status=answer.status,
        snippet=snippet,
        location=location,
    )
