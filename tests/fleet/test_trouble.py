"""A Redis that is out of reach, full, held up, started anew: what is promised is kept."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from redis import exceptions

from kling_omni_async import BookError, KlingOmniSession, PollPolicy, TaskBook
from kling_omni_async._book.contract import Ack
from kling_omni_async._book.redis import RedisStore
from kling_omni_async._book.redis_client import CALL_S, MOST_CALLS, clients_of
from kling_omni_async._book.redis_errors import book_error
from kling_omni_async.simulator import SimulatedCometAPI
from tests.book.pure import KEEP_S, WON, receipt, settle
from tests.book.stores import Clock, StoreBook
from tests.faults.processes import HOST

from .books import new_book
from .relay import Relay
from .server import RedisServer

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[StoreBook]:
    """Open a book with one id."""
    book = new_book(url, Clock())
    await book.begin()
    await book.add("t")
    try:
        yield book
    finally:
        await book.store.aclose()


async def refused(step: object, said: str) -> BookError:
    """Return what a step raises that may be made again."""
    with pytest.raises(BookError, match=said) as caught:
        await step  # type: ignore[misc]
    assert caught.value.transient
    return caught.value


# Answers that are lost.


async def test_a_turn_whose_answer_was_lost(server: RedisServer) -> None:
    """The script ran: sent again, the turn gives the claims of that run, and no id is lost."""
    async with Relay(server.port) as relay, opened(relay.url) as book:
        turn = book.new_turn(want=1)
        relay.cut_answers, relay.words = 1, b"EVALSHA"
        await refused(book.store.turn(turn), "out of reach")
        (claim,) = (await book.store.turn(turn)).claims
        done = book.new_turn(settle(claim, **WON))
        relay.cut_answers = 1
        await refused(book.store.turn(done), "out of reach")
        reply = await book.store.turn(done)
        assert (reply.claims, await book.counts()) == ((), (0, 1, 0, 1, 0, 0))
        assert (await book.found("t")).row.queries == 1


async def test_a_take_whose_answer_was_lost(server: RedisServer) -> None:
    """Sent again it hands out the same outcome, by the same count; its acknowledgement stays."""
    async with Relay(server.port) as relay, opened(relay.url) as book:
        await book.settle(await book.claim(), **WON)
        take = book.new_take(want=1, is_handed=True)
        relay.cut_answers, relay.words = 1, b"EVALSHA"
        await refused(book.store.take(take), "out of reach")
        (parcel,) = (await book.store.take(take)).parcels
        assert parcel.deliveries == 1
        done = book.new_take(receipt(parcel, Ack.DONE))
        relay.cut_answers = 1
        await refused(book.store.take(done), "out of reach")
        assert (await book.store.take(done)).is_empty
        assert await book.counts() == (0, 0, 0, 1, 0, 0)


async def test_whoever_waits_for_changes_goes_on_after_a_cut(server: RedisServer) -> None:
    """The wait says so, and the next one sees what came meanwhile."""
    async with Relay(server.port) as relay, opened(relay.url) as book:
        await book.store.changed(1.0)
        relay.was_cut.clear()
        relay.cut_answers, relay.words = 1, b"XREAD"
        waiting = asyncio.create_task(book.store.changed(5.0))
        await relay.was_cut.wait()
        await book.add("u")
        await refused(waiting, "out of reach")
        async with asyncio.timeout(4.0):
            await book.store.changed(60.0)


async def test_a_client_does_not_send_by_itself(server: RedisServer) -> None:
    """An add whose answer was lost is told as that, and was made once."""
    async with Relay(server.port) as relay, TaskBook(relay.url) as book:
        relay.cut_answers, relay.words = 1, b"EVALSHA"
        with pytest.raises(BookError):
            await book.add("t")
        assert relay.cut_answers <= 0
        assert not await book.add("t")


# Redis itself.


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_redis_that_was_ended_and_started_again(
    own_server: RedisServer, number: signal.Signals
) -> None:
    """With its AOF nothing is lost; meanwhile steps fail, and then they give the same answers."""
    async with opened(own_server.url) as book:
        await book.add("u", note="1")
        turn = book.new_turn(want=1)
        reply = await book.store.turn(turn)
        desk = await book.desk()
        own_server.send(number)
        own_server.process.wait()
        await refused(book.add("v"), "out of reach")
        await own_server.start()
        await own_server.ready()
        assert await book.store.turn(turn) == reply
        assert await book.desk() == desk
        await book.settle(reply.claims[0], **WON)
        assert (await book.hand()).key == "t"


async def test_a_redis_that_was_emptied(server: RedisServer, comet_api: SimulatedCometAPI) -> None:
    """As one that started without its data: the worker goes on with what is added from then on."""
    policy = PollPolicy(interval=(20.0, 30.0), max_rate=50.0)
    session = KlingOmniSession(comet_api.api_key, base_url=comet_api.base_url, policy=policy)
    async with TaskBook(server.url) as book, session, server.client() as client:
        async with session.work(book):
            await book.add(comet_api.create_task(duration=0.0))
            await comet_api.wait_for_queries(1)
            await client.flushall()
            task_id = comet_api.create_task(duration=0.0)
            await book.add(task_id)
            assert (await book.wait(task_id, timeout=20.0)).images
        assert (await book.progress()).succeeded == 1


@pytest.mark.parametrize("name", ["v", "desk", "rows", "new", "unread", "holds", "members", "ends"])
async def test_a_book_of_which_a_key_was_deleted(server: RedisServer, name: str) -> None:
    """Nobody goes on with the rest, where ids would be polled no more; restored, all do."""
    async with opened(server.url) as book, server.client() as client:
        await book.add("u", note="1")
        await book.settle(await book.claim(), **WON)
        await book.take(want=1, is_handed=True)
        await book.add("v")
        await book.ended("w")
        key = f"{{kling:tasks}}:{name}"
        kept = await client.dump(key)
        before = await book.desk()
        assert await client.delete(key)
        steps = (book.turn(want=1), book.take(want=1), book.add("x"), book.store.find("t"))
        for step in (*steps, book.store.progress(), book.store.ended_after(0)):
            with pytest.raises(BookError, match="no longer whole: somebody") as caught:
                await step
            assert not caught.value.transient
        assert not await client.exists(key)
        await client.restore(key, 0, kept)
        assert await book.desk() == before
        assert len((await book.turn(want=1)).claims) == 1


@pytest.mark.parametrize("name", ["v", "desk", "rows", "log", "notes"])
async def test_keys_of_somebody_else(server: RedisServer, name: str) -> None:
    """What stands under a name of a book's is left alone, and the book refused."""
    async with server.client() as client:
        await client.rpush(f"{{kling:tasks}}:{name}", "x")
        with pytest.raises(BookError, match="no longer whole"):
            await TaskBook(server.url).add("t")
        assert await client.keys() == [f"{{kling:tasks}}:{name}".encode()]


async def test_a_redis_that_stands_still(server: RedisServer) -> None:
    """An answer that does not come in time is told as such, and the same step goes on later."""
    client = server.client(socket_timeout=0.3, retry=None, protocol=2)
    async with opened(server.url), client:
        book = new_book(client, Clock())
        turn = book.new_turn(worker="other", want=1)
        await book.turn(worker="other", seq=-1)
        server.send(signal.SIGSTOP)
        try:
            await refused(book.store.turn(turn), "does not answer in time")
        finally:
            server.send(signal.SIGCONT)
        assert [claim.row.key for claim in (await book.store.turn(turn)).claims] == ["t"]


async def test_a_ready_client_that_would_wait_for_ever(server: RedisServer) -> None:
    """As Sentinel's by default: a machine that is gone says nothing, and nobody waits for it."""
    async with server.client() as client:
        clients = clients_of(client)
        assert clients.call_s == CALL_S
        clients = attrs.evolve(clients, call_s=2.0, block_s=0.1)
        store = RedisStore(clients, "tasks", place="it", keep_s=KEEP_S)
        await store.open()
        await store.progress()
        server.send(signal.SIGSTOP)
        try:
            for call in (store.progress(), store.changed(60.0)):
                await refused(call, "does not answer in time")
        finally:
            server.send(signal.SIGCONT)
        assert await store.find("t") is None
        await store.changed(60.0)
        await store.aclose()


async def test_many_calls_at_a_redis_that_stands_still(server: RedisServer) -> None:
    """Those that stand in line end with those under way, and are not sent one after the other."""
    async with TaskBook(f"{server.url}?socket_timeout=2") as book:
        await book.add("t")
        server.send(signal.SIGSTOP)
        try:
            adds = [asyncio.ensure_future(book.add(f"{number}")) for number in range(100)]
            done, _ = await asyncio.wait(adds)
        finally:
            server.send(signal.SIGCONT)
        for add in done:
            await refused(add, "does not answer in time")
        assert await book.add("u")
        assert (await book.progress()).pending <= MOST_CALLS + 2


async def test_a_book_that_is_closed_under_its_calls(server: RedisServer) -> None:
    """Those under way are answered, the others told; no connection is opened again."""
    async with TaskBook(server.url) as book:
        await book.add("t")
        calls = [asyncio.ensure_future(book.add(f"{number}")) for number in range(100)]
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
    await asyncio.wait(calls)
    made = sum(call.exception() is None for call in calls)
    said = {str(call.exception()) for call in calls if call.exception() is not None}
    assert all("is closed" in each for each in said)
    async with server.client() as client:
        assert len(await client.client_list()) == 1
    async with TaskBook(server.url) as book:
        assert (await book.progress()).pending == made + 1


async def test_scripts_that_redis_has_forgotten(server: RedisServer) -> None:
    """NOSCRIPT, as after a restart: the script is sent whole."""
    async with opened(server.url) as book, server.client() as client:
        await client.script_flush()
        assert (await book.claim()).row.key == "t"


async def test_a_redis_that_somebody_holds_up(own_server: RedisServer) -> None:
    """BUSY: the step may be made again once the script of somebody has ended."""
    async with (
        opened(own_server.url) as book,
        own_server.client() as client,
        own_server.client(retry=None) as other,
    ):
        await client.config_set("busy-reply-threshold", 50)
        spin = asyncio.ensure_future(other.eval("while true do end", 0))
        await asyncio.sleep(0.3)
        turn = book.new_turn(want=1)
        await refused(book.store.turn(turn), "held up by somebody's script")
        await client.script_kill()
        with pytest.raises(exceptions.ResponseError):
            await spin
        assert len((await book.store.turn(turn)).claims) == 1


async def test_a_redis_without_memory(server: RedisServer) -> None:
    """OOM: the whole step is refused, also one whose first change is to drop something."""
    async with opened(server.url) as book, server.client() as client:
        await book.settle(await book.claim(), **WON)
        parcel = await book.hand()
        done = book.new_take(receipt(parcel, Ack.DONE))
        before = await book.desk(), await book.found("t")
        await client.config_set("maxmemory", 1)
        for step in (book.add("u"), book.store.take(done), book.store.remove("t"), book.turn()):
            await refused(step, "no memory left")
        assert (await book.desk(), await book.found("t")) == before
        await client.config_set("maxmemory", 0)
        assert (await book.store.take(done)).is_empty


async def test_a_replica_takes_no_steps(own_server: RedisServer) -> None:
    """READONLY, as where a failover has just been: the step may be made again."""
    async with opened(own_server.url) as book, own_server.client() as client:
        await client.replicaof(HOST, own_server.port)
        await refused(book.turn(want=1), "is a replica")
        await client.replicaof("NO", "ONE")
        assert len((await book.turn(want=1)).claims) == 1


@pytest.mark.parametrize(
    ("error", "said", "is_transient"),
    [
        (exceptions.ResponseError("BUSY Redis is busy"), "held up", True),
        (exceptions.ResponseError("ERR script: -OOM command not allowed"), "no memory left", True),
        (exceptions.ResponseError("MISCONF Redis is configured to save"), "to its disk", True),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas"), "replicas", True),
        (exceptions.ResponseError("ERR user_script:1: attempt"), "refuses the step", False),
        (exceptions.ResponseError("WRONGTYPE Operation"), "no longer whole", False),
        (exceptions.BusyLoadingError("loading"), "is starting still", True),
        (exceptions.MovedError("1 127.0.0.1:1"), "RedisCluster", False),
        (exceptions.MasterDownError("MASTERDOWN"), "does not reach its primary", True),
        (exceptions.ClusterDownError("down"), "cluster that is not whole", True),
        (exceptions.TryAgainError("multiple keys"), "moves this book", True),
        (exceptions.RedisClusterException("no nodes"), "refuses the step", False),
        (exceptions.AuthenticationError("NOAUTH"), "user or password", False),
        (exceptions.NoPermissionError("no"), "grant the rights", False),
        (ConnectionResetError(), "out of reach", True),
    ],
)
def test_what_redis_says_is_wrong(error: Exception, said: str, *, is_transient: bool) -> None:
    """In words for whoever keeps the book, and whether the same call may work later."""
    found = book_error(error, "'tasks' in redis://host")
    assert found.transient is is_transient
    assert said in str(found)


async def test_certificates(tmp_path: Path) -> None:
    """`rediss://` is TLS: one that nobody has signed is refused, and one that is known is used."""
    folder = tmp_path
    command = [
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        *("-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{HOST}"),
    ]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0
    server = RedisServer(
        folder,
        *("--tls-cert-file", str(folder / "cert.pem"), "--tls-key-file", str(folder / "key.pem")),
        *("--tls-auth-clients", "no", "--tls-port", "PORT", "--port", "0"),
    )
    try:
        await server.start()
        url = f"rediss://{HOST}:{server.port}/0"
        with pytest.raises(BookError, match="out of reach"):
            await TaskBook(url).add("t")
        async with TaskBook(f"{url}?ssl_ca_certs={folder}/cert.pem") as book:
            assert await book.add("t")
    finally:
        server.kill()
