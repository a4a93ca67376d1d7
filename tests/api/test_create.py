"""The body of a create against bodies written by hand, and what its answer proves."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    CreateUncertainError,
    DuplicateOrderError,
    ImageOrder,
    ImageTask,
    KlingOmniError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServerError,
    TaskStatus,
    TransportError,
)
from kling_omni_async._api.answers import Answer
from kling_omni_async._api.create import (
    PROOFS,
    WIRE_RULES,
    CreateRequest,
    Doubt,
    NeverLeft,
    NotSent,
    Refused,
    Verdict,
    _holds,
    _list_of,
    _one_of,
    _says,
    external_id_of,
    fault_in,
    make_request,
    read_created,
    read_recovered,
    uncertain,
)
from kling_omni_async._api.values import Secret
from kling_omni_async._order import RATIOS, order_from_dict, order_to_dict

EXTERNAL = "0e3b1a4e-2f5d-4d6c-9a39-5b1f9d8f7c11"
PNG = b"\x89PNG\r\n\x1a\nfox"
JPG = b"\xff\xd8\xff\xe0fox"
URL = "https://images.example/1.png?Signature=a%2Fb"
NEW = "kling-v3-omni"
SPACE = UUID("5d2f3d5c-7a3f-5b0e-9d55-0c3f4e1b6a27")


def request_of(order: ImageOrder, external_id: str = EXTERNAL) -> CreateRequest:
    """Make a request of an order without files."""
    images = [image for image in order.images if not isinstance(image, Path)]
    return make_request(order, images, external_id)


# Written by hand from the documentation of the wire, not by the code under test.
BODIES: list[tuple[ImageOrder, str]] = [
    (ImageOrder("a fox"), '{"prompt":"a fox","external_task_id":"E"}'),
    (
        ImageOrder("一只狐狸", model="kling-image-o1", resolution="2k"),
        (
            '{"prompt":"一只狐狸","model_name":"kling-image-o1","resolution":"2k",'
            '"external_task_id":"E"}'
        ),
    ),
    (
        ImageOrder("a fox", model=NEW, resolution="4k", n=9, aspect_ratio="21:9"),
        (
            '{"prompt":"a fox","model_name":"kling-v3-omni","resolution":"4k","n":9,'
            '"aspect_ratio":"21:9","external_task_id":"E"}'
        ),
    ),
    (
        ImageOrder("<<<image_1>>> at night", images=[URL]),
        (
            '{"prompt":"<<<image_1>>> at night",'
            '"image_list":[{"image":"https://images.example/1.png?Signature=a%2Fb"}],'
            '"external_task_id":"E"}'
        ),
    ),
    (
        ImageOrder("<<<image_1>>> and <<<image_2>>>", images=[PNG, JPG]),
        (
            '{"prompt":"<<<image_1>>> and <<<image_2>>>",'
            '"image_list":[{"image":"iVBORw0KGgpmb3g="},{"image":"/9j/4GZveA=="}],'
            '"external_task_id":"E"}'
        ),
    ),
    (
        ImageOrder("<<<element_1>>>", elements=[829836802793406551]),
        (
            '{"prompt":"<<<element_1>>>","element_list":[{"element_id":829836802793406551}],'
            '"external_task_id":"E"}'
        ),
    ),
    (
        ImageOrder("a story", model=NEW, images=[URL], result_type="series", series_amount="auto"),
        (
            '{"prompt":"a story","model_name":"kling-v3-omni",'
            '"image_list":[{"image":"https://images.example/1.png?Signature=a%2Fb"}],'
            '"result_type":"series","series_amount":"auto","external_task_id":"E"}'
        ),
    ),
    (
        ImageOrder("a fox", result_type="single", n=1, watermark=False),
        (
            '{"prompt":"a fox","n":1,"result_type":"single","watermark_info":{"enabled":false},'
            '"external_task_id":"E"}'
        ),
    ),
    (
        ImageOrder("a fox", watermark=True, callback_url="https://hooks.example/x?y", key="k-1"),
        (
            '{"prompt":"a fox","watermark_info":{"enabled":true},'
            '"callback_url":"https://hooks.example/x?y","external_task_id":"E"}'
        ),
    ),
    (
        ImageOrder("a fox", series_amount=4, extra={"style": {"tones": [1, None, True]}}),
        (
            '{"prompt":"a fox","series_amount":4,"style":{"tones":[1,null,true]},'
            '"external_task_id":"E"}'
        ),
    ),
]


@pytest.mark.parametrize(("order", "body"), BODIES)
def test_bodies(order: ImageOrder, body: str) -> None:
    """Each field has its name and form of the wire; what was not said is not sent."""
    sent = request_of(order).body
    assert json.loads(sent) == json.loads(body.replace('"E"', f'"{EXTERNAL}"'))
    assert b"\\u" not in sent


@pytest.mark.parametrize(("order", "body"), BODIES)
def test_the_model_accepts_what_is_sent(order: ImageOrder, body: str) -> None:
    """The rules by which the simulator reads take each of these bodies."""
    assert fault_in(json.loads(body)) is None


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({}, "prompt must be a text of 1 to 2500 characters"),
        ({"prompt": "a fox", "n": 10}, "n must be an integer from 1 to 9"),
        ({"prompt": "a fox", "image_list": [7]}, 'image_list must be a list of {"image": URL or'),
        (
            {
                "prompt": "a",
                "image_list": [{"image": ""}] * 6,
                "element_list": [{"element_id": 1}] * 5,
            },
            "image_list and element_list hold more than 10 together",
        ),
        (
            {
                "prompt": "a",
                "image_list": [{"image": ""}] * 5,
                "element_list": [{"element_id": 1}] * 5,
            },
            None,
        ),
        ({"prompt": "a fox", "n": None, "style": "flat"}, None),
    ],
)
def test_the_model_refuses_what_is_forbidden(body: dict[str, Any], fault: str | None) -> None:
    """It names the parameter; null is as good as nothing, and what it does not know passes."""
    assert (fault_in(body) or "").startswith(fault or "")
    assert (fault_in(body) is None) is (fault is None)


def test_a_word_is_one_of_those_allowed() -> None:
    """Another word is not, nor a part of one, nor what is no text."""
    fits = _one_of(("1k", "2k"))
    assert [fits(value) for value in ("1k", "2k", "4k", "k", "", 1, None, ["1k"])] == [
        *[True] * 2,
        *[False] * 6,
    ]


def test_an_object_holds_what_fits() -> None:
    """Under its own name; what is no object holds nothing."""
    fits = _holds("image", _one_of(["x"]))
    assert fits({"image": "x", "more": 1})
    assert not any(map(fits, ({"image": "y"}, {"other": "x"}, {None: "x"}, {}, "x", ["x"], None)))
    assert _holds("image", lambda value: value is None)("no object")


def test_of_a_list_all_fits() -> None:
    """One that does not is enough; an empty list fits, and what is no list does not."""
    fits = _list_of(_one_of(["x"]))
    assert fits([])
    assert fits(["x", "x"])
    assert not any(map(fits, (["x", "y"], ["y", "x"], "x", ("x",), {"x": 1}, None)))


def test_each_parameter_says_what_it_may_be() -> None:
    """In the order of the documentation, each with its own words."""
    assert [rule.name for rule in WIRE_RULES] == [
        "prompt",
        "model_name",
        "image_list",
        "element_list",
        "resolution",
        "result_type",
        "n",
        "series_amount",
        "aspect_ratio",
        "watermark_info",
        "callback_url",
        "external_task_id",
    ]


def test_a_file_is_sent_as_its_bytes() -> None:
    """The bytes that were read stand in the path's place, and decide the digest."""
    order = ImageOrder("a fox", images=[Path("fox.png"), URL])
    request = make_request(order, [PNG, URL], EXTERNAL)
    assert json.loads(request.body)["image_list"] == [
        {"image": base64.b64encode(PNG).decode()},
        {"image": URL},
    ]
    same = make_request(ImageOrder("a fox", images=[PNG, URL]), [PNG, URL], EXTERNAL)
    assert request.order is order
    assert request.digest == same.digest
    assert request.digest != make_request(order, [JPG, URL], EXTERNAL).digest
    assert "iVBOR" not in repr(request)


def test_the_digest_is_of_the_contents() -> None:
    """Neither name nor callback is part of it; all that is to be seen is."""
    plain = request_of(ImageOrder("a fox", n=1))
    assert len(plain.digest) == 64
    named = ImageOrder("a fox", n=1, key="k-1", callback_url="https://hooks.example/")
    assert request_of(named, "another").digest == plain.digest
    others = [
        ImageOrder("a fox"),
        ImageOrder("a cat", n=1),
        ImageOrder("a fox", n=1, extra={"x": 1}),
    ]
    assert plain.digest not in {request_of(order).digest for order in others}


def test_a_body_is_as_short_as_json_can_be() -> None:
    """No spaces, and letters as they are: a prompt may be long."""
    body = f'{{"prompt":"狐狸","external_task_id":"{EXTERNAL}"}}'
    assert request_of(ImageOrder("狐狸")).body == body.encode()


def test_the_digest_knows_no_order_of_names() -> None:
    """What else is to be sent may be given in any."""
    digests = {
        request_of(ImageOrder("a fox", extra=extra)).digest
        for extra in ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1})
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (
            ImageOrder("a fox", images=[PNG]),
            "images[0] was read from JSON, which holds no bytes; give the image itself",
        ),
        (
            ImageOrder("a fox", callback_url="https://hooks.example/x"),
            "callback_url was read from JSON, which holds its host alone; give the whole URL",
        ),
    ],
)
def test_an_order_read_from_json_may_lack_what_is_to_be_sent(order: ImageOrder, text: str) -> None:
    """It is refused then, with the field's name and what to give instead."""
    again = order_from_dict(json.loads(json.dumps(order_to_dict(order))))
    assert again is not None
    with pytest.raises(ConfigurationError) as caught:
        request_of(again)
    assert str(caught.value) == f"ImageOrder.{text}"


def test_external_ids() -> None:
    """Without a key each is new; with one it is the same in its namespace, and there alone."""
    order = ImageOrder("a fox")
    ids = {external_id_of(order, SPACE) for _ in range(3)}
    assert len(ids) == 3
    assert {UUID(name).version for name in ids} == {4}
    named = ImageOrder("a fox", key="invoice-42/1")
    assert external_id_of(named, SPACE) == "dab5aac2-d011-594a-926d-21387569890c"
    assert external_id_of(named, UUID(int=1)) != external_id_of(named, SPACE)


# What an answer proves.

CREATED = {
    "code": 0,
    "message": "SUCCEED",
    "data": {
        "task_id": "831922345719271433",
        "task_info": {"external_task_id": None},
        "task_status": "submitted",
        "created_at": 1722769557708,
        "updated_at": 1722769557708,
    },
}


def verdict_on(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Verdict:
    """Read the answer to a create."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = Answer(status, content, dict(headers or {}))
    return read_created(answer, EXTERNAL, wall_s=0.0)


def vendor(code: object, message: str = "no") -> dict[str, object]:
    """Make a refusal of the vendor."""
    return {"code": code, "message": message, "request_id": "req-1"}


def wrapped(code: object, message: str = "no", *, around: str = "{}") -> dict[str, object]:
    """Make a gateway's refusal with the vendor's own in it."""
    text = around.replace("{}", json.dumps(vendor(code, message)))
    return {"code": "fail_to_fetch_task", "message": text, "data": None}


def test_the_documented_answer() -> None:
    """It is a task under the id that it gives, with the external id that was sent."""
    task = verdict_on(CREATED)
    assert isinstance(task, ImageTask)
    assert (task.task_id, task.status) == ("831922345719271433", TaskStatus.SUBMITTED)
    assert task.external_task_id == EXTERNAL
    assert task.created_at is not None
    assert task.raw == CREATED["data"]


@pytest.mark.parametrize(
    ("body", "status", "task_id", "state"),
    [
        ({"code": 0, "data": {"task_id": "t-1", "task_status": "failed"}}, 200, "t-1", "failed"),
        ({"code": 0, "data": {"task_id": 8313, "task_status": "submitted"}}, 200, "8313", None),
        ({"code": 0, "data": {"task_id": " t-1\n", "task_status": "submitted"}}, 200, "t-1", None),
        ({"code": 0, "data": {"task_id": "t-1"}}, 200, "t-1", None),
        ({"task_id": "t-1"}, 200, "t-1", None),
        ({"code": "success", "data": {"task_id": "t-1", "status": "SUBMITTED"}}, 200, "t-1", None),
        ({"data": {"status": "QUEUED", "data": CREATED}}, 200, "831922345719271433", None),
        (CREATED, 201, "831922345719271433", None),
        (json.dumps(CREATED).encode() + b'{"error": {}}', 200, "831922345719271433", None),
    ],
)
def test_whatever_names_a_task_is_one(
    body: object, status: int, task_id: str, state: str | None
) -> None:
    """A task whose id is known is not lost, however odd its answer is; a failed one is a task."""
    task = verdict_on(body, status)
    assert isinstance(task, ImageTask)
    assert (task.task_id, task.status) == (task_id, state or "submitted")


def test_of_an_odd_answer_all_is_kept() -> None:
    """Its words stay in the record, under whatever status of success they came."""
    data = {"task_id": "t-1", "note": "queued"}
    task = verdict_on({"code": 0, "data": data})
    assert isinstance(task, ImageTask)
    assert task.raw == data
    data = {"task_id": "t-1", "task_status": "processing"}
    task = verdict_on({"code": 0, "data": data}, 202)
    assert isinstance(task, ImageTask)
    assert (task.status, task.raw) == (TaskStatus.PROCESSING, data)
    assert isinstance(verdict_on(CREATED, 299), ImageTask)
    assert isinstance(verdict_on(CREATED, 300), Refused)


def test_an_external_id_of_the_answer_is_kept() -> None:
    """What the API calls it is what the record says."""
    info = {"task_id": "t-1", "task_status": "submitted", "task_info": {"external_task_id": "x"}}
    task = verdict_on({"code": 0, "data": info})
    assert isinstance(task, ImageTask)
    assert task.external_task_id == "x"


CERTAIN: list[tuple[object, int, type[KlingOmniError]]] = [
    *((vendor(code), 400, ApiError) for code in (1200, 1201, 1202, 1300, 1301)),
    *((vendor(code), 401, AuthenticationError) for code in (1000, 1004)),
    *((vendor(code), 429, AccountError) for code in (1100, 1101, 1102, 1304)),
    (vendor(1103), 403, PermissionDeniedError),
    *((vendor(code), 429, RateLimitError) for code in (1302, 1303)),
    *((vendor(1303), status, RateLimitError) for status in (200, 408, 409, 499, 500, 503, 520)),
    (vendor("1201"), 500, ApiError),
    (vendor(1203), 400, ApiError),
    (vendor(1201, "task 7 not found"), 400, ApiError),
    (vendor(1201, "element does not exist"), 400, ApiError),
    ({"error": {"code": 1301, "message": "risk"}}, 500, ApiError),
    (wrapped(1303), 500, RateLimitError),
    (wrapped(1102), 500, AccountError),
    (wrapped(1201, "bad ratio"), 200, ApiError),
    (wrapped("1301", around="upstream said: {} (request id: 7)"), 502, ApiError),
    ({"error": {"message": json.dumps(vendor(1301)), "code": ""}}, 500, ApiError),
    *((b"", status, ResponseError) for status in (400, 404, 402, 403, 413, 422)),
    (b"", 401, AuthenticationError),
    (b"", 429, RateLimitError),
    (b"<html>", 418, ResponseError),
    (b"", 425, ServerError),
    (b"", 407, TransportError),
    (vendor("task_not_exist"), 400, ApiError),
    *((b"", status, ResponseError) for status in (300, 301, 302, 304, 307, 308)),
    ({"error": {"code": "invalid_request", "message": "x"}}, 500, ApiError),
    ({"error": {"code": "model_not_found", "message": "x"}}, 503, ApiError),
]


@pytest.mark.parametrize(("body", "status", "kind"), CERTAIN)
def test_what_proves_that_nothing_was_created(
    body: object, status: int, kind: type[KlingOmniError]
) -> None:
    """Each row of the closed list, with the error that it becomes."""
    verdict = verdict_on(body, status)
    assert isinstance(verdict, Refused)
    assert type(verdict.error) is kind
    assert verdict.error.task_id is None


def test_the_vendors_own_words_are_read() -> None:
    """Of a wrapped refusal its inner code and text are told, with what the headers say."""
    verdict = verdict_on(wrapped(1303, "too many tasks"), 500, {"Retry-After": "7"})
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, RateLimitError)
    assert verdict.is_rate_limit
    assert (verdict.error.code, verdict.error.message) == (1303, "too many tasks")
    assert verdict.error.retry_after == 7.0
    surrogate = wrapped(1301, "\ud800")
    assert isinstance(verdict_on(surrogate, 500), Refused)


REFUSAL = json.dumps(vendor(1301, "risk {}"))


@pytest.mark.parametrize(
    ("prompt", "words", "kind"),
    [
        (REFUSAL, f"bad prompt: {REFUSAL}", Doubt),
        (f"a {{fox}} of {REFUSAL} }} b", f"bad prompt: {REFUSAL}", Refused),
        (f"say {REFUSAL} twice", f"bad prompt: say {REFUSAL} twice", Doubt),
        (f"say {REFUSAL} twice", REFUSAL, Doubt),
        (REFUSAL, json.dumps(vendor(1302)), Refused),
        (REFUSAL, json.dumps(vendor(1302, "risk {}")), Refused),
        (REFUSAL, json.dumps(vendor(1301, "risk {} of another kind")), Refused),
        (REFUSAL, f'{REFUSAL[:-1]}, "more": 1}}', Refused),
        ("a fox", REFUSAL, Refused),
        ("", REFUSAL, Refused),
        ("{}", f"{{}} {REFUSAL}", Doubt),
        ("{", REFUSAL, Refused),
    ],
)
def test_a_refusal_out_of_the_prompt_proves_nothing(
    prompt: str, words: str, kind: type[object]
) -> None:
    """Whoever wrote the prompt wrote it, and the gateway quotes the prompt in its error."""
    body = {"error": {"message": words, "code": "", "type": "upstream_error"}}
    answer = Answer(500, json.dumps(body).encode())
    verdict = read_created(answer, EXTERNAL, wall_s=0.0, prompt=prompt)
    assert type(verdict) is kind


def test_without_a_prompt_every_refusal_is_believed() -> None:
    """As where a worker looks at what a create of long ago has brought."""
    answer = Answer(500, json.dumps(wrapped(1301)).encode())
    assert isinstance(read_created(answer, EXTERNAL, wall_s=0.0), Refused)


DOUBTFUL: list[tuple[object, int, type[KlingOmniError]]] = [
    *((b"", status, ServerError) for status in (408, 500, 502, 503, 504, 524, 529)),
    *((b"", status, ResponseError) for status in (200, 204, 303, 409, 499, 600, 999)),
    *((vendor(code), 500, ServerError) for code in (5000, 5001, 5002)),
    (vendor(5000), 200, ServerError),
    (vendor(999), 500, ServerError),
    (vendor(1305), 500, ApiError),
    (vendor(1305), 200, ApiError),
    (vendor(code=True), 500, ServerError),
    ({"code": 0, "data": {"task_status": "submitted"}}, 200, ResponseError),
    ({"code": 0, "data": {"task_id": "", "task_status": "submitted"}}, 200, ResponseError),
    ({"code": 0, "data": {"task_id": "a b", "task_status": "submitted"}}, 200, ResponseError),
    ({"code": "success", "data": None}, 200, ResponseError),
    ({"code": 5000, "data": {"task_id": "t-1", "task_status": "submitted"}}, 200, ServerError),
    ({"success": False, "task_id": "t-1"}, 200, ApiError),
    (CREATED, 500, ServerError),
    (b"[1]", 200, ResponseError),
    (b"null", 200, ResponseError),
    (b"{", 200, ResponseError),
    (b"<html>", 200, ResponseError),
    (wrapped(5000), 500, ServerError),
    ({"code": "fail_to_fetch_task", "message": "{ what", "data": None}, 500, ServerError),
    ({"code": 429, "message": "slow"}, 200, RateLimitError),
    ({"code": "task_not_exist", "message": ""}, 500, ApiError),
    ({"error": {"code": "invalid_request"}}, 503, ServerError),
    ({"error": {"code": "model_not_found"}}, 500, ServerError),
]


@pytest.mark.parametrize(("body", "status", "kind"), DOUBTFUL)
def test_all_else_is_doubt(body: object, status: int, kind: type[KlingOmniError]) -> None:
    """What the closed list does not name proves nothing."""
    verdict = verdict_on(body, status)
    assert isinstance(verdict, Doubt)
    assert type(verdict.error) is kind
    assert not verdict.duplicate


def test_a_refusal_says_how_long_to_wait() -> None:
    """Until a date too, from the time at which the answer came."""
    answer = Answer(429, b"", {"Retry-After": "Sun, 03 May 2026 03:10:07 GMT"})
    verdict = read_created(answer, EXTERNAL, wall_s=1_777_777_777.0)
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, RateLimitError)
    assert verdict.error.retry_after == 30.0


def test_an_answer_that_names_no_task_is_shown() -> None:
    """The first of its words, without the key, and its status."""
    content = b'{"code": 0, "data": {"task_status": "submitted", "of": "sk-very-secret"}}'
    verdict = read_created(Answer(200, content, {}, Secret("sk-very-secret")), EXTERNAL, wall_s=0.0)
    assert isinstance(verdict, Doubt)
    error = verdict.error
    assert isinstance(error, ResponseError)
    snippet = '{"code": 0, "data": {"task_status": "submitted", "of": "[redacted]"}}'
    assert (error.http_status, error.snippet) == (200, snippet)
    assert str(error).startswith(f"HTTP 200: the answer names no task: {snippet!r}")


def test_no_answer() -> None:
    """Nothing is certain without one, but that what never left has made nothing."""
    reset = TransportError("reset", reason="reset")
    assert read_created(reset, EXTERNAL, wall_s=0.0) == Doubt(reset)
    assert read_created(NotSent(reset), EXTERNAL, wall_s=0.0) == NeverLeft(reset)
    assert NeverLeft(reset).may_pass
    assert not NeverLeft(TransportError(reason="certificate")).may_pass
    assert not NeverLeft(ConfigurationError("closed")).may_pass


@pytest.mark.parametrize(
    "message",
    [
        "external_task_id already exists",
        "The External Task ID Exists!",
        "duplicate external_task_id",
        "duplicated id",
        "外部任务ID已存在",
        "task already exists; give another, as it is not new",
    ],
)
@pytest.mark.parametrize("body", [vendor, wrapped], ids=["plain", "wrapped"])
def test_a_duplicate(message: str, body: Any) -> None:
    """1201 that says "exists" means that the vendor knows the order: it may be looked for."""
    verdict = verdict_on(body(1201, message), 400, {"Retry-After": "7"})
    assert isinstance(verdict, Doubt)
    assert verdict.duplicate
    error = verdict.error
    assert type(error) is DuplicateOrderError
    assert error.external_task_id == EXTERNAL
    assert (error.code, error.message) == (1201, message)
    assert (error.http_status, error.request_id, error.retry_after) == (400, "req-1", 7.0)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (1201, "image does not exist"),
        (1201, "element doesn't exist"),
        (1201, "element 不存在"),
        (1201, "the model is non-existent"),
        (1201, "no existing element"),
        (1201, "cannot be duplicated"),
        (1201, "bad ratio"),
        (1200, "already exists"),
        (1301, "duplicate"),
    ],
)
def test_no_duplicate(code: int, message: str) -> None:
    """A negation, or another code, is a plain refusal."""
    verdict = verdict_on(vendor(code, message), 400)
    assert isinstance(verdict, Refused)
    assert type(verdict.error) is ApiError


def test_each_proof_has_a_source() -> None:
    """The table says why each of its rows is one."""
    assert len({proof.what for proof in PROOFS}) == len(PROOFS) == 5
    assert all(len(proof.source) > 20 for proof in PROOFS)


@pytest.mark.parametrize(
    ("what", "statuses"),
    [
        ("4xx but 408, 409 and 499", {*range(400, 500)} - {408, 409, 499}),
        ("3xx but 303", {*range(300, 400)} - {303}),
    ],
)
def test_a_proof_by_status_is_for_just_these(what: str, statuses: set[int]) -> None:
    """Whatever the code says."""
    proof = next(proof for proof in PROOFS if proof.what == what)
    assert {status for status in range(100, 1000) if proof.holds(status, None)} == statuses
    assert {status for status in range(100, 1000) if proof.holds(status, "x")} == statuses


def test_a_proof_by_status_and_code_is_for_both_together() -> None:
    """Neither the one nor the other alone proves anything."""
    holds = _says((500, "invalid_request"))
    assert holds(500, "invalid_request")
    assert not holds(503, "invalid_request")
    assert not holds(500, "model_not_found")
    assert not holds(500, None)


def test_the_error_of_doubt() -> None:
    """It says by which name to look, keeps what the create met, and asks for no second try."""
    request = request_of(ImageOrder("a fox"))
    cause = ServerError(http_status=502)
    error = uncertain(request, cause)
    assert type(error) is CreateUncertainError
    assert error.__cause__ is cause
    assert (error.external_task_id, error.order) == (EXTERNAL, request.order)
    assert error.digest == request.digest
    assert not error.transient
    assert str(error) == (
        "whether a task was created is not known (HTTP 502: Bad Gateway): never send it again "
        f"before session.recover('{EXTERNAL}') has looked for it"
    )
    assert "(a defect, ZeroDivisionError)" in str(uncertain(request, ZeroDivisionError()))


def test_the_key_is_taken_out() -> None:
    """A server that echoes the key in a refusal makes nobody log it."""
    content = json.dumps(wrapped(1301, "key sk-very-secret is bad")).encode()
    answer = Answer(500, content, {}, Secret("sk-very-secret"))
    verdict = read_created(answer, EXTERNAL, wall_s=0.0)
    assert isinstance(verdict, Refused)
    assert "secret" not in str(verdict.error)
    assert "is bad" in str(verdict.error)


CODES = st.one_of(
    st.integers(-10, 6000), st.sampled_from(["", "1201", "invalid_request", "x"]), st.booleans()
)
MESSAGES = st.one_of(
    st.text(max_size=20), st.builds(lambda code: json.dumps({"code": code, "message": "x"}), CODES)
)
ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        "code": st.one_of(CODES, st.none()),
        "message": MESSAGES,
        "success": st.booleans(),
        "data": st.one_of(
            st.none(),
            st.text(max_size=5),
            st.fixed_dictionaries(
                {}, optional={"task_id": st.one_of(st.text(max_size=9), st.integers(), st.none())}
            ),
        ),
        "error": st.one_of(
            MESSAGES, st.fixed_dictionaries({}, optional={"code": CODES, "message": MESSAGES})
        ),
    },
)
CONTENTS = st.one_of(
    st.binary(max_size=60), ENVELOPES.map(lambda value: json.dumps(value).encode())
)


@given(
    status=st.integers(100, 999),
    content=CONTENTS,
    headers=st.dictionaries(
        st.sampled_from(["Retry-After", "Location", "X-Oneapi-Request-Id"]), st.text(max_size=9)
    ),
)
def test_any_answer_gets_a_verdict(status: int, content: bytes, headers: dict[str, str]) -> None:
    """Nothing raises; a task has an id, and what is certain is in the list of the documentation."""
    verdict = read_created(Answer(status, content, headers), EXTERNAL, wall_s=0.0)
    if isinstance(verdict, ImageTask):
        assert verdict.task_id
        assert 200 <= status < 300
    elif isinstance(verdict, Refused):
        certain = (400 <= status < 500 and status not in {408, 409, 499}) or (
            300 <= status < 400 and status != 303
        )
        code = getattr(verdict.error, "code", None)
        known = code is not None and str(code).isdigit() and 1000 <= int(code) <= 1304
        words = {(500, "invalid_request"), (503, "model_not_found")}
        assert certain or known or (status, code) in words


FIELDS = st.fixed_dictionaries(
    {"prompt": st.text(st.characters(codec="utf-8"), min_size=1, max_size=50).filter(str.strip)},
    optional={
        "model": st.sampled_from([None, "kling-image-o1", NEW]),
        "images": st.lists(st.sampled_from([URL, PNG, JPG]), max_size=4),
        "elements": st.lists(st.integers(0, 2**63 - 1), max_size=4),
        "resolution": st.sampled_from([None, "1k", "2k"]),
        "n": st.one_of(st.none(), st.integers(1, 9)),
        "series_amount": st.one_of(st.none(), st.integers(2, 9), st.just("auto")),
        "aspect_ratio": st.sampled_from([None, *RATIOS[:-1]]),
        "watermark": st.sampled_from([None, True, False]),
        "callback_url": st.sampled_from([None, "https://hooks.example/"]),
        "extra": st.dictionaries(st.sampled_from(["style", "seed"]), st.integers(0, 9)),
    },
)


@given(fields=FIELDS)
def test_any_order_makes_a_body_of_the_model(fields: dict[str, Any]) -> None:
    """Whatever can be ordered is accepted by the rules by which the simulator reads bodies."""
    body = json.loads(request_of(ImageOrder(**fields)).body)
    assert fault_in(body) is None
    assert body["external_task_id"] == EXTERNAL
    assert None not in body.values()


# Looking for a task.


def recovered(body: object, status: int = 200) -> ImageTask | KlingOmniError | None:
    """Read the answer to a look."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_recovered(Answer(status, content, {}), EXTERNAL, wall_s=0.0)


def found(**data: object) -> dict[str, object]:
    """Make the answer about a task."""
    return {"code": 0, "data": {"task_id": "t-1", "task_status": "processing", **data}}


@pytest.mark.parametrize("info", [{}, {"external_task_id": None}, {"external_task_id": EXTERNAL}])
def test_a_task_is_found(info: dict[str, object]) -> None:
    """Its id is the one in the answer, also where that does not repeat the external id."""
    task = recovered(found(task_info=info))
    assert isinstance(task, ImageTask)
    assert (task.task_id, task.external_task_id) == ("t-1", EXTERNAL)
    assert task.status is TaskStatus.PROCESSING


def test_no_task_is_found() -> None:
    """Only the API's own "not found" is none."""
    assert recovered(vendor("task_not_exist"), 400) is None
    assert recovered(vendor(1203), 404) is None


@pytest.mark.parametrize(
    ("body", "status", "kind", "text"),
    [
        (found(task_info={"external_task_id": "other"}), 200, ResponseError, "about 'other'"),
        ({"code": 0, "data": {"task_status": "processing"}}, 200, ResponseError, "names no task"),
        (found(task_id="a b"), 200, ResponseError, "names no task"),
        (b"", 502, ServerError, "502"),
        (b"", 404, ResponseError, "404"),
        (vendor(1201, "bad"), 400, ApiError, "bad"),
    ],
)
def test_all_else_says_nothing_of_the_task(
    body: object, status: int, kind: type[KlingOmniError], text: str
) -> None:
    """An answer about another task, one that names none, and faults are errors."""
    error: Any = recovered(body, status)
    assert error.http_status == status
    assert type(error) is kind
    assert text in str(error)


def test_a_look_that_comes_too_soon_says_how_long_to_wait() -> None:
    """Until a date too, from the time at which the answer came."""
    answer = Answer(429, b"", {"Retry-After": "Sun, 03 May 2026 03:10:07 GMT"})
    error = read_recovered(answer, EXTERNAL, wall_s=1_777_777_777.0)
    assert isinstance(error, RateLimitError)
    assert (error.retry_after, error.task_id) == (30.0, EXTERNAL)


@pytest.mark.parametrize("body", [found(task_info={"external_task_id": "b"}), found(task_id="a b")])
def test_an_answer_of_no_use_says_what_was_asked_for(body: object) -> None:
    """By its external id, with the status that it came under."""
    error = recovered(body)
    assert isinstance(error, ResponseError)
    assert error.http_status == 200
    assert str(error).startswith("the answer is of no use: it ")
    assert repr(EXTERNAL) in str(error)


def test_no_answer_to_a_look() -> None:
    """What kept it away is what is told."""
    error = TransportError("reset")
    assert read_recovered(error, EXTERNAL, wall_s=0.0) is error
