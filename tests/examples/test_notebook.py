"""The notebook, run in a kernel as Jupyter runs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from .program import EXAMPLES

IDS = 13
FAILED = 1


@pytest.fixture
def notebook() -> Any:
    """Give the notebook as it is in git."""
    return nbformat.read(EXAMPLES / "progress.ipynb", as_version=4)  # type: ignore[no-untyped-call]


def texts_of(notebook: Any, kind: str) -> list[str]:
    """Give all that the cells show in one form."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]


def test_it_is_kept_without_what_it_showed(notebook: Any) -> None:
    """In git it has no outputs and no numbers of runs, so that a run changes nothing there."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)


def test_it_runs_to_its_end(notebook: Any, tmp_path: Path) -> None:
    """Each cell runs without a warning; the bar ends full, and an image is shown."""
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=50, resources=resources).execute()
    streams = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "name" in o]
    assert [output["name"] for output in streams] == ["stdout"]
    lines = streams[0]["text"].splitlines()
    assert len(lines) == IDS
    good = [line.endswith(": succeed, 2 images, 2 images saved") for line in lines]
    assert good.count(True) == IDS - FAILED
    assert lines[-1].endswith("Image pixel is invalid")
    (bar,) = texts_of(notebook, "text/html")
    assert "13 of 13: 12 succeeded, 1 failed, 0 unresolved" in bar
    assert len(texts_of(notebook, "image/png")) == 1


def test_the_program_of_the_readme_runs_in_a_notebook(tmp_path: Path) -> None:
    """With its last line as the comment there says, it prints the same three lines in a cell."""
    readme = (EXAMPLES.parents[1] / "README.md").read_text("utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    body, _, rest = program.partition("asyncio.run(main())  # in a notebook: ")
    cell = nbformat.v4.new_code_cell(body + rest)  # type: ignore[no-untyped-call]
    notebook = nbformat.v4.new_notebook(cells=[cell])  # type: ignore[no-untyped-call]
    where = {"metadata": {"path": str(tmp_path)}}  # where its images go
    NotebookClient(notebook, timeout=50, resources=where).execute()
    assert {output["name"] for output in cell.outputs} == {"stdout"}
    assert len("".join(output["text"] for output in cell.outputs).splitlines()) == 3
