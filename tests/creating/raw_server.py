"""A server of bare sockets, for what no web server would ever do."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

PEM = Path(__file__).parent / "localhost.pem"

Script = Callable[["Line"], Awaitable[None]]


@attrs.define(eq=False)
class Line:
    """One connection to the server, and what came over it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes = b""
    body: bytes = b""

    async def read_head(self) -> bytes:
        """Read the first line and the headers of a request."""
        self.head = await self.reader.readuntil(b"\r\n\r\n")
        return self.head

    async def read_body(self, share: float = 1.0) -> bytes:
        """Read a request's body, or the first part of it."""
        length = 0  # as of a query
        for line in self.head.lower().split(b"\r\n"):
            if line.startswith(b"content-length"):
                length = int(line.partition(b":")[2])
        self.body = await self.reader.readexactly(int(length * share))
        return self.body

    async def say(self, answer: bytes) -> None:
        """Send bytes."""
        self.writer.write(answer)
        await self.writer.drain()

    def reset(self) -> None:
        """End it by RST."""
        transport = self.writer.transport
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


@attrs.define(eq=False)
class RawServer:
    """What listens, and the connections that it has had."""

    port: int = 0
    lines: list[Line] = attrs.field(factory=list[Line])


def server_context(*, wants_certificate: bool = False) -> ssl.SSLContext:
    """Make what a server of TLS needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(PEM)
    if wants_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(PEM)
    return context


def client_context() -> ssl.SSLContext:
    """Make what a client needs to trust that server."""
    return ssl.create_default_context(cafile=str(PEM))


@asynccontextmanager
async def raw_server(
    script: Script, *, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[RawServer]:
    """Serve each connection by a script; when that ends, it is closed."""
    server = RawServer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        line = Line(reader, writer)
        server.lines.append(line)
        try:
            await script(line)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        for line in server.lines:
            line.writer.transport.abort()
        await asyncio.sleep(0)
