"""The control route: one call of the simulator as JSON, for programs in another process. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, cast

from attrs import AttrsInstance, asdict

from ._gateway import Answer, json_answer

Calls: TypeAlias = Mapping[str, Callable[..., object]]

PATH: Final = "/simulator"
NAMES: Final = (
    "create_task",
    "finish",
    "expire",
    "expire_images",
    "fail_next",
    "clear_faults",
    "fail_next_create",
    "clear_creates",
    "fail_next_image",
    "clear_image_faults",
    "queries_of",
    "gaps",
)

_FORM = 'a JSON object of one call, such as {"fail_next": {"status": 502}}'


def obey(body: bytes, calls: Calls) -> Answer:
    """Make the call that a body asks for, and answer with what it returned or why not."""
    try:
        name, arguments = _read(body)
        _check_id(arguments.get("task_id"))
        result = _find(name, calls)(**arguments)
    except KeyError as error:
        return _refused(f"there is no task {error}")
    except (TypeError, ValueError) as error:
        return _refused(str(error))
    return json_answer({"result": _plain(result)})


def _refused(reason: str) -> Answer:
    return json_answer({"error": reason}, status=400)


def _read(body: bytes) -> tuple[str, dict[str, Any]]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict) or len(cast("dict[str, object]", asked)) != 1:
        raise ValueError(f"the body must be {_FORM}")
    ((name, arguments),) = cast("dict[str, object]", asked).items()
    if not isinstance(arguments, dict):
        raise TypeError(f"the arguments of {name} must be a JSON object: write {_FORM}")
    named = cast("dict[str, Any]", arguments)
    # JSON has no bytes
    return name, {
        key: value.encode() if key == "raw" and isinstance(value, str) else value
        for key, value in named.items()
    }


def _check_id(task_id: object) -> None:
    if not isinstance(task_id, str | None):
        raise TypeError(f"task_id must be a str, got {task_id!r}")


def _find(name: str, calls: Calls) -> Callable[..., object]:
    if name not in calls:
        raise ValueError(f"there is no call {name!r:.60}: write one of {', '.join(calls)}")
    return calls[name]


def _plain(result: object) -> object:
    """Return a result as JSON has it: records as objects."""
    if isinstance(result, tuple):
        return [asdict(each) for each in cast("tuple[AttrsInstance, ...]", result)]
    return result
