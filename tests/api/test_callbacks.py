"""Bodies of callbacks: what they may say, and that nothing else of them is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async import CallbackHint, ResponseError, TaskStatus, read_callback
from kling_omni_async._api.callbacks import MOST_BYTES

DATA: dict[str, Any] = {
    "task_id": "878106242831892487",
    "task_status": "succeed",
    "task_info": {"external_task_id": "order-1"},
    "task_result": {"images": [{"url": "https://evil.example/a.png"}]},
}
HINT = CallbackHint("878106242831892487", TaskStatus.SUCCEED, "order-1")


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(DATA).encode(),
        json.dumps(DATA),
        json.dumps({"code": 0, "message": "SUCCEED", "data": DATA}).encode(),
        b"\xef\xbb\xbf" + json.dumps(DATA).encode(),
        json.dumps({**DATA, "task_status": "succeeded"}).encode(),
        json.dumps({**DATA, "task_id": int(DATA["task_id"])}).encode(),
    ],
    ids=["bytes", "text", "envelope", "mark", "newer word", "number"],
)
def test_a_callback_names_its_task(body: bytes | str) -> None:
    """The bare data and its envelope are read alike, and no URL is kept."""
    assert read_callback(body) == HINT
    assert "evil" not in repr(read_callback(body))


@pytest.mark.parametrize("info", [None, {}, {"external_task_id": None}, {"external_task_id": ""}])
def test_an_external_id_may_be_missing(info: object) -> None:
    """None, an empty text and nothing at all mean none; an unknown word is a status unknown."""
    body = json.dumps({**DATA, "task_info": info, "task_status": "tomorrow"})
    assert read_callback(body) == CallbackHint(HINT.task_id, TaskStatus.UNKNOWN)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"17",
        b"null",
        b"{}",
        b'{"task_id": ""}',
        b'{"task_id": "../../x"}',
        b'{"task_id": ["a"]}',
        b'{"task_id": true}',
        b"[" * 60_000,
        b"\xff\xfe",
        "\ud800",
    ],
)
def test_what_names_no_task_is_refused(body: bytes | str) -> None:
    """Nonsense is an error of this library, without a word of the body."""
    with pytest.raises(ResponseError) as caught:
        read_callback(body)
    assert str(caught.value).startswith("a callback without a task_id is not the API's; ")


def test_a_long_body_is_not_read() -> None:
    """One byte too much, and it is refused."""
    body = json.dumps(DATA).encode()
    assert read_callback(body + b" " * (MOST_BYTES - len(body))) == HINT
    with pytest.raises(ResponseError, match="over 65536 bytes"):
        read_callback(body + b" " * (MOST_BYTES - len(body) + 1))


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_any_body_is_a_hint_or_an_error_of_ours(body: bytes | str) -> None:
    """No body does anything else."""
    try:
        hint = read_callback(body)
    except ResponseError:
        return
    assert hint.task_id
