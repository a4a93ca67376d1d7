"""The TCP connections that requests have come on."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from aiohttp import web
from attrs import define


@define(eq=False)
class Connection:
    """One TCP connection.

    Attributes:
        number: Its place among all connections, counted from 1.
        transport: The way to close it; None once it is lost.
        requests: How many requests have come on it.
    """

    number: int
    transport: asyncio.Transport | None
    requests: int = 0

    @property
    def reused(self) -> bool:
        """Whether the present request is not its first one."""
        return self.requests > 1


class Connections:
    """All connections that are open, and how many there have been."""

    def __init__(self) -> None:
        # aiohttp serves each connection from one task, as long as it lives
        self._open: WeakKeyDictionary[asyncio.Task[None], Connection] = WeakKeyDictionary()
        self.opened = 0

    def note(self, request: web.Request) -> Connection:
        """Count a request, and return the connection that it came on."""
        connection = self._open.get(request.task)
        if connection is None:
            self.opened += 1
            connection = Connection(self.opened, request.transport)
            self._open[request.task] = connection
        connection.requests += 1
        return connection

    def abort(self) -> set[asyncio.Task[None]]:
        """Drop every connection, and return the tasks that end soon because of it."""
        for connection in self._open.values():
            if connection.transport is not None:
                connection.transport.abort()
        return set(self._open)
