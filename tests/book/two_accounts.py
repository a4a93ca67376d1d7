"""One address for the simulators of two accounts: the key of a connection chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress

from yarl import URL

from kling_omni_async.simulator import SimulatedCometAPI


@asynccontextmanager
async def one_address(*accounts: SimulatedCometAPI) -> AsyncGenerator[str]:
    """Serve simulators that run already; gives the base URL of them all."""
    ports = {api.api_key: URL(api.base_url).port or 0 for api in accounts}
    pipes = set[asyncio.Task[None]]()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pipes.add(asyncio.ensure_future(_serve(ports, reader, writer)))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for pipe in pipes:
            pipe.cancel()
        await asyncio.wait(pipes)


async def _serve(
    ports: Mapping[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        head = await reader.readuntil(b"\r\n\r\n")
        (port,) = [port for key, port in ports.items() if f"Bearer {key}\r\n".encode() in head]
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
        back_writer.write(head)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pipe(reader, back_writer))
                group.create_task(_pipe(back_reader, writer))
        finally:
            back_writer.close()
    writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.close()
