"""`generate` and `create`: from prompts to images, or to ids, and never paid twice."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import attrs
from cyclopts import Group, Parameter, validators

from kling_omni_async._order import ImageOrder
from kling_omni_async._outcome import TaskOutcome

from . import options
from .creating import Work, create_all, generate_all
from .creating_end import left_noted, tell_end, tell_failures, tell_uncertain
from .exit import Exit, UsageError
from .inputs import refuse_paths
from .journal import IsDone
from .options import FileName, Saving
from .order_journal import OrderJournal, Record, read_records
from .progress import choose_view
from .prompts import Prompt, digest_in_words, make_order, read_prompts
from .results import open_sink
from .session import logged_as_notes, make_session
from .signals import heed_signals, run
from .terminal import note, out, out_as_read, plain, tell
from .units import plural
from .wanted import Todo, budget_of, left_out, match, summary, without_repeats

_FLAG: Final = Parameter(show_default=False)
_FROM_1: Final = validators.Number(gte=1)
_PROMPTS: Final = Group("Prompts", sort_key=0)
_ORDER: Final = Group("What is wanted, where a row does not say so", sort_key=0.3)
_MONEY: Final = Group("Money", sort_key=0.6)
_BOOK: Final = Group("A book", sort_key=0.8)


@attrs.frozen(kw_only=True)
class Wish:
    """What is wanted of each prompt; each option is a field of `ImageOrder`.

    Attributes:
        n: How many images, 1 to 9.
        model: kling-image-o1 or kling-v3-omni.
        image: A picture to start from, a path or a URL; may be given again.
        resolution: 1k, 2k or, of kling-v3-omni, 4k.
        aspect_ratio: Such as 16:9.
        result_type: single or series.
        series_amount: How many images a series has, 2 to 9 or auto.
        watermark: Make copies with a watermark too.
    """

    n: Annotated[int | None, Parameter(name=("--n", "-n"), metavar="NUMBER")] = None
    model: Annotated[str | None, Parameter(metavar="NAME")] = None
    image: Annotated[tuple[str, ...], Parameter(metavar="FILE|URL", show_default=False)] = ()
    resolution: Annotated[str | None, Parameter(metavar="SIZE")] = None
    aspect_ratio: Annotated[str | None, Parameter(metavar="W:H")] = None
    result_type: Annotated[str | None, Parameter(metavar="TYPE")] = None
    series_amount: Annotated[str | None, Parameter(metavar="NUMBER")] = None
    watermark: Annotated[bool, _FLAG] = False

    def fields(self) -> dict[str, Any]:
        """Return the fields of an order that are given."""
        amount = self.series_amount
        given = {
            "n": self.n,
            "model": self.model,
            "images": [each if "://" in each else Path(each) for each in self.image] or None,
            "resolution": self.resolution,
            "aspect_ratio": self.aspect_ratio,
            "result_type": self.result_type,
            "series_amount": int(amount) if amount and amount.isdecimal() else amount,
            "watermark": self.watermark or None,
        }
        return {name: value for name, value in given.items() if value is not None}


@attrs.frozen(kw_only=True)
class Money:
    """What may be spent.

    Attributes:
        max_units: The most units that may be spent, those of earlier runs of the journal too.
        retry_uncertain: Create again what may have been created; it may be paid for twice.
        dry_run: Show what would be done and what it costs; send nothing.
    """

    max_units: Annotated[int | None, Parameter(metavar="NUMBER", validator=_FROM_1)] = None
    retry_uncertain: Annotated[bool, _FLAG] = False
    dry_run: Annotated[bool, _FLAG] = False


@attrs.frozen(kw_only=True)
class Keeping:
    """Where tasks are kept for longer than this run.

    Attributes:
        book: A book that knows each prompt; run again with it, nothing is created twice.
        name: Which book of a Redis; tasks by default.
        note: What the book keeps with each task, and hands out with its outcome.
    """

    book: Annotated[FileName | None, Parameter(metavar="BOOK")] = None
    name: Annotated[str | None, Parameter(metavar="NAME")] = None
    note: Annotated[str | None, Parameter(metavar="JSON")] = None

    def require_sense(self, money: Money) -> None:
        """Raise `UsageError` for options that say nothing with a book, or nothing without one."""
        if self.book is None:
            if self.name is not None or self.note is not None:
                raise UsageError("--name and --note are of a book: give --book too")
        elif money != _USUAL_MONEY:
            raise UsageError(
                "--max-units, --retry-uncertain and --dry-run go by a journal: write --jsonl FILE "
                "instead of --book, or leave them out"
            )


Prompts: TypeAlias = Annotated[str, Parameter(group=_PROMPTS)]
PromptFile: TypeAlias = Annotated[
    FileName | None,
    Parameter(name="--from", metavar="FILE", group=_PROMPTS),
    Parameter(allow_leading_hyphen=True),
]
MaxTasks: TypeAlias = Annotated[
    int | None, Parameter(metavar="NUMBER", group=_MONEY, validator=_FROM_1)
]
WishOptions: TypeAlias = Annotated[Wish, Parameter(name="*", group=_ORDER)]
MoneyOptions: TypeAlias = Annotated[Money, Parameter(name="*", group=_MONEY)]
KeepingOptions: TypeAlias = Annotated[Keeping, Parameter(name="*", group=_BOOK)]

_USUAL_WISH: Final = Wish()
_USUAL_MONEY: Final = Money()
_NO_BOOK: Final = Keeping()


def generate(
    *prompts: Prompts,
    source: PromptFile = None,
    jsonl: options.JournalFile = None,
    wish: WishOptions = _USUAL_WISH,
    money: MoneyOptions = _USUAL_MONEY,
    keeping: KeepingOptions = _NO_BOOK,
    max_tasks: MaxTasks = None,
    quiet: options.Quiet = False,
    talk: options.TalkOptions = options.USUAL_TALK,
    saving: options.SavingOptions = options.NOWHERE,
    downloads: options.DownloadOptions = options.USUAL_DOWNLOADS,
    pace: options.PaceOptions = options.USUAL_PACE,
    limits: options.LimitOptions = options.USUAL_LIMITS,
    connection: options.ApiOptions = options.USUAL_API,
) -> Exit:
    """Create tasks from prompts, wait for each, and save its images; costs money.

    Prints a line for each: its id, a word, and its images or the reason.

    Args:
        prompts: What is to be seen.
        source: A file with more prompts: one a line, CSV or JSON with a column prompt.
        jsonl: A journal; run again with it, nothing is created twice. - for JSON on stdout.
        wish: What is wanted.
        money: What may be spent.
        keeping: Where tasks are kept.
        max_tasks: The most images that are made at a time.
        quiet: Show neither progress nor a summary.
        talk: How much is told.
        saving: Where images are saved.
        downloads: How they are fetched.
        pace: How often and how long.
        limits: What bounds queries.
        connection: Which API.
    """
    saving.require_place()
    keeping.require_sense(money)
    policy = options.policy_of(pace, limits, downloads)
    orders = _orders_of(prompts, source, wish)
    if keeping.book is not None:
        from .generate_book import KeptRun, generate_in_book  # noqa: PLC0415 - not for all others

        kept = KeptRun(keeping.book, keeping.name, keeping.note, orders, policy, connection, talk)
        return generate_in_book(kept, saving, jsonl, max_tasks, quiet=quiet)
    if money.dry_run:
        return _show_plan(orders, money, jsonl, saving.is_done)
    with ExitStack() as stack:
        heed_signals()
        session = make_session(connection, policy)
        saving.prepare()
        stack.enter_context(logged_as_notes(talk.verbose))
        view = stack.enter_context(choose_view(quiet=quiet))
        journal = _open_journal(stack, jsonl, saving)
        work = _work_of(orders, money, journal, is_polled=True)
        stack.enter_context(left_noted(work, can_go_on=journal is not None))
        write = (
            stack.enter_context(open_sink(jsonl, view.out)).write
            if journal is None
            else journal.append
        )
        main = partial(
            generate_all,
            work,
            session,
            write,
            view,
            saving=saving,
            journal=journal,
            max_tasks=max_tasks,
            retry=money.retry_uncertain,
        )
        run(main)
    if not quiet:
        tell_end(work)
    _tell_rest(work, money, journal)
    return work.code


def create(
    *prompts: Prompts,
    source: PromptFile = None,
    jsonl: options.JournalFile = None,
    wish: WishOptions = _USUAL_WISH,
    money: MoneyOptions = _USUAL_MONEY,
    keeping: KeepingOptions = _NO_BOOK,
    talk: options.TalkOptions = options.USUAL_TALK,
    limits: options.LimitOptions = options.USUAL_LIMITS,
    connection: options.ApiOptions = options.USUAL_API,
) -> Exit:
    """Create tasks from prompts, and print their ids; costs money.

    Args:
        prompts: What is to be seen.
        source: A file with more prompts: one a line, CSV or JSON with a column prompt.
        jsonl: A journal; run again with it, nothing is created twice.
        wish: What is wanted.
        money: What may be spent.
        keeping: Where tasks are kept.
        talk: How much is told.
        limits: What bounds requests.
        connection: Which API.
    """
    if jsonl == "-":
        raise UsageError("create prints ids: --jsonl is a journal here, give its name")
    if jsonl is not None and keeping.book is not None:
        raise UsageError("--book knows what is created, as --jsonl does: give one of them")
    keeping.require_sense(money)
    orders = _orders_of(prompts, source, wish)
    if keeping.book is not None:
        from .generate_book import KeptRun, create_in_book  # noqa: PLC0415 - not for all others

        policy = options.policy_of(limits)
        kept = KeptRun(keeping.book, keeping.name, keeping.note, orders, policy, connection, talk)
        return create_in_book(kept)
    if money.dry_run:
        return _show_plan(orders, money, jsonl)
    with ExitStack() as stack:
        heed_signals()
        session = make_session(connection, options.policy_of(limits))
        stack.enter_context(logged_as_notes(talk.verbose))
        journal = _open_journal(stack, jsonl, options.NOWHERE)
        work = _work_of(orders, money, journal, is_polled=False)
        stack.enter_context(left_noted(work, can_go_on=journal is not None))
        write = _nowhere if journal is None else journal.append
        main = partial(
            create_all,
            work,
            session,
            write,
            out_as_read,
            journal=journal,
            retry=money.retry_uncertain,
        )
        run(main)
    tell_failures(work)
    _tell_rest(work, money, journal)
    return work.code


async def _nowhere(_: TaskOutcome) -> None:
    pass


def _orders_of(prompts: Sequence[str], source: str | None, wish: Wish) -> list[ImageOrder]:
    """Return the orders of the command line, then those of a file.

    Raises:
        UsageError: There are none, or one cannot be; nothing was sent.
    """
    if not prompts and source is None:
        raise UsageError("no prompts: give some between quotes, or a file of them with --from")
    refuse_paths(prompts, "generate", "a prompt")
    if len(prompts) > 1 and all(each.isascii() and not set(each) & set(" \t") for each in prompts):
        text = " ".join(prompts)
        raise UsageError(f'{len(prompts)} words are so many prompts: put quotes around "{text}"')
    usual = wish.fields()
    given = [Prompt(make_order({**usual, "prompt": prompt})) for prompt in prompts]
    return without_repeats([*given, *([] if source is None else read_prompts(source, usual))])


def _open_journal(stack: ExitStack, path: str | None, saving: Saving) -> OrderJournal | None:
    if path is None or path == "-":
        return None
    return stack.enter_context(OrderJournal(path, is_done=saving.is_done, store=saving.place))


def _work_of(
    orders: list[ImageOrder], money: Money, journal: OrderJournal | None, *, is_polled: bool
) -> Work:
    records = list(journal.records.by_name.values()) if journal else []
    wanted = match(orders, records, digest_in_words)
    rest = left_out(wanted, records)
    # An id that `create` has printed needs no outcome.
    _tell_left_out(rest if is_polled else [each for each in rest if each.is_open])
    return Work(wanted, budget_of(money.max_units, wanted, records), journal)


def _tell_left_out(records: list[Record]) -> None:
    """Tell of what is paid for, or may be, and is not among the prompts any more."""
    if records:
        orders = plural(len(records), "order", "orders")
        note(
            f"the journal has {orders} without an outcome that may be paid for, and of no prompt "
            "that is given now: give it again, or look with kling-omni query"
        )
        tell([f"  {each.task_id or each.external_id}" for each in records])


def _show_plan(
    orders: list[ImageOrder], money: Money, path: str | None, is_done: IsDone = lambda _: True
) -> Exit:
    """Print what would be done; nothing is sent or written."""
    records: list[Record] = []
    if path is not None and path != "-":
        records = list(read_records(Path(path), is_done).by_name.values())
    wanted = match(orders, records, digest_in_words)
    budget = budget_of(money.max_units, wanted, records)
    for each in wanted:
        units = "?" if each.price is None else str(each.price)
        out("\t".join((each.todo.value, units, plain(each.order.prompt))))
    new = [each for each in wanted if each.todo is Todo.CREATE]
    note(f"to create: {summary(new)}")
    if money.max_units is not None:
        note(f"{budget.left:,} of {money.max_units:,} units are left for that")
    return Exit.OK


def _tell_rest(work: Work, money: Money, journal: OrderJournal | None) -> None:
    """Tell what was left for want of units, and what nobody knows the end of."""
    if work.over_budget:
        prompts = plural(len(work.over_budget), "prompt is", "prompts are")
        note(f"{prompts} not created: --max-units {money.max_units} would be passed")
    again = "kling-omni query with its external id may find it"
    if journal is not None:
        again = "run again to look for it, with --retry-uncertain to create it again"
    tell_uncertain(work, again)
