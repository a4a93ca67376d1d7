"""The wire, without I/O: status, headers and bytes become an `ImageTask` or one of our errors.

What is read here is lenient, as gateways differ: each leniency is in ``docs/wire.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from kling_omni_async._http import date_s
from kling_omni_async._ids import trimmed
from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async.errors import KlingOmniError, ResponseError, TransportError

from . import values
from .refusals import is_error_body, refusal
from .values import NO_KEY, Secret, an_object, parse

SNIPPET_LENGTH: Final = 200
_SNIPPET_SOURCE: Final = 16_384  # so much that keys taken out of it leave enough
_CLOCKS_DIFFER_S = 2.0  # those of a provider and its gateway, at most, if both are kept
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


class Echo(bytes):
    """A body that the key is in, with the key."""

    # Polling keeps the bytes of an answer and decodes them on demand, so what has to be taken out
    # of the record goes with them.
    secret: Secret

    def __repr__(self) -> str:
        return f"<Echo of {len(self)} bytes>"


@attrs.define
class Answer:
    """One HTTP answer, read to its end and decompressed; its body is an `Echo` if it holds the key.

    Its secret is what is taken out of errors.
    """

    # Not frozen: that costs as much as reading half the record.
    status: int
    body: bytes = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    secret: Secret = NO_KEY


def read_answer(answer: Answer, task_id: str, *, wall_s: float) -> ImageTask | KlingOmniError:
    """Return the task that an answer to a query describes, or an error to raise; never raise.

    `wall_s`, in s since the epoch, is for a ``Retry-After`` that is a date.
    """
    body = answer.body
    value, more = parse(body)
    # With more behind its first document a body is read for errors alone: a gateway that writes two
    # has had trouble, and which of them is the task's word is anybody's guess.
    if answer.status == 200 and not more:  # noqa: PLR2004 - a status
        secret = body.secret if type(body) is Echo else None
        if task := _task_in(value, task_id, secret):
            return task
    if error := refusal(
        value,
        status=answer.status,
        headers=answer.headers,
        task_id=task_id,
        wall_s=wall_s,
        secret=answer.secret,
    ):
        return error
    if answer.status == _PROXY_AUTHENTICATION_REQUIRED:
        return TransportError(_PROXY_TEXT, task_id=task_id, reason="proxy")
    return _not_the_api(answer, task_id)


def read_task(body: bytes, task_id: str) -> ImageTask:
    """Read again the body of an answer that was a task before."""
    secret = body.secret if type(body) is Echo else None
    task = _task_in(parse(body)[0], task_id, secret)
    if task is None:
        raise ValueError("not the body of a task's answer")
    return task


def age_of(task: ImageTask, headers: Mapping[str, str]) -> float | None:
    """Return how old a task was when its answer was made, in s, if that can be told."""
    # By the clock of the gateway, which is not ours; the provider's is near it.
    made_s = date_s(headers.get("Date"))
    if made_s is None or task.created_at is None:
        return None
    age_s = made_s - task.created_at.timestamp()
    return max(age_s, 0.0) if age_s > -_CLOCKS_DIFFER_S else None


def status_word(task: ImageTask) -> str:
    """Return the word of the wire that became the task's status, cut to 60 characters."""
    _, payload = _layers(task.raw)
    words = (task.raw.get("task_status"), payload.get("task_status"), task.raw.get("status"))
    return ascii(next(filter(None, map(values.text, words)), None))[:60]


def status_of(word: object) -> TaskStatus:
    """Return the status that a word of the vendor means."""
    return _status(word, _VENDOR_WORDS) or TaskStatus.UNKNOWN


def foreign_id(task: ImageTask) -> str | None:
    """Return the id in the answer if it is another than the one asked for."""
    name = named_id(task)
    return None if name == task.task_id else name


def named_id(task: ImageTask) -> str | None:
    """Return the id in the answer, or None if it holds none."""
    name = values.name(task.raw.get("task_id"))
    if name is None:  # a wrapper names none where only its provider does
        name = values.name(_layers(task.raw)[1].get("task_id"))
    return name and trimmed(name)


def unusable_images(task: ImageTask) -> int:
    """Return how many images of a task that succeeded have no usable URL, beside those that do."""
    if not task.images:
        return 0
    plain = values.text(task.raw.get("task_status")) is not None
    payload = task.raw if plain else _layers(task.raw)[1]
    return values.images(payload.get("task_result"))[1]


def without(answer: Answer, hidden: str) -> Answer:
    """Return an answer whose body does not hold a text, however JSON may have escaped it there."""
    text = answer.body.decode(errors="surrogateescape")
    shown = Secret(hidden).redact(text)
    if shown == text:
        return answer
    body = shown.encode(errors="surrogateescape")
    if type(answer.body) is Echo:
        body = Echo(body)
        body.secret = answer.secret
    return attrs.evolve(answer, body=body)


def snippet_of(body: bytes, secret: Secret) -> str:
    """Return the first characters of a body, without the key."""
    # Redacted before it is cut, so that no piece of a key stays at the cut.
    return secret.redact(body[:_SNIPPET_SOURCE].decode(errors="replace"))[:SNIPPET_LENGTH]


def _task_in(value: Any, task_id: str, secret: Secret | None) -> ImageTask | None:
    """Read a task if this is the API's success answer with a status in it."""
    # This runs for each answer: what is usual is looked at without a call.
    if not isinstance(value, dict):
        return None
    envelope: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
    data: dict[str, Any] | None = envelope.get("data")
    if not isinstance(data, dict) or not data:
        return None
    code = envelope.get("code")
    if (type(code) is not int or code) and not _says_found(envelope):
        return None
    request_id = values.request_id(envelope)
    word = data.get("task_status")
    status = _VENDOR_WORDS.get(word) if type(word) is str else None
    if status is None:
        if values.text(word) is None:
            return _unwrap(data, task_id, request_id, secret)
        if (status := _status(word, _VENDOR_WORDS)) is None:
            return None
    return _record(data, task_id, status=status, request_id=request_id, raw=data, secret=secret)


def _says_found(envelope: dict[str, Any]) -> bool:
    code = envelope.get("code")
    if is_error_body(envelope):
        return False
    if isinstance(code, str):
        return code.strip().lower() in {"success", "0", ""}
    return code is None


def _status(word: object, known: Mapping[str, TaskStatus]) -> TaskStatus | None:
    """Translate a status word; None where there is no word, or it is the not-found word."""
    text = values.text(word)
    if text is None or values.NOT_FOUND_WORD in text.lower():
        return None
    return known.get(text.strip().lower(), TaskStatus.UNKNOWN)


def _unwrap(
    outer: dict[str, Any], task_id: str, request_id: str | None, secret: Secret | None
) -> ImageTask | None:
    """Read the older wrapped form: outer words, and the payload or an envelope inside."""
    outer_status = _status(outer.get("status"), _WRAPPER_WORDS)
    if outer_status is None:
        return None
    envelope, payload = _layers(outer)
    word = payload.get("task_status")
    inner_status = _status(word, _VENDOR_WORDS)
    if inner_status is None and values.text(word) is not None:
        return None
    said = {key: value for key, value in payload.items() if value not in (None, "")}
    return _record(
        _outer_defaults(outer, failed=outer_status is TaskStatus.FAILED) | said,
        task_id,
        status=_stronger(outer_status, inner_status),
        request_id=request_id or values.request_id(envelope),
        raw=outer,
        secret=secret,
    )


def _layers(outer: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a wrapper holds: an envelope, or the payload in its place, and the payload."""
    envelope = an_object(outer.get("data"))
    payload = envelope if "task_status" in envelope else an_object(envelope.get("data"))
    return envelope, payload


def _stronger(outer: TaskStatus, inner: TaskStatus | None) -> TaskStatus:
    """Choose between the wrapper's word and the payload's."""
    # The payload is the provider's own answer, so its word counts, but for a wrapper that says
    # FAILURE over a stale one: the gateway has given the task up.
    if inner is None or (outer is TaskStatus.FAILED and not inner.is_terminal):
        return outer
    return inner


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
    secret: Secret | None,
) -> ImageTask:
    images, unusable = values.images(payload.get("task_result"))
    message = payload.get("task_status_msg")
    if message is not None:
        message = values.text(message)
    if unusable and images and status is TaskStatus.SUCCEED:
        # Where a reader of the outcome looks for what the matter is; it needs no new field, and
        # survives JSON.
        note = f"images without a usable URL: {unusable} of {unusable + len(images)}"
        message = f"{message}; {note}" if message else note
    info: dict[str, Any] | None = payload.get("task_info")
    external = info.get("external_task_id") if isinstance(info, dict) else None
    if secret is not None:
        # URLs are used byte for byte, so they alone stay as they came.
        raw = secret.redact_json(raw)
        message = message and secret.redact(message)
        request_id = request_id and secret.redact_name(request_id)
        external = secret.redact_name(external) if isinstance(external, str) else external
    return ImageTask(
        task_id=task_id,
        status=status,
        status_message=message,
        images=images,
        external_task_id=None if external is None else values.text(external),
        created_at=values.instant(payload.get("created_at")),
        updated_at=values.instant(payload.get("updated_at")),
        final_unit_deduction=values.units(payload.get("final_unit_deduction")),
        request_id=request_id,
        raw=raw,
    )


def _not_the_api(answer: Answer, task_id: str) -> ResponseError:
    snippet = snippet_of(answer.body, answer.secret)
    redirects = 300 <= answer.status < 400  # noqa: PLR2004 - a status
    location = values.text(answer.headers.get("Location")) if redirects else None
    text = f"HTTP {answer.status}: not an answer of the API: {snippet!r}"
    if location is not None:
        location = answer.secret.redact(location)
        text = f"HTTP {answer.status} points to {location[:SNIPPET_LENGTH]!r}: never followed"
    return ResponseError(
        text, task_id=task_id, http_status=answer.status, snippet=snippet, location=location
    )
