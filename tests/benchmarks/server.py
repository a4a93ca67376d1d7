"""The server of all figures: a bare asyncio protocol, so that the client is always the limit.

Run as ``python -m tests.benchmarks.server [--latency S]``; it prints its port and lives until its
input ends. ``GET /stats`` tells what it has seen since the last ``GET /reset``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import cast

from .answers import Answers

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_END = b"\r\n\r\n"


class State:
    """What all connections share."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.answers = Answers()
        self.open = 0
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.queries = self.opened = self.in_flight = self.most_in_flight = 0

    def stats(self) -> bytes:
        """Give the counts as JSON."""
        names = ("queries", "open", "opened", "most_in_flight")
        return json.dumps({name: getattr(self, name) for name in names}).encode()


class Connection(asyncio.Protocol):
    """One connection, one request at a time: nobody here pipelines."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._received = b""
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count what is left."""
        self._state.open -= self._counted

    def data_received(self, data: bytes) -> None:
        """Answer once the head of a request is whole."""
        self._received += data
        if not self._received.endswith(_END):
            return
        path = self._received.split(b" ", 2)[1]
        self._received = b""
        if path in {b"/stats", b"/reset"}:
            self._send(self._control(path))
        else:
            self._query(path)

    def _control(self, path: bytes) -> bytes:
        stats = self._state.stats()
        if path == b"/reset":
            self._state.reset()
        return stats

    def _query(self, path: bytes) -> None:
        state = self._state
        if not self._counted:
            self._counted = True
            state.open += 1
            state.opened += 1
        state.queries += 1
        state.in_flight += 1
        state.most_in_flight = max(state.most_in_flight, state.in_flight)
        body = state.answers.body(path.rpartition(b"/")[2])
        if state.latency_s:
            asyncio.get_running_loop().call_later(state.latency_s, self._answer, body)
        else:
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        self._state.in_flight -= 1
        self._send(body)

    def _send(self, body: bytes) -> None:
        self._transport.write(_ANSWER % (len(body), body))


async def serve(latency_s: float) -> None:
    """Serve on a free port until the input ends."""
    loop = asyncio.get_running_loop()
    state = State(latency_s)
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=4096)
    async with server:
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await loop.run_in_executor(None, sys.stdin.read)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0, help="s before each answer")
    asyncio.run(serve(parser.parse_args(arguments).latency))


if __name__ == "__main__":
    main()
