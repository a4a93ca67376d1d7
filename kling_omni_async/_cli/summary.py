"""Outcomes by kind, and their counts."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

import attrs

from kling_omni_async import errors
from kling_omni_async._outcome import TaskOutcome

from .html import plural, size


class Kind(StrEnum):
    """How the polling of one id ended; the words stand in the plain output."""

    SUCCEEDED = "succeed"
    FAILED = "failed"
    NOT_FOUND = "not_found"
    NO_IMAGES = "no_images"
    TIMED_OUT = "timed_out"
    INVALID_ID = "invalid_id"
    NOT_SAVED = "not_saved"
    ERROR = "error"

    @property
    def settled(self) -> bool:
        """Whether polling the id again can give nothing new."""
        return self in _SETTLED


_SETTLED = frozenset({Kind.SUCCEEDED, Kind.FAILED, Kind.NOT_FOUND})

_BY_ERROR: dict[type[errors.KlingOmniError], Kind] = {
    errors.TaskFailedError: Kind.FAILED,
    errors.TaskNotFoundError: Kind.NOT_FOUND,
    errors.NoImagesError: Kind.NO_IMAGES,
    errors.PollTimeoutError: Kind.TIMED_OUT,
    errors.InvalidTaskIdError: Kind.INVALID_ID,
    errors.DownloadError: Kind.NOT_SAVED,
    errors.AssetExpiredError: Kind.NOT_SAVED,
    errors.StorageError: Kind.NOT_SAVED,
}

_IN_WORDS = {
    Kind.SUCCEEDED: "succeeded",
    Kind.FAILED: "failed",
    Kind.NOT_FOUND: "not found",
    Kind.NO_IMAGES: "without images",
    Kind.TIMED_OUT: "timed out",
    Kind.INVALID_ID: "not a task id",
    Kind.NOT_SAVED: "succeeded but not saved",
    Kind.ERROR: "other errors",
}


_UNSURE = frozenset({Kind.TIMED_OUT, Kind.NOT_SAVED, Kind.ERROR})


def style_of(kind: Kind) -> str:
    """Give the colour of a kind: ``unsure`` where polling again may help."""
    if kind is Kind.SUCCEEDED:
        return "good"
    return "unsure" if kind in _UNSURE else "bad"


def kind_of(outcome: TaskOutcome) -> Kind:
    """Tell the kind of an outcome."""
    if outcome.error is None:
        return Kind.SUCCEEDED
    return _BY_ERROR.get(type(outcome.error), Kind.ERROR)


@attrs.define
class Tally:
    """The counts of one run.

    Attributes:
        total: How many ids were asked for, without repeats.
        counts: How many ended how, those settled by an earlier run included.
        earlier: How many an earlier run had settled.
        images: How many images this run has saved or found saved.
        image_bytes: How many bytes they have.
    """

    total: int
    counts: Counter[Kind] = attrs.field(factory=Counter[Kind])
    earlier: int = 0
    images: int = 0
    image_bytes: int = 0

    def add(self, outcome: TaskOutcome) -> None:
        """Count an outcome."""
        self.counts[kind_of(outcome)] += 1
        self.images += len(outcome.saved)
        self.image_bytes += sum(image.size for image in outcome.saved)

    @property
    def done(self) -> int:
        """How many ids have ended."""
        return self.counts.total()

    @property
    def all_succeeded(self) -> bool:
        """Whether every id has ended well."""
        return self.counts[Kind.SUCCEEDED] == self.total

    def parts(self) -> str:
        """Give the counts that are not zero, such as ``180 succeeded, 15 failed``."""
        counts = [(self.counts[kind], _IN_WORDS[kind]) for kind in Kind]
        told = ", ".join(f"{count} {words}" for count, words in counts if count) or "nothing yet"
        return f"{told}; {self._saved()}" if self.images else told

    def _saved(self) -> str:
        return f"{plural(self.images, 'image', 'images')} saved, {size(self.image_bytes)}"

    def line(self) -> str:
        """Give the whole state as one line."""
        earlier = f"; {self.earlier} of them by an earlier run" if self.earlier else ""
        return f"{self.done} of {self.total} done: {self.parts()}{earlier}"
