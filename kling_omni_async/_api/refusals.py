"""The API's errors: the business code decides first, the HTTP status second."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from kling_omni_async._http import retry_after_s
from kling_omni_async.errors import (
    AccountError,
    ApiError,
    AuthenticationError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    TaskNotFoundError,
)

from . import values
from .values import NO_KEY, Secret, an_object

ErrorClass = type[ApiError]

_REQUEST_ID_HEADER: Final = "X-Oneapi-Request-Id"
_QUOTA_WORD: Final = "insufficient_user_quota"
_TASK = re.compile(r"task|任务", re.IGNORECASE)
_MISSING = re.compile(
    r"(?:not|n['\u2019]t)[\s_]*(?:be\s+)?(?:found|find|exist)|no\s+such"
    r"|不存在|未找到|找不到|没有找到",
    re.IGNORECASE,
)
_INVALID_VALUE_CODE: Final = 1201
_BY_CODE: Final[Mapping[int, ErrorClass]] = {
    **dict.fromkeys(range(1000, 1005), AuthenticationError),
    **dict.fromkeys((1100, 1101, 1102, 1304), AccountError),
    1103: PermissionDeniedError,
    1203: TaskNotFoundError,
    **dict.fromkeys((1302, 1303), RateLimitError),
}
_PERMANENT_WORDS: Final = {(500, "invalid_request"), (503, "model_not_found")}
"""Words that make a server's fault the request's own (seen in the source of gateways)."""

_BY_STATUS: Final[Mapping[int, ErrorClass]] = {
    401: AuthenticationError,
    **dict.fromkeys((402, 403), PermissionDeniedError),
    **dict.fromkeys((408, 425), ServerError),
    429: RateLimitError,
}


VENDOR_CODES: Final = range(1000, 1305)
"""With one of them the vendor says no before it does anything."""


@attrs.frozen
class _Complaint:
    """What the four families of error bodies have in common."""

    code: int | str | None = None
    message: str = ""
    request_id: str | None = None
    is_family: bool = False
    words: tuple[str, ...] = ()

    @property
    def number(self) -> int | None:
        """The code as a number, also where it came as digits."""
        if isinstance(self.code, str):
            return int(self.code) if re.fullmatch(r"\d{1,6}", self.code, re.ASCII) else None
        return self.code


def is_error_body(envelope: Mapping[str, Any]) -> bool:
    """Whether a body says no by its own form, whatever the HTTP status."""
    code = envelope.get("code")
    if type(code) is int:
        return code != 0
    return envelope.get("success") is False


def code_and_message(body: object) -> tuple[int | str | None, str]:
    """Return the code, a number where it is one, and the words of an error's body."""
    complaint = _complaint(body)
    number = complaint.number
    return (complaint.code if number is None else number), complaint.message


def unwrapped(body: object) -> dict[str, Any] | None:
    """Return the vendor's own refusal where a gateway has put it into its message as JSON."""
    message = code_and_message(body)[1]
    start = message.find("{")
    if start < 0:
        return None
    inner = an_object(values.parse(message[start:].encode())[0])
    return inner if code_and_message(inner)[0] in VENDOR_CODES else None


def refusal(
    body: object,
    *,
    status: int,
    headers: Mapping[str, str],
    task_id: str,
    wall_s: float,
    secret: Secret = NO_KEY,
) -> ApiError | None:
    """Return the API's error, or None if the answer is not the API's.

    The body is parsed JSON, or any other object; the key decides nothing and is taken out.
    """
    complaint = _complaint(body)
    kind = _class_of(complaint, status, body)
    if kind is None:
        return None
    code = complaint.code
    request_id = complaint.request_id or values.text(headers.get(_REQUEST_ID_HEADER))
    return kind(
        secret.redact(complaint.message),
        task_id=task_id,
        http_status=status,
        code=secret.redact_name(code) if isinstance(code, str) else code,
        request_id=request_id and secret.redact_name(request_id),
        retry_after=retry_after_s(headers.get("Retry-After"), wall_s),
    )


def _complaint(body: object) -> _Complaint:
    fields = an_object(body)
    inner = an_object(fields.get("error"))
    texts = (fields.get("message"), inner.get("message"), fields.get("error"))
    message = next(filter(None, map(values.text, texts)), "")
    return _Complaint(
        code=_code(fields.get("code")) or _code(inner.get("code")),
        message=message,
        request_id=values.request_id(fields) or values.request_id_in(message),
        is_family=_is_family(fields),
        words=_words(fields, inner),
    )


def _code(value: object) -> int | str | None:
    """Return a code that says something: 0, "" and a boolean do not."""
    if type(value) is int:
        return value if 0 < abs(value) < 2**31 else None
    return values.text(value)


def _is_family(body: Mapping[str, Any]) -> bool:
    code = body.get("code")
    return (
        is_error_body(body)
        or body.get("success") is False
        or (isinstance(code, str) and code.strip().lower() not in {"", "0", "success"})
        or isinstance(body.get("error"), dict)
    )


def _words(body: Mapping[str, Any], inner: Mapping[str, Any]) -> tuple[str, ...]:
    """Collect the places where the not-found word is met."""
    outer = an_object(body.get("data"))
    envelope = an_object(outer.get("data"))
    layers = (body, outer, envelope, an_object(envelope.get("data")))
    places = [source.get(key) for source in (body, inner) for key in ("code", "message")]
    places += [source.get(key) for source in layers for key in ("task_status", "status")]
    return tuple(value.lower() for value in (*places, body.get("error")) if isinstance(value, str))


def _class_of(complaint: _Complaint, status: int, body: object) -> ErrorClass | None:
    if kind := _by_business_code(complaint, status):
        return kind
    if status == 200 and complaint.is_family:  # noqa: PLR2004 - a status
        # Some gateways put the status into the code.
        return _by_status(complaint.number or 0) or ApiError
    if status in {402, 403} and not complaint.is_family:
        return None
    if kind := _by_status(status):
        return kind
    if 400 <= status < 500 and status != 407:  # noqa: PLR2004 - a status
        is_bare_json = body is None or isinstance(body, list | str | int | float)
        return ApiError if complaint.is_family or is_bare_json else None
    return None


def _by_business_code(complaint: _Complaint, status: int) -> ErrorClass | None:
    if any(values.NOT_FOUND_WORD in word for word in complaint.words):
        return TaskNotFoundError
    if any(_QUOTA_WORD in word for word in complaint.words):
        return AccountError
    if (status, complaint.code) in _PERMANENT_WORDS:
        return ApiError
    return _by_number(complaint.number, complaint.message)


def _by_number(number: int | None, message: str) -> ErrorClass | None:
    if number is None:
        return None
    if number == _INVALID_VALUE_CODE and _TASK.search(message) and _MISSING.search(message):
        return TaskNotFoundError
    if kind := _BY_CODE.get(number):
        return kind
    return {1: ApiError, 5: ServerError}.get(number // 1000)


def _by_status(status: int) -> ErrorClass | None:
    return _BY_STATUS.get(status) or (ServerError if 500 <= status < 600 else None)  # noqa: PLR2004 - a status
