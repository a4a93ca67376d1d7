"""The key is in nothing that the command line writes, shows or sends; each search is proven."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from anyio.from_thread import start_blocking_portal

from kling_omni_async._api.client import Client
from kling_omni_async._api.values import Secret
from kling_omni_async._cli import app
from kling_omni_async._cli.app import run
from kling_omni_async._cli.exit import Exit
from tests.test_secrets import IDS, KEY, echo

from .support import FAST, finish, neighbour, on_virtual_clock, running

T = TypeVar("T")
PIECE = 8
COMMANDS = ("poll", "query", "demo", "simulate")


def holds_key(text: str) -> bool:
    """Whether a text holds the key, or a piece of it."""
    secret = KEY.removeprefix("sk-secret-")
    return any(secret[at : at + PIECE] in text for at in range(len(secret) - PIECE + 1))


@contextmanager
def beside(server: AbstractAsyncContextManager[T]) -> Generator[T]:
    """Run a server in a loop and thread of its own."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(server) as started,
    ):
        yield started


@asynccontextmanager
async def recorder() -> AsyncGenerator[tuple[str, bytearray]]:
    """Take down every byte that comes, as a proxy or another host may; answer a bare 200."""
    log = bytearray()

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        if request.startswith(b"CONNECT "):
            request += await reader.read(65_536)
        log.extend(request)
        writer.close()

    async with await asyncio.start_server(record, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", log


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Point commands that are called here to a gateway that echoes the key in all that it says."""
    with on_virtual_clock(echo()) as url:
        monkeypatch.setenv("COMETAPI_KEY", KEY)
        monkeypatch.setenv("COMETAPI_BASE_URL", url)
        yield


@pytest.fixture
def gateway_beside(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Point the program to such a gateway in a thread of its own."""
    with beside(echo()) as url:
        monkeypatch.setenv("COMETAPI_KEY", KEY)
        monkeypatch.setenv("COMETAPI_BASE_URL", url)
        yield


@pytest.fixture
def leaky(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what keeps an echoed key out."""
    for name in ("redact", "redact_name", "redact_json"):
        monkeypatch.setattr(Secret, name, lambda _, shown: shown)


class Shown:
    """What a command wrote where.

    Args:
        tmp_path: Takes the journal.
        capfd: Takes stdout and stderr.
        caplog: Takes log records of every logger, from DEBUG up.
    """

    def __init__(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        self._path = tmp_path / "out.jsonl"
        self._capfd = capfd
        self._caplog = caplog

    def __call__(self) -> dict[str, str]:
        """Poll and query what the gateway has; give the texts by place."""
        with warnings.catch_warnings(record=True) as caught, self._caplog.at_level(logging.DEBUG):
            warnings.simplefilter("always")
            codes = [run(["query", *IDS])]
            codes += [run(["poll", "failed", "refusal", "--jsonl", str(self._path)])]
            codes += [run(["poll", task_id]) for task_id in IDS]
        assert set(codes) == {Exit.NOT_ALL}
        stdout, stderr = self._capfd.readouterr()
        records = self._caplog.records
        return {
            "journal": self._path.read_text(),
            "stdout": stdout,
            "stderr": stderr,
            "log": "\n".join(f"{vars(each)} {each.getMessage()}" for each in records),
            "warnings": "\n".join(f"{each.message!r} {each}" for each in caught),
        }


@pytest.fixture
def shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Shown:
    """Return what runs the commands."""
    return Shown(tmp_path, capfd, caplog)


def test_an_echoed_key_is_shown_nowhere(gateway: None, shown: Shown) -> None:
    """A gateway that echoes the key finds it on no stream, in no journal and in no log record."""
    texts = shown()
    assert [place for place, text in texts.items() if holds_key(text)] == []
    assert "[redacted]" in texts["journal"]
    assert all("failed" in texts[place] for place in ("journal", "stdout"))
    assert "HTTP 400" in texts["stderr"]
    assert "'levelname': 'DEBUG'" in texts["log"]


def test_a_leak_of_an_echoed_key_is_found(gateway: None, leaky: None, shown: Shown) -> None:
    """Without redaction the same search finds the key on both streams and in the journal."""
    texts = shown()
    found = {place for place, text in texts.items() if holds_key(text)}
    assert found >= {"journal", "stdout", "stderr"}


@pytest.mark.parametrize("place", ["log", "warnings"])
def test_a_leak_into_records_is_found(
    place: str, gateway: None, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DEBUG record or a warning that holds a piece of the key is found where it went."""
    real = Client.fetch

    async def leak(self: Client, task_id: str) -> Any:
        if place == "log":
            logging.getLogger("kling_omni_async.transport").debug("with %s", KEY[-PIECE:])
        else:
            warnings.warn(f"with {KEY[-PIECE:]}", stacklevel=2)
        return await real(self, task_id)

    monkeypatch.setattr(Client, "fetch", leak)
    assert [name for name, text in shown().items() if holds_key(text)] == [place]


def helps(capfd: pytest.CaptureFixture[str]) -> str:
    """Return all that help, version and a wrong call say."""
    calls = [["--help"], ["--version"], ["poll", "--nope"]]
    for call in calls + [[command, "--help"] for command in COMMANDS]:
        run(call)
    return "".join(capfd.readouterr())


def test_help_holds_no_key(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Help names the variable, never its value; a key planted as a default is found there."""
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    text = helps(capfd)
    assert "COMETAPI_KEY" in text
    assert not holds_key(text)
    monkeypatch.setattr(app.app, "help_epilogue", f"The key is {KEY}.")
    assert holds_key(helps(capfd))


def test_a_redirect_takes_no_key_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host that a redirect points to is never asked; one that is asked would get the key."""
    with neighbour(api_key=KEY) as api, beside(recorder()) as (other, log):
        for name, value in api.env.items():
            monkeypatch.setenv(name, value)
        task_id = api.create(duration=0.0)[0]
        for status in (301, 302, 303, 307, 308):
            api.fail_next(task_id, status=status, headers={"Location": f"{other}/moved"})
            assert run(["query", task_id]) == Exit.NOT_ALL
        assert bytes(log) == b""
        assert run(["query", task_id, "--base-url", other]) == Exit.NOT_ALL
        assert holds_key(log.decode())


@pytest.mark.parametrize(("scheme", "seen"), [("https", False), ("http", True)])
def test_a_proxy_sees_no_key(scheme: str, monkeypatch: pytest.MonkeyPatch, *, seen: bool) -> None:
    """A proxy is asked for a tunnel only; without TLS, which must be allowed, it sees the key."""
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    with beside(recorder()) as (proxy, log):
        monkeypatch.setenv(f"{scheme}_proxy", proxy)
        run(["query", "1", "--base-url", f"{scheme}://api.test", "--allow-http"])
    text = log.decode("latin-1")
    assert "api.test" in text
    assert holds_key(text) is seen


PLACES = {
    "in the transport": "from kling_omni_async._api.client import Client as place",
    "in the journal": "from kling_omni_async._cli.journal import Journal as place",
    "in the command": "import kling_omni_async._cli.poll as place",
}
FUNCTIONS = {
    "in the transport": "_translate",
    "in the journal": "write",
    "in the command": "choose_view",
}


def crash(where: str, words: str, journal: Path) -> str:
    """Let a function fail that never does, with Python at its most talkative; give all output."""
    script = (
        f"import logging, os\n{PLACES[where]}\n"
        "def boom(*args, **options):\n"
        f"    raise RuntimeError({words})\n"
        f"place.{FUNCTIONS[where]} = boom\n"
        "logging.basicConfig(level=logging.DEBUG)\n"
        "from kling_omni_async.__main__ import main\n"
        "main()\n"
    )
    call = ["poll", "failed", "cut", "--jsonl", str(journal), *FAST]
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", script, *call],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    return done.stdout + done.stderr


@pytest.mark.heavy
@pytest.mark.parametrize("where", PLACES)
def test_a_crash_shows_no_key(where: str, gateway_beside: None, tmp_path: Path) -> None:
    """An unforeseen exception shows a traceback and what is left, but no key."""
    text = crash(where, "'unforeseen'", tmp_path / "out.jsonl")
    assert "RuntimeError: unforeseen" in text
    assert re.search(r"^\d left; run the same command|^2 ids are still pending", text, re.MULTILINE)
    assert not holds_key(text)


@pytest.mark.heavy
def test_a_leak_in_a_crash_is_found(gateway_beside: None, tmp_path: Path) -> None:
    """An exception that holds a piece of the key is found in the traceback."""
    words = f"os.environ['COMETAPI_KEY'][-{PIECE}:]"
    assert holds_key(crash("in the transport", words, tmp_path / "out.jsonl"))


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
@pytest.mark.parametrize(("more", "seen"), [((), False), ((KEY,), True)])
def test_the_process_list_holds_no_key(more: tuple[str, ...], *, seen: bool) -> None:
    """What every user of the machine may read of the process holds no key."""
    with neighbour(api_key=KEY) as api:
        task_id = api.create(duration=1e6)[0]
        with running("poll", task_id, *more, *FAST, env=api.env) as process:
            api.wait_for_queries(1, task_id)
            text = Path(f"/proc/{process.pid}/cmdline").read_text()
            process.kill()
            finish(process)
    assert task_id in text
    assert holds_key(text) is seen
