"""What the tests do otherwise while mutants are tried; `[tool.mutmut]` loads it as a plugin.

mutmut takes a mutant for killed where its process ends with 1, as it does where a test failed, and
also where it breaks for another reason: that is told apart here.
"""

from __future__ import annotations

import os
from typing import Final

import pytest
from hypothesis import Phase, settings

SUSPICIOUS: Final = 35
TIMED_OUT: Final = 36
"""How a process ends that mutmut shall call neither killed nor survived."""

# The smallest example that fails is of no use here, and looking for it takes most of the time.
settings.register_profile(
    "mutation",
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=30,
    phases=(Phase.explicit, Phase.generate),
)


WANTED: Final = pytest.StashKey[list[str]]()
"""The names of the tests that a mutant is tried with, the fast ones first."""


def pytest_configure(config: pytest.Config) -> None:
    """Collect the files of the tests: to look for two thousand tests one by one takes a second."""
    if of_a_mutant():
        config.stash[WANTED] = config.args
        config.args = list(dict.fromkeys(name.partition("::")[0] for name in config.args))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave those that are wanted, in their order; one that is not there is no verdict."""
    if of_a_mutant():
        found = {item.nodeid: item for item in items}
        items[:] = [found[name] for name in config.stash[WANTED]]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """End at the first test that fails; any may take too long on a busy machine."""
    if of_a_mutant() and report.failed:
        late = "from pytest-timeout" in report.longreprtext
        os._exit(TIMED_OUT if late else pytest.ExitCode.TESTS_FAILED)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(exitstatus: int) -> None:
    """End where none failed, or where they could not be run: tests that are not found fail too."""
    if of_a_mutant():
        os._exit(exitstatus if exitstatus == pytest.ExitCode.OK else SUSPICIOUS)


def of_a_mutant() -> bool:
    """Return whether this process tries a mutant; others see which tests there are."""
    return "__mutmut_" in os.environ.get("MUTANT_UNDER_TEST", "")
