"""Faults on demand: what they are, and which query meets which one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Generic, Literal, NoReturn, TypeAlias, TypeVar

from attrs import Attribute, define, evolve, field, fields, frozen
from attrs.validators import in_, instance_of, optional

from ._answers import HTML_TYPE, JSON_TYPE, Answer, gateway_error, not_found
from ._checks import http_status, not_negative, positive, whole
from ._content import first

Body: TypeAlias = str | bytes | Mapping[str, object]
On: TypeAlias = Literal["any", "fresh", "reused"]
F = TypeVar("F", bound="Fault")

_BODILESS = (204, 304)
_SUCCESS = range(200, 300)
_EMPTY = {*range(300, 400), 429}  # throttling comes without a body (source)
_FROM_A_PROXY = (502, 503, 504)


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


@frozen(kw_only=True)
class Fault:
    """What goes wrong with one answer; nothing, as it stands."""

    _scope: ClassVar[frozenset[str]] = frozenset({"on"})
    """The fields that say which answer, not what goes wrong with it."""

    status: int | None = field(default=None, validator=optional(http_status))
    body: Body | None = field(default=None, validator=optional(_check_body))
    headers: Mapping[str, str] | None = field(default=None, validator=optional(_check_headers))
    retry_after: float | str | None = field(default=None, validator=optional(_check_retry_after))
    not_found: bool = False
    malformed: bool = False
    cut_after: int | None = field(default=None, validator=optional(whole(0)))
    bytes_per_second: float | None = field(default=None, validator=optional(positive))
    delay: float = field(default=0.0, validator=not_negative)
    hang: bool = False
    reset: bool = False
    raw: bytes | None = field(default=None, validator=optional(instance_of(bytes)))
    content_length: int | None = field(default=None, validator=optional(whole(0)))
    on: On = field(default="any", validator=in_(("any", "fresh", "reused")))

    def __attrs_post_init__(self) -> None:
        """Refuse arguments that contradict each other."""
        given = self._given()
        silent = [name for name in ("hang", "reset", "raw") if name in given]
        answering = given - {"hang", "reset", "raw", "delay"} - self._scope
        if len(silent) > 1 or (silent and answering):
            refuse(*silent, *sorted(answering))
        if self.not_found and self.body is not None:
            raise ValueError("not_found and body do not go together")

    def _given(self) -> set[str]:
        kind = type(self)
        return {each.name for each in fields(kind) if getattr(self, each.name) != each.default}

    @property
    def does_nothing(self) -> bool:
        """Whether nothing was said that changes an answer."""
        return not self._given() - self._scope

    @property
    def silent(self) -> bool:
        """Whether no answer of the API is sent at all."""
        return self.hang or self.reset or self.raw is not None

    @property
    def closes(self) -> bool:
        """Whether the connection ends after what is sent of the body."""
        return self.cut_after is not None or self.content_length is not None

    def fits(self, *, reused: bool) -> bool:
        """Tell whether it may happen on such a connection."""
        return self.on in ("any", "reused" if reused else "fresh")

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
        if self.not_found:
            return evolve(not_found(), status=status or 400)
        if self.body is not None:
            return packed(self.body, status or 200)
        return truth if status is None else _usual(status, truth)

    def _chosen_status(self) -> int | None:
        if self.retry_after is not None and self.status is None:
            return 429
        return self.status

    def _headers(self) -> dict[str, str]:
        wait = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return {**wait, **(self.headers or {})}


NO_FAULT = Fault()
"""What a query meets when nothing is planned."""


def refuse(*names: str) -> NoReturn:
    """Complain about arguments that contradict each other.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"these do not go together: {', '.join(names)}")


def packed(body: Body, status: int) -> Answer:
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
        return packed(f"<html><body><center><h1>{status}</h1></center></body></html>", status)
    return gateway_error(status, f"upstream said {status}")


@define(eq=False)
class _Planned(Generic[F]):
    fault: F
    left: int | None  # None: until cleared


class FaultPlan(Generic[F]):
    """Which faults wait, for which task id (None: for any)."""

    def __init__(self) -> None:
        self._plans: dict[str | None, list[_Planned[F]]] = {}

    def add(self, task_id: str | None, fault: F, times: int | None) -> None:
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
        self._plans.setdefault(task_id, []).append(_Planned(fault, times))

    def clear(self, task_id: str | None) -> None:
        """Drop the faults of one id; with None, all of them."""
        if task_id is None:
            self._plans.clear()
        else:
            self._plans.pop(task_id, None)

    def take(self, task_id: str, fits: Callable[[F], bool]) -> F | None:
        """Choose and use up the fault that a request meets.

        Args:
            task_id: The id that is asked for.
            fits: Whether a fault may happen to this request.

        Returns:
            The fault; None where nothing is planned.
        """
        waiting = self._waiting(task_id, fits)
        # counted ones first: a standing one would hide them for ever
        chosen = min(waiting, key=lambda entry: entry[1].left is None, default=None)
        if chosen is None:
            return None
        self._use(*chosen)
        return chosen[1].fault

    def _waiting(
        self, task_id: str, fits: Callable[[F], bool]
    ) -> Iterator[tuple[str | None, _Planned[F]]]:
        for key in (task_id, None):
            for planned in self._plans.get(key, ()):
                if fits(planned.fault):
                    yield key, planned

    def _use(self, key: str | None, planned: _Planned[F]) -> None:
        if planned.left is None:
            return
        planned.left -= 1
        if planned.left == 0:
            self._plans[key].remove(planned)
            if not self._plans[key]:
                del self._plans[key]
