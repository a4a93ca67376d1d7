"""The records of an input of ids as they come: lines, CSV or JSON, in UTF-8 or UTF-16.

Bytes go in, records come out; nothing here reads or waits.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any, Final, Protocol, TypeAlias, cast

import attrs

from kling_omni_async._ids import WHITE_SPACE

LONGEST: Final = 1 << 20
"""Characters of one line or JSON value; what has no end is refused there."""

_BOM: Final = "\ufeff"
_COMMENT: Final = re.compile(r"(?:^|\s)#.*", re.DOTALL)
_QUOTED: Final = re.compile(r'"[^"]*"')
_DELIMITER: Final = re.compile(r"[,;\t]")
_TOLD_DELIMITER: Final = re.compile(rf'{_BOM}?"?sep=([,;\t|])"?', re.IGNORECASE)
"""A line that tells Excel, and is no row."""

_GAP: Final = re.compile(rf"[{WHITE_SPACE},\[\]]*")
# How near to its end a text that is cut anywhere may look wrong: within a word or an escape.
_LONGEST_WORD: Final = 10

Json: TypeAlias = "str | bool | list[Json] | dict[str, Json] | None"


class FaultyInputError(ValueError):
    """Raised when an input cannot be read on; the text goes behind the number of the line."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


@attrs.frozen
class Record:
    """One row of an input: the line where it begins, its cells, and in JSON their names."""

    line: int
    cells: tuple[str, ...]
    names: tuple[str, ...] | None = None


class _Format(Protocol):
    def feed(self, text: str, *, last: bool) -> list[Record]: ...


class RecordReader:
    """Turns the bytes of an input into records, each as soon as it is whole.

    With `numbers` those of JSON are numbers; else they stay text, as an id is not to be rounded.
    """

    def __init__(self, *, numbers: bool = False) -> None:
        self._numbers = numbers
        self._text = TextReader()
        self._start = ""
        self._line = 1
        self._format: _Format | None = None

    def feed(self, data: bytes, *, last: bool = False) -> list[Record]:
        """Return the records that end in the next piece of an input; the last may be empty.

        Raises:
            FaultyInputError: It cannot be read on.
        """
        try:
            text = self._text.feed(data, last=last)
        except UnicodeError:
            text = "\0"
        if "\0" in text:
            raise FaultyInputError(
                1, "not a text file in UTF-8 or UTF-16; save it as text or as CSV UTF-8"
            )
        if self._format is None:
            text = self._start = self._start + text
            if (form := self._choose()) is None:
                return []
            self._format, text, self._start = form, self._start, ""
        return self._format.feed(text, last=last)

    def _choose(self) -> _Format | None:
        """Choose a format by the first character that shows; the line that has it is kept whole."""
        start = self._start
        shown = start.lstrip(WHITE_SPACE)
        at = start.rfind("\n", 0, len(start) - len(shown)) + 1
        self._line += start.count("\n", 0, at)
        self._start = start[at:]
        if not shown:
            _check_length(self._start, self._line)
            return None
        if shown[0] in "[{":
            return JsonReader(self._line, numbers=self._numbers)
        return LineReader(self._line)


class TextReader:
    """Decodes pieces of bytes; every kind of line end becomes a line feed."""

    def __init__(self) -> None:
        self._held = b""
        self._decoder: io.IncrementalNewlineDecoder | None = None

    def feed(self, data: bytes, *, last: bool) -> str:
        """Return the text of the next piece; raise UnicodeError for what is none."""
        if self._decoder is None:
            data = self._held = self._held + data
            if len(data) < 2 and not last:  # noqa: PLR2004 - a byte order mark has two
                return ""
            decoder = codecs.getincrementaldecoder(_encoding_of(data))()
            self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        return self._decoder.decode(data, final=last)


def _encoding_of(start: bytes) -> str:
    """Return the encoding of a text by its first two bytes."""
    if start[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
        return "utf-16"
    # Without a mark: of what ids begin with, UTF-16 makes a byte and a zero.
    first, second = bool(start[:1].strip(b"\0")), bool(start[1:2].strip(b"\0"))
    if len(start) < 2 or first == second:  # noqa: PLR2004 - as above
        return "utf-8"
    return "utf-16-le" if first else "utf-16-be"


def without_comment(text: str) -> str:
    """Return a text without the comment behind it, and without white space around it."""
    return _COMMENT.sub("", text).strip(WHITE_SPACE)


class LineReader:
    """Reads plain lines and CSV; blank lines and comments are passed over between records."""

    def __init__(self, line: int = 1) -> None:
        self._line = line  # the number of the first line that is held
        self._held: list[str] = []
        self._rest = ""
        self._delimiter: str | None = None
        self._ran_out = False

    def feed(self, text: str, *, last: bool) -> list[Record]:
        """Return the records that are whole by now."""
        lines = (self._rest + text).split("\n")
        self._rest = "" if last else lines.pop()
        self._held += lines
        _check_length(self._rest, self._line + len(self._held))
        if self._delimiter is None:
            self._delimiter = _delimiter_of(self._held)
        records: list[Record] = []
        done = 0
        while done < len(self._held) and (end := self._end_of(done, records, last=last)):
            done = end
        del self._held[:done]
        self._line += done
        return records

    def _end_of(self, at: int, records: list[Record], *, last: bool) -> int | None:
        """Read the record that begins at a line; return the line behind it, None if not whole."""
        line = self._held[at]
        if line.isalnum():  # nearly all of them, at a fraction of the price
            records.append(Record(self._line + at, (line,)))
            return at + 1
        if line.lstrip(WHITE_SPACE)[:1] in {"", "#"} or _TOLD_DELIMITER.fullmatch(line):
            return at + 1
        self._ran_out = False
        rows = csv.reader(
            self._lines_from(at), delimiter=self._delimiter or ",", skipinitialspace=True
        )
        try:
            cells = next(rows)
        except csv.Error as error:
            raise FaultyInputError(self._line + at, str(error)) from None
        if self._ran_out and last:
            raise FaultyInputError(self._line + at, "a quote begins here and does not end")
        if self._ran_out:
            return None
        records.append(Record(self._line + at, tuple(cells)))
        return at + rows.line_num

    def _lines_from(self, at: int) -> Iterator[str]:
        yield f"{self._held[at].lstrip(_BOM)}\n"
        for number in range(at + 1, len(self._held)):
            yield f"{self._held[number]}\n"
        # Asked for more lines than there are: a quote is still open.
        self._ran_out = True


def _delimiter_of(lines: list[str]) -> str | None:
    """Return what stands between cells, by the first line that has any; None if none has come."""
    for line in lines:
        if told := _TOLD_DELIMITER.fullmatch(line):
            return told[1]
        if shown := _COMMENT.sub("", line).rstrip(WHITE_SPACE):
            found = _DELIMITER.search(_QUOTED.sub("", shown))
            return found[0] if found else ","
    return None


class JsonReader:
    """Reads JSON lines, values one after another, or an array of them."""

    def __init__(self, line: int = 1, *, numbers: bool = False) -> None:
        self._line = line
        self._text = ""
        self._open = 0  # brackets
        # Numbers stay text: an id is not to be rounded, nor a long one to be reckoned with.
        as_text = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
        self._decoder = json.JSONDecoder() if numbers else as_text

    def feed(self, text: str, *, last: bool) -> list[Record]:
        """Return the records that are whole by now."""
        self._text += text
        records: list[Record] = []
        at = self._skip(0)
        while at < len(self._text):
            end = self._end_of(at, records, last=last)
            if end is None:
                break
            self._line += self._text.count("\n", at, end)
            at = self._skip(end)
        self._text = self._text[at:]
        if last and self._open:
            raise FaultyInputError(self._line, "the JSON array ends too early; it was cut off")
        return records

    def _skip(self, at: int) -> int:
        """Pass over what stands between values, and count it."""
        found = _GAP.match(self._text, at)
        gap = found[0] if found else ""
        self._line += gap.count("\n")
        self._open += gap.count("[") - gap.count("]")
        return at + len(gap)

    def _end_of(self, at: int, records: list[Record], *, last: bool) -> int | None:
        """Read the value that begins at a place, and return its end; None if it is not whole."""
        text = self._text
        try:
            value, end = cast("tuple[Json, int]", self._decoder.raw_decode(text, at))
        except json.JSONDecodeError as error:
            if last or _is_wrong(error):
                raise FaultyInputError(self._line, f"no JSON ({error.msg})") from None
            _check_length(text[at:], self._line)
            return None
        except (RecursionError, ValueError):  # the latter for a number of too many digits
            raise FaultyInputError(self._line, "no JSON (too deep, or a number too long)") from None
        if text[end - 1] not in '}"' and not self._ends_word(end, last=last):
            return None
        records.append(self._record(value))
        return end

    def _ends_word(self, end: int, *, last: bool) -> bool:
        """Return whether a number or a word is whole; it has no sign of its own for that."""
        rest = len(self._text) - end
        if (last and not rest) or _GAP.fullmatch(self._text[end : end + 1] or "?"):
            return True
        if last or rest > _LONGEST_WORD:
            raise FaultyInputError(self._line, "no JSON (an odd number)")
        return False

    def _record(self, value: Json) -> Record:
        if isinstance(value, str):
            return Record(self._line, (value,))
        if not isinstance(value, dict):
            raise FaultyInputError(self._line, "neither an id nor an object with one")
        inner = value.get("data")
        if isinstance(inner, dict):  # an answer of the API as it came
            value = {**inner, **{name: value[name] for name in value if name != "data"}}
        return Record(self._line, tuple(map(_cell, value.values())), tuple(value))


def _is_wrong(error: json.JSONDecodeError) -> bool:
    """Return whether more text cannot make a text right that is no JSON."""
    cut = error.msg.startswith("Unterminated") or error.pos > len(error.doc) - _LONGEST_WORD
    return not cut


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _check_length(text: str, line: int) -> None:
    if len(text) > LONGEST:
        raise FaultyInputError(line, f"longer than {LONGEST:,} characters; give one id a line")
