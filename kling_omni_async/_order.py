"""What is wanted of a create: a wish, checked before any money is at stake."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import sys
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import attrs

from .errors import ConfigurationError

LONGEST_PROMPT: Final = 2_500
MOST_REFERENCES: Final = 10
"""Of images and elements together."""

MOST_IMAGE_BYTES: Final = 10 * 1_048_576
OLDER_MODEL: Final = "kling-image-o1"
"""What the API takes where no model is named."""

NEWER_MODEL: Final = "kling-v3-omni"
RESOLUTIONS: Final = ("1k", "2k", "4k")
RESULT_TYPES: Final = ("single", "series")
RATIOS: Final = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9", "auto")

ImageSource: TypeAlias = "str | Path | bytes"
"""A URL, a file, or the bytes of an image."""

_IMAGE_KINDS: Final = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpg"))
_MODEL = re.compile(r"kling-[a-z0-9.-]{1,60}")
_WEB_URL = re.compile(r"https?://[^\s/?#]+[^\s]*", re.IGNORECASE)
_SHOWN_PROMPT: Final = 60
_SHOWN_VALUE: Final = 80
_SHOWN_DIGEST: Final = 16
_SHORTEST_SECRET: Final = 8


class Shown(str):
    """What stands in an order read from JSON in place of what JSON does not hold."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def image_kind(image: bytes) -> str | None:
    """Return ``png`` or ``jpg`` by the first bytes of an image, or None for anything else."""
    return next((kind for mark, kind in _IMAGE_KINDS if image.startswith(mark)), None)


def require_image(field: str, image: bytes) -> bytes:
    """Return the bytes of an image if the API may take them."""
    if image_kind(image) is None:
        raise ConfigurationError(f"{field} is no image: the API takes jpg and png; convert it")
    if len(image) > MOST_IMAGE_BYTES:
        size = f"{len(image) / 1e6:.1f} MB"
        raise ConfigurationError(f"{field} has {size}: the API takes 10 MB; make it smaller")
    return image


Check: TypeAlias = "Callable[[Any, attrs.Attribute[Any], Any], None]"


def _refuse(field: str, value: object, rule: str) -> ConfigurationError:
    return ConfigurationError(f"ImageOrder.{field} must be {rule}, not {_quoted(value)}")


def _quoted(value: object) -> str:
    if (content := _bytes(value)) is not None:
        return f"{len(content)} bytes"
    try:
        return repr(value)[:_SHOWN_VALUE]
    except Exception:  # noqa: BLE001 - such as an int of more digits than Python writes
        return f"such a value of {type(value).__name__}"


def _bytes(value: object) -> bytes | None:
    is_bytes = isinstance(value, bytes | bytearray | memoryview)
    return bytes(cast("bytes", value)) if is_bytes else None


def _must(rule: str, fits: Callable[[Any], bool]) -> Check:
    """Make the check of a field that may be None."""

    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None and not fits(value):
            raise _refuse(attribute.name, value, rule)

    return check


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and _is_unicode(value)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, of which no JSON can be made
        return False
    return True


def is_prompt(value: object) -> bool:
    """Whether a value is a prompt."""
    return isinstance(value, str) and _is_text(value) and len(value) <= LONGEST_PROMPT


def is_whole(value: object, least: int, most: int) -> bool:
    """Whether a value is a whole number in a range; a bool is none."""
    return type(value) is int and least <= value <= most


def is_count(value: object) -> bool:
    """Whether a value says how many images are wanted."""
    return is_whole(value, 1, 9)


def is_amount(value: object) -> bool:
    """Whether a value says how many images a series has."""
    return value == "auto" if isinstance(value, str) else is_whole(value, 2, 9)


def is_element(value: object) -> bool:
    """Whether a value is the id of an element."""
    return is_whole(value, 0, 2**63 - 1)


def _one_of(words: tuple[str, ...]) -> Check:
    return _must(f"one of {', '.join(words)}", lambda value: value in words)


def _a_prompt(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not is_prompt(value):
        is_long = isinstance(value, str) and len(value) > LONGEST_PROMPT
        shown = f"one of {len(value):,}" if is_long else value
        raise _refuse(attribute.name, shown, f"a text of 1 to {LONGEST_PROMPT:,} characters")


def _a_callback(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    # Its value is not shown: a secret path makes a callback's URL one that nobody guesses.
    if value is not None and not isinstance(value, Shown) and not _is_url(value):
        raise ConfigurationError(
            f"ImageOrder.{attribute.name} must be a URL that begins with https:// or http://"
        )


def _is_url(value: object) -> bool:
    return isinstance(value, str) and _is_unicode(value) and bool(_WEB_URL.fullmatch(value))


_Picture: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview"


def _images(images: Iterable[_Picture]) -> tuple[ImageSource, ...]:
    given: object = images
    if isinstance(given, str | bytes | bytearray | memoryview | os.PathLike):
        raise ConfigurationError("ImageOrder.images takes a list, also of one: write images=[…]")
    return tuple(
        _image(f"ImageOrder.images[{index}]", image) for index, image in _listed("images", given)
    )


def _image(field: str, given: object) -> ImageSource:
    kind = type(given).__name__
    if (content := _bytes(given)) is not None:
        return require_image(field, content)
    if isinstance(given, str):
        if isinstance(given, Shown) or _is_url(given):
            return given
        raise ConfigurationError(
            f"{field} must be a URL, a path or bytes: write Path('fox.png') for a file, "
            "and the bytes themselves instead of base64"
        )
    if isinstance(given, os.PathLike):
        path = os.fspath(cast("os.PathLike[str] | os.PathLike[bytes]", given))
        if isinstance(path, str):
            return Path(path)
    raise ConfigurationError(f"{field} must be a URL, a path or bytes, not {kind}")


def _elements(given: Iterable[int]) -> tuple[int, ...]:
    elements: tuple[object, ...] = tuple(element for _, element in _listed("elements", given))
    if not all(map(is_element, elements)):
        raise _refuse("elements", elements, "a list of whole numbers")
    return cast("tuple[int, ...]", elements)


def _listed(field: str, given: object) -> Iterable[tuple[int, object]]:
    error = _refuse(field, given, "a list")
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise error
    return enumerate(cast("Iterable[object]", given))


def _extra(given: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the parameters of tomorrow, so that nobody changes them any more."""
    extra = _mapping(given)
    for name in extra:
        if not isinstance(name, str) or name in _TAKEN:
            raise ConfigurationError(
                f"ImageOrder.extra must not name {_quoted(name)}: {_instead(name)}"
            )
    try:
        json.dumps(extra, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError):
        raise ConfigurationError(
            "ImageOrder.extra must be what JSON can carry: texts, finite numbers, true, false, "
            "None, lists and dicts"
        ) from None
    return copy.deepcopy(cast("dict[str, Any]", extra))


def _mapping(given: object) -> dict[object, Any]:
    error = _refuse("extra", given, "a mapping of parameters that have no field")
    if not isinstance(given, Mapping):
        raise error
    return dict(cast("Mapping[object, Any]", given))


def _instead(name: object) -> str:
    field = _TAKEN.get(name) if isinstance(name, str) else None
    return f"it has a field, write {field}=" if field else "its names are texts, of no field"


# Eleven wishes of the API's documentation, a name of our own, and a door to tomorrow.
@attrs.frozen(repr=False)
class ImageOrder:
    """What is wanted of a create; one that the API's documentation forbids cannot be made.

    A bad value raises `ConfigurationError` that names its field. None is not sent: the API has
    its own default then. What the documentation does not say is left to the API.

    Attributes:
        prompt: What is to be seen, at most 2,500 characters. It names its inputs
            ``<<<image_1>>>`` and ``<<<element_1>>>``.
        model: ``kling-image-o1``, the API's default, or ``kling-v3-omni``.
        images: Pictures to start from: URLs, which are sent as they are; paths, which are read
            when the order is sent; or bytes. Files and bytes are jpg or png of at most 10 MB.
        elements: Ids of elements; images and elements are 10 together at most.
        resolution: ``1k``, ``2k`` or, of ``kling-v3-omni``, ``4k``.
        n: How many images, 1 to 9; each holds a place of the account's concurrency.
        result_type: ``single`` or, of ``kling-v3-omni`` with images, ``series``.
        series_amount: How many images a series has, 2 to 9 or ``auto``.
        aspect_ratio: Such as ``16:9``, or ``auto``.
        watermark: Whether copies with a watermark are made too.
        callback_url: Where the API says that the status has changed.
        key: Your own name for this wish, such as ``invoice-42/1``, by which it is created only
            once: a second create with it gives the task of the first. It is not sent itself.
        extra: Parameters that have no field yet. They count for ``==`` and not for the hash.
    """

    prompt: str = attrs.field(validator=_a_prompt)
    model: str | None = attrs.field(
        default=None,
        kw_only=True,
        validator=_must(
            f"{OLDER_MODEL}, {NEWER_MODEL} or a later one, 'kling-…'",
            lambda value: isinstance(value, str) and _MODEL.fullmatch(value) is not None,
        ),
    )
    images: tuple[ImageSource, ...] = attrs.field(default=(), kw_only=True, converter=_images)
    elements: tuple[int, ...] = attrs.field(default=(), kw_only=True, converter=_elements)
    resolution: str | None = attrs.field(default=None, kw_only=True, validator=_one_of(RESOLUTIONS))
    n: int | None = attrs.field(
        default=None,
        kw_only=True,
        validator=_must("a whole number from 1 to 9", is_count),
    )
    result_type: str | None = attrs.field(
        default=None, kw_only=True, validator=_one_of(RESULT_TYPES)
    )
    series_amount: int | str | None = attrs.field(
        default=None,
        kw_only=True,
        validator=_must("a whole number from 2 to 9, or 'auto'", is_amount),
    )
    aspect_ratio: str | None = attrs.field(default=None, kw_only=True, validator=_one_of(RATIOS))
    watermark: bool | None = attrs.field(
        default=None,
        kw_only=True,
        validator=_must("True or False", lambda value: isinstance(value, bool)),
    )
    callback_url: str | None = attrs.field(default=None, kw_only=True, validator=_a_callback)
    key: str | None = attrs.field(
        default=None, kw_only=True, validator=_must("a text that is not blank, or None", _is_text)
    )
    extra: Mapping[str, Any] = attrs.field(
        factory=dict[str, Any], kw_only=True, converter=_extra, hash=False
    )

    def __attrs_post_init__(self) -> None:
        """Refuse what the documentation forbids together."""
        references = len(self.images) + len(self.elements)
        if references > MOST_REFERENCES:
            names = "images and elements" if self.images else "elements and images"
            raise ConfigurationError(
                f"ImageOrder.{names} are {references} together; the API takes {MOST_REFERENCES}"
            )
        if self.model in {None, OLDER_MODEL}:
            self._require_newer("resolution", self.resolution == "4k")
            self._require_newer("result_type", self.result_type == "series")
        if not references and self.model == NEWER_MODEL:
            self._require_references("result_type", self.result_type == "series")
            self._require_references("aspect_ratio", self.aspect_ratio == "auto")

    def _require_newer(self, field: str, is_chosen: bool) -> None:  # noqa: FBT001 - private
        if is_chosen:
            raise ConfigurationError(
                f"ImageOrder.{field} can be {getattr(self, field)!r} only with a newer model: "
                f"write model={NEWER_MODEL!r}"
            )

    def _require_references(self, field: str, is_chosen: bool) -> None:  # noqa: FBT001 - private
        if is_chosen:
            raise ConfigurationError(
                f"ImageOrder.{field} can be {getattr(self, field)!r} only with images to start "
                "from: write images=[…]"
            )

    def __repr__(self) -> str:
        prompt = self.prompt
        if len(prompt) > _SHOWN_PROMPT:
            prompt = prompt[:_SHOWN_PROMPT] + "…"
        given = (f", {name}={_in_repr(name, value)}" for name, value in _given(self))
        return f"ImageOrder({prompt!r}{''.join(given)})"

    @property
    def slots(self) -> int:
        """How many places of the account's concurrency its task holds."""
        return self.n or 1


def require_order(given: object) -> ImageOrder:
    """Return what was given if it is an order."""
    if isinstance(given, ImageOrder):
        return given
    text = _quoted(given) if isinstance(given, str) else "'a fox'"
    raise ConfigurationError(
        f"an order is an ImageOrder, not {type(given).__name__}; write ImageOrder({text})"
    )


CALLBACK_S: Final = 60.0
"""How long the first query of a task whose order has a callback waits for that, in s."""


def expected_s(order: ImageOrder, given_s: float | None) -> float | None:
    """Return how long a first query waits for a callback, in s, or None where none is expected."""
    if given_s is not None:
        return given_s
    return None if order.callback_url is None else CALLBACK_S


Orders: TypeAlias = "Iterable[ImageOrder] | AsyncIterable[ImageOrder]"


def require_orders(orders: object) -> Orders:
    """Return what was given if it can be many orders."""
    kind = type(orders).__name__
    if isinstance(orders, ImageOrder | str | bytes | Mapping) or not isinstance(
        orders, Iterable | AsyncIterable
    ):
        raise ConfigurationError(
            "generate_many takes an iterable or async iterable of orders, not "
            f"{kind}; for a single one write generate_many([ImageOrder(…)])"
        )
    return cast("Orders", orders)


def require_max_tasks(given: object) -> int | None:
    """Return a ceiling of places, if it is one."""
    if given is None or is_whole(given, 1, sys.maxsize):
        return cast("int | None", given)
    raise ConfigurationError(
        f"max_tasks must be a whole number of 1 or more, or None, not {_quoted(given)}"
    )


_FIELDS: Final = tuple(field.name for field in attrs.fields(ImageOrder) if field.name != "prompt")
WIRE_NAMES: Final[Mapping[str, str]] = {
    "prompt": "prompt",
    "model": "model_name",
    "images": "image_list",
    "elements": "element_list",
    "resolution": "resolution",
    "n": "n",
    "result_type": "result_type",
    "series_amount": "series_amount",
    "aspect_ratio": "aspect_ratio",
    "watermark": "watermark_info",
    "callback_url": "callback_url",
    "key": "external_task_id",
}
"""What each field is called in a body; of `key` the external id is made."""

_TAKEN: Final[Mapping[str, str]] = {
    **{field: field for field in WIRE_NAMES},
    **{wire: field for field, wire in WIRE_NAMES.items()},
    "extra": "extra",
}


def _given(order: ImageOrder) -> Iterable[tuple[str, Any]]:
    """Return what was said of an order beside its prompt."""
    for name in _FIELDS:
        value = getattr(order, name)
        if value not in (None, (), {}):
            yield name, value


# Shown.


def _in_repr(name: str, value: Any) -> str:
    if name == "images":
        shown = (_shown(image) if isinstance(image, bytes | str) else image for image in value)
        return f"[{', '.join(map(repr, shown))}]"
    if name == "callback_url":
        return repr(_host_of(value))
    return repr(dict(value))[:_SHOWN_VALUE] if name == "extra" else repr(value)


def _shown(image: bytes | str) -> Shown | str:
    """Return what a log may hold of an image: no bytes, and no signature of a URL."""
    if isinstance(image, str):
        scheme, _, rest = image.partition("?")[0].partition("://")
        host, slash, path = rest.partition("/")
        return image if isinstance(image, Shown) else f"{scheme}://{_bare(host)}{slash}{path}"
    size = len(image)
    amount = f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"  # noqa: PLR2004
    digest = hashlib.sha256(image).hexdigest()[:_SHOWN_DIGEST]
    return Shown(f"<{amount} {image_kind(image)} sha256:{digest}>")


def _bare(host: str) -> str:
    return host.rpartition("@")[2]


def _host_of(url: str) -> Shown:
    """Return of a callback's URL the host alone: its path may be a secret."""
    if isinstance(url, Shown):
        return url
    return Shown(_bare(re.split(r"[/?#]", url.partition("://")[2])[0]))


def secret_of_callback(order: ImageOrder) -> str | None:
    """Return what nobody may see of the URL of an order's callback, behind its host."""
    url = order.callback_url
    if url is None:
        return None
    behind = url.partition("://")[2].lstrip("/")
    path = behind[len(re.split(r"[/?#]", behind)[0]) :]
    # A short path may stand in an answer by chance.
    return path if len(path) >= _SHORTEST_SECRET else url


def order_to_dict(order: ImageOrder | None) -> dict[str, Any] | None:
    """Return an order as JSON can carry it, without bytes of images and paths of callbacks."""
    if order is None:
        return None
    form: dict[str, Any] = {"prompt": order.prompt, **dict(_given(order))}
    if order.images:
        form["images"] = [
            str(_shown(image)) if isinstance(image, bytes) else str(image) for image in order.images
        ]
    if order.elements:
        form["elements"] = list(order.elements)
    if order.callback_url is not None:
        form["callback_url"] = str(_host_of(order.callback_url))
    if order.extra:
        form["extra"] = copy.deepcopy(dict(order.extra))
    return form


def order_from_dict(form: Mapping[str, Any] | None) -> ImageOrder | None:
    """Read what `order_to_dict` gave; what is missing there is not sent again."""
    if form is None:
        return None
    known = {name: value for name, value in form.items() if name in {"prompt", *_FIELDS}}
    known["images"] = [_read_image(image) for image in form.get("images", ())]
    if (callback := form.get("callback_url")) is not None:
        known["callback_url"] = Shown(callback)
    return ImageOrder(**known)


def _read_image(text: str) -> ImageSource:
    if _is_url(text):
        return text
    return Shown(text) if text.startswith("<") else Path(text)
