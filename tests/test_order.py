"""An order is one that the API may take, or it cannot be made; and no secret of it is shown."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from kling_omni_async import ConfigurationError, ImageOrder, TaskOutcome, errors
from kling_omni_async._order import order_from_dict, order_to_dict

PNG = b"\x89PNG\r\n\x1a\n" + bytes(3_100_000)
JPG = b"\xff\xd8\xff\xe0" + bytes(20)
URL = "https://images.example/1.png"
NEW = "kling-v3-omni"
WHOLE = ImageOrder(
    "a fox in <<<image_1>>>",
    model=NEW,
    images=[URL, Path("fox.png"), PNG],
    elements=[7],
    resolution="2k",
    n=2,
    result_type="series",
    series_amount="auto",
    aspect_ratio="auto",
    watermark=True,
    callback_url="https://hooks.example/secret?token=1",
    key="invoice-42/1",
    extra={"style": {"tone": ["warm"]}},
)


def test_only_the_prompt_is_needed() -> None:
    """All else is the API's default."""
    order = ImageOrder("a fox")
    assert attrs.asdict(order) == {
        "prompt": "a fox",
        **dict.fromkeys(
            ["model", "resolution", "n", "result_type", "series_amount", "aspect_ratio"]
        ),
        **dict.fromkeys(["watermark", "callback_url", "key"]),
        "images": (),
        "elements": (),
        "extra": {},
    }
    assert order.slots == 1
    assert ImageOrder("a fox", n=9).slots == 9
    with pytest.raises(TypeError):
        ImageOrder("a fox", NEW)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x" * 2500},
        {"model": "kling-image-o1", "resolution": "2k"},
        {"model": NEW, "resolution": "4k"},
        {"model": "kling-v9-omni", "resolution": "4k", "result_type": "series"},
        {"model": "kling-image-o1", "aspect_ratio": "auto"},
        {"model": NEW, "aspect_ratio": "auto", "elements": [1]},
        {"model": NEW, "result_type": "series", "images": [URL]},
        {"images": [URL] * 5, "elements": range(5)},
        {"images": (image for image in [JPG])},
        {"images": [bytearray(JPG), memoryview(PNG)]},
        {"series_amount": 2},
        {"n": 9},
        {"watermark": False},
        {"callback_url": "http://127.0.0.1:8000/x"},
    ],
)
def test_good_orders(fields: dict[str, Any]) -> None:
    """What the documentation allows can be ordered, and so can what it says nothing of."""
    ImageOrder(**{"prompt": "a fox", **fields})


TOO_LONG_TO_WRITE = 10**5000
BAD: dict[str, list[Any]] = {
    "prompt": ["", " ", None, 7, "x" * 2501, "\ud800", b"a fox"],
    "model": ["", "dall-e", 7, "kling-", "kling-x y"],
    "images": [
        *(URL, PNG, bytearray(PNG), Path("fox.png"), 7, {URL: 1}, None),
        *([7], ["fox.png"], ["data:image/png;base64,AA"], [b"GIF89a"], [b""], [None]),
        [b"\x89PNG\r\n\x1a\n" + bytes(10 * 1_048_576)],
        [URL] * 11,
    ],
    "elements": [7, "7", ["7"], [True], [None], [-1], [TOO_LONG_TO_WRITE], [1] * 11],
    "resolution": ["8k", "", 1, "4k"],
    "n": [0, 10, True, 1.0, "1", -TOO_LONG_TO_WRITE],
    "result_type": ["both", 1, "series"],
    "series_amount": [1, 10, "many", True, 2.0],
    "aspect_ratio": ["5:4", "", 1],
    "watermark": [1, "yes"],
    "callback_url": ["hooks.example", "ftp://x", "", 7, "https://", "https://x y"],
    "key": ["", " ", 7, "\ud800"],
    "extra": [
        *(7, [1], {1: 2}, {"n": 1}, {"model_name": "x"}, {"image_list": []}, {"key": "x"}),
        *({"external_task_id": "x"}, {"x": float("nan")}, {"x": {1, 2}}, {"x": "\ud800"}),
    ],
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(field, value, id=f"{field}-{number}")
        for field, values in BAD.items()
        for number, value in enumerate(values)
    ],
)
def test_bad_orders(field: str, value: Any) -> None:
    """What the documentation forbids is refused before anything is sent, and the field is named."""
    fields: dict[str, Any] = {"prompt": "a fox", field: value}
    with pytest.raises(ConfigurationError, match=rf"^ImageOrder\.{field}\b"):
        ImageOrder(**fields)


def test_auto_ratio_from_text_alone() -> None:
    """The newer model takes no ratio from a text."""
    with pytest.raises(ConfigurationError, match=r"^ImageOrder\.aspect_ratio .* images=\[…\]$"):
        ImageOrder("a fox", model=NEW, aspect_ratio="auto")
    with pytest.raises(ConfigurationError, match=r"^ImageOrder\.result_type .* images=\[…\]$"):
        ImageOrder("a fox", model=NEW, result_type="series")


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"images": "fox.png"}, "write images=[…]"),
        ({"images": ["fox.png"]}, "write Path('fox.png')"),
        ({"resolution": "4k"}, f"write model='{NEW}'"),
        ({"extra": {"model_name": "x"}}, "write model="),
        ({"images": [b"GIF89a"]}, "jpg and png"),
        ({"n": 10}, "a whole number from 1 to 9, not 10"),
        ({"prompt": "x" * 2501}, "2,500 characters, not 'one of 2,501'"),
        ({"prompt": "\udcff fox"}, r"2,500 characters, not '\udcff fox'"),
    ],
)
def test_the_texts_say_what_to_write(fields: dict[str, Any], hint: str) -> None:
    """Each refusal ends with the cure."""
    with pytest.raises(ConfigurationError, match=re.escape(hint)):
        ImageOrder(**{"prompt": "a fox", **fields})


def test_a_refused_callback_is_not_shown() -> None:
    """Its path may be a secret."""
    with pytest.raises(ConfigurationError) as caught:
        ImageOrder("a fox", callback_url="hooks.example/secret")
    assert "secret" not in str(caught.value)


class _Bytes:
    def __fspath__(self) -> bytes:
        return b"fox.png"


class _Unprintable:
    def __repr__(self) -> str:
        raise ValueError


def test_odd_values() -> None:
    """A path in bytes, and what cannot be written, are refused like any other."""
    odd: Any
    for odd in (_Bytes(), _Unprintable()):
        with pytest.raises(ConfigurationError, match=r"images\[0\] must be"):
            ImageOrder("a fox", images=[odd])
    with pytest.raises(ConfigurationError, match=r"n must be .* not such a value of _Unprintable"):
        ImageOrder("a fox", n=odd)


def test_orders_are_values() -> None:
    """Equal orders are one in a set; what is in `extra` counts for equality alone."""
    twin = attrs.evolve(WHOLE)
    assert twin == WHOLE
    assert len({twin, WHOLE}) == 1
    other = attrs.evolve(WHOLE, extra={"style": "flat"})
    assert other != WHOLE
    assert hash(other) == hash(WHOLE)
    assert pickle.loads(pickle.dumps(WHOLE)) == WHOLE  # noqa: S301 - ours


def test_nobody_changes_an_order_from_outside() -> None:
    """Lists and dicts are copied when it is made."""
    images: list[str | Path | bytes] = [URL]
    extra = {"style": ["flat"]}
    order = ImageOrder("a fox", images=images, extra=extra)
    images.clear()
    extra["style"].clear()
    assert order == ImageOrder("a fox", images=[URL], extra={"style": ["flat"]})


def test_repr() -> None:
    """It shows of bytes their size and digest, of a callback the host, of URLs no signature."""
    assert repr(WHOLE) == (
        "ImageOrder('a fox in <<<image_1>>>', model='kling-v3-omni', "
        "images=['https://images.example/1.png', PosixPath('fox.png'), "
        "<3.1 MB png sha256:56b585a47174093e>], elements=(7,), resolution='2k', n=2, "
        "result_type='series', series_amount='auto', aspect_ratio='auto', watermark=True, "
        "callback_url=hooks.example, key='invoice-42/1', extra={'style': {'tone': ['warm']}})"
    )
    signed = ImageOrder("x" * 100, images=["https://me:pw@host/1.png?Signature=abc", JPG])
    assert repr(signed) == (
        f"ImageOrder({'x' * 60 + '…'!r}, images=['https://host/1.png', "
        "<0.0 kB jpg sha256:8c5d213de4c776cb>])"
    )


def test_json_and_back() -> None:
    """JSON has all but bytes and the path of the callback, and reads back to the same form."""
    form = order_to_dict(WHOLE)
    assert form is not None
    assert form["images"] == [URL, "fox.png", "<3.1 MB png sha256:56b585a47174093e>"]
    assert form["callback_url"] == "hooks.example"
    assert form["extra"] == {"style": {"tone": ["warm"]}}
    text = json.dumps(form, allow_nan=False)
    again = order_from_dict(json.loads(text))
    assert order_to_dict(again) == form
    assert again is not None
    assert again.images[:2] == (URL, Path("fox.png"))
    assert "callback_url=hooks.example" in repr(again)
    assert "sha256:56b585a47174093e>" in repr(again)
    assert order_to_dict(ImageOrder("a fox")) == {"prompt": "a fox"}
    assert order_from_dict({"prompt": "a fox", "of_tomorrow": 1}) == ImageOrder("a fox")
    assert order_to_dict(None) is None
    assert order_from_dict(None) is None


def test_an_outcome_carries_its_order() -> None:
    """It goes to JSON and back with its outcome, and so do its external id and a note."""
    error = errors.CreateUncertainError("text", external_task_id="e-1", order=WHOLE, digest="d")
    outcome = TaskOutcome(
        task_id="", error=error, order=WHOLE, external_task_id="e-1", note={"chat": 42}
    )
    form = json.loads(json.dumps(outcome.to_dict()))
    again = TaskOutcome.from_dict(form)
    assert again.to_dict() == form
    assert (again.external_task_id, again.note) == ("e-1", {"chat": 42})
    assert isinstance(again.error, errors.CreateUncertainError)
    assert again.error.external_task_id == "e-1"
    assert outcome == attrs.evolve(outcome, note=None)
    assert outcome != attrs.evolve(outcome, external_task_id="e-2")
    assert hash(outcome) == hash(attrs.evolve(outcome, external_task_id="e-2", order=None))


@pytest.mark.parametrize(
    ("task_id", "error", "settled"),
    [
        ("t", None, True),
        ("t", errors.TaskFailedError(), True),
        ("t", errors.TaskNotFoundError(), True),
        ("t", errors.ApiError(), False),
        ("t", errors.PollTimeoutError(), False),
        ("t", errors.DownloadError(), False),
        ("", errors.ApiError(), True),
        ("", errors.DuplicateOrderError(), False),
        ("", errors.AccountError(), False),
        ("", errors.RateLimitError(), False),
        ("", errors.CreateUncertainError(), False),
        ("", errors.ConfigurationError(), False),
    ],
)
def test_settled(task_id: str, error: errors.KlingOmniError | None, settled: bool) -> None:  # noqa: FBT001 - a row
    """Nothing new comes of success, failure, an unknown id and of contents that were refused."""
    assert TaskOutcome(task_id=task_id, error=error).settled is settled
