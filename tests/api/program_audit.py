"""Reads answers of all families and tells what Python imported or opened meanwhile.

Run as ``python -m tests.api.program_audit``; prints what each answer became, and the events.
Everything is asked from one loop, over real sockets and by a host's name.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from typing import Any

from kling_omni_async import ImageTask, PollPolicy
from kling_omni_async._api.answers import Answer, foreign_id, read_answer, read_task, status_word
from kling_omni_async._api.client import Client
from kling_omni_async._config import make_settings

KEY = "sk-0123456789"
HEAD = b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b"
TASK = {"task_status": "succeed", "final_unit_deduction": "0.5", "created_at": 1782450245512}
DATE = b"Retry-After: Sun, 03 May 2026 03:10:07 GMT\r\n"


def whole(body: object, status: int = 200, headers: bytes = b"") -> bytes:
    """Make the bytes of an answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HEAD % (status, headers, len(content), content)


def found(**data: object) -> dict[str, Any]:
    """Make a success answer."""
    return {"code": 0, "request_id": "r", "data": {**TASK, **data}}


IMAGES = {"images": [{"url": " //b\u00fccher.example/a b\ud800", "index": 0}, None]}
ANSWERS = (
    whole(found()),
    whole(found(task_result=IMAGES, task_id="other", task_status_msg="任务")),
    whole(found(task_status="rendering", task_status_msg=KEY)),
    whole(b"\xef\xbb\xbf" + json.dumps(found()).encode() + b"\xff"),
    whole({"code": "success", "data": {"status": "SUCCESS", "data": found()}}),
    whole(b'{"data": {"task_status": "x", "n": [NaN, 1e999, %b]}}' % (b"9" * 5000)),
    whole(b"[" * 100_000),
    whole(b"<html>" + KEY.encode()),
    whole(b""),
    whole(gzip.compress(json.dumps(found()).encode()), headers=b"Content-Encoding: gzip\r\n"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    whole({"code": "task_not_exist", "message": "任务不存在 (request id: 1)"}, 400),
    whole({"error": {"message": "no", "code": "invalid_request"}}, 500),
    whole({"code": 1303, "message": "m"}, 429, DATE + b"Set-Cookie: a=b\r\n"),
    whole(b"", 429, b"Retry-After: 5\r\n"),
    whole(b"", 302, b"Location: https://b\xc3\xbccher.example/\r\n"),
    whole(b"", 407),
    whole(b"x" * 20_000),
    whole(b"nope", headers=b"Content-Encoding: gzip\r\n"),
    whole(b"{}")[:-1],
    b"HTP/9 nonsense\r\n\r\n",
    b"",
    b"never",
)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer by the number that stands for the id, and hang up."""
    head = await reader.readuntil(b"\r\n\r\n")
    said = ANSWERS[int(head.split()[1].rpartition(b"/")[2])]
    if said == b"never":
        await reader.read()
    else:
        writer.write(said)
    writer.close()


async def ask(client: Client, task_id: str) -> str:
    """Ask, read, read again, and say what came out."""
    answer = await client.fetch(task_id)
    if not isinstance(answer, Answer):
        return f"{type(answer).__name__}: {answer}"
    reply = read_answer(answer, task_id, wall_s=0.0)
    if isinstance(reply, ImageTask):
        status_word(read_task(answer.body, task_id))
        foreign_id(reply)
    return f"{type(reply).__name__}: {reply}"


async def main() -> None:
    """Watch what happens between the start of a client and its end."""
    events: list[str] = []
    watching = False

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in {"import", "open"}:
            events.append(f"{event} {arguments[0]}")

    sys.addaudithook(hear)
    policy = PollPolicy(query_timeout=0.5, max_response_bytes=10_000)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20) as server:
        port = server.sockets[0].getsockname()[1]
        client = Client(
            make_settings(KEY, f"http://localhost:{port}", policy, allow_http=True), None
        )
        client.bind()
        await client.open()
        watching = True
        kinds = [await ask(client, str(number)) for number in range(len(ANSWERS))]
        server.close()
        kinds.append(await ask(client, "0"))
        watching = False
        await client.aclose()
    sys.stdout.write(json.dumps([kinds, events]))


if __name__ == "__main__":
    asyncio.run(main())
