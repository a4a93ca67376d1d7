"""A book in a file of SQLite: several processes of one host share it, and it outlives them."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar, TypeVarTuple

import attrs

from kling_omni_async.errors import BookError

from . import claims, entries, handing
from .book_clock import BookClock, Clocks
from .claims import WORKER_S
from .contract import (
    Addition,
    Desk,
    Found,
    Intent,
    Known,
    Lesson,
    Take,
    Taken,
    Turn,
    Turned,
)
from .reader_locks import Lives, lives_of
from .sqlite_backup import back_up
from .sqlite_file import SqliteFile
from .sqlite_shelf import MustWriteError, SqliteShelf
from .sqlite_thread import Lane, WorkThread

LOOK_S: Final = 0.25
"""How often it is asked whether other processes have changed a book, in s."""

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class _Reply(NamedTuple):
    """The last reply of a worker or a reader."""

    seq: int
    reply: Turned | Taken
    is_kept: bool  # its step has written something


def no_point(point: str) -> None:
    """Do nothing: tests end a process at the points between steps that matter."""


class SqliteStore:
    """A book in a file.

    Args:
        path: Of the file; it is made if it is missing.
        keep_s: How long an outcome stays after its end, in s.
        clocks: Those of the machine, but in tests.
        lives: What tells which readers live, which is by locks of the system, but in tests.
        at: Called in the thread of the file at each point where a crash may matter.
    """

    def __init__(
        self,
        path: Path,
        *,
        keep_s: float,
        clocks: Clocks | None = None,
        lives: Lives | None = None,
        at: Callable[[str], None] | None = None,
    ) -> None:
        self._keep_s = keep_s
        self._pid = os.getpid()
        self._clock = BookClock(clocks or Clocks())
        path = Path(os.path.realpath(path))  # one place for what lies beside it, whatever its names
        self._lives = lives or lives_of(path)
        self._file = SqliteFile(path, self._clock, self._lives, at or no_point)
        self._thread = WorkThread(self._file, f"kling_omni_async.book {path.name}")
        self._is_open = False
        self._replies: dict[str, _Reply] = {}
        self._seen: tuple[object, int] | None = None
        self._wake = asyncio.Event()

    async def open(self) -> None:
        self._thread.start()
        # A book that is forgotten, not closed. At the end of the program its thread ends anyway.
        weakref.finalize(self, self._thread.stop).atexit = False
        self._is_open = True
        try:
            await self._do(self._thread.calls, self._file.open)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the file, after what is under way."""
        if not self._is_open or self._pid != os.getpid():
            return
        self._is_open = False
        self._wake.set()
        closed = asyncio.get_running_loop().run_in_executor(self._thread.calls, self._file.close)
        self._thread.stop()
        await closed

    def clock(self) -> float:
        return self._clock.since_boot()

    # Steps.

    async def turn(self, turn: Turn) -> Turned:
        brings = turn.settles or turn.limits or turn.terms or turn.reserve or turn.is_leaving
        if not brings:
            with suppress(MustWriteError):
                return await self._do(self._thread.looks, self._turn, turn)
        lane = self._thread.news if brings else self._thread.steps
        reply = await self._do(lane, self._turn, turn)
        self._wake.set()
        return reply

    def _turn(self, turn: Turn) -> Turned:
        if isinstance(known := self._known(turn.worker, turn.seq), Turned):
            return known
        if self._is_late(turn.worker, turn.seq):
            return claims.late(self._shelf, self._clock.now())
        shelf, wall_s = self._shelf, self._clock.wall()
        reply = claims.turn(shelf, turn, self._clock.now(), wall_s=wall_s, keep_s=self._keep_s)
        self._keep(turn.worker, turn.seq, reply, is_leaving=turn.is_leaving)
        return reply

    async def take(self, take: Take) -> Taken:
        brings = take.receipts or take.is_leaving
        if not brings:
            with suppress(MustWriteError):
                return await self._do(self._thread.looks, self._take, take)
        lane = self._thread.news if brings else self._thread.steps
        reply = await self._do(lane, self._take, take)
        self._wake.set()
        return reply

    def _take(self, take: Take) -> Taken:
        if isinstance(known := self._known(take.reader, take.seq), Taken):
            return known
        if self._is_late(take.reader, take.seq):
            return Taken()
        self._lives.hold(take.reader)
        # A file loses no step, and one that only looked is not written down.
        take = attrs.evolve(take, after=0)
        reply = handing.take(self._shelf, take, self._clock.now(), keep_s=self._keep_s)
        self._keep(take.reader, take.seq, reply, is_leaving=take.is_leaving)
        if take.is_leaving:
            self._lives.release(take.reader)
        return reply

    def _is_late(self, name: str, seq: int) -> bool:
        """Whether a later step was made: one that only looked is not written down."""
        return name in self._replies and self._replies[name].seq > seq

    def _known(self, name: str, seq: int) -> Turned | Taken | None:
        """Return the reply to a step that was made before, if it was kept."""
        known = self._replies.get(name)
        if known is None or known.seq != seq:
            return None
        member = self._shelf.member(name)
        was_made = not known.is_kept or (member is not None and member.seq == seq)
        return known.reply if was_made else None

    def _keep(self, name: str, seq: int, reply: Turned | Taken, *, is_leaving: bool) -> None:
        if self._shelf.is_look:
            self._shelf.require_unchanged()  # else it is made in earnest, and answers anew
        if is_leaving:
            self._replies.pop(name, None)
        else:
            self._replies[name] = _Reply(seq, reply, is_kept=not self._shelf.is_look)

    async def add(self, additions: Sequence[Addition]) -> list[bool]:
        return await self._write(self._add, additions)

    def _add(self, additions: Sequence[Addition]) -> list[bool]:
        return entries.add(self._shelf, additions, self._clock.now(), self._clock.wall())

    async def remove(self, key: str) -> bool:
        return await self._write(self._with_key, entries.remove, key)

    async def retry(self, key: str) -> bool:
        return await self._write(self._with_key, entries.retry, key)

    async def nudge(self, key: str) -> bool:
        return await self._write(self._with_key, entries.nudge, key)

    def _with_key(self, step: Callable[[SqliteShelf, str, float], bool], key: str) -> bool:
        return step(self._shelf, key, self._clock.now())

    async def intend(self, intent: Intent) -> Known | None:
        return await self._write(self._intend, intent)

    def _intend(self, intent: Intent) -> Known | None:
        return entries.intend(self._shelf, intent, self._clock.now(), self._clock.wall())

    async def created(self, external_id: str, made: Addition | None) -> None:
        await self._write(self._created, external_id, made)

    def _created(self, external_id: str, made: Addition | None) -> None:
        now, wall_s = self._clock.now(), self._clock.wall()
        entries.created(self._shelf, external_id, made, now, wall_s)

    # Looks.

    async def find(self, key: str) -> Found | None:
        return await self._look(lambda: entries.find(self._shelf, key))

    async def progress(self) -> tuple[Desk, int]:
        return await self._look(self._progress)

    def _progress(self) -> tuple[Desk, int]:
        since = max(self._shelf.desk.clock, self._clock.now()) - WORKER_S
        members = self._shelf.members()
        workers = [each for each in members if each.kind == "worker" and each.heard >= since]
        return self._shelf.desk, len(workers)

    async def list(self, after: str, limit: int) -> list[Found]:
        return await self._look(lambda: self._shelf.found_after(after, limit))

    async def ended_after(self, number: int) -> tuple[int, Sequence[str]]:
        return await self._look(lambda: (self._shelf.desk.number, self._shelf.ended_after(number)))

    async def lessons_after(self, number: int) -> Sequence[Lesson]:
        return await self._look(lambda: self._shelf.lessons_after(number))

    async def backup(self, copy: Path) -> None:
        """Copy the book, as it is at one moment, to a path where nothing is."""
        self._require_usable()
        await asyncio.to_thread(back_up, self._file.path, copy)

    async def changed(self, timeout_s: float) -> None:
        """Wait until something may have changed; one caller at a time, who misses nothing."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while self._is_open and not await self._has_changed():
            left_s = until - loop.time()
            if left_s <= 0.0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, LOOK_S)):
                    await self._wake.wait()
            self._wake.clear()

    async def _has_changed(self) -> bool:
        before, self._seen = self._seen, await self._look(self._file.version)
        return before != self._seen

    # The thread.

    @property
    def _shelf(self) -> SqliteShelf:
        return self._file.shelf

    async def _look(self, work: Callable[[], R]) -> R:
        return await self._do(self._thread.looks, work)

    async def _write(self, work: Callable[[*Ts], R], *args: *Ts) -> R:
        result = await self._do(self._thread.news, work, *args)
        self._wake.set()
        return result

    async def _do(self, lane: Lane, work: Callable[[*Ts], R], *args: *Ts) -> R:
        self._require_usable()
        return await asyncio.get_running_loop().run_in_executor(lane, partial(work, *args))

    def _require_usable(self) -> None:
        if self._pid != os.getpid():
            raise BookError("this book was made before a fork; make one TaskBook in each process")
        if not self._is_open:
            raise BookError(f"the book {self._file.path} is closed; make another TaskBook")
