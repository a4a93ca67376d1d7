"""What stands before S3: it notes what is asked, and fails where a test says so."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Self

import aiohttp
from aiohttp import web

from .bucket import Bucket

Rule = Callable[[web.Request], Awaitable[web.Response | None]]
"""Answers a request itself, or lets it through with None."""


class Cut(Exception):  # noqa: N818 - is no error, but an order
    """Raised by a rule to cut the connection."""


class Relay:
    """A reverse proxy on a port of this machine.

    Args:
        target: Where requests go.

    Attributes:
        asked: Each request: method, path and query.
        was_asked: Set with the first request.
        conditions: What each ``PUT`` asks to be so, or None.
        rule: What may answer in the target's place.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._port = 0
        self._client: aiohttp.ClientSession
        self._forwards: set[asyncio.Task[web.Response]] = set()
        self._runner = web.AppRunner(self._app(), handler_cancellation=True, shutdown_timeout=0.1)
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()
        self.conditions: list[str | None] = []
        self.rule: Rule = let_through

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession(auto_decompress=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await asyncio.gather(*self._forwards, return_exceptions=True)
        await self._client.close()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._port}"

    def count(self, method: str, words: str = "") -> int:
        """Count the requests of a method with some words in their URL."""
        return sum(asked.startswith(method) and words in asked for asked in self.asked)

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.raw_path}")
        self.was_asked.set()
        if request.method == "PUT":
            self.conditions.append(request.headers.get("If-None-Match"))
        body = await request.read()
        try:
            answer = await self.rule(request)
        except Cut:
            assert request.transport
            request.transport.abort()
            return web.Response()
        return answer or await self._forward_whole(request, body)

    async def _forward_whole(self, request: web.Request, body: bytes) -> web.Response:
        # A connection that is closed with a part in its buffer outlives the test's loop.
        forward = asyncio.create_task(self._forward(request, body))
        self._forwards.add(forward)
        forward.add_done_callback(self._forwards.discard)
        return await asyncio.shield(forward)

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: text for name, text in request.headers.items() if name != "Host"}
        url = self._target + request.raw_path
        sent = io.BytesIO(body) if body else None
        async with self._client.request(request.method, url, headers=headers, data=sent) as answer:
            kept = {
                name: text
                for name, text in answer.headers.items()
                if name.lower() not in {"transfer-encoding", "connection", "date", "server"}
            }
            return web.Response(status=answer.status, headers=kept, body=await answer.read())


async def let_through(_: web.Request) -> None:
    """Answer nothing."""


REFUSAL = (
    "<Error><Code>{code}</Code><Message>{code}</Message><AWSAccessKeyId>{key}</AWSAccessKeyId>"
    "<StringToSign>AWS4-HMAC-SHA256</StringToSign>"
    "<SignatureProvided>{signature}</SignatureProvided></Error>"
)


def refusing(status: int, code: str, method: str, words: str = "") -> Rule:
    """Give the rule that refuses a kind of request, with all the details that S3 tells."""

    async def rule(request: web.Request) -> web.Response | None:
        if request.method != method or words not in request.raw_path:
            return None
        signed = request.headers.get("Authorization", "")
        text = REFUSAL.format(
            code=code, key="AKIATHEKEY", signature=signed.rpartition("Signature=")[2]
        )
        return web.Response(status=status, text=text, content_type="application/xml")

    return rule


def cutting(method: str, words: str = "") -> Rule:
    """Give the rule that cuts the connection of a kind of request."""

    async def rule(request: web.Request) -> None:
        if request.method == method and words in request.raw_path:
            raise Cut

    return rule


class Gate:
    """The rule that holds a kind of request until a test opens it.

    Args:
        method: Of the requests.
        words: In their URLs.
        at_once: How many must be held before all are let through; None waits for `open`.

    Attributes:
        reached: Set when the first request is held.
        most: How many were held at the same time.
    """

    def __init__(self, method: str, words: str = "", *, at_once: int | None = None) -> None:
        self._method = method
        self._words = words
        self._at_once = at_once
        self._open = asyncio.Event()
        self._held = 0
        self.reached = asyncio.Event()
        self.most = 0

    async def __call__(self, request: web.Request) -> None:
        if request.method != self._method or self._words not in request.raw_path:
            return
        self._held += 1
        self.most = max(self.most, self._held)
        self.reached.set()
        if self._held == self._at_once:
            self.open()
        try:
            await self._open.wait()
        finally:
            self._held -= 1

    def open(self) -> None:
        """Let all requests through from now on."""
        self._open.set()


def without_list(bucket: Bucket, *, get: bool = True) -> Rule:
    """Give the rule of a policy that allows Put and no List, so that a missing key is 403.

    Without `get` it allows no Get either.
    """

    async def rule(request: web.Request) -> web.Response | None:
        key = request.path.partition(f"/{bucket.name}/")[2]
        hidden = not get or key not in bucket.keys
        refused = request.method in {"HEAD", "GET"} and hidden
        return web.Response(status=403) if refused else None

    return rule
