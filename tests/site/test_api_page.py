"""What a reader of the API page sees of signatures."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def signatures(site: Path) -> list[str]:
    """Give the signatures of the page as their text."""
    page = (site / "api.html").read_text("utf-8")
    found = re.findall(r'<dt class="sig sig-object py".*?</dt>', page, re.DOTALL)
    return [" ".join(unescape(re.sub(r"<[^>]+>", "", each)).split()) for each in found]


def test_defaults_are_values(signatures: list[str]) -> None:
    """Each default is what it is, not the source or the stand-in that a library keeps for it."""
    text = "\n".join(signatures)
    assert "interval: tuple[float, float] = (20.0, 30.0)" in text
    assert "raw: Mapping[str, Any] = {}" in text
    assert re.findall(r"attr_dict|NOTHING|Ellipsis|= \.\.\.|<object|<function", text) == []


@pytest.mark.parametrize(("verb", "classes"), [("wait", 2), ("watch", 1), ("poll", 1)])
def test_a_timeout_is_the_policys(signatures: list[str], verb: str, classes: int) -> None:
    """A verb has one signature in each class, which says that its time-out is the policy's."""
    found = [each for each in signatures if re.match(rf"(async )?{verb}\(", each)]
    assert len(found) == classes
    assert all("timeout: float | None = policy.timeout" in each for each in found)
