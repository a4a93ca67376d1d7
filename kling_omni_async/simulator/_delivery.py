"""How an answer reaches the client, or fails to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from aiohttp import web

from ._answers import Answer
from ._faults import Fault

_PIECES_A_SECOND = 10


async def deliver(request: web.Request, answer: Answer, fault: Fault) -> web.StreamResponse:
    """Send an answer in the way that a fault prescribes.

    Returns:
        What aiohttp is to send. On a connection that was closed here it sends nothing.
    """
    if fault.hang:
        await asyncio.get_running_loop().create_future()  # until the connection is lost
    if fault.reset:
        _reset(request.transport)
    if fault.raw is not None:
        _say(request.transport, fault.raw)
    if fault.cut_after is None and fault.bytes_per_second is None:
        return as_response(answer)
    response = web.StreamResponse(status=answer.status, headers=answer.all_headers)
    response.content_length = len(answer.body)
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await _trickle(response, answer.body[: fault.cut_after], fault.bytes_per_second)
    if fault.cut_after is not None:
        _say(request.transport, b"")
    return response


def as_response(answer: Answer) -> web.Response:
    """Turn an answer into what aiohttp sends in one go."""
    return web.Response(status=answer.status, body=answer.body, headers=answer.all_headers)


async def _trickle(response: web.StreamResponse, body: bytes, rate: float | None) -> None:
    if rate is None:
        await response.write(body)
        return
    size = max(1, int(rate / _PIECES_A_SECOND))
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        await asyncio.sleep(len(piece) / rate)
        await response.write(piece)


def _reset(transport: asyncio.Transport | None) -> None:
    """Close with a TCP reset instead of a polite end."""
    if transport is None:
        return
    linger = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def _say(transport: asyncio.Transport | None, content: bytes) -> None:
    """Write bytes as they are, then close politely."""
    if transport is None:
        return
    transport.write(content)
    transport.close()
