"""What is told at the end of a run of orders, whatever keeps them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from .creating import Work
from .terminal import draw, note, tell
from .units import plural


def tell_failures(work: Work) -> None:
    """Draw the failures by reason, if there are any."""
    if work.failures:
        draw(work.failures.table())


def tell_end(work: Work) -> None:
    """Draw the failures, and tell the counts."""
    tell_failures(work)
    note(work.tally.line())


def tell_uncertain(work: Work, again: str) -> None:
    """Tell of what nobody knows whether there is a task, and what may be done about it."""
    if not work.uncertain:
        return
    prompts = plural(len(work.uncertain), "prompt is", "prompts are")
    note(f"{prompts} uncertain: each may be created, and paid for; {again}")
    tell([f"  {each.external_id}  {each.order.prompt}" for each in work.uncertain])


@contextmanager
def left_noted(work: Work, *, can_go_on: bool) -> Generator[None]:
    """Note on what ends a run early how many prompts are left, and how to go on with them."""
    try:
        yield
    except BaseException as error:
        if work.left:
            prompts = plural(len(work.left), "prompt has", "prompts have")
            go_on = "; run the same command to go on" if can_go_on else ""
            error.add_note(f"{prompts} no outcome{go_on}")
        raise
