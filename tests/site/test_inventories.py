"""Links to other projects: made where their inventories come, left out where they do not."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.web_server import serving

from .conftest import ROOT

NAMES = {
    "python": "collections.abc.AsyncIterable",
    "aiohttp": "aiohttp.ClientSession",
    "anyio": "anyio.CancelScope",
    "attrs": "attrs.evolve",
}


def fetched(folder: Path, sites: Mapping[str, str]) -> dict[str, Path]:
    """Call what ``conf.py`` calls, with little patience."""
    file = ROOT / "docs" / "inventories.py"
    spec = importlib.util.spec_from_file_location("inventories", file)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Path] = module.fetched(folder, sites, within_s=1.0)
    return found


def inventory(project: str, name: str) -> bytes:
    """Make the inventory of a project that has one class."""
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: 1\n"
    head += "# The remainder of this file is compressed using zlib.\n"
    return head.encode() + zlib.compress(f"{name} py:class 1 page.html#$ -\n".encode())


def test_names_of_others_become_links(tmp_path: Path) -> None:
    """Where inventories come, types in signatures lead to the sites of their projects."""
    served, built = tmp_path / "served", tmp_path / "built"
    for project, name in NAMES.items():
        (served / project).mkdir(parents=True)
        (served / project / "objects.inv").write_bytes(inventory(project, name))
    options = ("-q", "-n", "-W", "-E", "-D", "nb_execution_mode=off")
    with serving(served) as address:
        subprocess.run(
            [sys.executable, "-m", "sphinx", *options, ROOT / "docs", built],
            env={**os.environ, "DOCS_INVENTORIES": f"{address}{{name}}/"},
            check=True,
        )
    page = (built / "api.html").read_text("utf-8")
    for project in ("python", "aiohttp"):
        assert f'href="{address}{project}/page.html#{NAMES[project]}"' in page


def test_a_host_that_says_nothing_is_left(tmp_path: Path) -> None:
    """A silent host, a refused connection, a page instead of an inventory: no file, no error."""
    (tmp_path / "portal").mkdir()
    (tmp_path / "portal" / "objects.inv").write_text("<html>Log in</html>")
    with serving(tmp_path) as address, socket.create_server(("127.0.0.1", 0)) as silent:
        sites = {
            "silent": f"http://127.0.0.1:{silent.getsockname()[1]}/",
            "refused": "http://127.0.0.1:1/",
            "portal": f"{address}portal/",
            "missing": f"{address}missing/",
            "no URL": "nowhere",
        }
        assert fetched(tmp_path / "came", sites) == {}


def test_what_comes_is_kept(tmp_path: Path) -> None:
    """An inventory is written as it came."""
    (tmp_path / "objects.inv").write_bytes(inventory("x", "x.Y"))
    with serving(tmp_path) as address:
        (file,) = fetched(tmp_path / "came", {"x": address}).values()
    assert file.read_bytes() == inventory("x", "x.Y")
