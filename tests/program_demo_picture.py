"""Draw what the demo writes, for the docs: ``python -m tests.program_demo_picture FILE``.

The picture brings no font and fetches none, and its window is dark on pages of any colour.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

COMMAND: Final = "kling-omni demo --save demo-images"
_PROMPT: Final = "$ "
_COLUMNS: Final = 96
_TEXT: Final = "{http://www.w3.org/2000/svg}text"
_NAME: Final = "kling-omni: "
_MASKS: Final = ((r"[0-9.]+ s\b", "N s"), (r"(look at the images: ).*", r"\1PAGE"))
_FORM: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" class="rich-terminal" viewBox="0 0 {width} {height}">
<style>
.{unique_id}-matrix {{
font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def written_by_demo(folder: Path) -> list[str]:
    """Run the demo in a folder; return the lines that it writes, as they come on a screen."""
    program = [sys.executable, "-m", "kling_omni_async", *COMMAND.split()[1:]]
    done = subprocess.run(
        program, cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout.splitlines()


def picture_of(lines: Iterable[str]) -> str:
    """Draw the command, and the lines below it."""
    console = Console(
        record=True, width=_COLUMNS, file=io.StringIO(), highlight=False, legacy_windows=False
    )
    console.print(Text(_PROMPT, "dim").append(COMMAND, "bold not dim"))
    for line in lines:
        text = Text(line, overflow="ignore", no_wrap=True)
        text.highlight_words([_NAME], "dim")
        text.highlight_words(["on purpose:"], "yellow")
        text.highlight_words(["everything came as scripted"], "bold green")
        console.print(text)
    return console.export_svg(
        title="no key needed", theme=MONOKAI, code_format=_FORM, unique_id="demo"
    )


def lines_in(picture: str) -> list[str]:
    """Return the lines that a picture shows, the command first."""
    rows: dict[float, list[tuple[float, str]]] = {}
    for element in ET.fromstring(picture).iter(_TEXT):  # noqa: S314 - our own file
        if "clip-path" in element.attrib:
            place = float(element.attrib["x"]), element.text or ""
            rows.setdefault(float(element.attrib["y"]), []).append(place)
    texts = ["".join(text for _, text in sorted(row)) for _, row in sorted(rows.items())]
    return [text.replace("\xa0", " ").rstrip() for text in texts if text.strip()]


def steady(lines: Iterable[str]) -> list[str]:
    """Return what is the same in each run: no progress, no times, no path, in a fixed order."""
    kept = [line.rstrip() for line in lines if " of 200 done: " not in line]
    for pattern, mask in _MASKS:
        kept = [re.sub(pattern, mask, line) for line in kept]
    return sorted(kept)


def main() -> None:
    """Write the file that the first argument names."""
    with tempfile.TemporaryDirectory() as name:
        picture = picture_of(written_by_demo(Path(name)))
    Path(sys.argv[1]).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
