"""Which request gets which answer, as CometAPI's docs and published answers show them. Pure."""

from __future__ import annotations

import json
import random
import uuid
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import unquote

from attrs import field, frozen

from ._create import BadOrderError, read_order
from ._images import Content, Place, draw, draw_sized, signature
from ._log import BilledTask, Query
from ._settings import Settings
from ._tasks import SimulatedTask, Status, TaskBook

Json: TypeAlias = dict[str, object]

_SLOTS_TAKEN = 1303
_DUPLICATE = 1201

COLLECTION = "/kling/v1/images/omni-image"
JSON_TYPE = "application/json"
HTML_TYPE = "text/html"

_WELCOME = b"<!doctype html><html><head><title>CometAPI</title></head><body>Welcome</body></html>"
_DENIED = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'
_OUTER_WORDS: dict[Status, tuple[str, str]] = {
    "submitted": ("SUBMITTED", "0%"),
    "processing": ("IN_PROGRESS", "30%"),
    "succeed": ("SUCCESS", "100%"),
    "failed": ("FAILURE", "100%"),
}


@frozen(kw_only=True)
class Answer:
    """One HTTP answer before it is sent."""

    status: int = 200
    body: Content = b""
    headers: Mapping[str, str] = field(factory=dict[str, str])


def answer_of(kind: str, body: Content, *, status: int = 200) -> Answer:
    """Answer with a body of a content type."""
    return Answer(status=status, body=body, headers={"Content-Type": kind})


def json_answer(body: Mapping[str, object], *, status: int = 200, request_id: str = "") -> Answer:
    """Answer with a JSON body."""
    named = {"X-Oneapi-Request-Id": request_id} if request_id else {}
    content = json.dumps(body, ensure_ascii=False).encode()
    return Answer(status=status, body=content, headers={"Content-Type": JSON_TYPE, **named})


def gateway_error(status: int, message: str, *, request_id: str = "") -> Answer:
    """Answer with an error of the gateway: an ``error`` object (seen in published answers)."""
    error = {"code": "", "message": message, "type": "comet_api_error"}
    return json_answer({"error": error}, status=status, request_id=request_id)


def not_found(status: int = 400) -> Answer:
    """Answer ``task_not_exist`` (CometAPI docs, for a sibling route)."""
    body = {"code": "task_not_exist", "message": "task_not_exist", "data": None}
    return json_answer(body, status=status)


def moved(location: str) -> Answer:
    """Send the client elsewhere."""
    return Answer(status=302, headers={"Location": location})


def picture(place: Place, size: int | None, *, seed: int) -> Answer:
    """Answer with the picture of a place, whether a task has made it or not."""
    name, marked = f"{seed}/{place.task_id}/{place.index}", place.watermarked
    body = draw(name, marked=marked) if size is None else draw_sized(name, size, marked=marked)
    return answer_of("image/png", body)


def creates(method: str, path: str) -> bool:
    """Return whether a request is a create."""
    return method == "POST" and path.partition("?")[0] == COLLECTION


def queried_id(method: str, path: str) -> str | None:
    """Return the id that a request asks for; None if it is no query."""
    parent, _, name = path.partition("?")[0].rpartition("/")
    return unquote(name) if method == "GET" and parent == COLLECTION and name else None


def carries(key: str, authorization: str) -> bool:
    """Return whether a header carries a key; the name of the scheme is in any case (RFC 9110)."""
    scheme, _, token = authorization.partition(" ")
    return scheme.lower() == "bearer" and token.strip() == key


@frozen(kw_only=True)
class View:
    """What an answer needs to know beside the task."""

    now: float
    origin: str
    request_id: str
    settings: Settings


class Gateway:
    """The API and its images behind their URLs: tasks in, answers out."""

    def __init__(self, settings: Settings) -> None:
        self.tasks = TaskBook(settings)
        self.billed: deque[BilledTask] = deque(maxlen=settings.log_size)
        self._settings = settings
        # apart from the draws of the tasks: how often one asks must not change their ids
        self._random = random.Random(f"requests {settings.seed}")

    def answer(self, query: Query, body: bytes, *, origin: str, now: float) -> Answer:
        """Answer one request to the API, in which images are of an ``origin``."""
        is_create = creates(query.method, query.path)
        # what is no route is a web page, whatever the key (source)
        if query.task_id is None and not is_create:
            return answer_of(HTML_TYPE, _WELCOME)
        if not query.authorised:
            token = self._token(now)
            return gateway_error(401, f"Invalid token (request id: {token})", request_id=token)
        drawn = uuid.UUID(int=self._random.getrandbits(128), version=4)
        view = View(now=now, origin=origin, request_id=str(drawn), settings=self._settings)
        if is_create:
            return self._create(body, view, query.started)
        task = self.tasks.by_id.get(query.task_id or "")
        if task is None and self._settings.by_external_id:
            task = self.tasks.named(query.task_id)
        return not_found() if task is None else _queried(task, view)

    def told(self, task_id: str, *, origin: str, now: float) -> tuple[SimulatedTask, Json] | None:
        """Return a task and what a callback says of it: the bare ``data`` (CometAPI docs)."""
        task = self.tasks.by_id.get(task_id)
        if task is None:
            return None
        view = View(now=now, origin=origin, request_id="", settings=self._settings)
        return task, _payload(task, view)

    def bills(self) -> tuple[BilledTask, ...]:
        """Return the last tasks that requests have made."""
        return tuple(self.billed)

    def image(self, place: Place, *, now: float) -> Answer:
        """Answer one request for an image."""
        task = self.tasks.by_id.get(place.task_id)
        if task is None or not task.makes(place):
            return Answer(status=404)
        if place.hops:
            return moved(place.via(place.hops - 1))
        refusal = self._refusal(place, task, now)
        if refusal is None:
            return picture(place, task.image_bytes, seed=self._settings.seed)
        # in XML where access is denied, as an object store does
        if refusal == HTTPStatus.FORBIDDEN:
            return answer_of("application/xml", _DENIED, status=refusal)
        return Answer(status=refusal)

    def _create(self, body: bytes, view: View, started: float) -> Answer:
        try:
            order = read_order(body)
            self._require_new(order["external_task_id"])
        except BadOrderError as refusal:
            return self._refused(*refusal.args, view=view)
        slots = self._settings.slots
        if slots is not None and self.tasks.slots_held(view.now) + order["slots"] > slots:
            text = "parallel task over resource pack limit"
            return self._refused(_SLOTS_TAKEN, text, view=view, status=429)
        task = self.tasks.create(view.now, **order)
        bill = BilledTask(
            task_id=task.task_id,
            external_task_id=task.external_task_id,
            images=task.images,
            units=int(order["units"]),
            created=started,
        )
        self.billed.append(bill)
        return _created(task, view)

    def _require_new(self, external_task_id: str | None) -> None:
        known = self.tasks.named(external_task_id)
        if known is not None and self._settings.duplicates != "accepted":
            raise BadOrderError(_DUPLICATE, "external_task_id already exists")

    def _refused(self, code: int, message: str, *, view: View, status: int = 400) -> Answer:
        """Answer with a refusal of the vendor, as such or in the words of a gateway (source)."""
        body: Json = {"code": code, "message": message, "request_id": view.request_id}
        if self._settings.duplicates == "wrapped":
            body = {"code": "fail_to_fetch_task", "message": json.dumps(body), "data": None}
        return json_answer(body, status=status, request_id=view.request_id)

    def _refusal(self, place: Place, task: SimulatedTask, now: float) -> int | None:
        """Return the status under which an image is not given; None where it is."""
        if task.expiry is not None:
            return task.expiry.status
        if task.state(now)[0] != "succeed":
            return 404
        if task.signed and place.query != signature(place, self._settings.seed):
            return 403
        return None

    def _token(self, now: float) -> str:
        """Make a request id as the gateway's own errors carry it: time, then random (seen)."""
        moment = datetime.fromtimestamp(self._settings.milliseconds(0) / 1000 + now, UTC)
        digits, letters = self._random.randrange(10**9), self._random.getrandbits(64)
        return f"{moment:%Y%m%d%H%M%S}{digits:09}{letters:016x}"


def _created(task: SimulatedTask, view: View) -> Answer:
    moment = view.settings.milliseconds(task.created)
    data: Json = {
        "task_id": task.task_id,
        "task_info": {"external_task_id": task.external_task_id},
        "task_status": "submitted",
        "created_at": moment,
        "updated_at": moment,
    }
    # this answer alone has no `request_id` in its body (CometAPI docs)
    body: Json = {"code": 0, "message": "SUCCEED", "data": data}
    return json_answer(body, request_id=view.request_id)


def _queried(task: SimulatedTask, view: View) -> Answer:
    data = _payload(task, view)
    # a failed task too is "SUCCEED": the message speaks of the query (seen)
    body: Json = {"code": 0, "message": "SUCCEED", "request_id": view.request_id, "data": data}
    if task.wrapped:
        body = {"code": "success", "message": "", "data": _wrapper(task, view, body)}
    return json_answer(body, request_id=view.request_id)


def _payload(task: SimulatedTask, view: View) -> Json:
    status, since = task.state(max(task.created, view.settings.refreshed(view.now)))
    data: Json = {
        "task_id": task.task_id,
        "task_info": {"external_task_id": task.external_task_id} if task.external_task_id else {},
        "created_at": view.settings.milliseconds(task.created),
        "updated_at": view.settings.milliseconds(since),
        "task_result": {},
        "task_status": status,
    }
    if task.watermarked:
        data["watermark_info"] = {"enabled": True}
    if status == "failed":
        data["task_status_msg"] = task.fail
    if status == "succeed":
        images = [_image(task, index, view) for index in range(task.images)]
        series: Json = {"result_type": "series", "images": [], "series_images": images}
        data["task_result"] = series if task.series else {"images": images}
        if task.units is not None:
            data["final_unit_deduction"] = task.units
    return data


def _image(task: SimulatedTask, index: int, view: View) -> Json:
    image: Json = {"index": index}
    copies = {"url": False, "watermark_url": True} if task.watermarked else {"url": False}
    for name, marked in copies.items():
        place = Place(task.task_id, index, marked)
        query = signature(place, view.settings.seed) if task.signed else ""
        image[name] = view.origin + place.path + query
    return image


def _wrapper(task: SimulatedTask, view: View, envelope: Json) -> Json:
    """Wrap as the older form does: other words, times in seconds, an envelope inside (seen)."""
    status, _ = task.state(max(task.created, view.settings.refreshed(view.now)))
    word, progress = _OUTER_WORDS[status]
    over = view.now >= task.finished
    return {
        "task_id": task.task_id,
        "action": "OMNI",
        "status": word,
        "fail_reason": task.fail if status == "failed" else "",
        "submit_time": view.settings.milliseconds(task.created) // 1000,
        "finish_time": view.settings.milliseconds(task.finished) // 1000 if over else 0,
        "progress": progress,
        "data": envelope,
    }
