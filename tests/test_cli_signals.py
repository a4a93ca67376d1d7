"""Ctrl-C and SIGTERM, in this process."""

from __future__ import annotations

import asyncio
import signal

import pytest

from kling_omni_async._cli._signals import interruptible, run

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_cancels_once(number: signal.Signals) -> None:
    """The coroutine can clean up at leisure, then a KeyboardInterrupt comes out."""
    steps: list[str] = []

    async def work() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("clean")

    with pytest.raises(KeyboardInterrupt):
        run(work)
    assert steps == ["clean"]


def test_the_second_signal_does_not_wait() -> None:
    """A clean-up that hangs can be left by a second Ctrl-C."""

    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(work)


def test_a_result_comes_through() -> None:
    """Without a signal the coroutine's value is returned."""

    async def work() -> int:
        return 5

    assert run(work) == 5


@pytest.mark.parametrize("number", BOTH)
def test_outside_a_loop_a_signal_raises(number: signal.Signals) -> None:
    """Both signals interrupt plain code, even where they were ignored, and only for so long."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
