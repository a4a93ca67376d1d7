"""The options: groups of them as classes, how each is read, and where images and ids are."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import SplitResult, urlsplit

import attrs
from cyclopts import Group, Parameter, Token

from kling_omni_async._policy import PollPolicy
from kling_omni_async._saving.copies import base_name, stem_of
from kling_omni_async._saving.formats import image_stems
from kling_omni_async._saving.stores import folder_of
from kling_omni_async.errors import ConfigurationError

from . import units
from .exit import Exit, OutputError, UsageError
from .journal import Entry

if TYPE_CHECKING:
    FileName: TypeAlias = str
else:
    FileName = str | Path  # it is read as the first, and by the second shells complete it

AT: Final = "#"
"""What stands before the host of a store that is not where its cloud has it."""

_ENDPOINTS: Final = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
}
_USUAL: Final = PollPolicy()
_FLAG: Final = Parameter(show_default=False)
_INTERVAL: Final = "--interval"
_MEASURED: Final = frozenset(
    {
        *(_INTERVAL, "--timeout", "--query-timeout", "--download-timeout"),
        *("--max-image-bytes", "--max-response-bytes"),
    }
)
_END: Final = "--"

BOOK_ACTIONS: Final = frozenset({"add", "list", "remove", "retry", "backup"})
"""What can be done with a book by the command of that name."""


def parted(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Part arguments into those that may be options and, from ``--`` on, those that are ids."""
    at = arguments.index(_END) if _END in arguments else len(arguments)
    return arguments[:at], arguments[at:]


def with_action_first(tokens: list[str]) -> list[str]:
    """Return ``book BOOK add`` as ``book add BOOK``: a command comes before what it is given."""
    match tokens:
        case ["book", where, "--name", name, action, *rest]:
            place = [where, "--name", name]
        case ["book", where, action, *rest]:
            place = [where]
        case _:
            return tokens
    if action not in BOOK_ACTIONS or where.startswith("-"):
        return tokens
    return ["book", action, *place, *rest]


def with_values_joined(arguments: list[str]) -> list[str]:
    """Write ``--interval 20s 30s`` as ``--interval 20s-30s``, and ``100 MB`` as one word."""
    words, done = list(arguments), list[str]()
    while words:
        option, given, value = words[0].partition("=")
        if option not in _MEASURED:
            done.append(words.pop(0))
        elif given:
            words[0] = value
            done.append(f"{option}={units.joined(words, two_times=option == _INTERVAL)}")
        else:
            done.append(words.pop(0))
            # A value that is missing is told by whoever reads the options.
            if words and words[0][:1] != "-":
                done.append(units.joined(words, two_times=option == _INTERVAL))
    return done


def _policy_option(
    parse: Callable[[str], object], hint: str, metavar: str, show: Callable[[Any], str] = str
) -> Parameter:
    """Describe an option that is a field of `PollPolicy`; `hint` says what to write instead."""

    def convert(_: object, tokens: Sequence[Token]) -> object:
        option, text = tokens[0].keyword or "", tokens[0].value
        try:
            value = parse(text.strip())
            # Only the policy knows which values it takes; its own error is a ValueError too.
            field: Any = {option.removeprefix("--").replace("-", "_"): value}
            PollPolicy(**field)
        except ValueError:
            raise UsageError(f"{option} cannot be {text!r:.60}: write {hint}") from None
        return value

    # One word always: cyclopts itself would read the two numbers of an interval from two words.
    return Parameter(converter=convert, n_tokens=1, metavar=metavar, show_default=show)


def _show_interval(interval: tuple[float, float]) -> str:
    return "-".join(map(units.format_time, interval))


# Not cyclopts' own reader of durations: that refuses `500ms` and a plain `20`.
_TIME: Final = _policy_option(
    units.parse_time, "a time above 0, such as 20s, 1m30s or 500ms", "TIME", units.format_time
)
_SIZE: Final = _policy_option(
    units.parse_size, "a size such as 500kB, 1MiB or 100MB", "SIZE", units.format_size
)
_COUNT: Final = _policy_option(units.parse_count, "a whole number of 1 or more", "NUMBER")
_RATE: Final = _policy_option(
    units.or_none(units.parse_number),
    "queries a second, above 0, such as 50, or none",
    "NUMBER",
    "{:g}".format,
)
_PAUSES: Final = _policy_option(
    units.parse_interval,
    "two times, the lower first, such as 20s-30s, or one",
    "LOW-HIGH",
    _show_interval,
)
_TIMING: Final = _policy_option(str, "learned or uniform", "NAME")
_HOSTS: Final = _policy_option(
    units.parse_names,
    "names of hosts with commas between, such as a.example,*.b.example",
    "NAMES",
    lambda hosts: ",".join(hosts) or "none",
)
_PATIENCE: Final = _policy_option(
    units.or_none(units.parse_time),
    "a time such as 30m or 1h30m, or never",
    "TIME",
    units.format_time,
)


@attrs.frozen(kw_only=True)
class Limits:
    """What bounds queries; each option is a field of `PollPolicy`.

    Attributes:
        query_timeout: The longest time for one query.
        max_rate: The most queries a second, evenly spaced; none for no limit.
        max_concurrency: The most queries under way at a time.
        max_response_bytes: The largest answer that is read.
    """

    query_timeout: Annotated[float, _TIME] = _USUAL.query_timeout
    max_rate: Annotated[float | None, _RATE] = _USUAL.max_rate
    max_concurrency: Annotated[int, _COUNT] = _USUAL.max_concurrency
    max_response_bytes: Annotated[int, _SIZE] = _USUAL.max_response_bytes


@attrs.frozen(kw_only=True)
class Pace:
    """How often and how long ids are polled; each option is a field of `PollPolicy`.

    Attributes:
        interval: The pause between two queries of an id: two times, chosen anew each time.
        timing: How a pause is chosen: where a task is likely to have ended, or evenly.
        timeout: How long to poll an id before it is given up; never for no end.
        confirmations: How often "not found" must be said in a row before it is believed.
        max_pending: The most ids that are read and not yet finished; reading waits beyond it.
    """

    interval: Annotated[tuple[float, float], _PAUSES] = _USUAL.interval
    timing: Annotated[Literal["learned", "uniform"], _TIMING] = _USUAL.timing
    timeout: Annotated[float | None, _PATIENCE] = _USUAL.timeout
    confirmations: Annotated[int, _COUNT] = _USUAL.confirmations
    max_pending: Annotated[int, _COUNT] = _USUAL.max_pending


@attrs.frozen(kw_only=True)
class Downloads:
    """How images are fetched; each option is a field of `PollPolicy`.

    Attributes:
        max_downloads: The most images that are fetched at a time.
        max_image_bytes: The largest image that is stored.
        download_timeout: The longest time for one try to fetch an image.
        download_tries: How often an image is tried before it is given up.
        allow_hosts: Hosts of images that may be on private addresses.
    """

    max_downloads: Annotated[int, _COUNT] = _USUAL.max_downloads
    max_image_bytes: Annotated[int, _SIZE] = _USUAL.max_image_bytes
    download_timeout: Annotated[float, _TIME] = _USUAL.download_timeout
    download_tries: Annotated[int, _COUNT] = _USUAL.download_tries
    allow_hosts: Annotated[tuple[str, ...], _HOSTS] = _USUAL.allow_hosts


def policy_of(*options: Limits | Pace | Downloads) -> PollPolicy:
    """Return the policy that options ask for."""
    values: dict[str, Any] = {}
    for each in options:
        values |= attrs.asdict(each)
    return PollPolicy(**values)


@attrs.frozen(kw_only=True)
class Connection:
    """Which API is asked.

    Attributes:
        base_url: Another base URL than that of COMETAPI_BASE_URL.
        allow_http: Accept a base URL with http:// that is not of this machine.
    """

    base_url: Annotated[str | None, Parameter(metavar="URL")] = None
    allow_http: Annotated[bool, _FLAG] = False


@attrs.frozen(kw_only=True)
class Talk:
    """How much is told on stderr.

    Attributes:
        verbose: Tell each change of a task on stderr; twice (-vv): each query too.
    """

    verbose: Annotated[int, Parameter(alias="-v", count=True, show_default=False)] = 0


@attrs.frozen(kw_only=True)
class Saving:
    """Where images are saved, and which.

    Attributes:
        save: Where to save images: a directory, or s3://bucket/prefix and the like.
        watermarked: Save the copies with the watermark instead.
        overwrite: Replace what is there under the names of images.
    """

    save: Annotated[FileName | None, Parameter(metavar="DIR|URL")] = None
    watermarked: Annotated[bool, _FLAG] = False
    overwrite: Annotated[bool, _FLAG] = False

    @property
    def folder(self) -> Path | None:
        """The directory, also that of a ``file:`` URL; None for a store or if nothing is saved."""
        return None if self.save is None else folder_of(self.save)

    def require_place(self) -> None:
        """Raise `UsageError` for options that say how to save where nothing is saved."""
        if self.save is None and (self.watermarked or self.overwrite):
            raise UsageError("--watermarked and --overwrite say how to save: give --save too")

    def prepare(self) -> None:
        """Make the directory now, so that a wrong one is told before anything is asked."""
        if (folder := self.folder) is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (OSError, ValueError) as error:  # the latter for what no path can hold
                raise OutputError(str(folder), error, code=Exit.USAGE) from None

    @property
    def place(self) -> str | None:
        """The name of the store, the same for each way to write it, and without what is secret."""
        if self.save is None:
            return None
        return place_of(self.save, self.folder)

    def is_done(self, entry: Entry) -> bool:
        """Return whether all images of an entry are in this store, as far as one can see.

        Files are looked for; of any other store the journal is believed.
        """
        outcome = entry.outcome
        if self.save is None or outcome.task is None or not outcome.ok:
            return True
        names = {stem_of(each.key): base_name(each.key) for each in outcome.saved}
        images = outcome.task.images
        stems = image_stems(outcome.task_id, images, watermarked=self.watermarked).values()
        if not all(stem in names for stem in stems):
            return False
        folder = self.folder
        if folder is None:
            return entry.store == self.place
        return all((folder / names[stem]).is_file() for stem in stems)


def place_of(save: str, folder: Path | None) -> str:
    """Return the name of a store by which a later run knows it again."""
    if folder is not None:
        return str(folder.absolute())
    url = _split(save, "--save")
    # Neither the user info nor the query, which may hold a key.
    host, path = url.netloc.rpartition("@")[2], url.path.strip("/")
    place = f"{url.scheme.lower()}://{host}/{path}".rstrip("/")
    # The bucket of that name in a store on this machine is not the one in the cloud.
    endpoint = _endpoint_of(url.scheme.lower())
    return f"{place}{AT}{endpoint}" if endpoint else place


def _endpoint_of(scheme: str) -> str:
    """Return the host of a kind of store where the environment names another than its cloud."""
    for name in _ENDPOINTS.get(scheme, ()):
        if given := os.environ.get(name):
            return _split(given, name).netloc.rpartition("@")[2]
    return ""


def _split(url: str, name: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # its text may hold a part of the URL
        raise ConfigurationError(f"{name} is no URL that can be read") from None


_BOOK = Group("The book", sort_key=-1)
_IDS = Group("Task ids", sort_key=0)
_OUT = Group("What is shown", sort_key=1)
_IMAGES = Group("Images", sort_key=2)
_PACE = Group("How often and how long", sort_key=3)
_LIMITS = Group("Limits", sort_key=4)
_API = Group("The API", sort_key=5)
_HYPHEN_TOO: Final = Parameter(allow_leading_hyphen=True)  # "-" is stdin or stdout

Book: TypeAlias = Annotated[FileName, Parameter(group=_BOOK)]
BookOption: TypeAlias = Annotated[FileName | None, Parameter(metavar="BOOK", group=_BOOK)]
BookName: TypeAlias = Annotated[str | None, Parameter(name="--name", metavar="NAME", group=_BOOK)]
UntilEmpty: TypeAlias = Annotated[bool, _FLAG, Parameter(group=_BOOK)]
Ids: TypeAlias = Annotated[str, Parameter(group=_IDS)]
IdFile: TypeAlias = Annotated[
    FileName | None, Parameter(name="--from", metavar="FILE", group=_IDS), _HYPHEN_TOO
]
Column: TypeAlias = Annotated[str | None, Parameter(metavar="NAME", group=_IDS)]
JournalFile: TypeAlias = Annotated[
    FileName | None, Parameter(metavar="FILE", group=_OUT), _HYPHEN_TOO
]
TableFile: TypeAlias = Annotated[
    FileName | None, Parameter(metavar="FILE", group=_OUT), _HYPHEN_TOO
]
Quiet: TypeAlias = Annotated[bool, _FLAG, Parameter(alias="-q", group=_OUT)]
AsJson: TypeAlias = Annotated[bool, _FLAG, Parameter(group=_OUT)]
TalkOptions: TypeAlias = Annotated[Talk, Parameter(name="*", group=_OUT)]
SavingOptions: TypeAlias = Annotated[Saving, Parameter(name="*", group=_IMAGES)]
DownloadOptions: TypeAlias = Annotated[Downloads, Parameter(name="*", group=_IMAGES)]
PaceOptions: TypeAlias = Annotated[Pace, Parameter(name="*", group=_PACE)]
LimitOptions: TypeAlias = Annotated[Limits, Parameter(name="*", group=_LIMITS)]
ApiOptions: TypeAlias = Annotated[Connection, Parameter(name="*", group=_API)]

USUAL_TALK: Final = Talk()
NOWHERE: Final = Saving()
USUAL_DOWNLOADS: Final = Downloads()
USUAL_PACE: Final = Pace()
USUAL_LIMITS: Final = Limits()
USUAL_API: Final = Connection()
