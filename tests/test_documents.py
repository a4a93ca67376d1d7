"""README and docs: every block is of a kind that is checked, and what they link to is there.

The blocks themselves are run by ``documents.py``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import kling_omni_async
from kling_omni_async._cli.demo import table

from . import documents
from .cli.test_demo import SCRIPTED

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^ *(?:`{3,}|:{3,})(.+)$", re.MULTILINE)
CHECKED = {"python", "output", "sh"}
DATA = {"text", "toml"}  # nothing in them could be run
DIRECTIVE = re.compile(r"\{[a-z-]+\}.*")


def test_the_program_of_the_readme_runs(tmp_path: Path) -> None:
    """As a program of its own, in real time, it brings all three and leaves without a warning."""
    readme = (ROOT / "README.md").read_text("utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 3
    assert len(list(tmp_path.glob("images/*.png"))) == 6
    assert result.stderr == ""


def test_the_tutorial_shows_what_the_demo_prints() -> None:
    """The table on the page is the one that the demo prints when all goes well."""
    page = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
    assert f"```text\n{table(SCRIPTED, SCRIPTED)}\neverything came as scripted\n```" in page


def test_the_changelog_begins_with_this_version() -> None:
    """Under what is not released yet stand the versions with their days, the latest first."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    unreleased, *versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert unreleased == "[Unreleased]"
    names = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", each) for each in versions]
    assert all(names)
    assert names[0] is not None
    assert names[0][1] == kling_omni_async.__version__
    days = [name[2] for name in names if name is not None]
    assert days == sorted(days, reverse=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_block_is_of_a_known_kind(page: Path) -> None:
    """No block escapes the checks by a language that nobody runs."""
    kinds = {kind.strip() for kind in FENCE.findall(page.read_text("utf-8"))}
    assert {kind for kind in kinds - CHECKED - DATA if not DIRECTIVE.fullmatch(kind)} == set()


def evaluate(file: Path) -> None:
    """Run a page as pytest does."""
    page = documents.PAGES.parse(file)
    assert documents.PAGES.setup is not None
    assert documents.PAGES.teardown is not None
    documents.PAGES.setup(page.namespace)
    try:
        for block in page.examples():
            block.evaluate()
    finally:
        documents.PAGES.teardown(page.namespace)


GOOD = """\
```python
import logging

task_id = api.create_task(task_id="7")
async with KlingOmniSession() as session:
    print((await session.wait(task_id)).status)
logging.getLogger("kling_omni_async").warning("trouble")
```

```output
succeed
trouble
```

```sh
export COMETAPI_KEY=... && .venv/bin/kling-omni poll 1 2 --timeout 60 | sort
```
"""
IMPORTS = (
    "<!--- invisible-code-block: python\nfrom kling_omni_async import KlingOmniSession\n-->\n\n"
)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("succeed\n", "failed\n", "the block says"),
        ("trouble\n```\n\n```sh", "```\n\n```sh", "the block says"),
        ("session.wait", "session.await_", "await_"),
        ("--timeout", "--tiemout", "--tiemout"),
        ("| sort", "| (sort", "bash"),
    ],
)
def test_what_is_wrong_on_a_page_is_seen(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    """A page that is right passes; one wrong word in output, code or command does not."""
    page = tmp_path / "page.md"
    page.write_text(IMPORTS + GOOD)
    evaluate(page)
    assert right in GOOD
    page.write_text(IMPORTS + GOOD.replace(right, wrong))
    with pytest.raises(Exception, match=said):
        evaluate(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_linked_is_there(page: Path) -> None:
    """Each relative link leads to a file."""
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_layers_on_the_page_are_those_that_are_checked() -> None:
    """The figure of the architecture has the rows of import-linter's contract, in their order."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    figure = re.findall(r"```text\n(.*?)```", page, re.DOTALL)[0]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (layers,) = (
        contract["layers"]
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    assert [re.split(r" {2,}", row)[0] for row in figure.splitlines()] == layers
