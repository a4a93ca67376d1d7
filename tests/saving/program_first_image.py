"""Saves one image, and tells what was imported and opened from the first look-up to the record."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

import anyio

from kling_omni_async import DownloadError, ImageTask, PollPolicy, TaskImage, TaskStatus
from kling_omni_async._config import make_settings
from kling_omni_async._saving.download import Downloader
from kling_omni_async._saving.saver import Saver
from kling_omni_async._saving.stores import SavePlan, Stores
from tests.saving.fakes import PNG

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with an image."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(HEAD % len(PNG) + PNG)
    await writer.drain()
    writer.close()


def task_of(url: str) -> ImageTask:
    """Give a task with one image."""
    return ImageTask(task_id="7", status=TaskStatus.SUCCEED, images=(TaskImage(url=url),))


async def save_one(folder: str) -> dict[str, list[str]]:
    """Save one image, and fail to save another."""
    seen: dict[str, list[str]] = {"import": [], "open": []}
    found: dict[str, list[str]] = {}

    def note(event: str, args: tuple[object, ...]) -> None:
        if event in seen:
            seen[event].append(str(args[0]))

    async with (
        await asyncio.start_server(serve, "127.0.0.1", 0) as server,
        anyio.create_task_group() as workers,  # as in a session, which has one before any query
    ):
        base = f"http://localhost:{server.sockets[0].getsockname()[1]}"
        settings = make_settings("k", base, PollPolicy(), allow_http=False)
        saver = Saver(Downloader(settings), most=2, tries=5, rng=Random(1))
        saver.open(lambda: workers.start_soon(saver.work))
        plan = SavePlan(Stores().open(folder))
        sys.addaudithook(note)
        await saver.save(task_of(f"{base}/1.png"), plan)
        with suppress(DownloadError):
            await saver.save(task_of("http://images.example/2.png"), plan)
        found.update({event: list(names) for event, names in seen.items()})
        await saver.aclose()
    return found


if __name__ == "__main__":
    opened = asyncio.run(save_one(sys.argv[1]))
    opened["open"] = [Path(name).name for name in opened["open"]]
    print(json.dumps(opened))  # noqa: T201 - for the test
