"""The proxy passes everything through unchanged: real clients see what they see without it."""

from __future__ import annotations

import asyncio
import random
import re
import struct
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psycopg
import pytest

from checks.kit.postgres import Database, Server
from checks.kit.wire import Wire, open_proxy
from checks.kit.wire.protocol import Splitter, skip_run
from checks.kit.wire.recording import TrafficLog
from checks.kit.wire.tracker import StatementTracker

SCRIPT = r"""
\set VERBOSITY verbose
SELECT n, n * 1.5, 'text ' || n, NULL, ARRAY[n, n], now() > '2000-01-01' FROM generate_series(1, 500) n;
SELECT; SELECT 1 WHERE false; SELECT 1; SELECT 2 \; SELECT 3;
DO $$ BEGIN RAISE NOTICE 'a notice with ä and 漢字'; END $$;
CREATE TEMP TABLE t (a int PRIMARY KEY, b text);
COPY t FROM STDIN;
1	one
2	zwei
\.
COPY t TO STDOUT;
INSERT INTO t VALUES (1, 'twice');
BEGIN; SELECT 1/0; SELECT 'ignored'; ROLLBACK;
SELECT * FROM missing;
PREPARE p(int) AS SELECT $1 + 1; EXECUTE p(41);
LISTEN here; NOTIFY here, 'payload';
\bind 7 \parse named
SELECT $1::int \bind 5 \g
COPY t FROM STDIN \bind \g
3	drei
\.
SHOW server_version;
"""


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    async with server.database("", "wire") as database:
        yield database


@pytest.fixture
async def wire(server: Server) -> AsyncIterator[Wire]:
    async with open_proxy(server.address) as wire:
        yield wire


def proxied(database: Database, wire: Wire) -> str:
    return database.url(wire.host, wire.port, scheme="postgresql")


def direct(database: Database, server: Server) -> str:
    where = f"host={server.address.host} port={server.address.port} dbname={database.name}"
    return f"{where} user={database.role} password={database.password}"


async def output(server: Server, program: str, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Exit code, standard output and errors of one of PostgreSQL 18's own clients."""
    assert server.binaries is not None, "the embedded server brings psql and pgbench"
    command = [str(server.binaries / program), *arguments]
    done = await asyncio.to_thread(
        subprocess.run, command, input=stdin, capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    return done.returncode, done.stdout, done.stderr


async def test_psql_prints_the_same(server: Server, database: Database, wire: Wire) -> None:
    options = ["--no-psqlrc", "--echo-queries", "--file", "-"]
    plain = await output(server, "psql", direct(database, server), *options, stdin=SCRIPT)
    through = await output(server, "psql", proxied(database, wire), *options, stdin=SCRIPT)

    def comparable(result: tuple[int, str, str]) -> list[str]:
        # the process and the temporary schema differ from connection to connection
        text = re.sub(r"pg_temp_\d+", "pg_temp", result[1] + result[2])
        return [line for line in text.splitlines() if "server process with PID" not in line]

    assert "zwei" in through[1]
    assert "duplicate key" in through[2]
    assert comparable(through) == comparable(plain)


async def test_the_log_stays_in_step_after_a_copy_by_the_extended_protocol(
    server: Server, database: Database, wire: Wire
) -> None:
    script = "CREATE TABLE k (n int);\nCOPY k FROM STDIN \\bind \\g\n1\n2\n\\.\nSELECT n FROM k;\nSELECT 1/0;\n"
    with wire.watching() as seen:
        await output(server, "psql", proxied(database, wire), "--no-psqlrc", "--file", "-", stdin=script)
    await wire.all_closed()
    said = [(one.verb, one.rows, one.tag, one.error and one.error.sqlstate) for one in seen.data_statements]
    assert said == [
        ("CREATE", 0, "CREATE TABLE", None),
        ("COPY", 0, "COPY 2", None),
        ("SELECT", 2, "SELECT 2", None),
        ("SELECT", 0, "", "22012"),
    ]


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
async def test_pgbench_loses_nothing(server: Server, database: Database, wire: Wire, protocol: str) -> None:
    code, _, errors = await output(server, "pgbench", "-i", "-q", "-I", "dtg", proxied(database, wire))
    assert code == 0, errors
    load = ["-n", "-c", "8", "-t", "25", "-M", protocol, proxied(database, wire)]
    code, text, errors = await output(server, "pgbench", *load)
    assert code == 0, errors
    assert "number of transactions actually processed: 200/200" in text
    assert "number of failed transactions: 0" in text
    assert await database.admin.fetchval("SELECT count(*) FROM pgbench_history") == 200
    sums = await database.admin.fetchrow(
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(delta) FROM pgbench_history)"
    )
    assert sums[0] == sums[1]


async def test_asyncpg_copies_both_ways_and_listens(database: Database, wire: Wire) -> None:
    connection = await asyncpg.connect(proxied(database, wire))
    try:
        await connection.execute("CREATE TABLE copied (n int, t text)")
        rows = [(n, f"row {n} ä") for n in range(20_000)]
        await connection.copy_records_to_table("copied", records=rows)
        assert [tuple(row) for row in await connection.fetch("SELECT * FROM copied ORDER BY n")] == rows
        heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        await connection.add_listener("news", lambda *event: heard.set_result(event[3]))
        await database.admin.execute("SELECT pg_notify('news', 'from outside')")
        assert await asyncio.wait_for(heard, 10) == "from outside"
        await connection.remove_listener("news", lambda *event: None)
    finally:
        await connection.close()


async def test_psycopg_copies_pipelines_and_keeps_the_order(database: Database, wire: Wire) -> None:
    async with await psycopg.AsyncConnection.connect(proxied(database, wire)) as connection:
        await connection.execute("CREATE TABLE piped (n int)")
        async with connection.cursor() as cursor:
            async with cursor.copy("COPY piped FROM STDIN") as copy:
                for n in range(5000):
                    await copy.write_row((n,))
            collected = b""
            async with cursor.copy("COPY (SELECT n FROM piped ORDER BY n) TO STDOUT") as copy:
                async for block in copy:
                    collected += bytes(block)
        await connection.commit()
        assert collected.split() == [str(n).encode() for n in range(5000)]
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT %s::int", (n,)) for n in range(300)]
        assert [(await cursor.fetchone()) for cursor in cursors] == [(n,) for n in range(300)]
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with connection.pipeline():
                for n in (2, 1, 0, 1):
                    await connection.execute("SELECT 10 / %s::int", (n,))
        await connection.rollback()
        assert await (await connection.execute("SELECT count(*) FROM piped")).fetchone() == (5000,)


async def test_a_value_of_64_megabytes_passes_both_ways(database: Database, wire: Wire) -> None:
    connection = await asyncpg.connect(proxied(database, wire))
    try:
        value = random.Random(7).randbytes(1 << 20) * 64
        back = await connection.fetchval("SELECT $1::bytea", value)
        assert back == value
    finally:
        await connection.close()


async def test_a_cancel_request_reaches_the_server(database: Database, wire: Wire) -> None:
    connection = await asyncpg.connect(proxied(database, wire))
    try:
        async with wire.hold("pg_sleep") as held:
            sleeping = asyncio.create_task(connection.execute("SELECT pg_sleep(600)"))
            await held.wait_for()
        async with asyncio.timeout(30):
            while not await database.admin.fetchval("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
                await asyncio.sleep(0)
        sleeping.cancel()  # asyncpg sends a CancelRequest on a connection of its own
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        assert await connection.fetchval("SELECT 'still usable'") == "still usable"
    finally:
        await connection.close()


async def test_a_fatal_error_reaches_the_client(database: Database, wire: Wire) -> None:
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(proxied(database, wire).rpartition("/")[0] + "/no_such_database")
    connection = await asyncpg.connect(proxied(database, wire))
    pid = connection.get_server_pid()
    await database.admin.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError)):
        await connection.fetchval("SELECT 1")


async def test_garbage_is_turned_away_and_hurts_nobody(database: Database, wire: Wire) -> None:
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, struct.pack("!ii", 8, 1), b"\xff" * 9):
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(garbage)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
    connection = await asyncpg.connect(proxied(database, wire))
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


@pytest.mark.parametrize("seed", range(20))
def test_pieces_of_any_size_hold_the_same_messages(seed: int) -> None:
    chance = random.Random(seed)
    messages = [
        (chance.choice(b"QPBESX"), chance.randbytes(chance.choice([0, 1, 3, 4, 5, 200, 70_000]))) for _ in range(60)
    ]
    stream = b"".join(bytes([kind]) + struct.pack("!i", len(body) + 4) + body for kind, body in messages)
    splitter = Splitter(b"QPBESX")
    found, at = [], 0
    while at < len(stream):
        size = chance.choice([1, 2, 3, 7, 64, 5000, 100_000])
        piece, position = stream[at : at + size], 0
        while message := splitter.next(piece, position):
            found.append(message[:2])
            position = message[2]
        at += size
    assert found == [(kind, body[: 64 * 1024]) for kind, body in messages]


@pytest.mark.parametrize("seed", range(10))
def test_rows_in_pieces_of_any_size_are_counted(seed: int) -> None:
    chance = random.Random(seed)
    tracker = StatementTracker(1, TrafficLog())
    assert list(tracker.read_client(b"Q\0\0\0\x0dSELECT 1\0"))
    rows = [
        b"D" + struct.pack("!i", size + 4) + bytes(size)
        for size in chance.choices([2, 3, 4, 5, 90, 20_000], k=chance.randint(1, 200))
    ]
    stream = b"".join(rows) + b"C\0\0\0\x0dSELECT 9\0Z\0\0\0\x05I"
    while stream:
        size = chance.choice([1, 2, 3, 7, 64, 5000, 100_000])
        tracker.read_server(stream[:size])
        stream = stream[size:]
    assert tracker.last is not None
    assert (tracker.last.rows, tracker.last.tag, tracker.busy) == (len(rows), "SELECT 9", False)


@pytest.mark.parametrize(("data", "found"), [(b"", (0, 1)), (b"d", (0, 1)), (b"d\0\0\0\x04", (1, 6)),
    (b"d\0\0\0\x04d\0\0\0\x05", (1, 6)), (b"d\0\0\0\x03d", (0, 1)), (b"d\xff\xff\xff\xffd", (0, 1))])  # fmt: skip
def test_a_run_of_messages_ends_where_none_is_complete(data: bytes, found: tuple[int, int]) -> None:
    assert skip_run(b"x" + data, 1, ord("d")) == found


def test_the_binaries_are_those_of_the_server(server: Server) -> None:
    assert server.binaries is not None
    assert Path(server.binaries / "psql").exists()
