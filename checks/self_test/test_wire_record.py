"""What the tap records, and what it does to the traffic on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from checks.kit.postgres import Database, Server
from checks.kit.wire import NeverArrived, NotSettled, Wire, committing, open_tap

SCHEMA = "CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10);"


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    async with server.database(SCHEMA, "record") as database:
        yield database


@pytest.fixture
async def wire(server: Server) -> AsyncIterator[Wire]:
    async with open_tap(server.address) as wire:
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
    assert [statement.verb for statement in seen.story] == ["BEGIN", "UPDATE", "COMMIT"] * 2
    await wire.all_closed()
    assert [connection.farewell for connection in wire.closed] == ["terminate"]


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
        [statement] = await held.reached()
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
        [commit] = await commits.reached()
        assert commit.verb == "COMMIT"
        assert await database.admin.fetchval("SELECT count(*) FROM t") == 10
    await working
    assert await database.admin.fetchval("SELECT count(*) FROM t") == 9


async def test_waiting_in_vain_says_what_crossed_instead(client: asyncpg.Connection, wire: Wire) -> None:
    async with wire.hold("TRUNCATE") as held:
        await client.execute("SELECT 'something else'")
        with pytest.raises(NeverArrived, match="something else"):
            await held.reached(timeout=0.05)


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
    assert wire.closed[0].farewell == "cut"


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


async def test_settled_waits_for_the_end_of_transactions(client: asyncpg.Connection, wire: Wire) -> None:
    await client.execute("BEGIN")
    with pytest.raises(NotSettled, match="inside a transaction"):
        await wire.settled(timeout=0.05)
    waiting = asyncio.create_task(wire.settled(timeout=10))
    await client.execute("COMMIT")
    await waiting


async def test_a_client_that_just_leaves_is_told_apart(database: Database, wire: Wire) -> None:
    url = database.url(wire.host, wire.port, scheme="postgresql")
    polite, rude = await asyncpg.connect(url), await asyncpg.connect(url)
    await polite.close()
    rude._transport.abort()  # type: ignore[attr-defined]
    await wire.all_closed()
    assert sorted(connection.farewell for connection in wire.closed) == ["dropped", "terminate"]
