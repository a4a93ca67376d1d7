"""Images of earlier runs, brought from the stores that have them into the store of this run."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Final

import attrs

from kling_omni_async._ids import quoted
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._saving.copies import Source, copy_images
from kling_omni_async._saving.stores import SavePlan, open_named
from kling_omni_async.errors import KlingOmniError, StorageError

from .journal import Entry
from .options import AT, Saving, place_of
from .results import Sink

_logger: Final = logging.getLogger("kling_omni_async.saver")


class Copies:
    """What another store has of the images that are to be in this one."""

    def __init__(self, sink: Sink, saving: Saving) -> None:
        self._sink = sink
        self._saving = saving
        self._open = cache(open_named)

    def may_have(self, task_id: str) -> bool:
        """Return whether the journal names a store that had the images of an id."""
        return self._saving.save is not None and task_id in self._sink.elsewhere

    async def try_out(self) -> None:
        """Try the store once, not with each image, or raise `ConfigurationError`."""
        await self._open(self._saving.save).try_out()

    async def bring(self, task_id: str) -> TaskOutcome | None:
        """Bring the images of an id, and return its outcome; None if they have to be fetched."""
        for entry in self._sink.recall_elsewhere(task_id):
            try:
                saved = await copy_images(entry.outcome, self._source_of(entry), self._plan())
            except KlingOmniError as error:
                _logger.info("images of task %s cannot be copied: %s", quoted(task_id), error)
            else:
                return attrs.evolve(entry.outcome, saved=saved, queries=0, elapsed=0.0)
        return None

    def _plan(self) -> SavePlan:
        saving = self._saving
        store = self._open(saving.save)
        return SavePlan(store, watermarked=saving.watermarked, overwrite=saving.overwrite)

    def _source_of(self, entry: Entry) -> Source:
        # A journal of an earlier version names no store: a directory is part of each key.
        name = entry.store or str(Path(entry.outcome.saved[0].key).parent)
        if "://" not in name:
            return self._open(name)
        url = name.partition(AT)[0]
        # It is opened as the environment says now: at another host another bucket has that name.
        if place_of(url, None) != name:
            raise StorageError(f"{name} cannot be reached from here", reason="store")
        return self._open(url)
