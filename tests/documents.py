"""Runs what README and the pages in docs show, against a simulator and without waiting.

Blocks of a page run in their order and share their names. ``await`` may stand outside a function:
the page has an event loop of its own, on the virtual clock. There a simulator is running, called
``api``, and the environment leads to it, so that ``KlingOmniSession()`` is written as users write
it. A block ``output`` is what the Python block before it must have printed and logged.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import logging
import os
import re
import shlex
import subprocess
import tempfile
import traceback
from collections.abc import Coroutine, Generator
from datetime import UTC, datetime
from functools import partial
from inspect import isawaitable
from pathlib import Path
from random import Random
from typing import Any, Final, cast
from unittest import mock

from sybil import Example, Sybil
from sybil.evaluators.python import pad
from sybil.parsers.myst import CodeBlockParser

from kling_omni_async import KlingOmniSession
from kling_omni_async._book.book_clock import Clocks
from kling_omni_async._cli.app import app
from kling_omni_async._cli.options import with_action_first
from kling_omni_async.simulator import SimulatedCometAPI

from .virtual_clock import VirtualClockLoop

_PAGE: Final = "_page"
_PORT: Final = re.compile(r"127\.0\.0\.1:\d+")
_LOGGERS: Final = ("", "kling_omni_async")


class Page:
    """What the blocks of one page share besides their names.

    Attributes:
        said: What the last block printed and logged.
    """

    def __init__(self) -> None:
        self.said = ""
        self._ends = contextlib.ExitStack()
        self._stream = io.StringIO()
        self._log: dict[str, tuple[list[logging.Handler], int]] = {
            name: ([], logging.WARNING if not name else logging.NOTSET) for name in _LOGGERS
        }
        self.folder = Path(self._ends.enter_context(tempfile.TemporaryDirectory()))
        self._runner = self._ends.enter_context(asyncio.Runner(loop_factory=VirtualClockLoop))
        self._loop = self._runner.get_loop()
        self.api = SimulatedCometAPI(seed=1, epoch=datetime(2026, 1, 1, tzinfo=UTC))
        self._runner.run(self.api.start())
        self._variables = {"COMETAPI_KEY": self.api.api_key, "COMETAPI_BASE_URL": self.api.base_url}

    def run(self, code: Any, names: dict[str, Any]) -> None:
        """Run the compiled code of a block as if it stood in a program."""
        with self._as_a_program():
            result = eval(code, names)  # noqa: S307 - the pages are ours
            if isawaitable(result):
                self._runner.run(cast("Coroutine[Any, Any, None]", result))

    @contextlib.contextmanager
    def _as_a_program(self) -> Generator[None]:
        before = len(self._stream.getvalue())
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.chdir(self.folder))
            stack.enter_context(mock.patch.dict(os.environ, self._variables))
            stack.enter_context(mock.patch("kling_omni_async._wings.Random", partial(Random, 7)))
            stack.enter_context(mock.patch("asyncio.run", self._run_virtually))
            # A book in a file counts as the loop does that runs.
            clocks = partial(Clocks, since_boot=self._now)
            stack.enter_context(mock.patch("kling_omni_async._book.sqlite.Clocks", clocks))
            stack.enter_context(contextlib.redirect_stdout(self._stream))
            stack.enter_context(contextlib.redirect_stderr(self._stream))
            self._swap_log()
            stack.callback(self._swap_log)
            yield
        self.said = self._stream.getvalue()[before:]

    def _now(self) -> float:
        return self._loop.time()

    def _run_virtually(self, main: Coroutine[Any, Any, object]) -> object:
        """Run what a program hands to `asyncio.run`, in a loop of its own."""
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            own, self._loop = self._loop, runner.get_loop()
            try:
                return runner.run(main)
            finally:
                self._loop = own

    def _swap_log(self) -> None:
        """Exchange the settings of the log of this page for those of the tests, or back."""
        for name, (handlers, level) in self._log.items():
            logger = logging.getLogger(name)
            self._log[name] = (logger.handlers[:], logger.level)
            logger.handlers[:] = handlers
            logger.setLevel(level)

    def close(self, names: dict[str, Any]) -> None:
        """End what is still running."""
        with self._ends:
            for value in names.values():
                if isinstance(value, KlingOmniSession):
                    self._runner.run(value.aclose())
            self._runner.run(self.api.aclose())


def _set_up(names: dict[str, Any]) -> None:
    page = Page()
    names.update({"__name__": "__main__", "api": page.api, _PAGE: page})


def _tear_down(names: dict[str, Any]) -> None:
    names[_PAGE].close(names)


def _run_python(example: Example) -> None:
    source = pad(example.parsed, example.line + example.parsed.line_offset)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, example.path, "exec", flags=flags, dont_inherit=True)
    example.namespace[_PAGE].run(code, example.namespace)


def _compare_output(example: Example) -> str | None:
    """Compare a block ``output``; the simulator's port is another one each time."""
    page: Page = example.namespace[_PAGE]
    said = _PORT.sub("127.0.0.1:49152", page.said).strip("\n")
    shown = str(example.parsed).strip("\n")
    return None if said == shown else f"the page shows\n{shown}\nbut the block says\n{said}"


def _parse_shell(example: Example) -> str | None:
    """Let the shell read a block, and our command line each of its own commands; nothing runs."""
    text = str(example.parsed)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)  # noqa: S607 - the user's
    for line in text.replace("\\\n", " ").splitlines():
        for words in _commands(line):
            try:
                app.parse_args(with_action_first(words), print_error=False, exit_on_error=False)
            except Exception:  # noqa: BLE001 - whatever it says, the page is wrong
                return f"{line}\n{traceback.format_exc()}"
    return None


def _commands(line: str) -> Generator[list[str]]:
    """Give the arguments of each ``kling-omni`` in a line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;<>()"):
            if command and Path(command[0]).name == "kling-omni":
                yield command[1:]
            command = []
        else:
            command.append(word)


PAGES: Final = Sybil(
    parsers=[
        CodeBlockParser("python", _run_python),
        CodeBlockParser("output", _compare_output),
        CodeBlockParser("sh", _parse_shell),
    ],
    path=str(Path(__file__).parent.parent),
    patterns=["README.md", "docs/*.md"],
    setup=_set_up,
    teardown=_tear_down,
)
pytest_collect_file = PAGES.pytest()
