"""How what a book keeps becomes JSON."""

from __future__ import annotations

import pytest

from kling_omni_async import ConfigurationError, ImageTask, TaskStatus
from kling_omni_async._book.forms import note_from_json, note_to_json, task_from_json, task_to_json


@pytest.mark.parametrize("text", ["plain", "日本語", "half \ud800"])
def test_whatever_an_api_says_can_be_kept(text: str) -> None:
    """JSON may hold half of a surrogate pair, which is no UTF-8; it comes back as it was."""
    task = ImageTask(task_id="a", status=TaskStatus.PROCESSING, raw={"prompt": text})
    kept = task_to_json(task)
    kept.encode()
    again = task_from_json(kept)
    assert again is not None
    assert again.raw == {"prompt": text}


def test_a_note_with_half_a_pair_is_refused() -> None:
    """Who gives it is told, as it is his own."""
    with pytest.raises(ConfigurationError, match="note cannot be kept"):
        note_to_json("half \ud800")


@pytest.mark.parametrize("note", [{1: "a"}, {"a": [{None: 1}]}, ({"a": {True: 1}},)])
def test_a_note_whose_keys_are_no_text_is_refused(note: object) -> None:
    """JSON would make text of them: `note[1]` would be gone when it comes back."""
    with pytest.raises(ConfigurationError, match=r"note cannot be kept .*is no str"):
        note_to_json(note)


@pytest.mark.parametrize("note", [None, 0, "", [], {}, {"a": {"b": [1, {"c": None}]}}, (1, "x")])
def test_a_note_comes_back_as_json_has_it(note: object) -> None:
    """All that JSON can carry is kept; a tuple is a list then."""
    again = note_from_json(note_to_json(note))
    assert again == (list(note) if isinstance(note, tuple) else note)
