"""Where ids are read: files, which are read whole, and streams, which may never end."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import select
import stat
import sys
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from contextlib import aclosing, contextmanager
from pathlib import PurePath
from typing import Any, Final

from .exit import UsageError
from .id_rows import IdRow, IdRows, refuse_rounded
from .signals import waiting
from .terminal import note
from .units import plural

_PIECE_BYTES: Final = 1 << 16
_MOST_BYTES: Final = 1 << 28
_ENDINGS: Final = frozenset({".csv", ".json", ".jsonl", ".tsv", ".txt"})


def refuse_paths(words: Iterable[str], verb: str = "poll", what: str = "an id") -> None:
    """Raise `UsageError` for the name of a file where an id or a prompt is meant."""
    for word in words:
        named = PurePath(word).suffix.lower() in _ENDINGS and "://" not in word
        # Not a Path's: that one raises for what no path can hold.
        if named or (not word.isdecimal() and os.path.isfile(word)):  # noqa: PTH113
            raise UsageError(f"{word} is a file, not {what}: write {verb} --from {word}")


def require_ids(ids: Sequence[str], source: str | None, column: str | None, verb: str) -> None:
    """Raise `UsageError` where arguments name no ids, or something else than ids."""
    if not ids and source is None:
        raise UsageError("no ids: give some, or a file of them with --from")
    require_source(source, column)
    refuse_paths(ids, verb)


def require_source(source: str | None, column: str | None) -> None:
    """Raise `UsageError` for a column of no file."""
    if column is not None and source is None:
        raise UsageError("--column says where a file has its ids: give --from too")


class IdInput:
    """A file or a stream of ids that is open."""

    def __init__(self, source: str, rows: IdRows, file: io.RawIOBase) -> None:
        self.rows = rows
        # Anything else may wait for its writer, or never end.
        self.is_file = _is_regular(file)
        self._source = source
        self._file = file

    def read_all(self) -> list[IdRow]:
        """Read a file to its end.

        Raises:
            UsageError: It cannot be read, or a row has no id that can be meant.
        """
        rows: list[IdRow] = []
        with waiting(), _told(self._source):
            while piece := self._file.read(_PIECE_BYTES):
                rows += self.rows.feed(piece)
        rows += self._end()
        refuse_rounded(self._source, rows)
        return rows

    async def feed(self) -> AsyncGenerator[IdRow]:
        """Read a stream as far as ids are taken, and yield each as it comes.

        Raises:
            UsageError: As above; ids that came before it were yielded.
        """
        async with aclosing(self.pieces()) as pieces:
            async for rows in pieces:
                for row in rows:
                    yield row

    async def pieces(self) -> AsyncGenerator[list[IdRow]]:
        """Read a stream, and yield together what has come together.

        Raises:
            UsageError: As above.
        """
        if self._file.isatty():
            note("reading ids from the terminal, one a line; Ctrl-D ends them")
        while piece := await self._piece():
            yield self.rows.feed(piece)
        yield self._end()

    async def _piece(self) -> bytes:
        with _told(self._source):
            # In a thread that nobody waits for at the end: nothing can break it off.
            return await asyncio.get_running_loop().run_in_executor(None, _read, self._file)

    def _end(self) -> list[IdRow]:
        rows = self.rows.feed(b"", last=True)
        if not self.rows.count:
            raise UsageError(f"no ids in {self._source}")
        if self.rows.without_id:
            passed = plural(self.rows.without_id, "row", "rows")
            note(f"{passed} of {self._source} without an id, passed over")
        return rows


@contextmanager
def open_ids(
    source: str, column: str | None = None, *, with_cells: bool = True
) -> Generator[IdInput]:
    """Open a file of ids, ``-`` for stdin, or raise `UsageError`."""
    with _opened(source, "ids") as file:
        yield IdInput(source, IdRows(source, column, with_cells=with_cells), file)


def read_whole(source: str, what: str) -> bytes:
    """Read a file or a stream to its end, ``-`` for stdin, or raise `UsageError`."""
    data = bytearray()
    with _opened(source, what) as file:
        if file.isatty():
            note(f"reading {what} from the terminal, one a line; Ctrl-D ends them")
        with waiting(), _told(source, what):
            while piece := _read(file):
                data += piece
                if len(data) > _MOST_BYTES:
                    raise UsageError(
                        f"cannot read {what} from {source}: it has more than 256 MiB; part it"
                    )
    return bytes(data)


@contextmanager
def _opened(source: str, what: str) -> Generator[io.RawIOBase]:
    with _told(source, what):
        if source == "-":
            if sys.stdin is None:
                raise OSError(errno.EBADF, "stdin is closed")
            # Past the buffer, which would wait until it is full, and which Python locks at exit.
            file: Any = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        else:
            with waiting():  # a pipe is open only when it has a writer
                file = open(source, "rb", buffering=0)  # noqa: PTH123, SIM115 - /dev/stdin and the like need no Path
    try:
        yield file
    finally:
        if source != "-":
            file.close()


@contextmanager
def _told(source: str, what: str = "ids") -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read {what} from {source}: {error.strerror or error}") from None


def _is_regular(file: io.RawIOBase) -> bool:
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except io.UnsupportedOperation:
        return False


def _read(file: io.RawIOBase) -> bytes:
    """Read what there is, or wait until there is something."""
    # None: whoever shares it has said that reads are not to wait.
    while (piece := file.read(_PIECE_BYTES)) is None:
        select.select((file,), (), ())
    return piece
