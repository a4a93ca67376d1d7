"""Creates tasks: each order is sent once, its end is found out, and nothing paid is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from enum import Enum
from random import Random
from typing import Final, Protocol, TypeAlias

import anyio
import anyio.lowlevel
import attrs
from yarl import URL

from kling_omni_async._api.answers import Answer, without
from kling_omni_async._api.create import (
    CreateRequest,
    Doubt,
    NeverLeft,
    NotSent,
    Refused,
    Reply,
    Verdict,
    external_id_of,
    read_created,
    read_recovered,
    uncertain,
)
from kling_omni_async._api.posting import PostLimit
from kling_omni_async._config import Settings
from kling_omni_async._engine import Engine
from kling_omni_async._ids import path_segment, quoted
from kling_omni_async._models import ImageTask
from kling_omni_async._order import ImageOrder, secret_of_callback
from kling_omni_async._policy import MAX_RETRY_AFTER_S
from kling_omni_async._polling.poller import Poller
from kling_omni_async._results import Ending, Result, one_line, resolve
from kling_omni_async.errors import (
    BookError,
    ConfigurationError,
    CreateUncertainError,
    KlingOmniError,
    RateLimitError,
    TransportError,
    copy_error,
)

from .files import prepare
from .ledger import Ledger

End: TypeAlias = ImageTask | Refused | Ending
"""How a create ended: a task, proof that there is none, or why that is not known."""

FAREWELL_S: Final = 5.0
"""How long a POST may still wait for its answer when the session is closed, in s."""

_PAUSES_S: Final = ((1.0, 2.0), (4.0, 6.0))
"""Before an order that made nothing is sent once more, and before the last time."""

_LOOKS_S: Final = (0.0, 5.0, 20.0)
"""When a task that may be there is looked for, in s after the end of its POST."""

_MOST_KNOWN: Final = 10_000

logger: Final = logging.getLogger("kling_omni_async.creator")


class Client(Protocol):
    """What sends creates, and looks for what they made."""

    async def post(
        self, url: URL, body: bytes, limit: PostLimit
    ) -> NotSent | Answer | KlingOmniError:
        """Send one POST, once."""
        ...

    async def request(
        self, method: str, url: URL, *, task_id: str | None = None
    ) -> Answer | KlingOmniError:
        """Send one request."""
        ...


class Stage(Enum):
    """How far a create is."""

    SAFE = "nothing was sent, or what was sent is proved to have made nothing"
    POSTING = "its POST is under way"
    LOOKING = "nobody knows what its POST has made"


# More than ten attributes: an order, and all that becomes of it on its way.
@attrs.define(eq=False)
class Creation:
    """One order on its way to a task, and who waits for that."""

    order: ImageOrder
    external_id: str
    on_end: Callable[[Creation, End], object] | None  # None once nobody waits
    tries: int = 1
    request: CreateRequest | None = None  # once its files have been read
    ledger: Ledger | None = None
    stage: Stage = Stage.SAFE
    first_sent: float | None = None  # in s
    limit: PostLimit | None = None  # of the POST under way
    doubt: KlingOmniError | None = None  # while it is looked for
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    ended: asyncio.Event = attrs.field(factory=asyncio.Event)


class Creator:
    """Creates for all who order in a session: a part of its engine."""

    # Eleven attributes: what it was given (6), what is under way (3), what is known, the pace.
    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        client: Client,
        poller: Poller,
        *,
        rng: Random,
        wall_clock: Callable[[], float] = time.time,  # for a ``Retry-After`` that is a date
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._client = client
        self._poller = poller
        self._random = rng
        self._wall_clock = wall_clock
        self._creations: dict[Creation, None] = {}
        self._claims: dict[str, Creation] = {}
        self._lookers: dict[Result[ImageTask | None], None] = {}
        self._known: OrderedDict[str, tuple[str, ImageTask | CreateUncertainError]] = OrderedDict()
        self._next_turn = 0.0

    @property
    def active(self) -> int:
        """How many tasks are being created."""
        return len(self._creations)

    def __repr__(self) -> str:
        return f"<Creator creating={len(self._creations)}>"

    # What the session calls.

    async def create(
        self, order: ImageOrder, *, external_id: str | None = None, ledger: Ledger | None = None
    ) -> tuple[ImageTask, str]:
        """Create a task; return it and its external id.

        Raises:
            KlingOmniError: There is none, or none is known.
        """
        result: asyncio.Future[End] = asyncio.get_running_loop().create_future()

        def tell(creation: Creation, end: End) -> None:
            if result.done():  # cancelled, and he who waits does not know it yet
                self._log_left(creation, end)
            else:
                result.set_result(end)

        creation = self.start(order, tell, tries=3, external_id=external_id, ledger=ledger)
        try:
            end = await result
        except BaseException:
            if result.done() and not result.cancelled():  # told, and cancelled in the same pass
                self._log_left(creation, result.result())
            self.leave(creation)
            raise
        return require_task(end), creation.external_id

    def start(
        self,
        order: ImageOrder,
        on_end: Callable[[Creation, End], object],
        *,
        tries: int,
        external_id: str | None = None,
        request: CreateRequest | None = None,
        ledger: Ledger | None = None,
    ) -> Creation:
        """Begin to create a task; `on_end` is told how that ended."""
        name = external_id or external_id_of(order, self._settings.namespace)
        creation = Creation(order, name, on_end, tries, request, ledger)
        self._creations[creation] = None
        self._engine.start_soon(self._run, creation, name="kling_omni_async.create")
        return creation

    def leave(self, creation: Creation) -> None:
        """Wait for it no longer: what was not sent never will be, the rest is told by the log."""
        creation.on_end = None
        if creation.stage is Stage.SAFE:
            creation.scope.cancel()

    async def recover(self, external_id: str) -> ImageTask | None:
        """Look for a task by its external id, by one GET."""
        result: Result[ImageTask | None] = asyncio.get_running_loop().create_future()
        self._lookers[result] = None
        self._engine.start_soon(self._recover, external_id, result, name="kling_omni_async.recover")
        try:
            found = await result
        finally:
            self._lookers.pop(result, None)
        if found is None or isinstance(found, ImageTask):
            return found
        raise copy_error(found)

    # What the engine calls.

    def bind(self) -> None:
        """Do nothing: it is made in the loop where it runs."""

    async def open(self) -> None:
        """Do nothing: the poller has opened the client."""

    def stop(self) -> None:
        """Leave what is under way little time: the loop is about to go."""
        for creation in self._creations:
            if creation.limit is not None:
                creation.limit.shorten(FAREWELL_S)

    def tell_end(self, reason: Ending) -> Iterator[None]:
        """Tell all who wait why there will be nothing more, but those whose POST is under way."""
        for result in list(self._lookers):
            resolve(result, reason)
            yield
        for creation in list(self._creations):
            if creation.stage is not Stage.POSTING:
                self._settle(creation, creation.doubt or reason)
            yield

    async def aclose(self) -> None:
        """Do nothing: all has ended by then."""

    # One create.

    async def _run(self, creation: Creation) -> None:
        try:
            with creation.scope:
                self._settle(creation, await self._bring(creation))
        except asyncio.CancelledError:
            self._settle(creation, self._cut(creation))
            raise
        except Exception as defect:
            self._settle(creation, self._in_doubt(creation, defect))
            raise
        finally:
            self._creations.pop(creation, None)
            if self._claims.get(creation.external_id) is creation:
                del self._claims[creation.external_id]
            creation.ended.set()

    def _cut(self, creation: Creation) -> Ending:
        return self._in_doubt(creation, self._engine.closed_error())

    def _in_doubt(self, creation: Creation, cause: BaseException) -> Ending:
        """Return why a create ended that was cut off: doubt, unless it is known to be safe."""
        if creation.stage is Stage.SAFE or creation.request is None:
            return cause
        return creation.doubt or uncertain(creation.request, cause)

    async def _bring(self, creation: Creation) -> End:
        if creation.request is None:
            try:
                creation.request = await prepare(creation.order, creation.external_id)
            except ConfigurationError as error:
                return Refused(error)
        known = await self._claim(creation, creation.request)
        if known is not None:
            return await self._note(creation, creation.request, known)
        end = await self._send(creation, creation.request)
        if isinstance(end, ImageTask) and creation.stage is Stage.POSTING:  # else it is older
            self._poller.created(end, (creation.order.model, creation.order.resolution))
        if isinstance(end, ImageTask) or creation.first_sent is not None:
            self._remember(creation.request, end)  # else it is another process's doubt
        return end

    def _settle(self, creation: Creation, end: End) -> None:
        """Tell how a create ended, once: who waits for it, else the log."""
        if creation in self._creations:
            del self._creations[creation]
            on_end, creation.on_end = creation.on_end, None
            if on_end is None:
                self._log_left(creation, end)
            else:
                on_end(creation, end)
            self._show(creation, end)  # last: whatever an observer does, what was paid is told

    def _show(self, creation: Creation, end: End) -> None:
        """Show an observer what came of what was sent."""
        observer = self._poller.door.observer
        if observer is not None and creation.first_sent is not None:
            error = end.error if isinstance(end, Refused) else end
            observer.created(None if isinstance(error, ImageTask) else error)

    # The same wish twice.

    async def _claim(self, creation: Creation, request: CreateRequest) -> End | None:
        """Return what is known of the wish; where that is nothing, it is this create's to send."""
        while (first := self._claims.get(request.external_id)) is not None:
            if first.request is not None and first.request.digest != request.digest:
                return _another_wish(request)
            await first.ended.wait()
        known = self._known.get(request.external_id)
        if known is None:
            self._claims[request.external_id] = creation
            return None
        digest, end = known
        if digest != request.digest:
            return _another_wish(request)
        if isinstance(end, ImageTask):
            return end
        # To be sent again, a wish has to be named anew: the first may have been paid for.
        found = await self.look(request.external_id)
        self._remember(request, end := found if isinstance(found, ImageTask) else end)
        return end

    def _remember(self, request: CreateRequest, end: End) -> None:
        if request.order.key is not None and isinstance(end, ImageTask | CreateUncertainError):
            self._known[request.external_id] = request.digest, end
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)

    # Sending.

    async def _send(self, creation: Creation, request: CreateRequest) -> End:
        for pause_s in (*_PAUSES_S[: creation.tries - 1], None):
            await self._turn()
            if (end := await self._end_before(creation, request)) is not None:
                return end
            verdict = await self._post(creation, request)
            if isinstance(verdict, Doubt):
                return await self._find_out(creation, request, verdict)
            made = verdict if isinstance(verdict, ImageTask) else None
            if (unkept := await self._keep(creation, request, made)) is not None:
                return unkept
            if isinstance(verdict, ImageTask):
                self._poller.heard()
                logger.info("created %s", _names(request.external_id, verdict))
                return verdict
            if pause_s is None or not passes(verdict):
                return verdict
            await asyncio.sleep(self._pause_s(verdict, pause_s))
        raise AssertionError  # pragma: no cover - the last round returns

    async def _end_before(self, creation: Creation, request: CreateRequest) -> End | None:
        """Return why nothing is to be sent; else what outlives the process knows that it is."""
        # The last moment at which leaving and closing keep the money.
        await anyio.lowlevel.checkpoint_if_cancelled()
        if self._is_left(creation):
            return self._engine.closed_error()
        if creation.ledger is None:
            return None
        known = await self._open(creation.ledger, request)
        if known is None and self._is_left(creation):  # while that was being kept
            await self._keep(creation, request, None)
            return self._engine.closed_error()
        return known

    def _is_left(self, creation: Creation) -> bool:
        return self._engine.closed or creation.on_end is None

    # What outlives the process.

    async def _open(self, ledger: Ledger, request: CreateRequest) -> End | None:
        """Let it know what is about to be sent; return why that must not be."""
        try:
            return await ledger.open(request)
        except BookError as error:
            return Refused(error)

    async def _keep(
        self, creation: Creation, request: CreateRequest, task: ImageTask | None
    ) -> End | None:
        """Let it know what came of a request; return the end if a book could not keep that."""
        is_new = creation.stage is Stage.POSTING
        if creation.ledger is None:
            return None
        with anyio.CancelScope(shield=True):
            try:
                await creation.ledger.close(request, task, is_new=is_new)
            except Exception as error:
                if task is not None:
                    self.name_left(task, request.external_id)
                if not isinstance(error, BookError):
                    raise
                return _unkept(error, task)
        return None

    async def _note(self, creation: Creation, request: CreateRequest, known: End) -> End:
        """Let it know of a task that this session has created before."""
        if creation.ledger is None or not isinstance(known, ImageTask):
            return known
        if (said := await self._open(creation.ledger, request)) is not None:
            return said
        return await self._keep(creation, request, known) or known

    async def _post(self, creation: Creation, request: CreateRequest) -> Verdict:
        now = asyncio.get_running_loop().time()
        creation.stage = Stage.POSTING
        creation.first_sent = now if creation.first_sent is None else creation.first_sent
        creation.limit = PostLimit(self._settings.policy.create_timeout)
        reply = self._unless_closed(await self._post_once(request, creation.limit))
        creation.limit = None
        hidden = secret_of_callback(request.order)
        if hidden is not None and isinstance(reply, Answer):  # of what an API refuses it may quote
            reply = without(reply, hidden)
        wall_s, prompt = self._wall_clock(), request.order.prompt
        verdict = read_created(reply, request.external_id, wall_s=wall_s, prompt=prompt)
        if isinstance(verdict, Refused):
            creation.stage = Stage.SAFE
            if isinstance(verdict.error, RateLimitError) and verdict.error.retry_after is not None:
                self._poller.limited(verdict.error, now)
        return verdict

    async def _post_once(self, request: CreateRequest, limit: PostLimit) -> Reply:
        # Nobody who leaves and no end of the session aborts what may be paid for already.
        with anyio.CancelScope(shield=True):
            return await self._client.post(self._settings.create_url, request.body, limit)
        raise AssertionError  # pragma: no cover - the scope is never cancelled

    def _unless_closed(self, reply: Reply) -> Reply:
        """Return what came of a POST, or that the end of the session left it no time."""
        ran_out = isinstance(reply, TransportError) and reply.reason == "timeout"
        return self._engine.closed_error() if ran_out and self._engine.closed else reply

    def _pause_s(self, refused: Refused, usual_s: tuple[float, float]) -> float:
        wanted = getattr(refused.error, "retry_after", None)
        if wanted is not None:
            return min(float(wanted), MAX_RETRY_AFTER_S)
        return self._random.uniform(*usual_s)

    # Doubt.

    async def _find_out(self, creation: Creation, request: CreateRequest, doubt: Doubt) -> End:
        """Look for what a POST may have made, before anybody has to doubt it."""
        error = doubt.error if doubt.duplicate else uncertain(request, doubt.error)
        creation.stage, creation.doubt = Stage.LOOKING, error
        ended = asyncio.get_running_loop().time()
        for look_s in _LOOKS_S:
            await _sleep_until(ended + look_s)
            # Whatever else it meets proves nothing: the next look or the POST's own word counts.
            found = await self.look(request.external_id)
            if isinstance(found, ImageTask):
                logger.info("found %s", _names(request.external_id, found))
                return await self._keep(creation, request, found) or found
        return error

    async def look(self, external_id: str) -> ImageTask | KlingOmniError | None:
        """Look for a task by its external id, by one GET, in a task of the engine."""
        await _sleep_until(self._poller.take_start())
        return await self.look_now(external_id)

    async def look_now(self, external_id: str) -> ImageTask | KlingOmniError | None:
        """Look for a task by one GET, which has its start of the pace already."""
        url = self._settings.task_url(path_segment(external_id))
        reply = await self._client.request("GET", url, task_id=external_id)
        return read_recovered(reply, external_id, wall_s=self._wall_clock())

    async def _recover(self, external_id: str, result: Result[ImageTask | None]) -> None:
        resolve(result, await self.look(external_id))

    async def _turn(self) -> None:
        """Wait for a start of the pace, every second of which is left to queries."""
        rate = self._settings.policy.max_rate
        turn = max(asyncio.get_running_loop().time(), self._next_turn)
        self._next_turn = turn + (0.0 if rate is None else 2.0 / rate)
        await _sleep_until(turn)
        await _sleep_until(self._poller.take_start())

    # The log.

    def name_left(self, task: ImageTask, external_id: str) -> None:
        """Name a task that was paid for and that nobody waits for."""
        text = "nobody waits any more for what was ordered: it is %s"
        logger.warning(text, _names(external_id, task))

    def _log_left(self, creation: Creation, end: End) -> None:
        """Name a task that was paid for and that nobody waits for, or that may have been."""
        name = creation.external_id
        if isinstance(end, ImageTask):
            self.name_left(end, name)
        elif creation.stage is not Stage.SAFE and not isinstance(end, Refused):
            text = "nobody waits any more for what was ordered: recover(%s) may find it; %s"
            said = one_line(end) if isinstance(end, KlingOmniError) else type(end).__name__
            logger.warning(text, quoted(name), said)


def passes(refused: Refused) -> bool:
    """Whether the same order may be taken the next time."""
    if isinstance(refused.error, BookError):
        return refused.error.transient
    return refused.is_rate_limit or (isinstance(refused, NeverLeft) and refused.may_pass)


def require_task(end: End) -> ImageTask:
    """Return the task of a create, or raise why there is none."""
    if isinstance(end, ImageTask):
        return end
    raise copy_error(end.error if isinstance(end, Refused) else end)


def _unkept(error: BookError, task: ImageTask | None) -> End:
    """Return how a create ended of which a book could not keep what came of it."""
    # Not transient: what is created again would cost again, or is taken for under way.
    if task is None:
        text = f"nothing was created, and the book could not keep that: {error.what}"
        return Refused(BookError(text))
    name = quoted(task.task_id)
    text = f"task {name} was created, and the book could not keep that: {error.what}; add it there"
    return BookError(text, task_id=task.task_id)


def _another_wish(request: CreateRequest) -> Refused:
    return Refused(
        ConfigurationError(
            f"ImageOrder.key {quoted(request.order.key)} names another order of this session; "
            "give each wish a key of its own"
        )
    )


def _names(external_id: str, task: ImageTask) -> str:
    return f"task {quoted(task.task_id)} (external id {quoted(external_id)})"


async def _sleep_until(when: float) -> None:
    left_s = when - asyncio.get_running_loop().time()
    if left_s > 0:
        await asyncio.sleep(left_s)
