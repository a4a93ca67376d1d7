"""Faults on demand: what they are, and which request meets which one. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter, signature
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeAlias, TypeVar

from attrs import define, evolve, field, fields, frozen
from attrs.validators import optional

from ._gateway import HTML_TYPE, JSON_TYPE, Answer, answer_of, gateway_error, moved, not_found
from ._images import LEAST_BYTES, first
from ._settings import (
    Validator,
    a_bool,
    a_text,
    http_status,
    must,
    not_negative,
    one_of,
    positive,
    whole,
)

Body: TypeAlias = str | bytes | Mapping[str, object]
On: TypeAlias = Literal["any", "fresh", "reused"]

# which answers are spoilt, not what goes wrong with them
_SCOPE = frozenset({"task_id", "times", "on", "index", "created"})
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


def _fit_their_lines(headers: Mapping[str, str]) -> bool:
    return all(_NAME.fullmatch(name) and text.isprintable() for name, text in headers.items())


def _can_be_sent(body: Body) -> bool:
    try:
        _packed(body, 200)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _is_a(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kinds)


_BODY = optional(
    [
        must("be str, bytes or a mapping", _is_a(str, bytes, Mapping), TypeError),
        must("be text that UTF-8 can carry, or a mapping that JSON can", _can_be_sent),
    ]
)
_HEADERS = optional(
    [
        must("be a mapping of str to str", _are_headers, TypeError),
        must("be names such as 'X-Reason', and texts on one line", _fit_their_lines),
    ]
)
_WAIT = optional(
    [
        must("be seconds or an HTTP date", _is_a(int, float, str), TypeError),
        must("be on one line", lambda wait: str(wait).isprintable()),
    ]
)
_BYTES = optional(must("be bytes", _is_a(bytes), TypeError))
_COUNT = optional(whole(0))
_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # RFC 9110, 5.6.2
_TIMES: Validator = optional(whole(1))
_URL = optional([a_text, must("be a URL on one line", lambda url: bool(url) and url.isprintable())])


# More than ten attributes: one for each thing that can go wrong.
@frozen
class Fault:
    """What goes wrong with the next answers; :meth:`SimulatedCometAPI.fail_next` explains it.

    Its fields are the arguments of ``fail_next``, in their order, and stand nowhere else.
    """

    # Whoever is asked for next, if None.
    task_id: str | None = field(default=None, validator=optional(a_text))
    # Until it is cleared, if None.
    times: int | None = field(default=1, validator=_TIMES)
    status: int | None = field(default=None, validator=optional(http_status), kw_only=True)
    body: Body | None = field(default=None, validator=_BODY, kw_only=True)
    headers: Mapping[str, str] | None = field(default=None, validator=_HEADERS, kw_only=True)
    retry_after: float | str | None = field(default=None, validator=_WAIT, kw_only=True)
    not_found: bool = field(default=False, validator=a_bool, kw_only=True)
    html: bool = field(default=False, validator=a_bool, kw_only=True)
    malformed: bool = field(default=False, validator=a_bool, kw_only=True)
    redirect_to: str | None = field(default=None, validator=_URL, kw_only=True)
    content_length: int | None = field(default=None, validator=_COUNT, kw_only=True)
    cut_after: int | None = field(default=None, validator=_COUNT, kw_only=True)
    bytes_per_second: float | None = field(default=None, validator=optional(positive), kw_only=True)
    delay: float = field(default=0.0, validator=not_negative, kw_only=True)
    hang: bool = field(default=False, validator=a_bool, kw_only=True)
    reset: bool = field(default=False, validator=a_bool, kw_only=True)
    raw: bytes | None = field(default=None, validator=_BYTES, kw_only=True)
    on: On = field(default="any", validator=one_of("any", "fresh", "reused"), kw_only=True)

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
        named = fields(type(self))
        return {each.name for each in named if getattr(self, each.name) != each.default} - _SCOPE

    @property
    def closes(self) -> bool:
        """Whether the connection ends after what is sent of the body."""
        return self.cut_after is not None or self.content_length is not None

    def fits(self, *, reused: bool, index: int) -> bool:  # noqa: ARG002 - images differ by it
        """Return whether it may happen on such a connection, to this image of a task."""
        return self.on in ("any", "reused" if reused else "fresh")

    def disguise(self, truth: Answer) -> Answer:
        """Return what is sent in place of the true answer."""
        answer = self.substitute(truth)
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

    def substitute(self, truth: Answer) -> Answer:
        """Return another answer in place of the true one, before headers are added."""
        throttled = self.retry_after is not None and self.status is None
        status = 429 if throttled else self.status
        if self.redirect_to is not None:
            return moved(self.redirect_to)
        if self.not_found:
            return not_found(status or 400)
        body = _PAGE if self.html else self.body
        if body is not None:
            return _packed(body, status or 200)
        return truth if status is None else _usual(status, truth)


@frozen
class ImageFault(Fault):
    """What goes wrong with the next images; :meth:`SimulatedCometAPI.fail_next_image` explains."""

    index: int | None = field(default=None, validator=_COUNT, kw_only=True)
    redirects: int = field(default=0, validator=whole(0), kw_only=True)
    size: int | None = field(default=None, validator=optional(whole(LEAST_BYTES)), kw_only=True)

    def fits(self, *, reused: bool, index: int) -> bool:
        """Return whether it may happen on such a connection, to this image of a task."""
        return self.index in (None, index) and super().fits(reused=reused, index=index)

    def substitute(self, truth: Answer) -> Answer:
        """Return another answer in place of the true one, before headers are added."""
        # a file of a chosen size is the truth already, and comes under an error's status too
        if self.size is not None:
            return evolve(truth, status=self.status or 200)
        return super().substitute(truth)


@frozen
class CreateFault(Fault):
    """What goes wrong with the next creates; `fail_next_create` explains it."""

    created: bool | None = field(default=None, validator=optional(a_bool), kw_only=True)

    @property
    def lets_create(self) -> bool:
        """Whether a create that meets it makes its task all the same."""
        if self.created is not None:
            return self.created
        replaced = {*_SILENT, *_INSTEAD, "redirect_to", "status", "retry_after"}
        return not self.given & replaced


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


P = ParamSpec("P")
S = TypeVar("S")
F = TypeVar("F", bound=Fault)


def by_fields(
    record: Callable[P, F],
) -> Callable[[Callable[[S, F], None]], Callable[Concatenate[S, P], None]]:
    """Let a method that takes one record be called with the fields of that record.

    So the arguments stand once, with their checks, for people, type checkers and the method.
    """

    def decorate(method: Callable[[S, F], None]) -> Callable[Concatenate[S, P], None]:
        # Evaluated, as nobody outside knows the names that this module has for types.
        taken = signature(record, globals=globals(), eval_str=True).parameters

        @wraps(method)
        def call(self: S, /, *args: P.args, **named: P.kwargs) -> None:
            for name in named.keys() - taken.keys():
                # Python's own text would name the record, of which nobody has heard
                text = f"{method.__name__}() takes no {name!r}: it takes {', '.join(taken)}"
                raise TypeError(text)
            method(self, record(*args, **named))

        own = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
        parameters = (own, *taken.values())
        # what help() and the docs show, in place of the one record
        shown: Any = call
        shown.__signature__ = signature(method).replace(parameters=parameters)
        return call

    return decorate


@define(eq=False)
class _Planned(Generic[F]):
    fault: F
    left: int | None  # how many times it is still to happen; None: until cleared


@define(eq=False)
class FaultPlan(Generic[F]):
    """Which faults wait, by task id. Queries have one plan, images another."""

    nothing: F  # what a request meets when nothing is planned
    _plans: dict[str | None, list[_Planned[F]]] = field(
        factory=dict[str | None, "list[_Planned[F]]"]
    )

    def add(self, fault: F) -> None:
        """Plan a fault for as many requests as it says, or until cleared."""
        if not fault.given:
            raise ValueError("say what goes wrong, such as status=502, hang=True or reset=True")
        self._plans.setdefault(fault.task_id, []).append(_Planned(fault, fault.times))

    def clear(self, task_id: str | None) -> None:
        """Drop the faults of one id; with None, all of them."""
        for key in list(self._plans) if task_id is None else [task_id]:
            self._plans.pop(key, None)

    def take(self, task_id: str, *, reused: bool, index: int = 0) -> F:
        """Choose and use up the fault that a request meets."""
        waiting = [
            planned
            for key in (task_id, None)
            for planned in self._plans.get(key, ())
            if planned.fault.fits(reused=reused, index=index)
        ]
        # counted ones first: a standing one would hide them for ever
        chosen = min(waiting, key=lambda planned: planned.left is None, default=None)
        if chosen is None:
            return self.nothing
        self._use(chosen)
        return chosen.fault

    def _use(self, planned: _Planned[F]) -> None:
        if planned.left is None:
            return
        if planned.left > 1:
            planned.left -= 1
            return
        plan = self._plans[planned.fault.task_id]
        plan.remove(planned)
        # else a long run keeps an empty list for each id that was ever spoilt
        if not plan:
            del self._plans[planned.fault.task_id]
