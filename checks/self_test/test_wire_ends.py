"""How connections begin and end at the proxy, what it keeps of them, and that it never keeps more than it must."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import sys
import weakref
from collections.abc import AsyncIterator

import asyncpg
import pytest

from checks.kit.postgres import Database, Server
from checks.kit.wire import Statement, Wire, connection, open_proxy, portals, recording, statements
from checks.kit.wire.protocol import GSS, TLS, error_fields
from checks.kit.wire.recording import TrafficLog
from checks.kit.wire.tracker import StatementTracker
from checks.kit.wire.transports import Side
from checks.self_test.wire_client import Client, bind, cancel_request, execute, parse, query, start_up

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing the socket sends a RST."""

SLEEPS = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"


@pytest.fixture(scope="module")
async def database(server: Server) -> AsyncIterator[Database]:
    async with server.database("CREATE TABLE t (n int)", "ends") as database:
        yield database


@pytest.fixture
async def wire(server: Server) -> AsyncIterator[Wire]:
    async with open_proxy(server.address) as wire:
        yield wire


@pytest.fixture
async def client(database: Database, wire: Wire) -> AsyncIterator[Client]:
    client = await Client.connect(proxied(database, wire))
    yield client
    await client.close()


def proxied(database: Database, wire: Wire) -> str:
    return database.url(wire.host, wire.port, scheme="postgresql")


async def response_to(wire: Wire, *sent: bytes) -> bytes:
    """Everything that comes back to a client that sends this, and then nothing more (FIN)."""
    reader, writer = await asyncio.open_connection(wire.host, wire.port)
    for piece in sent:
        writer.write(piece)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


# -- a cancel request


@pytest.mark.parametrize("reset", [False, True])
async def test_a_cancel_request_arrives_though_its_sender_leaves_at_once(
    database: Database, wire: Wire, reset: bool
) -> None:
    if reset and sys.platform != "linux":
        pytest.skip("only Linux lets what was sent before a RST be read")
    client = await asyncpg.connect(proxied(database, wire))
    sleeping = asyncio.create_task(client.execute("SELECT pg_sleep(600)"))
    async with asyncio.timeout(30):
        while not await database.admin.fetchval(SLEEPS):
            await asyncio.sleep(0)
    protocol = client._protocol  # type: ignore[attr-defined]
    with socket.create_connection((wire.host, wire.port)) as canceling:
        if reset:
            canceling.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        canceling.sendall(cancel_request(protocol.backend_pid, protocol.backend_secret))
    with pytest.raises(asyncpg.QueryCanceledError):
        await asyncio.wait_for(sleeping, 30)
    await client.close()
    await wire.all_closed()
    assert [one.close_reason for one in wire.closed] == ["terminate"]


# -- a client that closes only its own direction


@pytest.mark.parametrize("rows", [1, 20_000])
async def test_a_client_that_sends_no_more_gets_its_response(client: Client, wire: Wire, rows: int) -> None:
    with wire.watching() as seen:
        await client.send(query(f"SELECT repeat('x', 1000) FROM generate_series(1, {rows})"))
        client.writer.write_eof()
        await client.ended()
    kinds = [kind for kind, _ in client.received]
    assert (kinds.count("D"), kinds[-2:]) == (rows, ["C", "Z"])
    await wire.all_closed()
    [statement] = seen.statements
    assert (statement.rows, statement.error) == (rows, None)
    assert [one.close_reason for one in wire.closed] == ["dropped"]


async def test_it_gets_its_response_late_if_the_wire_is_slow(client: Client, wire: Wire) -> None:
    async with wire.latency(0.01):
        await client.send(query("SELECT 1") + query("SELECT 2"))
        client.writer.write_eof()
        await client.ended()
    assert [kind for kind, _ in client.received].count("Z") == 2


async def test_what_is_sent_with_the_start_up_message_is_passed_on(database: Database, wire: Wire) -> None:
    start = start_up(user=database.role, database=database.name)
    assert (await response_to(wire, start))[:1] == b"R"  # the server requests a password, or does without


async def test_a_statement_that_a_hold_has_stopped_never_runs_if_its_client_leaves(
    client: Client, wire: Wire, database: Database
) -> None:
    async with wire.hold("INSERT") as held:
        await client.send(query("INSERT INTO t VALUES (1)"))
        await held.wait_for()
        client.writer.write_eof()
        await wire.all_closed()
        assert held.waiting == []
    await client.ended()
    assert await database.admin.fetchval("SELECT count(*) FROM t") == 0


async def test_a_client_that_has_left_counts_as_gone_while_the_server_still_works(
    client: Client, wire: Wire, database: Database
) -> None:
    async with database.admin.transaction():
        await database.admin.execute("LOCK TABLE t")
        await client.send(query("SELECT * FROM t"))
        client.writer.write_eof()
        await wire.all_closed()
        await wire.wait_idle()
    await client.ended()
    assert [kind for kind, _ in client.received][-1] == "Z"


# -- the start


async def test_encryption_is_refused_once_for_each_kind(wire: Wire) -> None:
    tls, gss = struct.pack("!ii", 8, TLS), struct.pack("!ii", 8, GSS)
    said = await response_to(wire, gss, tls, tls)
    assert said[:2] == b"NN"
    fields = error_fields(said[7:])
    assert (fields["C"], fields["M"]) == ("0A000", "unsupported frontend protocol 1234.5679")


async def test_a_start_up_message_must_arrive_in_time(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "START_TIMEOUT", 0.05)
    reader, writer = await asyncio.open_connection(wire.host, wire.port)
    writer.write(struct.pack("!ii", 100, 196608))
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()


async def test_a_client_in_a_black_hole_is_not_late(
    database: Database, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = asyncio.Event()
    start_late = connection.Connection._start_late

    def start_is_late(self: connection.Connection) -> None:
        start_late(self)
        waited.set()

    monkeypatch.setattr(connection, "START_TIMEOUT", 0.01)
    monkeypatch.setattr(connection.Connection, "_start_late", start_is_late)
    async with wire.black_hole():
        connecting = asyncio.create_task(asyncpg.connect(proxied(database, wire)))
        await asyncio.wait_for(waited.wait(), 30)
        monkeypatch.setattr(connection, "START_TIMEOUT", 60)
        waited.clear()  # the next time is already on its way
        await asyncio.wait_for(waited.wait(), 30)
    await (await connecting).close()


# -- back pressure


async def test_a_black_hole_does_not_end_back_pressure(client: Client, wire: Wire) -> None:
    """The client reads nothing of 30 MB, so the proxy soon stops reading from the server, and must not go on later."""
    client.pause()
    await client.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 30000)"))
    link = wire.connections[0]._link
    assert link.client is not None
    assert link.server is not None
    async with asyncio.timeout(30):
        while link.server.is_reading():  # type: ignore[attr-defined]
            await asyncio.sleep(0)
    async with wire.black_hole():
        pass
    assert not link.server.is_reading()  # type: ignore[attr-defined]
    assert link.client.get_write_buffer_size() < 1 << 20
    client.resume()
    await client.until("Z")
    assert [kind for kind, _ in client.received].count("D") == 30_000


async def test_latency_does_not_end_back_pressure(client: Client, wire: Wire, database: Database) -> None:
    """The server is busy and reads nothing of 30 MB, so the proxy soon stops reading from the client."""
    one = query(f"SELECT '{'x' * 10_000}'")
    [live] = wire.connections
    link = live._link

    async def nothing_moves() -> None:
        assert link.client is not None
        while link.client.is_reading() or live._stopped is not None:  # type: ignore[attr-defined]
            await asyncio.sleep(0)

    async with database.admin.transaction(), asyncio.timeout(60):
        await database.admin.execute("LOCK TABLE t")
        async with wire.latency(0.0001):
            await client.send(query("SELECT * FROM t"))
            sending, stuck = asyncio.create_task(client.send(one * 3000)), asyncio.create_task(nothing_moves())
            await asyncio.wait({sending, stuck}, return_when=asyncio.FIRST_COMPLETED)
            assert not sending.done()
            assert link.server is not None
            assert link.server.get_write_buffer_size() + live._waiting_size < 4 << 20
    async with asyncio.timeout(60):
        await sending
        await client.until_all("Z", 3001)


# -- one connection that falls silent


async def test_one_connection_falls_silent_and_others_go_on(client: Client, database: Database, wire: Wire) -> None:
    [silent] = wire.connections
    silent.silence()
    await client.send(query("INSERT INTO t VALUES (1)"))
    other = await asyncpg.connect(proxied(database, wire))
    for _ in range(3):
        assert await other.fetchval("SELECT count(*) FROM t") == 0
    await wire.cut(lambda connection: connection.id == silent.id)
    assert await other.fetchval("SELECT count(*) FROM t") == 0, "what was swallowed never arrives"
    await other.close()


# -- what is kept


async def test_little_is_kept_of_a_connection_that_has_ended(database: Database, wire: Wire) -> None:
    opened = []
    for _ in range(3):
        client = await asyncpg.connect(proxied(database, wire))
        opened.append(weakref.ref(wire.connections[0]))
        await client.close()
        await wire.all_closed()
    async with asyncio.timeout(30):
        while any(one() for one in opened):  # the event loop still holds what it has just called
            await asyncio.sleep(0)
            gc.collect()
    assert [(one.id, one.status, one.parameters["database"]) for one in wire.closed] == [
        (number, "I", database.name) for number in (1, 2, 3)
    ]


async def test_closed_connections_are_bounded(database: Database, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checks.kit.wire.proxy.MAX_CLOSED", 2)
    for _ in range(3):
        await (await asyncpg.connect(proxied(database, wire))).close()
    await wire.all_closed()
    assert [one.id for one in wire.closed] == [1, 2]


@pytest.fixture
def talk() -> StatementTracker:
    return StatementTracker(1, TrafficLog())


def sends(talk: StatementTracker, *data: bytes) -> None:
    for piece in data:
        assert len(list(talk.read_client(piece))) >= 0


def test_transactions_are_bounded(talk: StatementTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_STATEMENTS", 2)
    for _ in range(3):
        talk.read_server(b"Z\0\0\0\x05T" + b"Z\0\0\0\x05I")
    assert len(talk._log.transactions) == 2


def test_the_texts_of_statements_are_bounded_and_kept_once(
    talk: StatementTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_TEXT", 25)
    for text in ("SELECT 1", "SELECT 1", "SELECT 22", "SELECT 333", "SELECT 1", "SELECT 4"):
        sends(talk, query(text))
    kept = talk._log.statements
    assert [one.text for one in kept] == ["SELECT 1", "SELECT 1", "SELECT 22", "SELECT 1", "SELECT 4"]
    assert len({id(one.text) for one in kept}) == 3


def test_long_texts_are_kept_by_no_cache() -> None:
    statement = Statement(1, f"SELECT '{'x' * 10_000}'", 0.0)
    before = statements._verb.cache_info().currsize, statements._is_driver.cache_info().currsize
    assert (statement.verb, statement.driver) == ("SELECT", False)
    assert (statements._verb.cache_info().currsize, statements._is_driver.cache_info().currsize) == before


def test_prepared_statements_are_bounded(talk: StatementTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portals, "MAX_PREPARED", 2)
    for number in range(4):
        sends(talk, parse(f"SELECT {number}", f"named{number}"))
    for number in range(4):
        sends(talk, bind(f"named{number}") + execute())
    assert [one.text for one in talk._log.statements] == ["", "", "SELECT 2", "SELECT 3"]


# -- other event loops


def test_a_transport_need_not_be_of_asyncios_classes() -> None:
    """Those of uvloop are not."""

    class Transport:
        def get_extra_info(self, name: str) -> None:
            return None

    given: list[object] = []
    side = Side(connected=given.append, received=given.append, lost=lambda: None, full=given.append)
    transport = Transport()
    side.connection_made(transport)  # type: ignore[arg-type]
    assert given == [transport]
