"""The code of README and of the pages in docs is run too, by the tests."""

from __future__ import annotations

from tests.documents import pytest_collect_file

__all__ = ["pytest_collect_file"]
