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
