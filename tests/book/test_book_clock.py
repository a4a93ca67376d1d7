"""The time of a book in a file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kling_omni_async._book import book_clock
from kling_omni_async._book.book_clock import Anchor, BookClock, boot_id, since_boot

from .sqlite_support import Machine


def test_a_book_goes_by_the_clock_of_the_boot() -> None:
    """Whatever the wall clock does, a step within a boot sees the time that has passed."""
    machine = Machine()
    clock = BookClock(machine.clocks)
    anchor = clock.begin()
    machine.wall -= 3_600
    machine.since_boot += 5
    later = BookClock(machine.clocks)
    assert not later.follow(anchor, 1_000.0)
    assert later.now() == 1_005.0
    assert later.anchor() == Anchor("first", 0.0, 1_005.0, machine.wall)


@pytest.mark.parametrize("boots", [("first", "second"), ("", "")])
def test_after_a_boot_it_goes_by_the_wall_clock(boots: tuple[str, str]) -> None:
    """Also where nothing names a boot: then its clock has begun anew."""
    machine = Machine()
    machine.boot = boots[0]
    clock = BookClock(machine.clocks)
    anchor = clock.begin()
    machine.reboot(off_s=60)
    machine.boot = boots[1]
    later = BookClock(machine.clocks)
    assert later.follow(anchor, 1_000.0)
    assert later.now() == 1_060.0


def test_a_step_that_was_late_is_no_boot() -> None:
    """Two processes read the clock at nearly the same time, in any order."""
    machine = Machine()
    clock = BookClock(machine.clocks)
    anchor = clock.begin()
    machine.since_boot -= 0.001
    assert not clock.follow(anchor, 1_000.0)


def test_this_machine_has_clocks() -> None:
    """The boot has one name, and its clock goes on."""
    assert boot_id() == boot_id() != ""
    assert 0 < since_boot() <= since_boot()


def test_other_machines_have_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing names the boot, or counts from it, the monotonic clock does."""
    monkeypatch.setattr(book_clock, "_BOOT_ID", tmp_path / "missing")
    assert boot_id() == ""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert since_boot() == pytest.approx(time.clock_gettime(time.CLOCK_MONOTONIC), abs=60)
    monkeypatch.delattr(time, "CLOCK_MONOTONIC")
    assert since_boot() == pytest.approx(time.monotonic(), abs=60)
