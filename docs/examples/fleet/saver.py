"""The reader of a fleet: it stores the images of each task, and says so.

It needs no key, only in BOOK_URL where the book is; IMAGES is where images are kept: a directory,
or ``s3://bucket/prefix`` with the extra ``storage``::

    python saver.py

An outcome is acknowledged when `tell` has returned. Until then it comes again, to this process or
to another: start as many of it as you like, and kill them at any moment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress

from kling_omni_async import TaskBook, TaskOutcome

logger = logging.getLogger("saver")


async def tell(outcome: TaskOutcome) -> None:
    """Do what is to be done with a task whose images are stored: here goes your own code."""
    if outcome.error is None:
        logger.info("%s has %s", outcome.note, [image.key for image in outcome.saved])
    else:
        logger.warning("%s has no images: %s", outcome.note, outcome.error)


async def main() -> None:
    """Store what comes out until SIGTERM, and then give back what is in hand."""
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    images = os.environ.get("IMAGES", "images")
    async with (
        TaskBook(os.environ["BOOK_URL"], name="shop") as book,
        book.outcomes(save_to=images) as outcomes,
    ):
        await outcomes.each(tell, limit=8)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    with suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(main())
