"""The links of the built site."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .pages import dead_links, is_external, read


def test_no_link_is_dead(site: Path) -> None:
    """Each link, image, style and script of each page is there, and so is each fragment."""
    pages = read(site)
    assert len(pages) > 20
    assert dead_links(pages) == []


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    """A missing file and a missing fragment are named; what is there is not."""
    text = '<p id="here"><a href="#here"></a><a href="#gone"></a><a href="x.html"></a><img src="b">'
    (tmp_path / "a.html").write_text(text)
    (tmp_path / "b").touch()
    assert dead_links(read(tmp_path)) == ["a.html -> #gone", "a.html -> x.html"]


def test_external_links_are_https(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Links that leave the site are told, not followed: a test needs no network."""
    links = {link for page in read(site).values() for link in page.links if is_external(link)}
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *sorted(links), ""]))
    assert {link for link in links if not link.startswith("https://")} == set()
