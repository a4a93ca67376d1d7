"""Faults on demand: what they are, and which request meets which one. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, TypeAlias

from attrs import Attribute, define, evolve, field, fields, frozen
from attrs.validators import in_, instance_of, optional

from ._answers import HTML_TYPE, JSON_TYPE, Answer, gateway_error, moved, not_found
from ._images import LEAST_BYTES, first
from ._settings import http_status, not_negative, positive, whole

Body: TypeAlias = str | bytes | Mapping[str, object]
On: TypeAlias = Literal["any", "fresh", "reused"]

_SCOPE = frozenset({"on", "index"})  # which answer is spoilt, not what goes wrong with it
_SILENT = ("hang", "reset", "raw")
_ELSEWHERE = frozenset({"redirects", "redirect_to"})
_INSTEAD = frozenset({"body", "html", "not_found", "size"})

_BODILESS = (204, 304)
_SUCCESS = range(200, 300)
_EMPTY = {*range(300, 400), 429}  # throttling comes without a body (source)
_FROM_A_PROXY = (502, 503, 504)
_PAGE = "<!doctype html><html><head><title>Sign in</title></head><body>Sign in</body></html>"


def _check_retry_after(_: object, __: Attribute[Any], wait: object) -> None:
    if not isinstance(wait, int | float | str):
        raise TypeError(f"retry_after must be seconds or an HTTP date, got {wait!r}")


def _check_body(_: object, __: Attribute[Any], body: object) -> None:
    if not isinstance(body, str | bytes | Mapping):
        raise TypeError(f"body must be str, bytes or a mapping, got {type(body).__name__}")


def _check_headers(_: object, __: Attribute[Any], headers: Any) -> None:
    texts: list[Any] = [*headers, *headers.values()] if isinstance(headers, Mapping) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"headers must be a mapping of str to str, got {headers!r}")


def _check_url(_: object, attribute: Attribute[Any], url: str) -> None:
    if not url or not url.isprintable():
        raise ValueError(f"{attribute.name} must be a URL on one line, got {url!r}")


# More than ten attributes: one for each argument of `fail_next` and of `fail_next_image`, whose
# docstrings explain them. One record for both, as most faults can happen to either.
@frozen(kw_only=True)
class Fault:
    """What goes wrong with one answer; nothing, as it stands."""

    status: int | None = field(default=None, validator=optional(http_status))
    body: Body | None = field(default=None, validator=optional(_check_body))
    headers: Mapping[str, str] | None = field(default=None, validator=optional(_check_headers))
    retry_after: float | str | None = field(default=None, validator=optional(_check_retry_after))
    cut_after: int | None = field(default=None, validator=optional(whole(0)))
    bytes_per_second: float | None = field(default=None, validator=optional(positive))
    delay: float = field(default=0.0, validator=not_negative)
    hang: bool = False
    reset: bool = False
    raw: bytes | None = field(default=None, validator=optional(instance_of(bytes)))
    # of queries only
    not_found: bool = False
    malformed: bool = False
    on: On = field(default="any", validator=in_(("any", "fresh", "reused")))
    # of images only
    index: int | None = field(default=None, validator=optional(whole(0)))
    content_length: int | None = field(default=None, validator=optional(whole(0)))
    html: bool = False
    redirects: int = field(default=0, validator=whole(0))
    redirect_to: str | None = field(
        default=None, validator=optional([instance_of(str), _check_url])
    )
    size: int | None = field(default=None, validator=optional(whole(LEAST_BYTES)))

    def __attrs_post_init__(self) -> None:
        """Refuse arguments that contradict each other."""
        given = self._given()
        silent = [name for name in _SILENT if name in given]
        answering = given - {*_SILENT, "delay"}
        if len(silent) > 1 or (silent and answering):
            _refuse(*silent, *sorted(answering))
        elsewhere = given - {"delay", "headers"}
        if given & _ELSEWHERE and len(elsewhere) > 1:
            _refuse(*sorted(elsewhere))
        if len(given & _INSTEAD) > 1:
            _refuse(*sorted(given & _INSTEAD))

    def _given(self) -> set[str]:
        """Return the names of what was said to go wrong."""
        names = {each.name for each in fields(Fault) if getattr(self, each.name) != each.default}
        return names - _SCOPE

    @property
    def does_nothing(self) -> bool:
        """Whether nothing was said that changes an answer."""
        return not self._given()

    @property
    def silent(self) -> bool:
        """Whether no answer of the API is sent at all."""
        return self.hang or self.reset or self.raw is not None

    @property
    def closes(self) -> bool:
        """Whether the connection ends after what is sent of the body."""
        return self.cut_after is not None or self.content_length is not None

    def fits(self, *, reused: bool, index: int) -> bool:
        """Return whether it may happen on such a connection, to this image of a task."""
        right_connection = self.on in ("any", "reused" if reused else "fresh")
        return right_connection and self.index in (None, index)

    def disguise(self, truth: Answer) -> Answer:
        """Return what is sent in place of the true answer."""
        answer = self._substitute(truth)
        if self.malformed:
            answer = evolve(answer, body=first(answer.body, len(answer.body) // 2))
        if answer.status in _BODILESS:
            answer = evolve(answer, body=b"", content_type=None)
        return evolve(answer, headers={**answer.headers, **self._headers()})

    def _substitute(self, truth: Answer) -> Answer:
        status = self._chosen_status()
        if self.redirect_to is not None:
            return moved(self.redirect_to)
        if self.not_found:
            return evolve(not_found(), status=status or 400)
        # a file of a chosen size is the truth already, and comes under an error's status too
        if self.size is not None:
            return evolve(truth, status=status or 200)
        body = _PAGE if self.html else self.body
        if body is not None:
            return _packed(body, status or 200)
        return truth if status is None else _usual(status, truth)

    def _chosen_status(self) -> int | None:
        if self.retry_after is not None and self.status is None:
            return 429
        return self.status

    def _headers(self) -> dict[str, str]:
        wait = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return {**wait, **(self.headers or {})}


NO_FAULT = Fault()
"""What a request meets when nothing is planned."""


def _refuse(*names: str) -> NoReturn:
    raise ValueError(f"these do not go together: {', '.join(names)}")


def _packed(body: Body, status: int) -> Answer:
    """Make an answer of a body, its content type guessed from how it begins."""
    if isinstance(body, Mapping):
        return Answer(status=status, body=json.dumps(body).encode(), content_type=JSON_TYPE)
    content = body.encode() if isinstance(body, str) else body
    types: dict[bytes, str] = {b"<": HTML_TYPE, b"{": JSON_TYPE, b"[": JSON_TYPE}
    kind = types.get(content.lstrip()[:1], "text/plain")
    return Answer(status=status, body=content, content_type=kind if content else None)


def _usual(status: int, truth: Answer) -> Answer:
    """Choose the body that most often comes with a status."""
    if status in _SUCCESS:
        return evolve(truth, status=status)
    if status in _EMPTY:
        return Answer(status=status)
    if status in _FROM_A_PROXY:
        return _packed(f"<html><body><center><h1>{status}</h1></center></body></html>", status)
    return gateway_error(status, f"upstream said {status}")


@define(eq=False)
class _Planned:
    task_id: str | None  # None: whichever is asked for
    fault: Fault
    left: int | None  # None: until cleared


class FaultPlan:
    """Which faults wait, by task id. Queries have one plan, images another."""

    def __init__(self) -> None:
        self._plans: dict[str | None, list[_Planned]] = {}

    def add(self, task_id: str | None, fault: Fault, times: int | None) -> None:
        """Plan a fault for the next ``times`` requests, or until cleared.

        Raises:
            TypeError: ``times`` is no whole number.
            ValueError: ``times`` is under 1, or the fault does nothing.
        """
        if times is not None and type(times) is not int:
            raise TypeError(f"times must be an int or None, got {times!r}")
        if times is not None and times < 1:
            raise ValueError(f"times must be at least 1, got {times}")
        if fault.does_nothing:
            raise ValueError("say what goes wrong, such as status=502, hang=True or reset=True")
        self._plans.setdefault(task_id, []).append(_Planned(task_id, fault, times))

    def clear(self, task_id: str | None) -> None:
        """Drop the faults of one id; with None, all of them."""
        if task_id is None:
            self._plans.clear()
        else:
            self._plans.pop(task_id, None)

    def take(self, task_id: str, *, reused: bool = False, index: int = 0) -> Fault:
        """Choose and use up the fault that a request meets.

        Args:
            task_id: The id that is asked for.
            reused: Whether the connection has carried a request before.
            index: Which image of the task is asked for, from 0.
        """
        waiting = [
            planned
            for key in (task_id, None)
            for planned in self._plans.get(key, ())
            if planned.fault.fits(reused=reused, index=index)
        ]
        # counted ones first: a standing one would hide them for ever
        chosen = min(waiting, key=lambda planned: planned.left is None, default=None)
        if chosen is None:
            return NO_FAULT
        self._use(chosen)
        return chosen.fault

    def _use(self, planned: _Planned) -> None:
        if planned.left is None:
            return
        planned.left -= 1
        if planned.left == 0:
            plan = self._plans[planned.task_id]
            plan.remove(planned)
            # else a long run keeps an empty list for each id that was ever spoilt
            if not plan:
                del self._plans[planned.task_id]
