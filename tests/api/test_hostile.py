"""Answers made to hurt: each ends in a typed error, in bounded time and memory."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from kling_omni_async import (
    KlingOmniError,
    KlingOmniSession,
    PollPolicy,
    PollTimeoutError,
    ResponseError,
    TaskStatus,
    TransportError,
)
from tests.support import now

pytestmark = pytest.mark.anyio

KEY = "sk-key-of-a-test"
GIGABYTE = 2**30
CHUNK = b"x" * 65_536
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

Body = Callable[[], AsyncIterator[bytes]]


class Server:
    """Serves one body to everyone, and counts what it could send."""

    def __init__(self, body: Body) -> None:
        self.sent = 0
        self.body = body
        self.base_url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            async for part in self.body():
                writer.write(part)
                await writer.drain()
                self.sent += len(part)
        writer.close()


@asynccontextmanager
async def serving(body: Body) -> AsyncGenerator[Server]:
    """Run a server on loopback."""
    server = Server(body)
    listener = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    server.base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        await asyncio.sleep(0.1)


async def one_gigabyte() -> AsyncIterator[bytes]:
    """Give a body that is really sent if somebody reads it."""
    yield HEAD + b"Content-Length: %d\r\n\r\n" % GIGABYTE
    for _ in range(GIGABYTE // len(CHUNK)):
        yield CHUNK


async def endless_chunks() -> AsyncIterator[bytes]:
    """Give a chunked body without an end."""
    yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"10000\r\n" + CHUNK + b"\r\n"


async def a_bomb() -> AsyncIterator[bytes]:
    """Give 1 MB of gzip that unpacks to 1 GB."""
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, 31), bytes(2**20)
    first, block = (packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    packed = first + block * 1023  # a flushed block stands for itself, so it can be repeated
    assert len(packed) < 2**20 + 2**16
    yield HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    yield packed


@pytest.mark.parametrize("body", [one_gigabyte, endless_chunks, a_bomb])
async def test_a_huge_body_is_not_read(body: Body) -> None:
    """1 GB, plain, chunked or packed, is refused with little read and little kept."""
    async with (
        serving(body) as server,
        KlingOmniSession(KEY, base_url=server.base_url) as session,
    ):
        tracemalloc.start()
        try:
            with pytest.raises(ResponseError, match="1048576 bytes"):
                await session.query("1")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert server.sent < 20 * 2**20
    assert peak < 16 * 2**20


async def test_one_byte_a_second_ends_by_the_query_timeout() -> None:
    """A body of one byte a second ends after `query_timeout`, and so does its header."""

    async def slow_body() -> AsyncIterator[bytes]:
        yield HEAD + b"Content-Length: 100000\r\n\r\n"
        while True:
            await asyncio.sleep(1)
            yield b" "

    async def slow_header() -> AsyncIterator[bytes]:
        yield HEAD
        while True:
            await asyncio.sleep(1)
            yield b"X"

    for body in (slow_body, slow_header):
        began = now()
        async with (
            serving(body) as server,
            KlingOmniSession(KEY, base_url=server.base_url) as session,
        ):
            with pytest.raises(TransportError) as caught:
                await session.query("1")
            assert caught.value.reason == "timeout"
            assert now() - began == pytest.approx(15)


def answer_of(body: bytes, headers: bytes = b"") -> Body:
    """Give a whole answer at once."""

    async def whole() -> AsyncIterator[bytes]:
        yield HEAD + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body

    return whole


DATA = b'{"code": 0, "data": %s}'


MALICIOUS = {
    "deep": answer_of(b"[" * 200_000),
    "deep_objects": answer_of(b'{"a":' * 200_000),
    "deep_and_whole": answer_of(b"[" * 200_000 + b"]" * 200_000),
    "status_object": answer_of(DATA % b'{"task_status": {"a": 1}}'),
    "data_string": answer_of(DATA % b'"processing"'),
    "no_utf8": answer_of(b"\xff\xfe\x00" * 1000),
    "long_header": answer_of(b"", b"X: " + b"a" * 65_536 + b"\r\n"),
    "many_headers": answer_of(b"", b"".join(b"X-%d: a\r\n" % number for number in range(40_000))),
    "cut_gzip": answer_of(gzip.compress(b"{}")[:-6], b"Content-Encoding: gzip\r\n"),
    "unknown_packing": answer_of(b"{}", b"Content-Encoding: br\r\n"),
    "two_lengths": answer_of(b"{}", b"Content-Length: 5\r\n"),
}


@pytest.mark.parametrize("name", MALICIOUS)
async def test_a_malicious_answer_is_a_typed_fault(name: str) -> None:
    """Deep, huge, infinite, wrongly typed or broken answers are faults that pass; none crashes."""
    policy = PollPolicy(interval=(1, 1))
    bodies = [answer_of(DATA % b'{"task_status": "processing"}')]

    def body() -> AsyncIterator[bytes]:
        return (bodies.pop() if bodies else MALICIOUS[name])()

    async with (
        serving(body) as server,
        KlingOmniSession(KEY, base_url=server.base_url, policy=policy) as session,
    ):
        await session.query("1")
        with pytest.raises((ResponseError, TransportError)):
            await session.query("1")
        with pytest.raises(PollTimeoutError) as caught:
            await session.wait("1", timeout=5)
    assert isinstance(caught.value.last_error, ResponseError | TransportError)


@pytest.mark.parametrize(
    "number",
    [b"NaN", b"-Infinity", b"1e999", b"9" * 5_000, b"-" + b"9" * 100_000],
    ids=lambda number: number[:9].decode(),
)
@pytest.mark.parametrize("name", ["new", "created_at", "final_unit_deduction", "task_info"])
async def test_a_number_that_is_none(name: str, number: bytes) -> None:
    """Where a number is none, or is too long to be written again, the rest is read all the same."""
    body = DATA % (b'{"task_status": "processing", "%b": {"deep": [%b, 1]}, "%b": %b}')
    body %= (b"other", number, name.encode(), number)
    async with (
        serving(answer_of(body)) as server,
        KlingOmniSession(KEY, base_url=server.base_url) as session,
    ):
        task = await session.query("1")
    assert task.status is TaskStatus.PROCESSING
    assert task.raw == {"task_status": "processing", "other": {"deep": [None, 1]}, name: None}
    assert (task.created_at, task.final_unit_deduction) == (None, None)


async def test_lone_surrogates_reach_nobody() -> None:
    """Text that cannot be encoded is mended in the record and in its JSON form."""
    body = DATA % rb'{"task_status": "failed", "task_status_msg": "\ud800 bad \udfff"}'
    async with (
        serving(answer_of(body)) as server,
        KlingOmniSession(KEY, base_url=server.base_url) as session,
    ):
        task = await session.query("1")
        with pytest.raises(KlingOmniError) as caught:
            await session.wait("1")
    assert task.status_message == "? bad ?"
    assert str(caught.value).encode() == b"? bad ?"
