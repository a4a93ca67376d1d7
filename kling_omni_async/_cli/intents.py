"""The lines of a journal that say what is about to be created, and what came of it at once."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, cast

import attrs

from kling_omni_async._order import ImageOrder, order_to_dict

from .terminal import json_line

_STEP: Final = "intent"


class Step(StrEnum):
    """How far a create is."""

    POSTING = "posting"
    CREATED = "created"
    NOTHING = "nothing"
    """It is certain that nothing was created."""


@attrs.frozen(kw_only=True)
class Intent:
    """One step of one create; of the first one alone `order` and what is behind it are told.

    Attributes:
        external_id: Under which it is created.
        step: How far it is.
        task_id: The task, once it is created.
        order: What is wanted.
        digest: Of its contents, with the bytes of its files.
        key: The caller's own name for it.
        units: Its price, or None where nobody knows it.
    """

    external_id: str
    step: Step
    task_id: str = ""
    order: ImageOrder | None = None
    digest: str = ""
    key: str | None = None
    units: int | None = None

    def line(self) -> str:
        """Return it as one line of JSON."""
        form: dict[str, Any] = {"task_id": self.task_id, "external_task_id": self.external_id}
        form[_STEP] = self.step.value
        if self.step is Step.POSTING:
            form |= {"digest": self.digest, "key": self.key, "units": self.units}
            form["order"] = order_to_dict(self.order)
        return json_line(form)


def read_intent(form: Mapping[str, Any]) -> Intent | None:
    """Return what a line says that is one; None for any other. The order is not read again."""
    step: object = form.get(_STEP)
    if not isinstance(step, str) or step not in set(Step):
        return None
    texts = [form.get(name) for name in ("external_task_id", "task_id")]
    digest, key, units = form.get("digest", ""), form.get("key"), form.get("units")
    if not all(isinstance(each, str) for each in (*texts, digest)):
        return None
    external_id, task_id = cast("list[str]", texts)
    return Intent(
        external_id=external_id,
        step=Step(step),
        task_id=task_id,
        digest=digest,
        key=key if isinstance(key, str) else None,
        units=units if type(units) is int else None,
    )
