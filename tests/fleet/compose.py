"""What a compose file would start, started on this machine: its commands, in its environment."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import yaml

from tests.faults.processes import HOST, Server, until

PATIENCE_S: Final = 60.0
"""How long a busy machine may take until a dozen processes have started, in s."""

_VARIABLE: Final = re.compile(r"\$(?:(\$)|\{(\w+)(?::([-?])([^}]*))?\})")


async def in_time(happened: Callable[[], bool]) -> None:
    """Wait until something has happened outside of this process, however busy the machine is."""
    await until(happened, within_s=PATIENCE_S)


class Part(Server):
    """A process of a service."""

    @property
    def said(self) -> str:
        """What it has written."""
        return self.output.read_text("utf-8")

    def begin(self) -> None:
        """Start it, and wait for nothing."""
        self._spawn()

    async def says(self, text: str, times: int = 1) -> None:
        """Wait until it has written something so often."""
        await in_time(lambda: self.said.count(text) >= times or self.has_ended)
        assert self.said.count(text) >= times, self.said

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self.process.poll() is not None

    async def stop(self) -> None:
        """End it as a service manager does."""
        self.send(signal.SIGTERM)
        await in_time(lambda: self.has_ended)
        for sign in ("Traceback", "Warning", "Unclosed", "never retrieved"):
            assert sign not in self.said, self.said

    def family(self) -> list[int]:
        """Give the ids of it and of all that it has started."""
        found, left = list[int](), [self.process.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            children = Path(f"/proc/{pid}/task/{pid}/children")
            left += map(int, children.read_text("ascii").split())
        return found


@attrs.frozen
class Service:
    """A service of a compose file.

    Attributes:
        name: It.
        command: The words of its command.
        environment: What its processes find in their environment.
        replicas: How many of them there are.
        check: What tells whether it is well, for the shell; empty if nothing does.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    replicas: int
    check: str

    def parts(self, folder: Path, *, cwd: Path, more: Mapping[str, str]) -> list[Part]:
        """Give its processes, which are not started yet."""
        environment = {"PATH": path(), "PYTHONUNBUFFERED": "1", **self.environment, **more}
        parts = list[Part]()
        for number in range(self.replicas):
            own = folder / f"{self.name}-{number}"
            own.mkdir()
            parts.append(Part(self.command, folder=own, port=0, cwd=cwd, environment=environment))
        return parts

    def is_well(self) -> bool:
        """Whether its check says so."""
        environment = {**os.environ, **self.environment}
        run = subprocess.run(["/bin/sh", "-c", self.check], env=environment, check=False)
        return run.returncode == 0


def path() -> str:
    """Give where programs are looked for: beside this Python first, where they are installed."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def services_of(file: Path, secrets: Mapping[str, str], port: int) -> dict[str, Service]:
    """Read a compose file, as if its network were this machine and its Redis on a port of it."""

    def here(text: Any) -> str:
        return (
            filled(str(text), secrets)
            .replace("redis:6379", f"{HOST}:{port}")
            .replace("redis-server", f"redis-server --bind {HOST} --port {port}")
            .replace("redis-cli", f"redis-cli -p {port}")
        )

    said = yaml.safe_load(file.read_text("utf-8"))
    return {
        name: Service(
            name,
            shlex.split(here(each["command"])),
            {variable: here(value) for variable, value in each["environment"].items()},
            each.get("deploy", {}).get("replicas", 1),
            here(each.get("healthcheck", {}).get("test", "")),
        )
        for name, each in said["services"].items()
    }


def commands_of(file: Path) -> list[str]:
    """Read the commands of a compose file, as a shell would be given them."""
    services = yaml.safe_load(file.read_text("utf-8"))["services"]
    return [" ".join(filled(each["command"], {}).split()) for each in services.values()]


def filled(text: str, values: Mapping[str, str]) -> str:
    """Put variables into a text as compose does: ``${NAME}``, ``${NAME:-else}``, ``${NAME:?}``."""

    def value(found: re.Match[str]) -> str:
        dollar, name, sign, otherwise = found.groups()
        if dollar:
            return "$"
        return values[name] if values.get(name) or sign != "-" else otherwise

    return _VARIABLE.sub(value, text)
