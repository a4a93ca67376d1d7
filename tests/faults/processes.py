"""Server processes that end with the test, and with pytest itself."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
SBIN = "/usr/sbin:/sbin"  # not in everybody's PATH
LOOK_S = 0.05

# The kernel draws the ports of outgoing connections from 32768 on: one of those may be in use when
# a server comes back to it, and a client that calls it meanwhile may even reach itself.
PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Give a port of loopback that nobody listens on."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


async def until(happened: Callable[[], bool], *, within_s: float = 20.0) -> None:
    """Wait until something has happened outside of this process."""
    async with asyncio.timeout(within_s):
        while not happened():  # noqa: ASYNC110 - nobody sets an Event for us
            await asyncio.sleep(LOOK_S)


class Server:
    """A process that listens on a port of loopback, with all that it starts itself."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        port: int,
        cwd: Path = ROOT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = port
        self._cwd = cwd
        # util-linux's: if pytest is killed, so is what it started
        self._command = ("setpriv", "--pdeathsig", "TERM", *command)
        self._environment = {
            **os.environ,
            "PATH": f"{os.environ.get('PATH', '')}:{SBIN}",
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start, and wait until it listens."""
        self._spawn()
        await until(self._listens)

    def _spawn(self) -> None:
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self._command} has ended: {self.output.read_text()}")
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    @property
    def output(self) -> Path:
        """What it writes to stdout and stderr."""
        return self.folder / "output.txt"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process, running or ended."""
        assert self._process is not None
        return self._process

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once, its children too."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    async def stop(self) -> None:
        """Let it end in good order."""
        self.send(signal.SIGTERM)
        await until(lambda: self.process.poll() is not None)


S = TypeVar("S", bound=Server)


@asynccontextmanager
async def running(server: S) -> AsyncGenerator[S]:
    """Run a server, and leave nothing of it behind."""
    try:
        await server.start()
        yield server
        await server.stop()
    finally:
        server.kill()
