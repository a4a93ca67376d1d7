"""What a test found: the checks that all of them share, and the figures to show."""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs
import pytest

from kling_omni_async import TaskOutcome

from .batch import INTERVAL_S, assert_all_settled
from .record import Asked, assert_polite, shortest_pause

_FIRST_FAULT = re.compile(r"first (\w+(?: \([^)]+\))?): ")


@attrs.frozen
class Verdict:
    """The verdict on one test.

    Attributes:
        name: What the test is called.
        figures: Where its figures go.
        log: What was logged.
    """

    name: str
    figures: list[str]
    log: pytest.LogCaptureFixture

    @property
    def faults(self) -> set[str]:
        """Which kinds of fault were warned of so far."""
        return set(_FIRST_FAULT.findall(self.log.text))

    def check(
        self,
        outcomes: Sequence[TaskOutcome],
        *records: Sequence[Asked],
        interval_s: float = INTERVAL_S[0],
    ) -> None:
        """Require each id once and as the API has it, and no id asked for in its pause."""
        self.note(outcomes, records[0])
        assert_all_settled(outcomes)
        for asked in records:
            assert_polite(asked, interval_s=interval_s)

    def note(self, outcomes: Sequence[TaskOutcome], asked: Sequence[Asked]) -> None:
        """Keep the figures of a batch."""
        most = max(outcome.elapsed for outcome in outcomes)
        pause = f", shortest pause {shortest_pause(asked):.3f} s" if asked else ""
        self.figures.append(
            f"{self.name}: {len(outcomes)} ids out in {most:.1f} s, "
            f"{len(asked)} queries arrived{pause}; "
            f"warned of: {', '.join(sorted(self.faults)) or 'nothing'}"
        )
