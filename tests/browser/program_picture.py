"""Draw the gallery's picture for the docs: ``python -m tests.browser.program_picture FILE``."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from .chromium import running
from .folder import make_folder

_WIDTH = 1000
_HEIGHT = 1160


async def draw(profile: Path, url: str) -> bytes:
    """Give the picture of a page."""
    with running(profile) as chromium:
        async with chromium.tab() as tab:
            await tab.open(url, width=_WIDTH, height=_HEIGHT)
            await tab.ask("document.fonts.ready.then(() => true)")
            await tab.ask(
                "Promise.all([...document.querySelectorAll('.cards img')].slice(0, 20)"
                ".map((image) => image.decode()))"
            )
            return await tab.picture()


def main() -> None:
    """Write the file that the first argument names."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        page = make_folder(Path(name) / "winter campaign")
        picture = asyncio.run(draw(Path(name) / "profile", page.as_uri()))
    Path(sys.argv[1]).write_bytes(picture)


if __name__ == "__main__":
    main()
