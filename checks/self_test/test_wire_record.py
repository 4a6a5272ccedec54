"""What the proxy records, and what it does to the traffic on request."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator

import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from checks.kit.postgres import Database, Server
from checks.kit.service.inside.spec import bind_port
from checks.kit.wire import OUTAGES, NeverArrived, NotIdle, Wire, committing, open_proxy
from checks.kit.wire.listener import Listener

SCHEMA = "CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10);"


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    async with server.database(SCHEMA, "record") as database:
        yield database


@pytest.fixture
async def wire(server: Server) -> AsyncIterator[Wire]:
    async with open_proxy(server.address) as wire:
        yield wire


@pytest.fixture
async def client(database: Database, wire: Wire) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.url(wire.host, wire.port, scheme="postgresql"))
    yield connection
    await connection.close(timeout=5)


async def test_a_statement_is_recorded_with_its_result(client: asyncpg.Connection, wire: Wire) -> None:
    with wire.watching() as seen:
        await client.fetch("SELECT * FROM t WHERE n > $1", 4)
        with pytest.raises(asyncpg.UniqueViolationError):
            await client.execute("INSERT INTO t VALUES (1)")
    select, insert = seen.data_statements
    assert (select.text, select.verb, select.rows, select.parameters) == (
        "SELECT * FROM t WHERE n > $1",
        "SELECT",
        6,
        1,
    )
    assert select.tag == "SELECT 6"
    assert select.finished is not None
    assert select.finished >= select.started
    assert insert.error is not None
    assert insert.error.sqlstate == "23505"
    assert seen.rows == 6
    assert seen.round_trips == 3  # prepare and execute, then a simple query
    assert seen.bytes_to_server > 0
    assert seen.bytes_from_server > seen.bytes_to_server


async def test_a_statement_refused_when_prepared_is_recorded_too(client: asyncpg.Connection, wire: Wire) -> None:
    with wire.watching() as seen, pytest.raises(asyncpg.UndefinedTableError):
        await client.fetch("SELECT * FROM missing WHERE n = $1", 1)
    assert [statement.error.sqlstate for statement in seen.data_statements if statement.error] == ["42P01"]


async def test_transactions_are_told_apart(client: asyncpg.Connection, wire: Wire) -> None:
    with wire.watching() as seen:
        async with client.transaction():
            await client.execute("DELETE FROM t WHERE n = 1")
        transaction = client.transaction()
        await transaction.start()
        await client.execute("DELETE FROM t")
        await transaction.rollback()
        await client.execute("DELETE FROM t WHERE n = 2")
    assert [transaction.outcome for transaction in seen.transactions] == ["commit", "rollback"]
    commits = [statement.text for statement in seen.statements if statement.commits]
    assert commits == ["COMMIT;", "DELETE FROM t WHERE n = 2"]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_drivers_own_statements_are_left_out(database: Database, wire: Wire, driver: str) -> None:
    engine: AsyncEngine = create_async_engine(
        database.url(wire.host, wire.port, scheme=f"postgresql+{driver}"), pool_pre_ping=True
    )
    with wire.watching() as seen:
        for _ in range(2):
            async with engine.begin() as connection:
                await connection.execute(text("UPDATE t SET n = n + 100 WHERE n = :n"), {"n": 3})
        await engine.dispose()
    assert [statement.verb for statement in seen.data_statements] == ["UPDATE", "UPDATE"]
    assert [statement.verb for statement in seen.for_display] == ["BEGIN", "UPDATE", "COMMIT"] * 2
    await wire.all_closed()
    assert [connection.close_reason for connection in wire.closed] == ["terminate"]


async def test_bare_psycopg_is_recorded(database: Database, wire: Wire) -> None:
    with wire.watching() as seen:
        async with await psycopg.AsyncConnection.connect(
            database.url(wire.host, wire.port, "postgresql")
        ) as connection:
            await connection.execute("SELECT * FROM t WHERE n < %s", (4,))
    assert [(statement.verb, statement.rows) for statement in seen.data_statements] == [("SELECT", 3)]
    assert [transaction.outcome for transaction in seen.transactions] == ["commit"]


async def test_hold_stops_at_the_point_of_execution(client: asyncpg.Connection, wire: Wire, database: Database) -> None:
    async with wire.hold("delete from t") as held:
        deleting = asyncio.create_task(client.execute("DELETE FROM t WHERE n = 1"))
        [statement] = await held.wait_for()
        assert statement.held
        assert await database.admin.fetchval("SELECT count(*) FROM t") == 10
        assert not deleting.done()
        held.release_one()
        assert await deleting == "DELETE 1"
    assert await database.admin.fetchval("SELECT count(*) FROM t") == 9


async def test_hold_by_what_makes_work_durable(client: asyncpg.Connection, wire: Wire, database: Database) -> None:
    async def work() -> None:
        async with client.transaction():
            await client.execute("DELETE FROM t WHERE n = $1", 1)

    async with wire.hold(committing) as commits:
        working = asyncio.create_task(work())
        [commit] = await commits.wait_for()
        assert commit.verb == "COMMIT"
        assert await database.admin.fetchval("SELECT count(*) FROM t") == 10
    await working
    assert await database.admin.fetchval("SELECT count(*) FROM t") == 9


async def test_waiting_in_vain_says_what_crossed_instead(client: asyncpg.Connection, wire: Wire) -> None:
    async with wire.hold("TRUNCATE") as held:
        await client.execute("SELECT 'something else'")
        with pytest.raises(NeverArrived, match=r"'TRUNCATE'.*something else"):
            await held.wait_for(timeout=0.05)
    async with wire.hold(lambda statement: False) as held:
        with pytest.raises(NeverArrived, match=r"^0 of 1 expected statements arrived"):
            await held.wait_for(timeout=0.05)


async def test_latency_is_added_once_for_each_round_trip(client: asyncpg.Connection, wire: Wire) -> None:
    loop = asyncio.get_running_loop()
    async with wire.latency(0.05):
        began = loop.time()
        for _ in range(4):
            await client.execute("SELECT 1")
        spent = loop.time() - began
    assert spent >= 0.2  # four round trips; more is a slow machine, less would be a lost delay


async def test_cut_resets_live_connections_and_new_ones_work(
    client: asyncpg.Connection, wire: Wire, database: Database
) -> None:
    assert await wire.cut() == 1
    with pytest.raises((OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
        await client.fetchval("SELECT 1")
    again = await asyncpg.connect(database.url(wire.host, wire.port, scheme="postgresql"))
    assert await again.fetchval("SELECT 1") == 1
    await again.close()
    assert wire.closed[0].close_reason == "cut"


async def test_a_black_hole_swallows_live_and_new_connections_and_gives_them_back(
    client: asyncpg.Connection, wire: Wire, database: Database
) -> None:
    async with wire.black_hole():
        asking = asyncio.create_task(client.fetchval("SELECT 'late'"))
        connecting = asyncio.create_task(asyncpg.connect(database.url(wire.host, wire.port, scheme="postgresql")))
        done, _ = await asyncio.wait({asking, connecting}, timeout=0.2)
        assert not done
    assert await asyncio.wait_for(asking, 10) == "late"
    other = await asyncio.wait_for(connecting, 10)
    assert await other.fetchval("SELECT 1") == 1
    await other.close()


async def test_refusing_turns_new_connections_away_and_leaves_live_ones(
    client: asyncpg.Connection, wire: Wire, database: Database
) -> None:
    url = database.url(wire.host, wire.port, scheme="postgresql")
    async with wire.refusing():
        with pytest.raises(asyncpg.CannotConnectNowError):
            await asyncpg.connect(url)
        assert await client.fetchval("SELECT 1") == 1
    async with wire.refusing("reset"):
        with pytest.raises(OSError):
            await asyncpg.connect(url)
    other = await asyncpg.connect(url)
    await other.close()


async def test_too_many_connections_is_postgresqls_own_error(wire: Wire, database: Database) -> None:
    async with wire.refusing("too_many_connections"):
        with pytest.raises(asyncpg.TooManyConnectionsError) as refusal:
            await asyncpg.connect(database.url(wire.host, wire.port, scheme="postgresql"))
    assert refusal.value.severity == "FATAL"


async def test_where_nothing_listens_tcp_refuses_and_the_port_stays_the_proxys(
    client: asyncpg.Connection, wire: Wire, database: Database
) -> None:
    url = database.url(wire.host, wire.port, scheme="postgresql")
    for _ in range(2):
        async with wire.refusing("nothing_listens"):
            with pytest.raises(ConnectionRefusedError):
                await asyncpg.connect(url)
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind((wire.host, wire.port))
            async with wire.refusing("nothing_listens"):
                assert await client.fetchval("SELECT 1") == 1
            with pytest.raises(ConnectionRefusedError):
                await asyncpg.connect(url)
        again = await asyncpg.connect(url)
        await again.close()


@pytest.mark.parametrize("linux", [True, False])
async def test_a_listener_stops_and_goes_on_at_the_same_port(linux: bool) -> None:
    if linux and os.uname().sysname != "Linux":
        pytest.skip("only Linux can")
    listener = Listener(asyncio.Protocol)
    address = ("127.0.0.1", listener.port)
    for _ in range(3):
        await listener.listen()
        (await asyncio.open_connection(*address))[1].close()
        listener.refuse(linux=linux)
        assert listener.port == address[1]
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)
    listener.close()
    with socket.socket() as other:
        assert other.connect_ex(address) == errno.ECONNREFUSED


async def test_a_given_port_can_be_refused_too(server: Server, database: Database) -> None:
    given = bind_port()
    given.listen()
    async with open_proxy(server.address, given) as wire:
        url = database.url(wire.host, wire.port, scheme="postgresql")
        async with wire.refusing("nothing_listens"):
            with pytest.raises(ConnectionRefusedError):
                await asyncpg.connect(url)
        await (await asyncpg.connect(url)).close()


@pytest.mark.parametrize("how", OUTAGES)
async def test_each_outage_reaches_old_and_new_connections_and_passes(
    client: asyncpg.Connection, wire: Wire, database: Database, how: str
) -> None:
    sentences: list[str] = []
    wire.subscribe(on_fault=sentences.append)
    url = database.url(wire.host, wire.port, scheme="postgresql")
    async with wire.outage(how):
        old, new = asyncio.create_task(client.fetchval("SELECT 1")), asyncio.create_task(asyncpg.connect(url))
        done, _ = await asyncio.wait({old, new}, timeout=0.2 if how == "silent" else 10)
        assert done == (set() if how == "silent" else {old, new})
        if how != "silent":
            assert isinstance(new.exception(), OSError | asyncpg.PostgresError)
            assert old.exception() is not None
    assert len(sentences) == (2 if how == "silent" else 3)
    if how == "silent":
        assert await asyncio.wait_for(old, 10) == 1
        await (await asyncio.wait_for(new, 10)).close()
    again = await asyncpg.connect(url)
    assert await again.fetchval("SELECT 1") == 1
    await again.close()


async def test_an_unknown_outage_is_named(wire: Wire) -> None:
    with pytest.raises(ValueError, match=r"There is no outage 'gone'\. There are: nothing_listens, "):
        async with wire.outage("gone"):
            pass


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_lost_response_to_commit_leaves_the_row_and_a_broken_connection(
    database: Database, wire: Wire, driver: str
) -> None:
    sentences: list[str] = []
    wire.subscribe(on_fault=sentences.append)
    engine: AsyncEngine = create_async_engine(database.url(wire.host, wire.port, scheme=f"postgresql+{driver}"))

    async def insert(number: int) -> None:
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": number})

    async with wire.lost_response(committing, limit=1) as lost:
        with pytest.raises((DBAPIError, OSError)):
            await insert(100)
        assert lost.count == 1
        assert lost.statements[0].verb == "COMMIT"
        await insert(200)
    await insert(300)
    await engine.dispose()
    await wire.all_closed()
    stored = await database.admin.fetch("SELECT n FROM t WHERE n >= 100 ORDER BY n")
    assert [row["n"] for row in stored] == [100, 200, 300]
    assert lost.count == 1
    assert [sentence[:29] for sentence in sentences] == ["the response to COMMIT was lo" if driver == "psycopg" else
                                                         "the response to COMMIT; was l"]  # fmt: skip
    assert [connection.close_reason for connection in wire.closed] == ["cut", "terminate"]


async def test_a_lost_response_to_a_statement_outside_a_transaction(
    client: asyncpg.Connection, wire: Wire, database: Database
) -> None:
    async with wire.lost_response("insert into t") as lost, wire.hold("insert into t") as held:
        inserting = asyncio.create_task(client.execute("INSERT INTO t VALUES ($1)", 100))
        await held.wait_for()
        assert lost.count == 0
        held.release()
        with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
            await inserting
        assert lost.count == 1
    assert await database.admin.fetchval("SELECT count(*) FROM t WHERE n = 100") == 1


async def test_settled_waits_for_the_end_of_transactions(client: asyncpg.Connection, wire: Wire) -> None:
    await client.execute("BEGIN")
    with pytest.raises(NotIdle, match="inside a transaction"):
        await wire.wait_idle(timeout=0.05)
    waiting = asyncio.create_task(wire.wait_idle(timeout=10))
    await client.execute("COMMIT")
    await waiting


async def test_a_client_that_just_leaves_is_told_apart(database: Database, wire: Wire) -> None:
    url = database.url(wire.host, wire.port, scheme="postgresql")
    polite, rude = await asyncpg.connect(url), await asyncpg.connect(url)
    await polite.close()
    rude._transport.abort()  # type: ignore[attr-defined]
    await wire.all_closed()
    assert sorted(connection.close_reason for connection in wire.closed) == ["dropped", "terminate"]
