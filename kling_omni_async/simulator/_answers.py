"""The answers of the API and of its images, as documentation and published answers show them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import TypeAlias

from attrs import field, frozen

from ._images import Content, Place, draw, draw_sized, signature
from ._tasks import SimulatedTask, Status

Json: TypeAlias = dict[str, object]

JSON_TYPE = "application/json"
HTML_TYPE = "text/html"

_NOT_FOUND = "task_not_exist"
_DENIED = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'
_OUTER_WORDS: dict[Status, str] = {
    "submitted": "SUBMITTED",
    "processing": "IN_PROGRESS",
    "succeed": "SUCCESS",
    "failed": "FAILURE",
}


@frozen(kw_only=True)
class Answer:
    """One HTTP answer before it is sent."""

    status: int = 200
    body: Content = b""
    content_type: str | None = None
    headers: Mapping[str, str] = field(factory=dict[str, str])

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers to send; one given by name wins over the content type."""
        named = {name.title() for name in self.headers}
        if self.content_type is None or "Content-Type" in named:
            return dict(self.headers)
        return {"Content-Type": self.content_type, **self.headers}


@frozen(kw_only=True)
class View:
    """What an answer needs to know beside the task."""

    now: float
    epoch_ms: int
    origin: str
    request_id: str
    seed: int

    def milliseconds(self, moment: float) -> int:
        """Return simulated seconds as milliseconds since the epoch."""
        return self.epoch_ms + round(1000 * moment)


def json_answer(body: Mapping[str, object], *, status: int = 200, request_id: str = "") -> Answer:
    """Answer with a JSON body."""
    headers = {"X-Oneapi-Request-Id": request_id} if request_id else {}
    content = json.dumps(body, ensure_ascii=False).encode()
    return Answer(status=status, body=content, content_type=JSON_TYPE, headers=headers)


def page() -> Answer:
    """Answer with the web page that the gateway serves for unknown paths (source)."""
    body = b"<!doctype html><html><head><title>CometAPI</title></head><body>Welcome</body></html>"
    return Answer(body=body, content_type=HTML_TYPE)


def not_found() -> Answer:
    """Answer ``task_not_exist`` (CometAPI docs, for a sibling route)."""
    return json_answer({"code": _NOT_FOUND, "message": _NOT_FOUND, "data": None}, status=400)


def invalid_token(request_id: str) -> Answer:
    """Refuse the key (seen in published answers)."""
    return gateway_error(401, f"Invalid token (request id: {request_id})", request_id=request_id)


def gateway_error(status: int, message: str, *, request_id: str = "") -> Answer:
    """Answer with an error of the gateway: an ``error`` object (seen in published answers)."""
    error = {"code": "", "message": message, "type": "comet_api_error"}
    return json_answer({"error": error}, status=status, request_id=request_id)


def invalid_order(code: int, message: str, request_id: str) -> Answer:
    """Refuse a create request with a code of the vendor (source)."""
    body: Json = {"code": code, "message": message, "request_id": request_id}
    return json_answer(body, status=400, request_id=request_id)


def created(task: SimulatedTask, view: View) -> Answer:
    """Confirm a create request; the body has no ``request_id`` (CometAPI docs)."""
    moment = view.milliseconds(task.created)
    data: Json = {
        "task_id": task.task_id,
        "task_info": {"external_task_id": task.external_task_id},
        "task_status": "submitted",
        "created_at": moment,
        "updated_at": moment,
    }
    body: Json = {"code": 0, "message": "SUCCEED", "data": data}
    return json_answer(body, request_id=view.request_id)


def queried(task: SimulatedTask, view: View) -> Answer:
    """Answer a query in the form that the task is set to."""
    body = _envelope(task, view)
    if task.wrapped:
        body = {"code": "success", "message": "", "data": _wrapper(task, view, body)}
    return json_answer(body, request_id=view.request_id)


def _envelope(task: SimulatedTask, view: View) -> Json:
    data = _payload(task, view)
    # a failed task too is "SUCCEED": the message speaks of the query (seen)
    return {"code": 0, "message": "SUCCEED", "request_id": view.request_id, "data": data}


def _payload(task: SimulatedTask, view: View) -> Json:
    status = task.status(view.now)
    named = {"external_task_id": task.external_task_id} if task.external_task_id else {}
    data: Json = {
        "task_id": task.task_id,
        "task_info": named,
        "created_at": view.milliseconds(task.created),
        "updated_at": view.milliseconds(task.updated(view.now)),
        "task_result": {},
        "task_status": status,
    }
    if task.watermarked:
        data["watermark_info"] = {"enabled": True}
    if status == "failed":
        data["task_status_msg"] = task.reason
    if status == "succeed":
        data |= _success(task, view)
    return data


def _success(task: SimulatedTask, view: View) -> Json:
    images = [_image(task, index, view) for index in range(task.images)]
    result: Json = {"images": images}
    if task.series:
        result = {"result_type": "series", "images": [], "series_images": images}
    units: Json = {} if task.units is None else {"final_unit_deduction": task.units}
    return {"task_result": result, **units}


def _image(task: SimulatedTask, index: int, view: View) -> Json:
    image: Json = {"index": index, "url": _url(task, Place(task.task_id, index), view)}
    if task.watermarked:
        marked = Place(task.task_id, index, watermarked=True)
        image["watermark_url"] = _url(task, marked, view)
    return image


def _url(task: SimulatedTask, place: Place, view: View) -> str:
    return view.origin + place.path + (signature(place, view.seed) if task.signed else "")


def _wrapper(task: SimulatedTask, view: View, envelope: Json) -> Json:
    """Wrap as the older form does: other words, times in seconds, an envelope inside (seen)."""
    status = task.status(view.now)
    over = view.now >= task.finished
    return {
        "task_id": task.task_id,
        "action": "OMNI",
        "status": _OUTER_WORDS[status],
        "fail_reason": task.reason if status == "failed" else "",
        "submit_time": view.milliseconds(task.created) // 1000,
        "finish_time": view.milliseconds(task.finished) // 1000 if over else 0,
        "progress": {"submitted": "0%", "processing": "30%"}.get(status, "100%"),
        "data": envelope,
    }


def picture(place: Place, size: int | None, *, seed: int) -> Answer:
    """Answer with the picture of a place, whether a task has made it or not.

    Args:
        place: The image.
        size: Bytes of the file; None for the usual one.
        seed: The simulator's seed; another one gives other pictures.
    """
    name = f"{seed}/{place.task_id}/{place.index}"
    marked = place.watermarked
    body = draw(name, marked=marked) if size is None else draw_sized(name, size, marked=marked)
    return Answer(body=body, content_type="image/png")


def moved(location: str) -> Answer:
    """Send the client elsewhere."""
    return Answer(status=302, headers={"Location": location})


def gone(status: int) -> Answer:
    """Refuse an image as an object store does: in XML where access is denied."""
    if status == HTTPStatus.FORBIDDEN:
        return Answer(status=status, body=_DENIED, content_type="application/xml")
    return Answer(status=status)
