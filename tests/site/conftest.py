"""Fixtures of the tests of the built site; only ``nox -s docs`` runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def site() -> Path:
    """Give the folder of the built site."""
    folder = ROOT / "docs" / "_build" / "html"
    assert (folder / "index.html").exists(), "build it first: nox -s docs"
    return folder
