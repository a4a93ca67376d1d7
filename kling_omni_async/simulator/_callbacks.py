"""Callbacks of simulated tasks: a POST to a loopback URL at each change of status."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Callable

import aiohttp
from attrs import define, field
from yarl import URL

from kling_omni_async._config import is_loopback

from ._settings import Callbacks as Manner
from ._tasks import SimulatedTask

_PATIENCE = aiohttp.ClientTimeout(total=10.0)  # nothing waits for an answer

Look = Callable[[str], tuple[SimulatedTask, dict[str, object]] | None]
"""Returns a task as it is now and what a callback says of it, if there is such a task."""


@define(eq=False)
class CallbackSender:
    """Follows the tasks that have a callback, and tells of each change, once or otherwise."""

    _manner: Manner
    _look: Look
    _seconds_until: Callable[[float], float]  # of the loop, to a simulated time
    _tasks: dict[str, asyncio.Task[None]] = field(factory=dict[str, "asyncio.Task[None]"])
    _changes: dict[str, asyncio.Event] = field(factory=dict[str, asyncio.Event])

    def begin(self, task: SimulatedTask) -> None:
        """Follow a new task, if its callback is on this machine: no other is ever called."""
        url = task.callback_url
        if url is not None and self._manner != "none" and _is_here(url):
            self._changes[task.task_id] = asyncio.Event()
            following = asyncio.get_running_loop().create_task(self._follow(task.task_id, url))
            self._tasks[task.task_id] = following

    def changed(self, task_id: str) -> None:
        """Look at a task again, as its end has moved."""
        if (change := self._changes.get(task_id)) is not None:
            change.set()

    async def aclose(self) -> None:
        """Call nobody any more."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()  # one that never began has not done so itself
        self._changes.clear()

    async def _follow(self, task_id: str, url: str) -> None:
        try:
            async with aiohttp.ClientSession(timeout=_PATIENCE) as http:
                await self._tell_changes(task_id, http, url)
        finally:
            self._tasks.pop(task_id, None)
            self._changes.pop(task_id, None)

    async def _tell_changes(self, task_id: str, http: aiohttp.ClientSession, url: str) -> None:
        said: list[bytes] = []
        status = None
        while (found := self._look(task_id)) is not None:
            task, data = found
            if data["task_status"] != status:
                status = data["task_status"]
                said.append(json.dumps(data).encode())
                await self._tell(said, http, url, is_last=status in {"succeed", "failed"})
            if status in {"succeed", "failed"}:
                return
            await self._sleep(task, is_new=status == "submitted")

    async def _sleep(self, task: SimulatedTask, *, is_new: bool) -> None:
        left = self._seconds_until(task.started if is_new else task.finished)
        change = self._changes[task.task_id]
        change.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(change.wait(), None if left == math.inf else max(left, 0.0))

    async def _tell(
        self, said: list[bytes], http: aiohttp.ClientSession, url: str, *, is_last: bool
    ) -> None:
        if self._manner != "shuffled":
            bodies = said[-1:] * (2 if self._manner == "repeated" else 1)
        else:  # all at the end, the last word first, and each twice
            bodies = [*reversed(said), *said] if is_last else []
        for body in bodies:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                headers = {"Content-Type": "application/json"}
                async with http.post(url, data=body, headers=headers, allow_redirects=False):
                    pass


def _is_here(url: str) -> bool:
    try:
        parsed = URL(url)
    except ValueError:
        return False
    return parsed.scheme == "http" and is_loopback(parsed.host)
