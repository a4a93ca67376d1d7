"""A local HTTP server that starts and stops at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web

from ._connections import Connections

Handle: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LARGEST_REQUEST = 256 * 1024 * 1024  # bytes; ten images in base64
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - names an address to call


class Site:
    """One handler for all requests to a port."""

    def __init__(self, handle: Handle, connections: Connections, *, host: str, port: int) -> None:
        self._handle = handle
        self._connections = connections
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._runner is not None

    @property
    def url(self) -> str:
        """The address that a client on this machine can use."""
        host = _EVERYWHERE.get(self._host, self._host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    async def start(self) -> None:
        """Listen; after the first time on the port of the first time.

        Raises:
            RuntimeError: It runs already.
            OSError: The port is taken.
        """
        if self._runner is not None:
            raise RuntimeError("this simulator runs already")
        app = web.Application(client_max_size=_LARGEST_REQUEST)
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.on_shutdown.append(self._drop)
        # cancelled handlers: a hang ends when its client leaves
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        self._runner = runner
        try:
            await runner.setup()
            await web.TCPSite(runner, self._host, self._port).start()
        except BaseException:
            await self.aclose()
            raise
        self._port = runner.addresses[0][1]

    async def aclose(self) -> None:
        """Stop to listen, and drop every connection."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        await runner.cleanup()
        if self._ending:
            await asyncio.wait(self._ending)

    async def _drop(self, _: web.Application) -> None:
        self._ending = self._connections.abort()
