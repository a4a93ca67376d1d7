"""Work that blocks, such as that of a file system, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

import anyio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(work: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
    """Run work in a thread; a cancelled scope waits for its end: it may hold a file."""
    running = asyncio.get_running_loop().run_in_executor(None, work, *args)
    with anyio.CancelScope(shield=True):
        await asyncio.wait([running])
    return running.result()
