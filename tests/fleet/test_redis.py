"""What only a book in Redis has: its keys, its rights, its client."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest
import redis.asyncio
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from kling_omni_async import BookError, ConfigurationError, TaskBook, WrongLoopError
from kling_omni_async._book.contract import Ack, State
from kling_omni_async._book.redis_client import BLOCK_S, clients_of
from kling_omni_async._book.redis_script import KEYS, LOG_KEPT, RIGHTS, key_names
from kling_omni_async._book.redis_wire import LONGEST_BRIEF
from tests.book.pure import KEEP_S, WON, receipt
from tests.book.stores import Clock, StoreBook
from tests.faults.processes import HOST, ROOT, free_port, until

from .books import new_book, new_store
from .server import RedisServer, commands

pytestmark = pytest.mark.anyio


async def use(book: StoreBook) -> None:
    """Make each step of a book once, and each look."""
    await book.begin()
    assert await book.add("a", "b", note='"n"') == [True, True]
    await book.intend("x")
    await book.store.created("x", None)
    assert await book.store.nudge("a")
    a, b = (await book.turn(want=2)).claims
    await book.settle(a, **WON, lesson=("k", 1.0, 2.0, None))
    await book.settle(b)
    parcel = await book.hand()
    await book.take(receipt(parcel, Ack.DONE))
    assert await book.store.remove("b")
    assert not await book.store.retry("a")
    assert len(await book.store.list("", 9)) == 1
    assert (await book.store.ended_after(0))[1] == ["a"]
    await book.store.changed(1.0)
    await book.take(is_leaving=True)
    await book.turn(is_leaving=True)
    book.clock.spend(2 * KEEP_S)
    await book.turn()
    assert await book.counts() == (0, 0, 0, 0, 0, 0)


# Keys.


async def test_books_of_one_redis_are_apart(server: RedisServer) -> None:
    """Each has a name, "tasks" by default, and all of its keys in one slot of a cluster."""
    async with TaskBook(server.url) as tasks, TaskBook(server.url, name="shop") as shop:
        await tasks.add("t")
        assert await shop.get("t") is None
        assert (await shop.progress()).pending == 0
    async with server.client(decode_responses=True) as client:
        keys = await client.keys()
    assert all(key.startswith("{kling:tasks}:") for key in keys)
    assert {key.partition(":")[2].partition(":")[2] for key in keys} <= {*KEYS}


@pytest.mark.parametrize("name", ["", "a b", "{a}", "a}", "x" * 101, 7, "\ud800", "\x7f", "a\n"])
def test_a_name_that_no_key_can_have_is_refused(server: RedisServer, name: Any) -> None:
    """Braces would put the keys of a book into several slots."""
    with pytest.raises(ConfigurationError, match="braces"):
        TaskBook(server.url, name=name)


@pytest.mark.parametrize("form", ["0", "2"])
async def test_keys_of_another_form_are_left_alone(server: RedisServer, form: str) -> None:
    """Whoever knows another form stops at its next step, and changes nothing."""
    book = new_book(server.url, Clock())
    await book.begin()
    await book.add("t")
    async with server.client() as client:
        await client.set(key_names("tasks")[0], form)
        before = {key: await client.dump(key) for key in await client.keys()}
        for step in (book.turn(want=1), book.take(want=1), book.add("u"), book.found("t")):
            with pytest.raises(BookError, match=f"form {form}") as caught:
                await step
            assert not caught.value.transient
        assert {key: await client.dump(key) for key in await client.keys()} == before
    await book.store.aclose()


async def test_bodies_of_what_has_not_ended_stay_out(server: RedisServer) -> None:
    """Of a pending task its status is kept, and of one that ended the whole outcome."""
    book = new_book(server.url, Clock())
    await book.begin()
    body = '{"task_id":"t","status":"processing","raw":{"prompt":"%s"}}' % ("x" * LONGEST_BRIEF)
    await book.add("t", task=body)
    claim = await book.claim()
    await book.settle(claim, is_task=True, task=body)
    assert (await book.found("t")).row.task == '{"task_id":"t","status":"processing"}'
    async with server.client() as client:
        assert b"xxx" not in b"".join([await client.dump(key) for key in await client.keys()])
    await book.store.aclose()


async def test_nothing_grows_for_ever(server: RedisServer) -> None:
    """After the time to keep ends, only what tells of the book itself is left."""
    book = new_book(server.url, Clock())
    await book.begin()
    for number in range(3 * LOG_KEPT):
        await book.add(f"{number}", note="1")
        await book.settle(await book.claim(), **WON)
    await book.take(want=1, reader="s")
    book.clock.spend(KEEP_S + 1.0)
    dropped: list[str] = []
    while some := (await book.turn()).dropped:
        dropped += some
    assert len(dropped) == 3 * LOG_KEPT
    async with server.client(decode_responses=True) as client:
        left = {key.rpartition("}:")[2] for key in await client.keys()}
        assert await client.xlen(key_names("tasks")[-1]) < 3 * LOG_KEPT
        assert await client.ttl("{kling:tasks}:reply:w") > 0
    assert left == {"v", "desk", "ends", "members", "log", "reply:w", "reply:s"}
    await book.store.aclose()


async def test_an_outcome_that_was_removed_is_not_in_an_answer_that_is_given_again(
    server: RedisServer,
) -> None:
    """The reply to a step is kept as names alone."""
    book = new_book(server.url, Clock())
    await book.begin()
    await book.ended("t")
    await book.ended("u")
    take = book.new_take(want=2)
    assert [each.key for each in (await book.store.take(take)).parcels] == ["t", "u"]
    await book.store.remove("t")
    assert [each.key for each in (await book.store.take(take)).parcels] == ["u"]
    await book.store.aclose()


async def test_a_long_list_comes_a_part_at_a_time(server: RedisServer) -> None:
    """In order, each once, whatever was removed since it was begun."""
    book = new_book(server.url, Clock())
    await book.begin()
    await book.add(*(f"{number:04}" for number in range(2_500)))
    some = await book.store.list("", 300)
    await book.store.remove("0300")
    while len(part := await book.store.list(some[-1].row.key, 300)) == 300:
        some += part
    keys = [found.row.key for found in [*some, *part]]
    assert keys == [f"{number:04}" for number in range(2_500) if number != 300]
    other = new_store(server.url)
    assert [each.row.key for each in await other.list("2497", 9)] == ["2498", "2499"]
    await other.aclose()
    await book.store.aclose()


# Rights and passwords.


async def test_the_rights_that_a_book_needs(server: RedisServer) -> None:
    """A user who may use these commands on these keys makes all steps; one less is told."""
    url = server.url.replace("//", "//shop:s3cret@")
    async with server.client() as client:

        async def allow(*rights: str) -> None:
            await client.execute_command(
                *("ACL", "SETUSER", "shop", "reset", "on", ">s3cret", "~{kling:tasks}:*"),
                *commands(rights),
            )

        await allow(*RIGHTS)
        book = new_book(url, Clock())
        await use(book)
        await book.store.aclose()
        await client.flushall()
        for right in RIGHTS:
            if right in {"time", "info", "eval", "xread"}:
                continue  # what a step needs beside keys shows in the step
            await allow(*(each for each in RIGHTS if each != right))
            refused = new_store(url)
            with pytest.raises(BookError, match="user") as caught:
                await refused.open()
            assert not caught.value.transient
            assert "s3cret" not in str(caught.value)
        await allow(*(each for each in RIGHTS if each not in {"time", "xread"}))
        book = StoreBook(new_store(url), Clock())
        await book.store.open()
        for step in (book.add("t"), book.store.changed(0.1)):
            with pytest.raises(BookError, match="user"):
                await step
        await book.store.aclose()
        other = new_store(url, name="other")
        with pytest.raises(BookError, match="refuses a command to this user"):
            await other.open()
        await client.execute_command("ACL", "DELUSER", "shop")


async def test_another_database_takes_one_right_more(server: RedisServer) -> None:
    """The client selects it; the page says so."""
    async with server.client() as client:
        rights = commands([*RIGHTS, "select"])
        user = ("ACL", "SETUSER", "shop", "on", ">s3cret", "~{kling:tasks}:*")
        await client.execute_command(*user, *rights)
        async with TaskBook(f"redis://shop:s3cret@{HOST}:{server.port}/1") as book:
            assert await book.add("t")
        assert not await client.keys()
        await client.execute_command("ACL", "DELUSER", "shop")


async def test_a_wrong_password_is_said_and_not_shown(server: RedisServer) -> None:
    """No error, repr or cause of one has it."""
    book = TaskBook(server.url.replace("//", "//shop:s3cret@") + "?client_name=s3cret")
    with pytest.raises(BookError, match="does not know this user or password") as caught:
        await book.add("t")
    assert not caught.value.transient
    assert "s3cret" not in f"{caught.value!r} {caught.value.__context__!r} {book!r}"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cret@host:port/0",
        "redis://:s3cret@host:99999999",
        "redis://h?socket_timeout=s3cret",
        "redis://h?option=s3cret",
        "redis://h?ssl_cert_reqs=s3cret",
        "rediss://h?ssl_cert_reqs=s3cret",
        "redis://:s3cret#@host/0",
        "redis://:5#s3cret@host/0",
        "redis://:s3cret?@host/0",
        "redis://:5?s3cret@host/0",
        "redis://:s3cret/@host/0",
        "redis://:5/s3cret@host/0",
        "redis://host/s3cret",
    ],
)
def test_a_url_that_cannot_be_read_is_refused(url: str) -> None:
    """At once, without what may be secret in it, which may stand anywhere."""
    with pytest.raises(ConfigurationError, match="no URL of Redis") as caught:
        TaskBook(url)
    assert "s3cret" not in f"{caught.value!r}"


async def test_a_user_and_password_of_any_characters(server: RedisServer) -> None:
    """Percent-encoded in the URL, which may have the space and the end of a line around it."""
    user, password = "us:er@", "p@:/?#[]%é &"
    async with server.client() as client:
        await client.execute_command(
            *("ACL", "SETUSER", user, "reset", "on", f">{password}", "~*", "+@all")
        )
        name = f"{quote(user, safe='')}:{quote(password, safe='')}"
        async with TaskBook(f" {server.url.replace('//', f'//{name}@')}\n") as book:
            assert await book.add("t")
            assert repr(book) == f"<TaskBook 'tasks' in {server.url} running>"
        await client.execute_command("ACL", "DELUSER", user)


# How Redis is set up.


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "noeviction"])
async def test_a_redis_that_evicts(
    server: RedisServer, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What throws entries away is refused, and what may throw replies away is warned of."""
    async with server.client() as client:
        await client.config_set("maxmemory-policy", policy)
        store = new_store(server.url)
        is_refused = policy.startswith("allkeys")
        try:
            with (
                caplog.at_level(logging.WARNING, "kling_omni_async.book"),
                pytest.raises(ConfigurationError, match=policy) if is_refused else nullcontext(),
            ):
                await store.open()
            assert (policy in caplog.text) is policy.startswith("volatile")
        finally:
            await store.aclose()
            await client.config_set("maxmemory-policy", "noeviction")


# Clients.


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_ready_client_is_used_and_not_closed(
    server: RedisServer, *, protocol: int, decode: bool
) -> None:
    """Whatever protocol it speaks, and whether it decodes."""
    async with server.client(protocol=protocol, decode_responses=decode) as client:
        assert isinstance(client, Redis)
        await use(new_book(client, Clock()))
        await client.flushall()
        async with TaskBook(client) as book:
            await book.add("t")
        assert await client.ping()


@pytest.mark.parametrize(("limit", "block"), [(None, BLOCK_S), (1.0, 0.5), (60.0, BLOCK_S)])
async def test_a_ready_client_waits_no_longer_than_it_may(
    server: RedisServer, limit: float | None, block: float
) -> None:
    """A wait ends before the client's own time-out."""
    async with server.client(socket_timeout=limit) as client:
        assert clients_of(client).block_s == block


@pytest.mark.parametrize("decode", [False, True])
async def test_a_ready_client_of_another_encoding(server: RedisServer, *, decode: bool) -> None:
    """Texts are those that were given, whatever the client makes of texts."""
    note = "é\u2028🦊"
    async with (
        server.client(encoding="latin-1", decode_responses=decode) as client,
        TaskBook(client, name="lädchen") as book,
    ):
        await book.add("t", note=note)
        entry = await book.get("t")
        assert entry is not None
        assert entry.note == note
    async with TaskBook(server.url, name="lädchen") as book:
        assert (await book.progress()).pending == 1


async def test_what_is_no_client_of_redis_asyncio_is_refused(server: RedisServer) -> None:
    """It has a method of that name, but does not answer so."""
    async with server.client() as client:
        with redis.Redis(host=HOST, port=server.port) as other:
            for where in (other, client.pipeline(), client.pubsub()):
                name = type(where).__name__
                with pytest.raises(ConfigurationError, match=rf"of redis\.asyncio, .*{name}"):
                    await TaskBook(where).add("t")


async def test_a_ready_client_of_another_loop(server: RedisServer) -> None:
    """It is told as that, before anything is kept."""
    said: list[str] = []

    async def add() -> None:
        with pytest.raises(WrongLoopError) as caught:
            await TaskBook(client).add("t")
        said.append(str(caught.value))

    async with server.client() as client, TaskBook(server.url) as book:
        await client.ping()
        thread = Thread(target=asyncio.run, args=[add()])
        thread.start()
        thread.join()  # this loop stands still meanwhile: no answer gets through by it
        assert "used in another event loop" in said[0]
        assert await book.get("t") is None


async def test_an_error_of_a_client_that_is_no_answer_is_raised() -> None:
    """A defect of a client is not told as trouble of Redis."""

    class Client:
        async def execute_command(self, *_: object, **__: object) -> object:
            raise RuntimeError("no answer")

    with pytest.raises(RuntimeError, match="no answer"):
        await TaskBook(Client()).add("t")


async def test_no_more_calls_than_connections(server: RedisServer) -> None:
    """A small pool is shared by what is under way; a single connection cannot be."""
    async with server.client(max_connections=3) as client, TaskBook(client) as book:
        await book.add("t")
        waiting = asyncio.create_task(book.wait("t", timeout=30.0))
        await asyncio.gather(*(book.add(f"{number}") for number in range(50)))
        assert (await book.progress()).pending == 51
        waiting.cancel()
    async with TaskBook(f"{server.url}?max_connections=1") as book:
        assert sum(await asyncio.gather(*(book.add(f"a{number}") for number in range(9)))) == 9
    for options in ({"max_connections": 1}, {"single_connection_client": True}):
        async with server.client(**options) as client:
            with pytest.raises(ConfigurationError, match="single connection"):
                TaskBook(client)


async def test_options_of_the_url_keep_to_what_a_book_needs(server: RedisServer) -> None:
    """Nothing is sent again by itself, and a wait ends before the time-out of its answer."""
    clients = clients_of(f"{server.url}?retry_on_timeout=yes&socket_timeout=2")
    assert clients.block_s == 1.0
    for client in clients.own:
        connection = client.connection_pool.make_connection()  # type: ignore[attr-defined]
        assert connection.retry.get_retries() == 0
    await clients.aclose()


async def test_a_socket_of_the_machine(server: RedisServer) -> None:
    """`unix://` leads to it."""
    async with TaskBook(f"unix://{server.folder}/redis.sock?db=0") as book:
        assert await book.add("t")


async def test_a_cluster(tmp_path: Path) -> None:
    """A ready client of a cluster will do; a plain one is told to be none."""
    bus = str(free_port())  # that of its own choice may be somebody's
    node = RedisServer(tmp_path, "--cluster-enabled", "yes", "--cluster-port", bus)
    try:
        await node.start()
        await node.ready()
        async with node.client() as client:
            with pytest.raises(BookError, match="cluster") as caught:
                await new_store(node.url).open()
            assert caught.value.transient
            await client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await until(node.is_whole_cluster)
            await client.execute_command(
                *("ACL", "SETUSER", "shop", "on", ">s3cret", "~{kling:tasks}:*"),
                *commands([*RIGHTS, "cluster|slots", "command"]),
            )
        never = Retry(NoBackoff(), 0)
        cluster = redis.asyncio.RedisCluster(
            host=HOST, port=node.port, retry=never, username="shop", password="s3cret"
        )
        await use(new_book(cluster, Clock()))
        await cluster.aclose()
    finally:
        node.kill()


# Changes.


async def test_pending_answers_wake_nobody(server: RedisServer) -> None:
    """What others cannot use is no news; an end is."""
    book = new_book(server.url, Clock())
    await book.begin()
    await book.add("t")
    claim = await book.claim()
    last = book.store._last  # type: ignore[attr-defined]
    await book.store.changed(0.1)
    assert book.store._last != last  # type: ignore[attr-defined]
    last = book.store._last  # type: ignore[attr-defined]
    await book.settle(claim)
    await book.store.changed(0.1)
    assert book.store._last == last  # type: ignore[attr-defined]
    book.clock.spend(60.0)
    waiting = asyncio.create_task(book.store.changed(60.0))
    await book.settle(await book.claim(), **WON)
    await asyncio.wait_for(waiting, 5.0)
    assert (await book.found("t")).row.state is State.UNREAD
    await book.store.aclose()


def test_the_page_names_the_rights() -> None:
    """What the page on fleets grants is what a step needs, each command once."""
    page = (ROOT / "docs" / "fleet.md").read_text(encoding="utf-8")
    granted = page.partition("ACL SETUSER")[2].partition("```")[0]
    assert sorted(word[1:] for word in granted.split() if word[0] == "+") == sorted(RIGHTS)
