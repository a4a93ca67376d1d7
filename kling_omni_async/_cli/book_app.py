"""The commands on a book, together."""

from __future__ import annotations

from cyclopts import App

from . import help_pages
from .book import add, backup, list_, progress, remove, retry

book = App(
    name="book",
    help=help_pages.BOOK_HELP,
    usage="Usage: kling-omni book BOOK [COMMAND] [OPTIONS]",
    help_epilogue=help_pages.BOOK,
)
book.default(progress)
book.command(
    add,
    usage="Usage: kling-omni book BOOK add [OPTIONS] [IDS...]",
    help_epilogue=help_pages.BOOK_ADD,
    sort_key=1,
)
book.command(
    list_,
    name="list",
    usage="Usage: kling-omni book BOOK list [OPTIONS]",
    help_epilogue=help_pages.BOOK_LIST,
    sort_key=2,
)
book.command(
    remove,
    usage="Usage: kling-omni book BOOK remove IDS...",
    help_epilogue=help_pages.BOOK_REMOVE,
    sort_key=3,
)
book.command(
    retry,
    usage="Usage: kling-omni book BOOK retry [OPTIONS] [IDS...]",
    help_epilogue=help_pages.BOOK_RETRY,
    sort_key=4,
)
book.command(
    backup,
    usage="Usage: kling-omni book BOOK backup FILE",
    help_epilogue=help_pages.BOOK_BACKUP,
    sort_key=5,
)
