"""How an answer reaches the client, or fails to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator

from aiohttp import web
from attrs import define

from ._answers import Answer
from ._content import Content, Runs, slices
from ._faults import Fault

_PIECES_A_SECOND = 10
_PAUSE = 0.1  # seconds
_LARGEST_PIECE = 2**16  # bytes; what waits in memory for a client that reads slowly


@define(eq=False)
class Sent:
    """What has been sent so far of an answer.

    Attributes:
        status: Its HTTP status; None as long as there is no answer.
        body_bytes: How many bytes of its body.
    """

    status: int | None = None
    body_bytes: int = 0


async def deliver(
    request: web.Request, answer: Answer, fault: Fault, sent: Sent
) -> web.StreamResponse:
    """Send an answer in the way that a fault prescribes.

    Args:
        request: What is answered.
        answer: What to send.
        fault: How to send it.
        sent: Where to note what has been sent.

    Returns:
        What aiohttp is to send. On a connection that was closed here it sends nothing.
    """
    if fault.silent:
        return await _stay_silent(request, fault)
    if fault.closes or fault.bytes_per_second is not None or isinstance(answer.body, Runs):
        return await _stream(request, answer, fault, sent)
    sent.status, sent.body_bytes = answer.status, len(answer.body)
    return web.Response(status=answer.status, body=answer.body, headers=answer.all_headers)


async def _stay_silent(request: web.Request, fault: Fault) -> web.StreamResponse:
    if fault.hang:
        await asyncio.get_running_loop().create_future()  # until the connection is lost
    if fault.reset:
        _reset(request.transport)
    if fault.raw is not None:
        _say(request.transport, fault.raw)
    return web.Response()


async def _stream(
    request: web.Request, answer: Answer, fault: Fault, sent: Sent
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.all_headers)
    told = len(answer.body) if fault.content_length is None else fault.content_length
    response.content_length = told
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        request.writer.length = None  # else it drops what is more than was announced
        sent.status = answer.status
        await _send(response, answer.body, fault, sent, told=told)
    if fault.closes:
        _say(request.transport, b"")
    return response


async def _send(
    response: web.StreamResponse, body: Content, fault: Fault, sent: Sent, *, told: int
) -> None:
    stop = len(body) if fault.cut_after is None else min(fault.cut_after, len(body))
    rate = fault.bytes_per_second
    await _trickle(response, slices(body, _piece(rate), 0, min(told, stop)), rate, sent)
    if told < stop:
        await asyncio.sleep(_PAUSE)  # else a client takes the excess for a broken next answer
        await _trickle(response, slices(body, _piece(rate), told, stop), rate, sent)


def _piece(rate: float | None) -> int:
    return _LARGEST_PIECE if rate is None else max(1, int(rate / _PIECES_A_SECOND))


async def _trickle(
    response: web.StreamResponse, pieces: Iterator[memoryview], rate: float | None, sent: Sent
) -> None:
    for piece in pieces:
        if rate is not None:
            await asyncio.sleep(len(piece) / rate)
        await response.write(piece)
        sent.body_bytes += len(piece)


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
