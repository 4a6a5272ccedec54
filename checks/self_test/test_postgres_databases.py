"""Fresh databases: an ordinary owner, templates, emptying, and dropping those of dead runs."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url

from checks.kit.postgres import Database, Login, Server
from checks.kit.postgres.databases import OWNED_COMMENT, drop_dead_databases

SCHEMA = """
CREATE TABLE author (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
CREATE TABLE book (id serial PRIMARY KEY, author_id bigint REFERENCES author, title text, shelf varchar(13));
CREATE TRIGGER keep BEFORE UPDATE ON book FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
"""


async def as_app(server: Server, database: Database) -> asyncpg.Connection:
    address = server.address
    return await asyncpg.connect(
        host=address.host, port=address.port, user=database.role, password=database.password,
        database=database.name, ssl=address.tls or False,
    )  # fmt: skip


async def test_an_ordinary_role_owns_everything(server: Server) -> None:
    async with server.database(SCHEMA, "test") as database:
        app = await as_app(server, database)
        try:
            rights = await app.fetchrow(
                "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles "
                "WHERE rolname = current_user"
            )
            owners = await app.fetch("SELECT tableowner FROM pg_tables WHERE schemaname = 'public'")
            await app.execute("CREATE TABLE mine (id int); ALTER TABLE book ADD isbn text; DROP TABLE mine")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.execute("CREATE DATABASE another")
        finally:
            await app.close()
        assert rights is not None
        assert not any(rights)
        assert {owner for (owner,) in owners} == {database.role}


async def test_every_database_is_empty_and_apart_from_the_others(server: Server) -> None:
    async with server.databases(SCHEMA, "test") as databases:
        one, two = await asyncio.gather(databases.fresh(), databases.fresh())
        await one.admin.execute("INSERT INTO author (name) VALUES ('Mary')")
        assert await two.admin.fetchval("SELECT count(*) FROM author") == 0
        names = {one.name, two.name}
    admin = await server.connect()
    try:
        assert not await admin.fetch("SELECT 1 FROM pg_database WHERE datname = ANY($1)", names)
    finally:
        await admin.close()


async def test_the_schema_is_loaded_once_however_many_runs_begin_together(server: Server) -> None:
    schema = "CREATE SEQUENCE loads; SELECT pg_sleep(0.05); CREATE TABLE t AS SELECT clock_timestamp() AS loaded"

    async def run() -> object:
        async with server.database(schema, "test") as database:
            return await database.admin.fetchval("SELECT pg_relation_filenode('t')"), await loaded(database)

    async def loaded(database: Database) -> object:
        return await database.admin.fetchval("SELECT loaded FROM t")

    assert len({await run(), *await asyncio.gather(*(run() for _ in range(4)))}) == 1


async def test_a_schema_that_changes_gets_its_own_template(server: Server) -> None:
    for table in ("first", "second"):
        async with server.database(f"CREATE TABLE {table} (id int)", "test") as database:
            tables = await database.admin.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            assert [name for (name,) in tables] == [table]


async def test_a_schema_with_a_mistake_does_not_become_a_template(server: Server) -> None:
    for _ in range(2):
        with pytest.raises(asyncpg.PostgresSyntaxError, match="TABEL"):
            async with server.database("CREATE TABLE fine (id int); CREATE TABEL wrong (id int)", "test"):
                pass


async def test_reset_empties_every_table_and_ends_every_other_connection(server: Server) -> None:
    more = (
        'CREATE SCHEMA other; CREATE TABLE other."odd Näme" (id int);'
        "CREATE TABLE part (id int) PARTITION BY RANGE (id);"
        "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (9);"
    )
    async with server.database(f"{SCHEMA};{more}", "test") as database:
        app = await as_app(server, database)
        await app.execute(
            'INSERT INTO other."odd Näme" VALUES (1); INSERT INTO part VALUES (1);'
            "INSERT INTO author (name) VALUES ('Mary'), ('Jane'); INSERT INTO book (author_id) VALUES (1)"
        )
        await app.execute("BEGIN; LOCK TABLE author IN ACCESS EXCLUSIVE MODE")
        assert await database.reset()
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.InterfaceError)):
            await app.fetchval("SELECT 1")
        app.terminate()
        for table in ("author", "book", "part", 'other."odd Näme"'):
            assert await database.admin.fetchval(f"SELECT count(*) FROM {table}") == 0
        assert await database.admin.fetchval("INSERT INTO author (name) VALUES ('Emily') RETURNING id") == 1
        assert await database.admin.fetchval("INSERT INTO book (author_id) VALUES (1) RETURNING id") == 1


async def test_reset_leaves_tables_as_they_were_made(server: Server) -> None:
    """The next check's plans and order of rows must not depend on the rows of the one before."""
    facts = (
        "SELECT relname, relpages, reltuples, relallvisible, pg_relation_size(oid), "
        "CASE relkind WHEN 'S' THEN pg_sequence_last_value(oid) END "
        "FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S') ORDER BY relname"
    )
    many = "INSERT INTO author (name) SELECT repeat('x', 900) FROM generate_series(1, 5000)"
    async with server.database(SCHEMA, "test") as database:
        made = await database.admin.fetch(facts)
        for rows in ("INSERT INTO author (name) VALUES ('Mary'), ('Jane')", many):
            await database.admin.execute(f"{rows}; INSERT INTO book (author_id) VALUES (1); ANALYZE")
            assert await database.reset()
            assert await database.admin.fetch(facts) == made


async def test_a_database_that_was_given_back_comes_back_empty(server: Server) -> None:
    async with server.databases(SCHEMA, "test") as databases:
        first = await databases.fresh()
        await first.admin.execute("INSERT INTO author (name) VALUES ('Mary')")
        databases.give_back(first)
        again = await databases.fresh()
        assert again.name == first.name
        assert await again.admin.fetchval("SELECT count(*) FROM author") == 0


@pytest.mark.parametrize(
    "change",
    ["CREATE TABLE more ()", "ALTER TABLE author DROP COLUMN name", "ALTER TABLE author ALTER name SET DEFAULT 'x'",
     "CREATE INDEX ON author (name)", "CREATE TYPE colour AS ENUM ('red')",
     "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1", "ALTER TABLE book DISABLE TRIGGER keep",
     "ALTER TABLE book ALTER shelf TYPE varchar(17)"],
)  # fmt: skip
async def test_a_database_whose_tables_were_changed_does_not_come_back(server: Server, change: str) -> None:
    async with server.databases(SCHEMA, "test") as databases:
        first = await databases.fresh()
        await first.admin.execute(change)
        databases.give_back(first)
        again = await databases.fresh()
        assert again.name != first.name
        assert await server_has(server, first.name) is False


async def test_a_clone_waits_for_the_next_run_and_comes_empty_and_unchanged(server: Server) -> None:
    if not server.summary.endswith("postgres"):
        pytest.skip("clones wait on the embedded server only; this one is somebody's")
    schema = f"{SCHEMA} -- {secrets.token_hex(8)}"
    oids = []
    for change in ("INSERT INTO author (name) VALUES ('Mary')", "ALTER TABLE author ADD born date", "SELECT 1"):
        async with server.databases(schema, "test") as databases:
            database = await databases.fresh()
            assert await database.admin.fetchval("SELECT count(*) FROM author") == 0
            assert not await database.admin.fetch("SELECT FROM pg_attribute WHERE attname = 'born'")
            oids.append(await database.admin.fetchval("SELECT oid FROM pg_database WHERE datname = current_database()"))
            await database.admin.execute(change)
            databases.give_back(database)
    assert oids[0] == oids[1] != oids[2]  # rows are taken out of it, changed tables are not restored
    admin = await server.connect()
    try:
        template = "workbook_template_" + hashlib.sha256(f"{database.role}\0{schema}".encode()).hexdigest()[:16]
        for (name,) in await admin.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", template):
            await admin.execute(f'DROP DATABASE "{name}"')
    finally:
        await admin.close()


async def server_has(server: Server, name: str) -> bool:
    admin = await server.connect()
    try:
        return bool(await admin.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name))
    finally:
        await admin.close()


async def test_another_role_acts_as_the_usual_one_and_leaves_nothing(server: Server) -> None:
    async with server.database(SCHEMA, "test") as database:
        async with database.another_role("p@ss%w:rd/'") as login:
            url = database.url("h", 1, login=login)
            assert url.startswith(f"postgresql+asyncpg://{login.role}:p%40ss%25w%3Ard%2F%27@h:1/")
            address = server.address
            app = await asyncpg.connect(
                host=address.host, port=address.port, user=login.role, password=login.password, database=database.name
            )
            await app.execute("CREATE TABLE mine ()")
            await app.close()
            owner = await database.admin.fetchval("SELECT tableowner FROM pg_tables WHERE tablename = 'mine'")
            assert owner == database.role
        assert not await database.admin.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", login.role)


async def test_databases_go_even_with_an_app_in_the_middle_of_a_transaction(server: Server) -> None:
    async with server.database(SCHEMA, "test") as database:
        app = await as_app(server, database)
        await app.execute("BEGIN; INSERT INTO author (name) VALUES ('Mary')")
    admin = await server.connect()
    try:
        assert not await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database.name)
    finally:
        await admin.close()
        app.terminate()


async def test_databases_of_dead_runs_are_dropped_and_nothing_else(server: Server, tmp_path: Path) -> None:
    code = (
        "import asyncio, os, sys\nfrom pathlib import Path\nfrom checks.kit.postgres import find\n"
        "async def main():\n"
        "    server = await asyncio.to_thread(find, Path(sys.argv[1]), os.environ)\n"
        "    async with server.database('CREATE TABLE t (id int)', 'dead') as database:\n"
        "        print(database.name, flush=True)\n"
        "        await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    root = str(Path(__file__).parents[2])
    dead = subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE, text=True)
    assert dead.stdout is not None
    left = dead.stdout.readline().strip()
    admin = await server.connect()
    maintenance = await admin.fetchval("SELECT current_database()")
    token = "0123456789abcdef"
    others = [f"workbook_theirs_1_{token}", f"workbook_other_1_{token}", f"shop_1_{token}"]
    try:
        for name in others:
            await admin.execute(f'DROP DATABASE IF EXISTS "{name}"')
            await admin.execute(f'CREATE DATABASE "{name}"')
        await admin.execute(f"COMMENT ON DATABASE \"{others[1]}\" IS 'my own notes'")
        await admin.execute(f"COMMENT ON DATABASE \"{others[2]}\" IS '{OWNED_COMMENT} {maintenance}'")
        async with server.database(SCHEMA, "test") as alive:
            await drop_dead_databases(admin, maintenance)
            assert await there(admin, left), "its run still lives"
            dead.kill()
            dead.wait()
            while await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = $1", left):
                await asyncio.sleep(0.01)  # the server notices a dead client in its own time
            for _ in range(1000):
                await drop_dead_databases(admin, maintenance)
                if not await there(admin, left):
                    break
                await asyncio.sleep(0.01)
            assert not await there(admin, left)
            assert await alive.admin.fetchval("SELECT count(*) FROM author") == 0
            assert all([await there(admin, name) for name in others])
    finally:
        dead.kill()
        for name in others:
            await admin.execute(f'DROP DATABASE IF EXISTS "{name}"')
        await admin.close()
        dead.communicate()


async def there(admin: asyncpg.Connection, name: str) -> bool:
    return bool(await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name))


async def test_urls_survive_every_character(server: Server) -> None:
    async with server.database("", "test") as real:
        odd = Database("a/b?c=ü", Login("r@le:x", "p%4 /:@#ß+&"), real.admin)
        for scheme in ("postgresql+asyncpg", "postgresql", "postgresql+psycopg"):
            url = make_url(odd.url("127.0.0.1", 5555, scheme))
            assert (url.username, url.password, url.database) == (odd.role, odd.password, odd.name)
            assert (url.host, url.port, url.drivername) == ("127.0.0.1", 5555, scheme)
