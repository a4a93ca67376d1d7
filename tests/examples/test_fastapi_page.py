"""The page of the FastAPI backend, in a real browser."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from kling_omni_async.simulator import SimulatedCometAPI
from tests.browser import chromium
from tests.browser.chromium import Chromium, Tab

from .program import environment, running

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not any(map(shutil.which, chromium.PROGRAMS)),
        reason="the page of the backend is NOT LOOKED AT: no chromium here",
    ),
]

PICTURES = "EXAMPLES_PICTURES"
SAYS = "document.querySelector('output').textContent"
SIZES = "[...document.images].map((image) => image.naturalWidth)"
FITS = "document.documentElement.scrollWidth <= innerWidth"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[Chromium]:
    """Start the browser once."""
    with chromium.running(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
async def tab(browser: Chromium) -> AsyncGenerator[Tab]:
    """Give an empty tab that takes down what the page complains of."""
    async with browser.tab() as tab:
        yield tab


@pytest.fixture
async def url(comet_api: SimulatedCometAPI, tmp_path: Path) -> AsyncGenerator[str]:
    """Give the URL of the running backend."""
    env = {**environment(comet_api), "PORT": "0", "POLL_INTERVAL": "0.2"}
    async with running("fastapi_backend.py", env=env, folder=tmp_path) as program:
        yield await program.address()


async def keep_picture(tab: Tab, name: str) -> None:
    """Keep a picture for people, where the environment names a directory for them."""
    if folder := os.environ.get(PICTURES):
        (Path(folder) / f"{name}.png").write_bytes(await tab.picture())


@pytest.mark.parametrize("width", [400, 1400])
async def test_the_page_shows_the_progress_and_then_the_images(
    comet_api: SimulatedCometAPI, tab: Tab, url: str, width: int
) -> None:
    """An id is typed and sent; the status is told, then the images are there, all in view."""
    task_id = comet_api.create_task(duration=math.inf, images=3)
    await tab.open(url, width=width)
    for _ in range(3):  # over the prompt and its button
        await tab.press("Tab")
    await tab.type(task_id)
    tab._loaded.clear()
    await tab.press("Enter")
    await asyncio.wait_for(tab._loaded.wait(), timeout=30)
    await tab.until(f"['submitted', 'processing'].includes({SAYS})")
    assert await tab.ask("document.querySelector('progress').checkVisibility()") is True
    assert await tab.ask("document.images.length") == 0
    await keep_picture(tab, f"{width}-progress")
    comet_api.finish(task_id)
    await tab.until("document.images.length === 3")
    await tab.until(f"{SIZES}.every((width) => width > 0)")
    assert await tab.ask(SAYS) == "succeed"
    assert await tab.ask("document.querySelector('input[name=task]').value") == task_id
    assert await tab.ask(FITS) is True
    await keep_picture(tab, f"{width}-images")
    assert tab.complaints == []


async def test_the_page_says_why_there_are_no_images(
    comet_api: SimulatedCometAPI, tab: Tab, url: str
) -> None:
    """The reason of a failed task is text, markup and all; an unknown id is told too."""
    reason = "<img src=x onerror='window.ran = 1'>" + "unbroken" * 40
    task_id = comet_api.create_task(duration=0.0, fail=reason)
    await tab.open(f"{url}/?task={task_id}", width=400)
    await tab.until(f"{SAYS} === {'failed: ' + reason!r}".replace("\\'", "'"))
    assert await tab.ask("[document.images.length, typeof window.ran]") == [0, "undefined"]
    assert await tab.ask("document.querySelector('progress').checkVisibility()") is False
    assert await tab.ask(FITS) is True
    await tab.open(f"{url}/?task=nobody")
    await tab.until(f"{SAYS} === 'There is no such task.'")
    assert tab.complaints == []


async def test_the_page_takes_a_prompt(comet_api: SimulatedCometAPI, tab: Tab, url: str) -> None:
    """One task is created, and its image is shown when it is there."""
    await tab.open(url)
    await tab.press("Tab")
    await tab.type("a fox in the snow")
    await tab.press("Enter")
    await tab.until(f"['submitted', 'processing'].includes({SAYS})")
    (task,) = comet_api.billed
    comet_api.finish(task.task_id)
    await tab.until("document.images.length === 1")
