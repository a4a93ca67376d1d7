"""Which answer becomes what: the rows and remarks of the tables of ``docs/wire.md``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from kling_omni_async import ImageTask, KlingOmniError, TaskImage, TaskStatus, errors
from kling_omni_async._api.answers import (
    SNIPPET_LENGTH,
    Answer,
    Echo,
    age_of,
    foreign_id,
    read_answer,
    read_task,
    snippet_of,
    status_word,
    unusable_images,
    without,
)
from kling_omni_async._api.values import NO_KEY, Secret
from kling_omni_async.errors import ApiError, ResponseError, TransportError

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("cases.json").read_bytes())
ASKED = "878106242831892487"
NOW_S = 1_777_777_777.0
URL = "https://a.example/1.png"


def read(
    body: object, status: int = 200, headers: dict[str, str] | None = None
) -> ImageTask | KlingOmniError:
    """Read an answer whose body is given as bytes, as text, or as what JSON shall say."""
    if isinstance(body, str):
        body = body.encode()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_answer(Answer(status, content, CIMultiDict(headers or {})), ASKED, wall_s=NOW_S)


def task_of(body: object) -> ImageTask:
    """Give the task that an answer under 200 must become."""
    reply = read(body)
    assert isinstance(reply, ImageTask), reply
    return reply


def error_of(body: object, status: int, headers: dict[str, str] | None = None) -> KlingOmniError:
    """Give the error that an answer must become; it always names the id asked for."""
    reply = read(body, status, headers)
    assert isinstance(reply, KlingOmniError), reply
    assert reply.task_id == ASKED
    return reply


def found(**data: object) -> dict[str, Any]:
    """Make a success answer with this in its ``data``."""
    return {"code": 0, "message": "SUCCEED", "request_id": "req-1", "data": data}


def done(**data: object) -> dict[str, Any]:
    """Make the answer of a task that succeeded, but for what is given."""
    return found(**{"task_status": "succeed", "task_result": {"images": [{"url": URL}]}, **data})


def facts_of(reply: ImageTask | KlingOmniError) -> dict[str, Any]:
    """Give what `cases.json` may expect of a reply."""
    if isinstance(reply, ImageTask):
        return {
            "kind": "task",
            "status": reply.status.value,
            "terminal": reply.is_terminal,
            "images": [[image.url, image.index, image.watermark_url] for image in reply.images],
            "status_message": reply.status_message,
            "external_task_id": reply.external_task_id,
            "final_unit_deduction": reply.final_unit_deduction and str(reply.final_unit_deduction),
            "created_at": reply.created_at and reply.created_at.isoformat(),
            "updated_at": reply.updated_at and reply.updated_at.isoformat(),
            "request_id": reply.request_id,
        }
    facts = {**vars(reply), "kind": "error", "type": type(reply).__name__}
    return {**facts, "transient": reply.transient, "exact": True}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_complete_answers(case: dict[str, Any]) -> None:
    """Each recorded answer becomes what is written beside it."""
    facts = facts_of(read(case["body"], case["status"], case["headers"]))
    assert facts | case["expect"] == facts


class TestSuccessAnswers:
    """Rows of the table of success answers."""

    @pytest.mark.parametrize("message", ["SUCCEED", "success", "Success", "", None, "failed", 5])
    def test_message_says_nothing(self, message: object) -> None:
        """The envelope's message is neither tested nor shown as a reason."""
        task = task_of({**found(task_status="failed"), "message": message})
        assert task.status is TaskStatus.FAILED
        assert task.status_message is None

    @pytest.mark.parametrize(
        "code", [0, None, "", "0", "success", "SUCCESS", " success "], ids=repr
    )
    def test_codes_of_success(self, code: object) -> None:
        """0, the word success, and no code at all say that the task was found."""
        assert task_of({**done(), "code": code}).status is TaskStatus.SUCCEED

    def test_code_may_be_missing(self) -> None:
        """An envelope without code is read too."""
        assert task_of({"data": {"task_status": "processing"}}).status is TaskStatus.PROCESSING

    @pytest.mark.parametrize("code", [True, False, 0.0, 0.5, [], {}])
    def test_odd_codes(self, code: object) -> None:
        """A boolean is not the integer 0, and neither is anything else."""
        assert type(error_of({**done(), "code": code}, 200)) is ResponseError

    @pytest.mark.parametrize(
        ("given", "expected"),
        [("878106242831892487", "878106242831892487"), ("b63503f4", "b63503f4"), (None, None)],
    )
    def test_request_id(self, given: object, expected: str | None) -> None:
        """The record carries the body's request id, if there is one."""
        assert task_of({**done(), "request_id": given}).request_id == expected

    @pytest.mark.parametrize(
        ("word", "status"),
        [
            ("submitted", TaskStatus.SUBMITTED),
            ("processing", TaskStatus.PROCESSING),
            ("succeed", TaskStatus.SUCCEED),
            ("succeeded", TaskStatus.SUCCEED),
            ("failed", TaskStatus.FAILED),
            ("SUCCEED", TaskStatus.SUCCEED),
            (" failed ", TaskStatus.FAILED),
            ("rendering", TaskStatus.UNKNOWN),
            ("queued", TaskStatus.UNKNOWN),
            ("success", TaskStatus.UNKNOWN),
            ("任务", TaskStatus.UNKNOWN),
        ],
    )
    def test_status_words(self, word: str, status: TaskStatus) -> None:
        """Each word has its status; an unknown one means not finished yet."""
        assert task_of(found(task_status=word)).status is status

    @pytest.mark.parametrize("word", [None, "", " ", 0, 1, True, [], {"a": 1}])
    def test_no_status(self, word: object) -> None:
        """An answer without a status word is unexpected, not "still pending"."""
        assert type(error_of(found(task_status=word), 200)) is ResponseError

    @pytest.mark.parametrize(
        ("given", "expected"), [("too dark", "too dark"), ("", None), (None, None), (5, None)]
    )
    def test_status_message(self, given: object, expected: str | None) -> None:
        """The reason is `task_status_msg`; blank means none."""
        task = task_of(found(task_status="failed", task_status_msg=given))
        assert task.status_message == expected

    @pytest.mark.parametrize(
        ("info", "expected"),
        [
            ({"external_task_id": "mine-7"}, "mine-7"),
            ({"external_task_id": ""}, None),
            ({"external_task_id": None}, None),
            ({"external_task_id": 7}, None),
            ({}, None),
            (None, None),
            ([], None),
        ],
    )
    def test_external_id(self, info: object, expected: str | None) -> None:
        """Null, "" and missing all mean that the creator gave no name."""
        assert task_of(found(task_status="processing", task_info=info)).external_task_id == expected

    @pytest.mark.parametrize("result", [{}, None, [], "x", {"images": []}, {"images": [{}]}])
    def test_success_without_images(self, result: object) -> None:
        """A success without one usable URL is a task without images."""
        task = task_of(found(task_status="succeed", task_result=result))
        assert task.status is TaskStatus.SUCCEED
        assert task.images == ()

    def test_success_without_result(self) -> None:
        """So is one without any result."""
        assert task_of(found(task_status="succeed")).images == ()

    @pytest.mark.parametrize("kind", ["single", "series", "of tomorrow", None])
    @pytest.mark.parametrize("key", ["images", "series_images"])
    def test_either_array_of_a_series(self, key: str, kind: object) -> None:
        """Images are found in either array, whatever the result type says."""
        result = {"result_type": kind, key: [{"url": URL, "index": 0}]}
        assert task_of(done(task_result=result)).images == (TaskImage(url=URL, index=0),)

    def test_both_arrays_of_a_series(self) -> None:
        """Both arrays are read, and repeats of a URL are dropped."""
        other = "https://a.example/2.png"
        result = {"images": [{"url": URL}], "series_images": [{"url": URL}, {"url": other}]}
        assert [image.url for image in task_of(done(task_result=result)).images] == [URL, other]

    @pytest.mark.parametrize(
        ("given", "expected"),
        [("8", "8"), ("0.5", "0.5"), (8, "8"), ("", None), (None, None), ("NaN", None)],
        ids=repr,
    )
    def test_price(self, given: object, expected: str | None) -> None:
        """The price is an exact decimal, or none."""
        price = task_of(done(final_unit_deduction=given)).final_unit_deduction
        assert price == (expected and Decimal(expected))

    @pytest.mark.parametrize("field", ["created_at", "updated_at"])
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (1782450245512, datetime(2026, 6, 26, 5, 4, 5, 512000, tzinfo=UTC)),
            (1782450245, datetime(2026, 6, 26, 5, 4, 5, tzinfo=UTC)),
            (0, None),
            (None, None),
        ],
    )
    def test_times(self, field: str, given: object, expected: datetime | None) -> None:
        """Times are in ms or in seconds; 0 is none."""
        assert getattr(task_of(done(**{field: given})), field) == expected

    def test_asked_id_is_kept(self) -> None:
        """The record carries the id asked for; a different one stays in the raw payload."""
        task = task_of(done(task_id="provider-5"))
        assert task.task_id == ASKED
        assert task.raw["task_id"] == "provider-5"
        assert foreign_id(task) == "provider-5"

    @pytest.mark.parametrize(
        ("named", "other"),
        [
            ({"task_id": 5}, "5"),
            ({"task_id": " other\n"}, "other"),
            ({"status": "SUCCESS", "data": {"data": {"task_id": "other"}}}, "other"),
            ({"status": "SUCCESS", "task_id": ASKED, "data": {"data": {"task_id": "o"}}}, None),
        ],
    )
    def test_another_id_in_any_form(self, named: dict[str, object], other: str | None) -> None:
        """A number, white space or a wrapper hide no other id; a wrapper's own word counts."""
        data = named if "status" in named else {"task_status": "processing", **named}
        assert foreign_id(task_of({"code": 0, "data": data})) == other

    @pytest.mark.parametrize(
        "own",
        [{"task_id": ASKED}, {"task_id": ""}, {"task_id": True}, {"task_id": f" {ASKED}"}, {}],
    )
    def test_no_foreign_id(self, own: dict[str, object]) -> None:
        """The id asked for, and none at all, are nothing to warn about."""
        assert foreign_id(task_of(done(**own))) is None

    def test_unknown_fields_are_kept(self) -> None:
        """`raw` is the whole `data` object as it came."""
        data = done(watermark_info={"enabled": True}, final_balance_deduction="1", new=[1])["data"]
        assert task_of({"code": 0, "data": data}).raw == data

    def test_behind_a_byte_order_mark(self) -> None:
        """A byte order mark and white space around the answer do no harm."""
        assert task_of(b"\xef\xbb\xbf \r\n" + json.dumps(done()).encode() + b"\n").images

    @pytest.mark.parametrize(
        "body",
        [
            {"code": "success", "data": None},
            {"code": 0, "data": None},
            {"code": 0, "data": {}},
            {"code": 0, "data": []},
            {"code": 0, "data": "text"},
            {"code": 0},
            {},
            {"code": 0, "data": {"task_id": "1"}},
            {"data": [{"task_status": "succeed"}]},
            [],
            None,
            0,
            "",
            "Welcome",
            "<!doctype html>",
        ],
        ids=repr,
    )
    def test_what_is_no_task(self, body: object) -> None:
        """Under 200 what has no data object with a status is no answer of the API."""
        error = error_of(body, 200)
        assert type(error) is ResponseError
        assert error.http_status == 200

    @pytest.mark.parametrize("code", [{}, {"code": None}, {"code": ""}, {"code": "success"}])
    def test_success_false_carries_no_task(self, code: dict[str, object]) -> None:
        """``success: false`` says no, even beside a status and a word of success."""
        body = {"success": False, "message": "m", "data": done()["data"], **code}
        assert type(error_of(body, 200)) is ApiError

    @pytest.mark.parametrize("status", [100, 201, 202, 204, 206, 226, 299, 304, 404, 500, 600, 999])
    def test_only_200_carries_a_task(self, status: int) -> None:
        """The same body under another status is never a task."""
        assert isinstance(read(done(), status), KlingOmniError)


def wrapped(word: object, inner: object = None, **outer: object) -> dict[str, Any]:
    """Make an answer of the older wrapped form."""
    data = {"task_id": ASKED, "status": word, "fail_reason": "", "progress": "50%", "data": inner}
    return {"code": "success", "message": "", "data": {**data, **outer}}


class TestWrappedForm:
    """The form that is still documented for sibling routes."""

    @pytest.mark.parametrize(
        ("word", "status"),
        [
            ("NOT_START", TaskStatus.SUBMITTED),
            ("SUBMITTED", TaskStatus.SUBMITTED),
            ("QUEUED", TaskStatus.SUBMITTED),
            ("IN_PROGRESS", TaskStatus.PROCESSING),
            ("SUCCESS", TaskStatus.SUCCEED),
            ("FAILURE", TaskStatus.FAILED),
            ("UNKNOWN", TaskStatus.UNKNOWN),
            ("OF_TOMORROW", TaskStatus.UNKNOWN),
            ("in_progress", TaskStatus.PROCESSING),
            ("succeed", TaskStatus.SUCCEED),
        ],
    )
    @pytest.mark.parametrize("inner", [None, {}, "", {"code": 0, "data": None}])
    def test_outer_words(self, word: str, status: TaskStatus, inner: object) -> None:
        """Each outer word has its status where nothing is inside."""
        assert task_of(wrapped(word, inner)).status is status

    @pytest.mark.parametrize("word", [None, "", 5])
    def test_no_outer_word(self, word: object) -> None:
        """A wrapper without a word is no answer of the API."""
        assert type(error_of(wrapped(word), 200)) is ResponseError

    @pytest.mark.parametrize("blank", [None, "", [], 0])
    def test_blank_plain_status(self, blank: object) -> None:
        """A wrapper that has the plain form's status too, but blank, is read as a wrapper."""
        task = task_of(wrapped("SUCCESS", done(), task_status=blank))
        assert task.images == (TaskImage(url=URL),)

    @pytest.mark.parametrize("as_envelope", [False, True])
    def test_payload_inside(self, *, as_envelope: bool) -> None:
        """The payload, bare or in an envelope of its own, is read like any other."""
        envelope = done(created_at=1782450245512, final_unit_deduction="8")
        task = task_of(wrapped("SUCCESS", envelope if as_envelope else envelope["data"]))
        assert task.images == (TaskImage(url=URL),)
        assert task.final_unit_deduction == 8
        assert task.created_at == datetime(2026, 6, 26, 5, 4, 5, 512000, tzinfo=UTC)
        assert task.request_id == ("req-1" if as_envelope else None)

    @pytest.mark.parametrize("inner", [None, done(task_id="provider-5")])
    def test_names_of_a_wrapped_task(self, inner: object) -> None:
        """The record carries the id asked for, and the outermost request id."""
        task = task_of({**wrapped("SUCCESS", inner, task_id="other-3"), "request_id": "outer-1"})
        assert (task.task_id, task.request_id) == (ASKED, "outer-1")

    def test_raw_is_the_wrapper(self) -> None:
        """`raw` is the outer data object, with everything inside it."""
        body = wrapped("SUCCESS", done())
        assert task_of(body).raw == body["data"]

    @pytest.mark.parametrize(
        ("outer", "inner", "status"),
        [
            ("IN_PROGRESS", "succeed", TaskStatus.SUCCEED),
            ("IN_PROGRESS", "failed", TaskStatus.FAILED),
            ("QUEUED", "processing", TaskStatus.PROCESSING),
            ("UNKNOWN", "processing", TaskStatus.PROCESSING),
            ("SUCCESS", "processing", TaskStatus.PROCESSING),
            ("SUCCESS", "failed", TaskStatus.FAILED),
            ("SUCCESS", "rendering", TaskStatus.UNKNOWN),
            ("FAILURE", "succeed", TaskStatus.SUCCEED),
            ("FAILURE", "processing", TaskStatus.FAILED),
            ("FAILURE", "rendering", TaskStatus.FAILED),
        ],
    )
    def test_who_is_believed(self, outer: str, inner: str, status: TaskStatus) -> None:
        """The payload's word counts, but for a wrapper that has given a stale one up."""
        assert task_of(wrapped(outer, {"task_status": inner})).status is status

    def test_reason_of_a_failure(self) -> None:
        """The wrapper's reason stands in for one that the payload does not give."""
        task = task_of(wrapped("FAILURE", fail_reason="refused"))
        assert task.status_message == "refused"
        inner = {"task_status": "failed", "task_status_msg": ""}
        assert task_of(wrapped("FAILURE", inner, fail_reason="refused")).status_message == "refused"

    def test_payload_knows_the_reason_better(self) -> None:
        """The payload's own reason comes first."""
        inner = {"task_status": "failed", "task_status_msg": "too dark"}
        assert task_of(wrapped("FAILURE", inner, fail_reason="x")).status_message == "too dark"

    def test_no_reason_of_a_success(self) -> None:
        """The `fail_reason` of a success can be a URL: it is not shown."""
        assert task_of(wrapped("SUCCESS", fail_reason=URL)).status_message is None

    def test_times_of_the_wrapper(self) -> None:
        """Times in seconds of the wrapper are taken where the payload has none."""
        task = task_of(wrapped("SUCCESS", submit_time=1782450245, finish_time=1782450246))
        assert task.created_at == datetime(2026, 6, 26, 5, 4, 5, tzinfo=UTC)
        assert task.updated_at == datetime(2026, 6, 26, 5, 4, 6, tzinfo=UTC)
        task = task_of(wrapped("QUEUED", updated_at=1782450247, finish_time=0))
        assert task.updated_at == datetime(2026, 6, 26, 5, 4, 7, tzinfo=UTC)


def test_read_task_reads_again() -> None:
    """The bytes of an answer that was a task give an equal task once more."""
    body = json.dumps(done(task_id="1")).encode()
    again = read_task(body, ASKED)
    assert again == task_of(body)
    assert again.raw == task_of(body).raw


def test_read_task_refuses_anything_else() -> None:
    """Other bytes were never kept, so to read them again is a defect."""
    with pytest.raises(ValueError, match=r"^not the body of a task's answer$"):
        read_task(b"{}", ASKED)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (found(task_status="rendering"), "'rendering'"),
        (wrapped("PAUSED"), "'PAUSED'"),
        (wrapped("IN_PROGRESS", {"task_status": "rendering"}), "'rendering'"),
        (wrapped("IN_PROGRESS", found(task_status="rendering")), "'rendering'"),
        (found(task_status="\n任"), r"'\n\u4efb'"),
        (found(task_status="x" * 500), "'" + "x" * 59),
    ],
    ids=["plain", "outer", "inner", "inner envelope", "escaped", "cut"],
)
def test_status_word(body: object, word: str) -> None:
    """The word to warn of is the one that is unknown, short and printable."""
    task = task_of(body)
    assert task.status is TaskStatus.UNKNOWN
    assert status_word(task) == word


def test_no_status_word() -> None:
    """A task that was made by hand need not have a word."""
    task = ImageTask(task_id="t-1", status=TaskStatus.UNKNOWN, raw={})
    assert status_word(task) == "None"


BAD_URLS = [" ", "x.png", "data:image/png;base64,AA==", None]


class TestUnusableImages:
    """An image without a usable URL beside others that have one."""

    @pytest.mark.parametrize("url", BAD_URLS)
    @pytest.mark.parametrize(
        ("message", "shown"),
        [
            (None, "images without a usable URL: 1 of 3"),
            ("", "images without a usable URL: 1 of 3"),
            ("made", "made; images without a usable URL: 1 of 3"),
        ],
    )
    def test_is_said(self, url: object, message: str | None, shown: str) -> None:
        """The status message of the task says how many there are, in either form, also later."""
        items = [{"url": URL}, {"url": url}, {"url": f"{URL}?2"}]
        data = done(task_result={"images": items}, task_status_msg=message)
        for body in (data, wrapped("SUCCESS", data), wrapped("SUCCESS", data["data"])):
            task = task_of(body)
            assert [image.url for image in task.images] == [URL, f"{URL}?2"]
            assert task.status_message == shown
            assert unusable_images(task) == 1
            assert read_task(json.dumps(body).encode(), ASKED) == task

    def test_is_said_of_a_success_alone(self) -> None:
        """A task that is not finished, or has no image at all, says nothing of the kind."""
        for word, items in (("processing", [{"url": URL}, None]), ("succeed", [None, None])):
            task = task_of(found(task_status=word, task_result={"images": items}))
            assert task.status_message is None
        assert unusable_images(task) == 0

    def test_is_not_said_of_good_ones(self) -> None:
        """Where each image has its URL there is nothing to say, whatever a wrapper holds."""
        for body in (
            done(),
            wrapped("SUCCESS", done()),
            done(data={"task_result": {"images": [1]}}),
        ):
            task = task_of(body)
            assert (task.status_message, unusable_images(task)) == (None, 0)

    def test_a_task_made_by_hand(self) -> None:
        """One whose `raw` is empty has none."""
        task = ImageTask(task_id="t", status=TaskStatus.SUCCEED, images=(TaskImage(url=URL),))
        assert unusable_images(task) == 0


def echoing(key: str, body: object, status: int = 200, **headers: str) -> Answer:
    """Make an answer as the client does of one that may hold the key."""
    secret = Secret(key)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    if secret.is_in(content):
        content = Echo(content)
        content.secret = secret
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, content, CIMultiDict(names), secret)


def read_with(key: str, body: object, status: int = 200, **headers: str) -> Any:
    """Read an answer with this key in use."""
    return read_answer(echoing(key, body, status, **headers), ASKED, wall_s=NOW_S)


class TestKeys:
    """The key decides nothing, and is taken out of what is shown."""

    @pytest.mark.parametrize(
        "key", ["1", "data", "test", "http", "task_not_exist", "succeed", "code", "s", "png"]
    )
    @pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
    def test_a_short_key_breaks_nothing(self, case: dict[str, Any], key: str) -> None:
        """Each recorded answer becomes what it should, but for words that are only shown."""
        body, headers = case["body"].encode(), case["headers"]
        names = {name.replace("-", "_"): value for name, value in headers.items()}
        reply = read_with(key, body, case["status"], **names)
        expected = dict(case["expect"])
        expected.pop("status_message", None)
        if len(key) >= 8:
            expected.pop("code", None)
        facts = facts_of(reply)
        assert facts | expected == facts
        if isinstance(reply, ImageTask):
            assert foreign_id(reply) is None
            assert read_task(echoing(key, body).body, ASKED) == reply

    def test_urls_stay_as_they_came(self) -> None:
        """A URL is used byte for byte; in `raw`, which is shown, the key is taken out."""
        item = {"url": "https://test.example/test.png", "watermark_url": "//test.example/w"}
        body = done(task_result={"images": [item]}, task_status_msg="a test", new=["test", 1])
        task = read_with("test", body)
        assert task.images == (TaskImage(url=item["url"], watermark_url="https://test.example/w"),)
        assert task.status_message == "a [redacted]"
        assert "test" not in repr(task.raw)
        assert task.raw["new"] == ["[redacted]", 1]
        assert task.raw["task_result"]["images"][0]["url"] == (
            "https://[redacted].example/[redacted].png"
        )

    @pytest.mark.parametrize("escape", [str, lambda key: "".join(f"\\u00{ord(c):x}" for c in key)])
    def test_an_echo_is_taken_out_of_a_task(self, escape: Any) -> None:
        """A whole key that is echoed shows in no text, name or token of a task, nor when reread."""
        key = "sk-0123456789"
        data = done(
            task_status_msg="K", task_info={"external_task_id": "<K>"}, K={"K": ["K"]}, task_id="K"
        )
        body = json.dumps({**data, "request_id": "K-1"}).replace("K", escape(key)).encode()
        answer = echoing(key, body)
        task = read_answer(answer, ASKED, wall_s=NOW_S)
        assert isinstance(task, ImageTask)
        assert task.external_task_id == "<[redacted]>"
        assert task.request_id == "[redacted]-1"
        assert foreign_id(task) == "[redacted]"
        for each in (task, read_task(answer.body, ASKED)):
            assert key not in f"{each!r} {each.raw}"
            assert each.raw["[redacted]"] == {"[redacted]": ["[redacted]"]}
        assert key not in f"{answer!r} {answer.body!r} {answer}"
        assert repr(answer.body) == f"<Echo of {len(body)} bytes>"

    @pytest.mark.parametrize("as_envelope", [False, True])
    def test_an_echo_is_taken_out_of_a_wrapped_task(self, *, as_envelope: bool) -> None:
        """So it is with the wrapped form, and with an external id that is none."""
        key = "sk-0123456789"
        inner = done(task_status_msg=f"no {key}", task_info={"external_task_id": 7})
        answer = echoing(key, wrapped("SUCCESS", inner if as_envelope else inner["data"]))
        for task in (
            read_answer(answer, ASKED, wall_s=NOW_S),
            read_task(answer.body, ASKED),
        ):
            assert isinstance(task, ImageTask)
            assert (task.status_message, task.external_task_id) == ("no [redacted]", None)
            assert key not in repr(task.raw)

    def test_an_echo_is_taken_out_of_an_error(self) -> None:
        """So it is with errors: their message, code and request id, whatever they decide."""
        key = "sk-0123456789"
        body = {"code": f"{key} task_not_exist", "message": f"no {key}"}
        error = read_with(key, body, 400, X_Oneapi_Request_Id=f"r-{key}", Retry_After="7")
        assert type(error) is errors.TaskNotFoundError
        assert (error.code, error.message) == ("[redacted] task_not_exist", "no [redacted]")
        assert (error.request_id, error.retry_after) == ("r-[redacted]", 7.0)
        assert error.what == "HTTP 400, code [redacted] task_not_exist: no [redacted]"
        error = read_with(key, {**body, "request_id": key}, 400)
        assert error.request_id == "[redacted]"

    def test_a_short_key_decides_nothing_in_an_error(self) -> None:
        """Headers, codes and ids are read as they came."""
        body = {"code": "task_not_exist", "message": "task 1", "request_id": "1-task"}
        error = read_with("task", body, 429, Retry_After="task")
        assert type(error) is errors.TaskNotFoundError
        assert (error.code, error.message) == ("task_not_exist", "[redacted] 1")
        assert (error.request_id, error.retry_after) == ("1-task", None)
        error = read_with("1", {"code": 1303, "message": "1"}, 429, Retry_After="1")
        assert (error.retry_after, error.message, error.code) == (1.0, "[redacted]", 1303)

    def test_an_echo_is_taken_out_of_a_stranger(self) -> None:
        """So it is with what is not the API's: snippet, target of a redirect and text."""
        key = "sk-0123456789"
        error = read_with(key, f"<html>{key}</html>".encode())
        assert error.snippet == "<html>[redacted]</html>"
        assert error.what == "HTTP 200: not an answer of the API: '<html>[redacted]</html>'"
        error = read_with(key, b"", 302, Location=f"/login?key={key}")
        assert error.location == "/login?key=[redacted]"
        assert error.what == "HTTP 302 points to '/login?key=[redacted]': never followed"

    @pytest.mark.parametrize("filling", [0, 186, 187, 195, 199, 200])
    def test_no_piece_of_a_key_stays_at_the_cut(self, filling: int) -> None:
        """A key that stands across the end of a snippet is taken out before the cut."""
        key = "sk-0123456789"
        snippet = snippet_of(b"x" * filling + key.encode() * 30, Secret(key))
        assert snippet == ("x" * filling + "[redacted]" * 30)[:200]

    def test_a_snippet_reads_a_bounded_piece(self) -> None:
        """Of a long body only the beginning is decoded and looked at."""
        assert snippet_of(b"\xe4\xbb\xbb" * 10**6, NO_KEY) == "任" * 200
        assert snippet_of(b"K" * 16_384 + b"x", Secret("K" * 100)) == ("[redacted]" * 163)[:200]


NOT_FOUND = "task_not_exist"
EVERY_STATUS = [100, 200, 204, 301, 400, 401, 403, 407, 429, 500, 600]


class TestNotFound:
    """The word and the codes that say that the API does not know the id."""

    @pytest.mark.parametrize("status", EVERY_STATUS)
    @pytest.mark.parametrize(
        "body",
        [
            {"code": NOT_FOUND, "message": NOT_FOUND, "data": None},
            {"code": NOT_FOUND},
            {"message": NOT_FOUND},
            {"code": 1200, "message": f"Error: {NOT_FOUND.upper()} (request id: 1)"},
            {"error": {"code": NOT_FOUND}},
            {"error": {"message": f"{NOT_FOUND}: 5"}},
            {"error": NOT_FOUND},
            {"success": False, "message": NOT_FOUND},
            {"status": NOT_FOUND},
            {"task_status": NOT_FOUND},
            found(task_status=NOT_FOUND),
            found(status=NOT_FOUND),
            wrapped("UNKNOWN", {"task_status": NOT_FOUND}),
            wrapped("IN_PROGRESS", found(task_status=NOT_FOUND)),
        ],
        ids=repr,
    )
    def test_word(self, body: object, status: int) -> None:
        """The word decides wherever it stands and whatever the HTTP status."""
        error = error_of(body, status)
        assert type(error) is errors.TaskNotFoundError
        assert error.http_status == status

    @pytest.mark.parametrize("status", [200, 400, 404, 429])
    @pytest.mark.parametrize(
        "message",
        [
            "task not found",
            "Task is not found.",
            "The task does not exist",
            "task doesn't exist",
            "task doesn\u2019t exist",
            "task cannot be found",
            "could not find the task",
            "can't find task",
            "task_not_found",
            "No such task",
            "任务不存在",
            "未找到任务",
            "找不到该任务",
        ],
    )
    def test_vendor_1201_about_the_task(self, message: str, status: int) -> None:
        """Code 1201 means not found if its message says so of the task."""
        error = error_of({"code": 1201, "message": message}, status)
        assert type(error) is errors.TaskNotFoundError

    @pytest.mark.parametrize(
        "message", ["model not found", "task id is invalid", "task type is not supported", "", 5]
    )
    def test_vendor_1201_about_anything_else(self, message: object) -> None:
        """Code 1201 about anything else is a plain refusal."""
        assert type(error_of({"code": 1201, "message": message}, 400)) is ApiError

    def test_other_codes_need_the_word(self) -> None:
        """A message alone does not make another code mean not found."""
        assert type(error_of({"code": 1200, "message": "task not found"}, 404)) is ApiError

    def test_a_failed_task_is_found(self) -> None:
        """The word as the reason of a failed task is just its reason."""
        task = task_of(found(task_status="failed", task_status_msg=NOT_FOUND))
        assert task.status is TaskStatus.FAILED


BUSINESS: list[tuple[object, type[ApiError]]] = [
    *((code, errors.AuthenticationError) for code in (1000, 1001, 1002, 1003, 1004)),
    *((code, errors.AccountError) for code in (1100, 1101, 1102, 1304, "insufficient_user_quota")),
    (1103, errors.PermissionDeniedError),
    (1203, errors.TaskNotFoundError),
    (1302, errors.RateLimitError),
    (1303, errors.RateLimitError),
    *((code, ApiError) for code in (1005, 1099, 1104, 1200, 1202, 1299, 1300, 1301, 1305, 1999)),
    *((code, errors.ServerError) for code in (5000, 5001, 5002, 5003, 5999)),
]


class TestBusinessCodes:
    """The business code decides first, the HTTP status second."""

    @pytest.mark.parametrize("status", EVERY_STATUS)
    @pytest.mark.parametrize(("code", "kind"), BUSINESS)
    def test_code_decides(self, code: object, kind: type[ApiError], status: int) -> None:
        """A code that is known decides under every HTTP status, 401 and 429 included."""
        error = error_of({"code": code, "message": "m", "request_id": "r"}, status)
        assert type(error) is kind
        assert (error.http_status, error.code, error.message) == (status, code, "m")

    @pytest.mark.parametrize(("code", "kind"), BUSINESS)
    def test_other_places(self, code: object, kind: type[ApiError]) -> None:
        """The code may stand in `error`, or come as digits."""
        assert type(error_of({"error": {"message": "m", "code": code}}, 400)) is kind
        assert type(error_of({"success": False, "message": "m", "code": code}, 400)) is kind
        assert type(error_of({"code": str(code), "message": "m", "data": None}, 400)) is kind

    def test_quota_word_in_a_message(self) -> None:
        """The quota's word is met in messages too, with a request id behind it."""
        body = {"error": {"message": "insufficient_user_quota (request id: a1)", "code": ""}}
        error = error_of(body, 403)
        assert isinstance(error, errors.AccountError)
        assert error.request_id == "a1"

    @pytest.mark.parametrize("code", [7, 400, 999, 2000, 4999, 6000, -1000, 10**6, 1102.0, "1102x"])
    def test_unknown_code_leaves_it_to_the_status(self, code: object) -> None:
        """A code that says nothing leaves the word to the HTTP status."""
        body = {"code": code, "message": "m"}
        assert type(error_of(body, 429)) is errors.RateLimitError
        assert type(error_of(body, 502)) is errors.ServerError
        assert type(error_of(body, 401)) is errors.AuthenticationError

    def test_code_beats_data(self) -> None:
        """A code that says no makes no task of what stands beside it."""
        assert type(error_of({**done(), "code": 1102}, 200)) is errors.AccountError

    @pytest.mark.parametrize("status", [400, 500, 503, 200])
    @pytest.mark.parametrize("word", ["invalid_request", "model_not_found"])
    def test_permanent_words(self, word: str, status: int) -> None:
        """Each of two words takes the hope out of one 5xx, and out of no other."""
        passing = (status, word) in {(500, "model_not_found"), (503, "invalid_request")}
        expected = errors.ServerError if passing else ApiError
        assert type(error_of({"error": {"message": "m", "code": word}}, status)) is expected


FAMILIES: dict[str, dict[str, Any]] = {
    "number": {"code": 7, "message": "m", "request_id": "r"},
    "word": {"code": "some_word", "message": "m", "data": None},
    "error": {"error": {"message": "m", "type": "t", "param": "", "code": ""}},
    "error with a null code": {"error": {"message": "m", "type": "t", "code": None}},
    "success": {"success": False, "message": "m"},
    "success with a code": {"success": False, "message": "m", "code": 0},
}
FOREIGN: dict[str, object] = {
    "empty": "",
    "text": "no route matched",
    "page": "<html></html>",
    "object": {"detail": "Not Found"},
    "message": {"message": "no Route matched with those values"},
    "boolean code": {"code": True, "message": "m"},
    "code of success": {"code": "success", "message": "m", "data": None},
    "code 0": {"code": 0, "message": "m"},
    "code 0 as text": {"code": "0", "message": "m"},
    "blank code": {"code": "", "message": "m"},
    "broken": '{"code": 7, "message": ',
}
BARE: dict[str, object] = {
    "bare array": [],
    "bare number": 5,
    "bare string": '"no"',
    "bare null": None,
    "bare true": True,
}

OF_FAMILY = pytest.mark.parametrize("body", FAMILIES.values(), ids=FAMILIES.keys())
OF_STRANGERS = pytest.mark.parametrize("body", FOREIGN.values(), ids=FOREIGN.keys())
OF_BARE_JSON = pytest.mark.parametrize("body", BARE.values(), ids=BARE.keys())
OF_ANY = pytest.mark.parametrize(
    "body",
    [*FAMILIES.values(), *FOREIGN.values(), *BARE.values()],
    ids=[*FAMILIES, *FOREIGN, *BARE],
)


class TestStatuses:
    """What the HTTP status says where the business code says nothing."""

    @OF_ANY
    def test_401(self, body: object) -> None:
        """401 means that the key is not accepted, whatever the body."""
        assert type(error_of(body, 401)) is errors.AuthenticationError

    @OF_FAMILY
    @pytest.mark.parametrize("status", [402, 403])
    def test_forbidden_by_the_api(self, body: object, status: int) -> None:
        """402 and 403 with the API's body mean that the key may not do this."""
        assert type(error_of(body, status)) is errors.PermissionDeniedError

    @pytest.mark.parametrize("body", [*FOREIGN.values(), *BARE.values()], ids=[*FOREIGN, *BARE])
    @pytest.mark.parametrize("status", [402, 403])
    def test_forbidden_by_another(self, body: object, status: int) -> None:
        """402 and 403 without the API's body come from something in between."""
        assert type(error_of(body, status)) is ResponseError

    @OF_ANY
    def test_429(self, body: object) -> None:
        """429 asks to send less, whatever the body."""
        error = error_of(body, 429)
        assert isinstance(error, errors.RateLimitError)
        assert error.retry_after is None

    @OF_ANY
    @pytest.mark.parametrize("status", [408, 425, 500, 501, 502, 503, 504, 520, 529, 530, 599])
    def test_trouble_of_the_server(self, body: object, status: int) -> None:
        """408, 425 and every 5xx are trouble at the other side, whatever the body."""
        assert type(error_of(body, status)) is errors.ServerError

    @OF_FAMILY
    @pytest.mark.parametrize("status", [400, 404, 405, 409, 410, 413, 418, 422, 451, 499])
    def test_refused_by_the_api(self, body: object, status: int) -> None:
        """Any other 4xx with the API's body is a refusal."""
        error = error_of(body, status)
        assert isinstance(error, ApiError)
        assert type(error) is ApiError
        assert error.message == "m"

    @OF_BARE_JSON
    @pytest.mark.parametrize("status", [400, 404, 422])
    def test_refused_with_bare_json(self, body: object, status: int) -> None:
        """So is one with a JSON array or scalar."""
        assert type(error_of(body, status)) is ApiError

    @OF_STRANGERS
    @pytest.mark.parametrize("status", [400, 404, 405, 409, 410, 418, 422, 499])
    def test_refused_by_another(self, body: object, status: int) -> None:
        """Any other 4xx without the API's body comes from something in between."""
        assert type(error_of(body, status)) is ResponseError

    @OF_ANY
    def test_407(self, body: object) -> None:
        """407 comes from a proxy, whatever the body, and the text says what to write."""
        error = error_of(body, 407)
        assert isinstance(error, TransportError)
        assert error.reason == "proxy"
        assert "http://user:password@host" in str(error)

    @OF_ANY
    @pytest.mark.parametrize("status", [100, 201, 204, 299, 300, 304, 399, 600, 700, 999])
    def test_statuses_of_nobody(self, body: object, status: int) -> None:
        """Other 2xx, 3xx and statuses outside HTTP are no answers of the API."""
        error = error_of(body, status)
        assert isinstance(error, ResponseError)
        assert error.http_status == status

    @OF_FAMILY
    def test_families_under_200(self, body: object) -> None:
        """An error's body under 200 is an error all the same."""
        assert type(error_of(body, 200)) is ApiError

    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            (400, ApiError),
            (401, errors.AuthenticationError),
            (402, errors.PermissionDeniedError),
            (403, errors.PermissionDeniedError),
            (404, ApiError),
            (408, errors.ServerError),
            (425, errors.ServerError),
            (429, errors.RateLimitError),
            ("429", errors.RateLimitError),
            (500, errors.ServerError),
            (502, errors.ServerError),
            (599, errors.ServerError),
            (600, ApiError),
        ],
        ids=lambda value: value.__name__ if isinstance(value, type) else repr(value),
    )
    def test_status_in_the_code_under_200(self, code: object, kind: type[ApiError]) -> None:
        """Under 200 a code that is an HTTP status is read as that status."""
        assert type(error_of({"code": code, "message": "m"}, 200)) is kind

    def test_status_in_the_code_counts_under_200_alone(self) -> None:
        """Under any other status the status itself counts."""
        assert type(error_of({"code": 429, "message": "m"}, 400)) is ApiError


class TestTwoDocuments:
    """Some gateways write two JSON documents into one body."""

    def test_first_decides_for_errors(self) -> None:
        """The first one is read where the answer is an error."""
        body = '{"code": 1102, "message": "m"}{"code": 1302, "message": "n"}'
        error = error_of(body, 429)
        assert isinstance(error, errors.AccountError)
        assert error.message == "m"

    def test_first_decides_for_errors_under_200(self) -> None:
        """Under 200 too."""
        body = '{"code": 1102, "message": "m"}' + json.dumps(done())
        assert type(error_of(body, 200)) is errors.AccountError

    @pytest.mark.parametrize("tail", [json.dumps(done()), '{"error": {}}', "<html>", "x"])
    def test_never_a_task(self, tail: str) -> None:
        """With anything behind it a success answer is not trusted."""
        assert type(error_of(json.dumps(done()) + tail, 200)) is ResponseError


class TestResponseError:
    """An answer that is not the API's is shown to whoever looks into it."""

    def test_snippet(self) -> None:
        """The error has the first 200 characters and shows them with the status."""
        error = error_of("<h1>任</h1>" + "x" * 1000, 200)
        assert isinstance(error, ResponseError)
        assert error.snippet == ("<h1>任</h1>" + "x" * 1000)[:SNIPPET_LENGTH]
        assert error.location is None
        assert error.what == f"HTTP 200: not an answer of the API: {error.snippet!r}"
        assert str(error) == f"{error.what}; check base_url"

    @pytest.mark.parametrize("letter", ["é", "任", "🖼"])
    def test_snippet_counts_characters(self, letter: str) -> None:
        """Letters of many bytes count as one, and none is cut in two."""
        error = error_of(letter * 1000, 200)
        assert isinstance(error, ResponseError)
        assert error.snippet == letter * SNIPPET_LENGTH

    def test_snippet_of_binary(self) -> None:
        """Bytes that are no text are shown as such."""
        error = error_of(b"\xff\x00PNG", 200)
        assert isinstance(error, ResponseError)
        assert error.snippet == "\ufffd\x00PNG"
        assert str(error).isprintable()

    @pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399])
    def test_redirect(self, status: int) -> None:
        """A redirect names its target, shortened in the text, and says that it is not followed."""
        target = "https://elsewhere.example/" + "x" * 500
        error = error_of("", status, {"location": target})
        assert isinstance(error, ResponseError)
        assert error.location == target
        shown = repr(target[:SNIPPET_LENGTH])
        assert error.what == f"HTTP {status} points to {shown}: never followed"

    @pytest.mark.parametrize("status", [200, 201, 400, 404])
    def test_location_of_no_redirect(self, status: int) -> None:
        """Under other statuses the header says nothing."""
        error = error_of("", status, {"Location": "https://elsewhere.example/"})
        assert isinstance(error, ResponseError)
        assert error.location is None

    def test_odd_location(self) -> None:
        """A target in bytes that are no UTF-8 can be printed; a blank one is none."""
        error = error_of("", 302, {"Location": "/\udcff"})
        assert isinstance(error, ResponseError)
        assert error.location == "/?"
        assert vars(error_of("", 302, {"Location": " "}))["location"] is None


class TestHeaders:
    """Headers of an error answer."""

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("7", 7.0),
            (formatdate(NOW_S + 90, usegmt=True), 90.0),
            (formatdate(NOW_S - 90, usegmt=True), None),
            ("-7", None),
            ("NaN", None),
            ("soon", None),
        ],
        ids=["seconds", "date", "past date", "negative", "nan", "word"],
    )
    @pytest.mark.parametrize("name", ["Retry-After", "retry-after"])
    def test_retry_after(self, name: str, value: str, expected: float | None) -> None:
        """The pause asked for comes as seconds or as a date, under a name in any case."""
        error = error_of("", 429, {name: value})
        assert isinstance(error, errors.RateLimitError)
        assert error.retry_after == expected

    def test_request_id(self) -> None:
        """A body without request id leaves it to the header."""
        error = error_of("", 502, {"x-oneapi-request-id": "h1"})
        assert isinstance(error, errors.ServerError)
        assert error.request_id == "h1"


@pytest.mark.parametrize("text", ["task", "任务不存在", "\n\x00", "'\""])
def test_messages_come_unchanged(text: str) -> None:
    """The API's words, Chinese or odd, are handed on as they are."""
    error = error_of({"code": 1200, "message": text}, 400)
    assert isinstance(error, ApiError)
    assert error.message == (text if text.strip() else "")


# The age of a task, and what must not be in a body.


@pytest.mark.parametrize(
    ("made", "age_s"),
    [
        (1_777_777_787.0, 10.5),  # a date in a header is cut to whole seconds
        (1_777_777_777.0, 0.5),
        (1_777_777_776.0, 0.0),
        (1_777_777_775.0, 0.0),
        (1_777_777_774.0, None),
    ],
)
def test_how_old_a_task_is_by_the_clock_of_its_answer(made: float, age_s: float | None) -> None:
    """Clocks may differ by 2 s; a task from farther in the future has no age."""
    task = ImageTask(
        task_id=ASKED,
        status=TaskStatus.PROCESSING,
        created_at=datetime.fromtimestamp(NOW_S, UTC),
    )
    assert age_of(task, CIMultiDict({"Date": formatdate(made, usegmt=True)})) == age_s


def test_an_age_is_not_known_without_both_times() -> None:
    """Neither the answer's nor the task's own may be missing."""
    date = {"Date": formatdate(NOW_S, usegmt=True)}
    task = ImageTask(task_id=ASKED, status=TaskStatus.PROCESSING)
    assert age_of(task, date) is None
    born = ImageTask(
        task_id=ASKED,
        status=TaskStatus.PROCESSING,
        created_at=datetime.fromtimestamp(NOW_S, UTC),
    )
    assert age_of(born, {}) is None
    assert age_of(born, date) == 0.5


def test_an_answer_without_what_it_must_not_hold() -> None:
    """The text is taken out however it is escaped, and all else stays byte for byte."""
    answer = Answer(201, b'{"a": "\xff https:\\/\\/hooks.example"}', {"X": "y"}, Secret("sk-key"))
    shown = without(answer, "https://hooks.example")
    assert shown.body == b'{"a": "\xff [redacted]"}'
    assert (shown.status, shown.headers, shown.secret) == (201, {"X": "y"}, answer.secret)
    assert type(shown.body) is bytes
    assert without(answer, "https://other.example") is answer


def test_an_answer_that_holds_the_key_goes_on_to_know_that() -> None:
    """Its body stays one from which the key is taken when it is read."""
    echo = Echo(b'{"a": "sk-key at hooks.example"}')
    echo.secret = Secret("sk-key")
    answer = Answer(200, echo, {}, echo.secret)
    body = without(answer, "hooks.example").body
    assert type(body) is Echo
    assert body.secret is echo.secret
    assert bytes(body) == b'{"a": "sk-key at [redacted]"}'
