"""Fixtures of the tests that need Chromium: a real page in a real browser.

Only ``nox -s browser`` runs them, or ``pytest tests/browser``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from .chromium import Chromium, Tab, running
from .folder import make_folder

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this folder out unless it, or something in it, was asked for."""
    folder = config.invocation_params.dir
    asked = [(folder / argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(HERE) for path in asked) else True


@pytest.fixture
def anyio_backend() -> str:
    """Take asyncio and its clock as they come."""
    return "asyncio"


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Generator[Chromium]:
    """Start the browser once."""
    with running(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the address of a gallery of forty tasks."""
    return make_folder(tmp_path_factory.mktemp("images") / "winter campaign").as_uri()


@pytest.fixture
async def tab(chromium: Chromium) -> AsyncGenerator[Tab]:
    """Give an empty tab that takes down what the page complains of."""
    async with chromium.tab() as tab:
        yield tab
