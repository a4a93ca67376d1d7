"""What stands before Redis: it cuts a connection before or after a command has reached Redis."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

from tests.faults.processes import HOST


class Relay:
    """Passes bytes on, until it is told to cut.

    Attributes:
        cut_answers: How many answers to what holds `words` are still to be lost, each with its
            connection: Redis has done what was asked.
        each: If not 0, the answer to each so-manieth one of these is lost.
        seen: How many commands with these words have come.
        was_cut: Set when such a command has come.
        words: What a command holds whose answer is lost.
        delay_s: How long each answer is held up.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server
        self._handling: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.seen = 0
        self.cut_answers = 0
        self.each = 0
        self.was_cut = asyncio.Event()
        self.words = b""
        self.delay_s = 0.0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()
        if self._handling:
            await asyncio.wait(self._handling)

    def switch(self, port: int) -> None:
        """Lead to another server from now on; all connections are cut."""
        self._target = port
        for writer in self._writers:
            writer.transport.abort()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://{HOST}:{self._server.sockets[0].getsockname()[1]}/0"

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._handle(reader, writer))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, here = await asyncio.open_connection(HOST, self._target)
        except OSError:  # nobody listens there
            writer.transport.abort()
            return
        self._writers |= {writer, here}
        losing = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask(reader, here, losing))
                group.create_task(self._answer(there, writer, losing))
        except* OSError:
            pass
        finally:
            self._writers -= {writer, here}
            writer.close()
            here.close()

    async def _ask(
        self, reader: asyncio.StreamReader, here: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        while data := await reader.read(65_536):
            if self._is_to_lose(data):
                losing.set()
                self.was_cut.set()
            here.write(data)
        with suppress(OSError):
            here.close()

    def _is_to_lose(self, data: bytes) -> bool:
        if self.words not in data:
            return False
        self.seen += 1
        if self.each:
            return self.seen % self.each == 0
        self.cut_answers -= 1
        return self.cut_answers >= 0

    async def _answer(
        self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        while data := await there.read(65_536):
            await asyncio.sleep(self.delay_s)
            if losing.is_set():
                writer.transport.abort()
                return
            writer.write(data)
        writer.close()
