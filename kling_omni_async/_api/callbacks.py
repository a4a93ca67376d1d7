"""What a callback may say: that it is worth asking for a task, and nothing more."""

from __future__ import annotations

from typing import Any, Final

import attrs

from kling_omni_async._ids import read_id
from kling_omni_async._models import TaskStatus
from kling_omni_async.errors import ResponseError

from . import values
from .answers import status_of

MOST_BYTES: Final = 65_536
"""The longest body of a callback that is read."""


@attrs.frozen
class CallbackHint:
    """What a callback says of a task, which nobody can verify: give it to `nudge`.

    Attributes:
        task_id: The task that may have changed.
        status: The status that it is said to have.
        external_task_id: The id under which it is said to have been created, or None.
    """

    task_id: str
    status: TaskStatus
    external_task_id: str | None = None


def read_callback(body: bytes | str) -> CallbackHint:
    """Read the body of a callback, of which nothing is believed.

    Anybody can send one: the API signs callbacks with a secret that is not yours. So no URL in it
    is ever used, and `KlingOmniSession.nudge` asks the API itself.

    Args:
        body: As it came, at most 65,536 bytes.

    Returns:
        Which task may have changed.

    Raises:
        ResponseError: It is too long, no JSON, or names no task; answer with a constant.
    """
    if len(body) > MOST_BYTES:
        raise ResponseError(f"a callback of over {MOST_BYTES} bytes is not the API's")
    data = _object_in(body)
    task_id, fault = read_id(values.name(data.get("task_id")) or "")
    if fault is not None:
        raise ResponseError("a callback without a task_id is not the API's")
    info = values.an_object(data.get("task_info"))
    external = values.text(info.get("external_task_id")) or None
    return CallbackHint(task_id, status_of(data.get("task_status")), external)


def _object_in(body: bytes | str) -> dict[str, Any]:
    raw = body.encode(errors="replace") if isinstance(body, str) else bytes(body)
    value, _ = values.parse(raw)
    data = values.an_object(value)
    # The bare payload (documented), or the envelope that the same payload has in answers.
    return values.an_object(data.get("data")) if "task_id" not in data else data
