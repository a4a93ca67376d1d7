"""Faults of images: those of any answer, and what only happens to files."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import Attribute, evolve, field, frozen
from attrs.validators import instance_of, optional

from ._answers import Answer
from ._checks import whole
from ._faults import Fault, packed, refuse
from ._image_answers import moved
from ._png import LEAST_BYTES

_PAGE = "<!doctype html><html><head><title>Sign in</title></head><body>Sign in</body></html>"
_ELSEWHERE = frozenset({"redirects", "redirect_to"})
_INSTEAD = frozenset({"body", "html", "size"})


def _check_url(_: object, attribute: Attribute[Any], url: str) -> None:
    if not url or not url.isprintable():
        raise ValueError(f"{attribute.name} must be a URL on one line, got {url!r}")


@frozen(kw_only=True)
class ImageFault(Fault):
    """What goes wrong with one download; nothing, as it stands."""

    _scope: ClassVar[frozenset[str]] = frozenset({"on", "index"})

    index: int | None = field(default=None, validator=optional(whole(0)))
    html: bool = False
    redirects: int = field(default=0, validator=whole(0))
    redirect_to: str | None = field(
        default=None, validator=optional([instance_of(str), _check_url])
    )
    size: int | None = field(default=None, validator=optional(whole(LEAST_BYTES)))

    def __attrs_post_init__(self) -> None:
        """Refuse arguments that contradict each other."""
        super().__attrs_post_init__()
        given = self._given() - self._scope - {"delay", "headers"}
        if given & _ELSEWHERE and len(given) > 1:
            refuse(*sorted(given))
        if len(given & _INSTEAD) > 1:
            refuse(*sorted(given & _INSTEAD))

    def hits(self, index: int) -> bool:
        """Tell whether it may happen to this image of a task."""
        return self.index in (None, index)

    def _substitute(self, truth: Answer) -> Answer:
        if self.redirect_to is not None:
            return moved(self.redirect_to)
        if self.html:
            return packed(_PAGE, self._chosen_status() or 200)
        if self.size is not None:
            return evolve(truth, status=self._chosen_status() or 200)
        return super()._substitute(truth)
