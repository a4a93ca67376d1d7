"""Faults on demand: what they are, and which request meets which one. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from attrs import define, evolve, field, fields, frozen
from attrs.validators import in_, instance_of, optional

from ._gateway import HTML_TYPE, JSON_TYPE, Answer, answer_of, gateway_error, moved, not_found
from ._images import LEAST_BYTES, first
from ._settings import http_status, must, not_negative, positive, whole

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


def _are_headers(headers: Any) -> bool:
    texts: list[Any] = [*headers, *headers.values()] if isinstance(headers, Mapping) else [None]
    return all(isinstance(text, str) for text in texts)


def _is_a(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kinds)


_BODY = optional(must("be str, bytes or a mapping", _is_a(str, bytes, Mapping), TypeError))
_HEADERS = optional(must("be a mapping of str to str", _are_headers, TypeError))
_WAIT = optional(must("be seconds or an HTTP date", _is_a(int, float, str), TypeError))
_COUNT = optional(whole(0))
_URL = optional(
    [instance_of(str), must("be a URL on one line", lambda url: bool(url) and url.isprintable())]
)


# More than ten attributes: one for each argument of `fail_next` and of `fail_next_image`, whose
# docstrings explain them. One record for both, as most faults can happen to either.
@frozen(kw_only=True)
class Fault:
    """What goes wrong with one answer; nothing, as it stands."""

    status: int | None = field(default=None, validator=optional(http_status))
    body: Body | None = field(default=None, validator=_BODY)
    headers: Mapping[str, str] | None = field(default=None, validator=_HEADERS)
    retry_after: float | str | None = field(default=None, validator=_WAIT)
    cut_after: int | None = field(default=None, validator=_COUNT)
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
    index: int | None = field(default=None, validator=_COUNT)
    content_length: int | None = field(default=None, validator=_COUNT)
    html: bool = False
    redirects: int = field(default=0, validator=whole(0))
    redirect_to: str | None = field(default=None, validator=_URL)
    size: int | None = field(default=None, validator=optional(whole(LEAST_BYTES)))

    def __attrs_post_init__(self) -> None:
        """Refuse arguments that contradict each other."""
        given = self.given
        silent = [name for name in _SILENT if name in given]
        clashes = (
            [*silent, *sorted(given - {*_SILENT, "delay"})] if silent else [],
            sorted(given - {"delay", "headers"}) if given & _ELSEWHERE else [],
            sorted(given & _INSTEAD),
        )
        for names in clashes:
            if len(names) > 1:
                raise ValueError(f"these do not go together: {', '.join(names)}")

    @property
    def given(self) -> set[str]:
        """The names of what was said to go wrong."""
        names = {each.name for each in fields(Fault) if getattr(self, each.name) != each.default}
        return names - _SCOPE

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
        given = dict(self.headers or {})
        replaced = {name.title() for name in given}
        if answer.status in _BODILESS:
            answer = evolve(answer, body=b"")
            replaced.add("Content-Type")
        kept = {name: text for name, text in answer.headers.items() if name not in replaced}
        wait = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return evolve(answer, headers={**kept, **wait, **given})

    def _substitute(self, truth: Answer) -> Answer:
        throttled = self.retry_after is not None and self.status is None
        status = 429 if throttled else self.status
        if self.redirect_to is not None:
            return moved(self.redirect_to)
        if self.not_found:
            return not_found(status or 400)
        # a file of a chosen size is the truth already, and comes under an error's status too
        if self.size is not None:
            return evolve(truth, status=status or 200)
        body = _PAGE if self.html else self.body
        if body is not None:
            return _packed(body, status or 200)
        return truth if status is None else _usual(status, truth)


NO_FAULT = Fault()  # what a request meets when nothing is planned


def _packed(body: Body, status: int) -> Answer:
    """Make an answer of a body, its content type guessed from how it begins."""
    if isinstance(body, Mapping):
        return answer_of(JSON_TYPE, json.dumps(body).encode(), status=status)
    content = body.encode() if isinstance(body, str) else body
    types: dict[bytes, str] = {b"<": HTML_TYPE, b"{": JSON_TYPE, b"[": JSON_TYPE}
    kind = types.get(content.lstrip()[:1], "text/plain")
    return answer_of(kind, content, status=status) if content else Answer(status=status)


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
    times: int | None = field(validator=optional(whole(1)))  # None: until cleared


@define(eq=False)
class FaultPlan:
    """Which faults wait, by task id. Queries have one plan, images another."""

    _plans: dict[str | None, list[_Planned]] = field(factory=dict[str | None, list[_Planned]])

    def add(self, task_id: str | None, fault: Fault, times: int | None) -> None:
        """Plan a fault for the next ``times`` requests, or until cleared."""
        planned = _Planned(task_id, fault, times)
        if not fault.given:
            raise ValueError("say what goes wrong, such as status=502, hang=True or reset=True")
        self._plans.setdefault(task_id, []).append(planned)

    def clear(self, task_id: str | None) -> None:
        """Drop the faults of one id; with None, all of them."""
        for key in list(self._plans) if task_id is None else [task_id]:
            self._plans.pop(key, None)

    def take(self, task_id: str, *, reused: bool = False, index: int = 0) -> Fault:
        """Choose and use up the fault that a request meets."""
        waiting = [
            planned
            for key in (task_id, None)
            for planned in self._plans.get(key, ())
            if planned.fault.fits(reused=reused, index=index)
        ]
        # counted ones first: a standing one would hide them for ever
        chosen = min(waiting, key=lambda planned: planned.times is None, default=None)
        if chosen is None:
            return NO_FAULT
        self._use(chosen)
        return chosen.fault

    def _use(self, planned: _Planned) -> None:
        if planned.times is None:
            return
        if planned.times > 1:
            planned.times -= 1
            return
        plan = self._plans[planned.task_id]
        plan.remove(planned)
        # else a long run keeps an empty list for each id that was ever spoilt
        if not plan:
            del self._plans[planned.task_id]
