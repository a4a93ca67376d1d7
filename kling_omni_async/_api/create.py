"""The create request and what its answer proves. Pure: an order in, bytes out, and back.

Money is at stake: what is not proved to have made nothing is doubt.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID, uuid4, uuid5

import attrs

from kling_omni_async._ids import id_fault, quoted
from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async._order import (
    LONGEST_PROMPT,
    MOST_REFERENCES,
    NEWER_MODEL,
    OLDER_MODEL,
    RATIOS,
    RESOLUTIONS,
    RESULT_TYPES,
    WIRE_NAMES,
    ImageOrder,
    Shown,
    is_amount,
    is_count,
    is_element,
    is_prompt,
)
from kling_omni_async.errors import (
    ApiError,
    ConfigurationError,
    CreateUncertainError,
    DuplicateOrderError,
    KlingOmniError,
    RateLimitError,
    ResponseError,
    TaskNotFoundError,
    TransportError,
)

from . import values
from .answers import Answer, named_id, read_answer, snippet_of
from .refusals import VENDOR_CODES, code_and_message, is_error_body, unwrapped
from .values import an_array, an_object, parse

# The model of a body, which the simulator reads too.

Fits: TypeAlias = Callable[[object], bool]


class WireRule(NamedTuple):
    """What one parameter of a body may be, in the words of the wire."""

    name: str
    fits: Fits
    wanted: str


def _one_of(words: Sequence[str]) -> Fits:
    return lambda value: isinstance(value, str) and value in words


def _holds(key: str, fits: Fits) -> Fits:
    return lambda value: fits(an_object(value).get(key))


def _list_of(fits: Fits) -> Fits:
    def is_list(value: object) -> bool:
        # Asked for last: a type checker knows nothing of the items of what is just a list.
        return all(map(fits, an_array(value))) and isinstance(value, list)

    return is_list


def _a_text(value: object) -> bool:
    return isinstance(value, str)


WIRE_RULES: Final = (
    WireRule("prompt", is_prompt, f"a text of 1 to {LONGEST_PROMPT} characters"),
    WireRule("model_name", _one_of((OLDER_MODEL, NEWER_MODEL)), f"{OLDER_MODEL} or {NEWER_MODEL}"),
    WireRule(
        "image_list", _list_of(_holds("image", _a_text)), 'a list of {"image": URL or base64}'
    ),
    WireRule(
        "element_list",
        _list_of(_holds("element_id", is_element)),
        'a list of {"element_id": integer}',
    ),
    WireRule("resolution", _one_of(RESOLUTIONS), "1k, 2k or 4k"),
    WireRule("result_type", _one_of(RESULT_TYPES), "single or series"),
    WireRule("n", is_count, "an integer from 1 to 9"),
    WireRule("series_amount", is_amount, "an integer from 2 to 9, or auto"),
    WireRule("aspect_ratio", _one_of(RATIOS), f"one of {', '.join(RATIOS)}"),
    WireRule(
        "watermark_info",
        _holds("enabled", lambda value: isinstance(value, bool)),
        '{"enabled": true or false}',
    ),
    WireRule("callback_url", _a_text, "a text"),
    WireRule("external_task_id", _a_text, "a text"),
)
"""Each documented parameter, in the order of the documentation."""


def fault_in(body: Mapping[str, Any]) -> str | None:
    """Return which parameter of a body cannot be accepted and what it must be, or None."""
    # null is the same as missing, but for the one parameter that must be there
    for rule in WIRE_RULES:
        value = body.get(rule.name)
        if (rule.name == "prompt" or value is not None) and not rule.fits(value):
            return f"{rule.name} must be {rule.wanted}"
    references = [*(body.get("image_list") or ()), *(body.get("element_list") or ())]
    if len(references) > MOST_REFERENCES:
        return f"image_list and element_list hold more than {MOST_REFERENCES} together"
    return None


# The request.


@attrs.frozen
class CreateRequest:
    """One create, ready to be sent: each time with the same bytes and the same external id."""

    order: ImageOrder
    external_id: str
    body: bytes = attrs.field(repr=False)
    digest: str  # of the contents, in hexadecimal


def external_id_of(order: ImageOrder, namespace: UUID) -> str:
    """Return the name that an order gets before it is sent, the same each time for the same key."""
    return str(uuid4() if order.key is None else uuid5(namespace, order.key))


def make_request(
    order: ImageOrder, images: Sequence[str | bytes], external_id: str
) -> CreateRequest:
    """Make the request of an order, whose files have been read into `images`.

    Raises:
        ConfigurationError: The order was read from JSON, which has not all of it.
    """
    _require_whole(order)
    content = _parameters(order, [_bare(image) for image in images])
    return CreateRequest(
        order=order,
        external_id=external_id,
        body=_json({**content, "external_task_id": external_id}),
        digest=digest_of(order, images),
    )


def digest_of(order: ImageOrder, images: Sequence[str | bytes]) -> str:
    """Return the digest of what an order wants, whose files have been read into `images`."""
    digests = [_digest(image) if isinstance(image, bytes) else image for image in images]
    wish = _parameters(order, digests)
    wish.pop("callback_url", None)
    return _digest(json.dumps(wish, sort_keys=True).encode())


def _require_whole(order: ImageOrder) -> None:
    for index, image in enumerate(order.images):
        if isinstance(image, Shown):
            text = f"ImageOrder.images[{index}] was read from JSON, which holds no bytes"
            raise ConfigurationError(f"{text}; give the image itself")
    if isinstance(order.callback_url, Shown):
        raise ConfigurationError(
            "ImageOrder.callback_url was read from JSON, which holds its host alone; "
            "give the whole URL"
        )


def _parameters(order: ImageOrder, images: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of an order under their names of the wire."""
    lists = {
        "images": [{"image": image} for image in images],
        "elements": [{"element_id": element} for element in order.elements],
    }
    parameters: dict[str, Any] = {}
    for field, name in WIRE_NAMES.items():
        value = lists.get(field) if field in lists else getattr(order, field)
        if field != "key" and value is not None and value != []:
            parameters[name] = {"enabled": value} if field == "watermark" else value
    return parameters | dict(order.extra)


def _bare(image: str | bytes) -> str:
    """Return an image as the wire has it: a URL, or base64 without ``data:`` before it."""
    return image if isinstance(image, str) else base64.b64encode(image).decode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


# The answer.


@attrs.frozen
class NotSent:
    """There was no connection, so nothing of a request has left."""

    error: KlingOmniError


Reply: TypeAlias = Answer | NotSent | KlingOmniError
"""What came of a create: an answer, proof that it never left, or why there is no answer."""


@attrs.frozen
class Refused:
    """Nothing was created, that is certain."""

    error: KlingOmniError

    @property
    def is_rate_limit(self) -> bool:
        """Whether it was one create too many for now."""
        return isinstance(self.error, RateLimitError)


@attrs.frozen
class NeverLeft(Refused):
    """Nothing was created, as nothing was sent."""

    @property
    def may_pass(self) -> bool:
        """Whether it may be otherwise the next time."""
        return isinstance(self.error, TransportError) and self.error.reason != "certificate"


@attrs.frozen
class Doubt:
    """Whether a task was created is not known; or, with `duplicate`, one had been before."""

    error: KlingOmniError
    duplicate: bool = False


Verdict: TypeAlias = ImageTask | Refused | Doubt


class Proof(NamedTuple):
    """One way to know that nothing was created."""

    what: str
    source: str
    holds: Callable[[int, int | str | None], bool]  # of a status and the code of a body


def _is_client_error(status: int, _code: int | str | None) -> bool:
    return 400 <= status < 500 and status not in {408, 409, 499}  # noqa: PLR2004 - statuses


def _is_redirect(status: int, _code: int | str | None) -> bool:
    return 300 <= status < 400 and status != 303  # noqa: PLR2004 - statuses


def _is_of_the_vendor(_status: int, code: int | str | None) -> bool:
    return code in VENDOR_CODES


def _says(expected: tuple[int, str]) -> Callable[[int, int | str | None], bool]:
    def holds(status: int, code: int | str | None) -> bool:
        return (status, code) == expected

    return holds


PROOFS: Final = (
    Proof(
        "a code of the vendor from 1000 to 1304, under any status, also wrapped",
        "the vendor's list of codes: each is said in place of a task, and costs nothing",
        _is_of_the_vendor,
    ),
    Proof(
        "4xx but 408, 409 and 499",
        "RFC 9110, 15.5: the request was not carried out; 408 and 499 speak of the connection, "
        "409 may speak of a task that is there",
        _is_client_error,
    ),
    Proof(
        "3xx but 303",
        "RFC 9110, 15.4: it is to be sent elsewhere, and never is; 303 points to what was made",
        _is_redirect,
    ),
    Proof(
        "500 with invalid_request",
        "source of gateways: the request was refused before it was passed on",
        _says((500, "invalid_request")),
    ),
    Proof(
        "503 with model_not_found",
        "source of gateways: there was nobody to pass it on to",
        _says((503, "model_not_found")),
    ),
)
"""The closed list of answers that prove that nothing was created; all else is doubt.

That the request never left is the other proof: `NotSent`.
"""

_INVALID_VALUE: Final = 1201
_DUPLICATE = re.compile(r"exist|duplicat|已存在", re.IGNORECASE)
_NEGATED = re.compile(
    r"(?:\bnot|n['\u2019]t|\bnon|\bno|\bnever|cannot)\W*(?:\w+\W+)?(?:exist|duplicat)|不存在",
    re.IGNORECASE,
)


def read_created(reply: Reply, external_id: str, *, wall_s: float, prompt: str = "") -> Verdict:
    """Say what came of a create with a prompt; never raise."""
    if isinstance(reply, NotSent):
        return NeverLeft(reply.error)
    if not isinstance(reply, Answer):
        return Doubt(reply)
    body = parse(reply.body)[0]
    inner = None if _is_quoted(prompt, body) else unwrapped(body)
    code, message = code_and_message(body if inner is None else inner)
    if code not in VENDOR_CODES and (task := _created(reply, body, external_id, wall_s)):
        return task
    if inner is not None:
        body_again = json.dumps(inner).encode()
        reply = Answer(reply.status, body_again, reply.headers, reply.secret)
    error = _error_of(reply, wall_s)
    if code == _INVALID_VALUE and _DUPLICATE.search(message) and not _NEGATED.search(message):
        return Doubt(_duplicate(error, external_id), duplicate=True)
    proved = any(proof.holds(reply.status, code) for proof in PROOFS)
    return Refused(error) if proved else Doubt(error)


def _is_quoted(prompt: str, body: object) -> bool:
    """Tell whether an error quotes a refusal out of the prompt, which anybody may have written."""
    if unwrapped({"message": prompt}) is None:
        return False
    return prompt[prompt.find("{") : prompt.rfind("}") + 1] in code_and_message(body)[1]


def _created(reply: Answer, body: object, external_id: str, wall_s: float) -> ImageTask | None:
    """Return the task that an answer names: whatever else it says, that one is there."""
    envelope = an_object(body)
    if not 200 <= reply.status < 300 or is_error_body(envelope):  # noqa: PLR2004 - statuses
        return None
    read = read_answer(attrs.evolve(reply, status=200), external_id, wall_s=wall_s)
    if isinstance(read, ImageTask):
        task_id, task = named_id(read), read
    else:
        data = an_object(envelope.get("data"))
        task_id = values.name(data.get("task_id")) or values.name(envelope.get("task_id"))
        task = ImageTask(task_id="", status=TaskStatus.SUBMITTED, raw=data)
    if task_id is None or id_fault(task_id) is not None:
        return None
    name = task.external_task_id or external_id
    return attrs.evolve(task, task_id=task_id, external_task_id=name)


def _error_of(reply: Answer, wall_s: float) -> KlingOmniError:
    """Return the error of an answer that names no task; on a create none can be "not found"."""
    error = read_answer(reply, "", wall_s=wall_s)
    if isinstance(error, ImageTask):
        snippet = snippet_of(reply.body, reply.secret)
        text = f"HTTP {reply.status}: the answer names no task: {snippet!r}"
        return ResponseError(text, http_status=reply.status, snippet=snippet)
    error.task_id = None
    return _as(ApiError, error) if isinstance(error, TaskNotFoundError) else error


def _as(kind: type[ApiError], error: KlingOmniError, **more: Any) -> ApiError:
    """Return the same refusal as another class."""
    assert isinstance(error, ApiError)  # noqa: S101 - it has a code of the vendor
    return kind(
        error.message,
        http_status=error.http_status,
        code=error.code,
        request_id=error.request_id,
        retry_after=error.retry_after,
        **more,
    )


def _duplicate(error: KlingOmniError, external_id: str) -> ApiError:
    return _as(DuplicateOrderError, error, external_task_id=external_id)


def uncertain(request: CreateRequest, cause: BaseException) -> CreateUncertainError:
    """Return the error of a create that may or may not have made a task."""
    name = request.external_id
    error = CreateUncertainError(
        f"whether a task was created is not known ({_in_words(cause)}): never send it again before "
        f"session.recover({name!r}) has looked for it",
        external_task_id=name,
        order=request.order,
        digest=request.digest,
    )
    error.__cause__ = cause
    return error


def _in_words(cause: BaseException) -> str:
    return str(cause) if isinstance(cause, KlingOmniError) else f"a defect, {type(cause).__name__}"


def read_recovered(
    reply: Answer | KlingOmniError, external_id: str, *, wall_s: float
) -> ImageTask | KlingOmniError | None:
    """Return the task that was looked for by its external id; None only where there is none."""
    if not isinstance(reply, Answer):
        return reply
    found = read_answer(reply, external_id, wall_s=wall_s)
    if isinstance(found, TaskNotFoundError):
        return None
    if not isinstance(found, ImageTask):
        return found
    task_id = named_id(found)
    if task_id is None or id_fault(task_id) is not None:
        return _unusable(f"it names no task that was asked for as {quoted(external_id)}")
    if found.external_task_id not in {None, external_id}:
        other = quoted(found.external_task_id)
        return _unusable(f"it is about {other}, and {quoted(external_id)} was asked for")
    return attrs.evolve(found, task_id=task_id, external_task_id=external_id)


def _unusable(what: str) -> ResponseError:
    return ResponseError(f"the answer is of no use: {what}", http_status=200)
