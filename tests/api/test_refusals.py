"""The parts of an error answer: its form, its words, and how long it asks to wait."""

from __future__ import annotations

from typing import Any

import pytest

from kling_omni_async._api.refusals import is_error_body, refusal, unwrapped
from kling_omni_async._api.values import NOT_JSON
from kling_omni_async.errors import ApiError
from tests.support import plain

NOW_S = 1_777_777_777.0
"""Sun, 03 May 2026 03:09:37 GMT."""


def refused(body: object, status: int, headers: dict[str, str] | None = None) -> ApiError:
    """Give the error that an answer must become."""
    error = refusal(body, status=status, headers=headers or {}, task_id="t-1", wall_s=NOW_S)
    assert error is not None
    return error


@pytest.mark.parametrize(
    ("body", "says_no"),
    [
        ({"code": 1200}, True),
        ({"code": -1}, True),
        ({"code": 10**30}, True),
        ({"success": False}, True),
        ({"success": False, "code": True}, True),
        ({"success": False, "code": "x"}, True),
        ({"code": 0}, False),
        ({"code": 0, "success": False}, False),
        ({"code": True}, False),
        ({"code": False}, False),
        ({"code": 1.0}, False),
        ({"code": "1200"}, False),
        ({"success": True}, False),
        ({"success": 0}, False),
        ({"success": None}, False),
        ({}, False),
    ],
    ids=repr,
)
def test_a_body_that_says_no(body: dict[str, Any], *, says_no: bool) -> None:
    """A whole number but 0 as code, or ``success: false`` with no such code, says no."""
    assert is_error_body(body) is says_no


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"code": 1200}, 1200),
        ({"code": 1}, 1),
        ({"code": -7}, -7),
        ({"code": "word"}, "word"),
        ({"code": "1102"}, "1102"),
        ({"error": {"code": "word"}}, "word"),
        ({"error": {"code": 1102}}, 1102),
        ({"code": "", "error": {"code": "inner"}}, "inner"),
        ({"code": 0, "error": {"code": "inner"}}, "inner"),
        ({"code": 7, "error": {"code": "inner"}}, 7),
        ({"error": {"code": ""}}, None),
        ({"error": {"code": 0}}, None),
        ({"error": {"code": None}}, None),
        ({"error": {"code": True}}, None),
        ({"error": {"code": [1]}}, None),
        ({"code": True, "success": False}, None),
        ({"code": 2**31}, None),
        ({"code": 10**5000}, None),
        ({"code": "\ud800"}, "?"),
    ],
    ids=plain,
)
def test_code(body: object, code: int | str | None) -> None:
    """The code is the body's own, else that of its ``error``; 0, "" and booleans are none."""
    assert refused(body, 500).code == code


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"code": 1, "message": "outer"}, "outer"),
        ({"error": {"message": "inner"}}, "inner"),
        ({"message": "outer", "error": {"message": "inner"}}, "outer"),
        ({"message": "", "error": {"message": "inner"}}, "inner"),
        ({"message": None, "error": "text"}, "text"),
        ({"message": {"deep": 1}, "code": 7}, ""),
        ({"code": 1102, "message": "余额不足"}, "余额不足"),
        ({}, ""),
        ([], ""),
        ("text", ""),
        pytest.param(NOT_JSON, "", id="no JSON"),  # its repr is another one in each process
    ],
    ids=plain,
)
def test_message(body: object, message: str) -> None:
    """The error has the API's own words, wherever the family puts them."""
    assert refused(body, 500).message == message


HEADER = {"X-Oneapi-Request-Id": "from-header"}


@pytest.mark.parametrize(
    ("body", "headers", "request_id"),
    [
        ({"request_id": "r1", "message": "m (request id: r2)"}, HEADER, "r1"),
        ({"message": "m (request id: r2)"}, HEADER, "r2"),
        ({"error": {"message": "m (request id: r2)"}}, HEADER, "r2"),
        ({"message": "m"}, HEADER, "from-header"),
        (NOT_JSON, HEADER, "from-header"),
        (NOT_JSON, {"X-Oneapi-Request-Id": "\udcff"}, "?"),
        (NOT_JSON, {"X-Oneapi-Request-Id": " "}, None),
        (NOT_JSON, {}, None),
    ],
)
def test_request_id(body: object, headers: dict[str, str], request_id: str | None) -> None:
    """The request id is the body's, else the message's, else the header's."""
    assert refused(body, 500, headers).request_id == request_id


def test_facts_of_the_answer() -> None:
    """The error carries the id that was asked for, the status and the pause asked for."""
    error = refused({"code": 1302}, 429, {"Retry-After": "7"})
    assert (error.task_id, error.http_status, error.retry_after) == ("t-1", 429, 7.0)


@pytest.mark.parametrize("status", [100, 200, 204, 301, 404, 407, 600, 999])
def test_none_of_the_apis(status: int) -> None:
    """An answer without JSON under such a status is none of the API's errors."""
    assert refusal(NOT_JSON, status=status, headers={}, task_id="t-1", wall_s=NOW_S) is None


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"code": 1301, "message": "risk {}"}', 1301),
        ('upstream said: {"code": 1303} (request id: {7})', 1303),
        ('{"code": 5000}', None),
        ('{"code": 0}', None),
        ("{}", None),
        ("{", None),
        ("no", None),
        ("", None),
    ],
)
def test_a_refusal_of_the_vendor_within_a_message(message: str, code: int | None) -> None:
    """It is read from the first brace on, and only a code of the vendor's list makes it one."""
    found = unwrapped({"code": "fail_to_fetch_task", "message": message})
    assert (found or {}).get("code") == code
