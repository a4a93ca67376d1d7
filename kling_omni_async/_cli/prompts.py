"""Prompts and what stands beside them: lines, CSV or JSON, each row an order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Final, cast

import attrs

from kling_omni_async._creating.files import digest_of_files
from kling_omni_async._ids import WHITE_SPACE, quoted, trimmed
from kling_omni_async._order import WIRE_NAMES, ImageOrder
from kling_omni_async.errors import ConfigurationError

from .exit import UsageError
from .id_rows import find_name, listed
from .inputs import read_whole
from .records import FaultyInputError, Record, RecordReader, TextReader
from .terminal import note

_TABLES: Final = frozenset({".csv", ".tsv"})
_SEVERAL: Final = "|"
_YES: Final = frozenset({"true", "yes", "1"})
_NO: Final = frozenset({"false", "no", "0"})


@attrs.frozen
class Prompt:
    """An order, and the line of the input that asks for it; 0 for the command line."""

    order: ImageOrder
    line: int = 0


def read_prompts(source: str, usual: Mapping[str, Any]) -> list[Prompt]:
    """Read the orders of a file, ``-`` for stdin; what a row leaves open is as usual.

    Raises:
        UsageError: It cannot be read, or a row is no order; it says which line, and what to do.
    """
    data = read_whole(source, "prompts")
    folder = Path() if source == "-" else Path(source).parent
    try:
        rows = list(_rows_of(source, data, folder))
        prompts = [_prompt(line, {**usual, **fields}) for line, fields in rows]
    except FaultyInputError as error:
        raise UsageError(f"cannot read prompts from {source}, line {error.line}: {error}") from None
    if not prompts:
        raise UsageError(f"no prompts in {source}")
    return prompts


def make_order(fields: Mapping[str, Any]) -> ImageOrder:
    """Make the order of a prompt of the command line, or raise `UsageError`."""
    try:
        return ImageOrder(**fields)
    except ConfigurationError as error:
        raise UsageError(in_words(error)) from None


def _prompt(line: int, fields: Mapping[str, Any]) -> Prompt:
    try:
        return Prompt(ImageOrder(**fields), line)
    except ConfigurationError as error:
        raise FaultyInputError(line, in_words(error)) from None


def digest_in_words(order: ImageOrder) -> str:
    """Return the digest of an order and its files, or raise `UsageError`."""
    try:
        return digest_of_files(order)
    except ConfigurationError as error:
        raise UsageError(in_words(error)) from None


def in_words(error: ConfigurationError) -> str:
    """Return what is wrong with an order, as options and columns name it."""
    return error.what.replace("ImageOrder.", "")


def _rows_of(source: str, data: bytes, folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = _text_of(data)
    is_json = text.lstrip(WHITE_SPACE)[:1] in {"[", "{"}
    if not is_json and PurePath(source).suffix.lower() not in _TABLES:
        yield from _lines_of(text)
        return
    reader = RecordReader(numbers=True)
    records = [*reader.feed(data), *reader.feed(b"", last=True)]
    columns = Columns(folder)
    if not is_json:
        header, records = records[:1], records[1:]
        names = header[0].cells if header else ()
        records = [_named(record, names) for record in records if any(map(trimmed, record.cells))]
        columns.require_prompt(1, names)
    for record in records:
        if record.names is None:
            yield record.line, {"prompt": trimmed(record.cells[0])}
        else:
            yield record.line, columns.fields_of(record, record.names)
    if columns.unknown:
        note(f"no column of an order: {listed(list(columns.unknown))}; passed over in {source}")


def _text_of(data: bytes) -> str:
    try:
        text = TextReader().feed(data, last=True)
    except UnicodeError:
        text = "\0"
    if "\0" in text:
        raise FaultyInputError(
            1, "not a text file in UTF-8 or UTF-16; save it as text or as CSV UTF-8"
        )
    return text


def _lines_of(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if (prompt := trimmed(line)) and prompt[0] != "#":
            yield number, {"prompt": prompt}


def _named(record: Record, names: Sequence[str]) -> Record:
    if len(record.cells) > len(names):
        raise FaultyInputError(
            record.line,
            f"{len(record.cells)} cells under {len(names)} columns; put a prompt with a comma "
            'between quotes: "a fox, red"',
        )
    cells = (*record.cells, *[""] * (len(names) - len(record.cells)))
    return Record(record.line, cells, tuple(names))


class Columns:
    """Which columns of an input are fields of an order."""

    def __init__(self, folder: Path) -> None:
        self.unknown: dict[str, None] = {}
        self._folder = folder
        self._names: tuple[str, ...] = ()
        self._at: dict[str, int] = {}

    def require_prompt(self, line: int, names: Sequence[str]) -> None:
        """Raise `FaultyInputError` where no column has prompts."""
        self._look_at(tuple(names))
        if "prompt" not in self._at:
            there = listed(names) or "nothing"
            raise FaultyInputError(
                line, f"no column 'prompt' here; there is {there}: name the columns in line 1"
            )

    def fields_of(self, record: Record, names: tuple[str, ...]) -> dict[str, Any]:
        """Return the fields that a row fills."""
        if names != self._names:
            self.require_prompt(record.line, names)
        fields: dict[str, Any] = {"prompt": ""}
        for field, at in self._at.items():
            if cell := trimmed(record.cells[at]):
                fields[field] = self._value(record.line, field, cell)
        return fields

    def _look_at(self, names: tuple[str, ...]) -> None:
        self._names, self._at = names, {}
        for field, words in _WORDS.items():
            found = [at for word in words if (at := find_name(word, names)) is not None]
            if found:
                self._at[field] = found[0]
        known = set(self._at.values())
        if len(self.unknown) < _MOST_UNKNOWN:
            self.unknown |= dict.fromkeys(
                name for at, name in enumerate(names) if at not in known and trimmed(name)
            )

    def _value(self, line: int, field: str, cell: str) -> object:
        try:
            value = _READ.get(field, str)(cell)
        except (ValueError, RecursionError):
            wanted = _WANTED[field]
            raise FaultyInputError(line, f"{field} cannot be {quoted(cell)}: {wanted}") from None
        return [_image(each, self._folder) for each in value] if field == "images" else value


_MOST_UNKNOWN: Final = 100


def _image(text: str, folder: Path) -> str | Path:
    return text if "://" in text else folder / text


def _texts(cell: str) -> list[str]:
    """Read several texts: with ``|`` between them, or as an array of JSON."""
    if not cell.startswith("["):
        return [text for each in cell.split(_SEVERAL) if (text := trimmed(each))]
    texts: list[Any] = json.loads(cell)
    if not all(isinstance(each, str) for each in texts):
        raise ValueError(cell)
    return texts


def _numbers(cell: str) -> list[int]:
    given: list[Any] = json.loads(cell) if cell.startswith("[") else cell.split(_SEVERAL)
    return [int(str(each)) for each in given]


def _flag(cell: str) -> bool:
    if (word := cell.lower()) in _YES | _NO:
        return word in _YES
    raise ValueError(cell)


def _number(cell: str) -> int | str:
    """Read a number; of what is none the order itself says what it must be."""
    return int(cell) if cell.isascii() and cell.isdigit() and len(cell) < _LONG else cell


def _object(cell: str) -> dict[str, Any]:
    found: object = json.loads(cell)
    if not isinstance(found, dict):
        raise ValueError(cell)  # noqa: TRY004 - one error for all that cannot be read
    return cast("dict[str, Any]", found)


_LONG: Final = 10
_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "images": _texts,
    "elements": _numbers,
    "n": _number,
    "series_amount": _number,
    "watermark": _flag,
    "extra": _object,
}
_WANTED: Final = {
    "images": 'write paths or URLs with | between them, or ["a.png", "b.png"]',
    "elements": "write whole numbers with | between them",
    "watermark": "write true or false",
    "extra": "write an object of JSON",
}
_WORDS: Final = {
    field: (field, field.removesuffix("s"), *([wire] if field != "key" else []))
    for field, wire in {**WIRE_NAMES, "extra": "extra"}.items()
}
"""Under which names a column is found."""
