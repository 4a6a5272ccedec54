"""What the role of untrusted code reaches: its own databases, and nothing else of the server."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from checks.kit.postgres import Database, PostgresUnavailable, Server, find
from checks.kit.postgres.connect import Rights
from checks.kit.postgres.roles import UNTRUSTED_ROLE_PREFIX
from checks.kit.testbed.explain import Explain, Login

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.attack
SCHEMA = "CREATE TABLE book (id int GENERATED ALWAYS AS IDENTITY, title text)"


@pytest.fixture(scope="module")
async def untrusted() -> AsyncIterator[Server]:
    """A server of its own, as `workbook grade` uses one."""
    folder = Path(tempfile.mkdtemp(prefix="wb-", dir="/tmp"))
    folder.chmod(0o755)
    environ = {"WORKBOOK_DATA": str(folder / "data"), "WORKBOOK_UNTRUSTED": "1"}
    server = await asyncio.to_thread(find, ROOT, environ)
    yield server
    server.close()
    shutil.rmtree(folder, ignore_errors=True)


async def login(server: Server, database: str, user: str, password: str) -> asyncpg.Connection:
    address = server.address
    return await asyncpg.connect(
        host=address.host, port=address.port, user=user, password=password, database=database, timeout=20
    )


async def as_untrusted(server: Server, database: Database, other: str = "") -> asyncpg.Connection:
    return await login(server, other or database.name, database.role, database.password)


async def test_nobody_gets_in_without_a_password(untrusted: Server) -> None:
    async with untrusted.database(SCHEMA, "one") as mine:
        for user, password in (("postgres", ""), ("postgres", "postgres"), (mine.role, "guess")):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await login(untrusted, "postgres", user, password)


async def test_an_untrusted_role_reaches_its_own_database_and_no_other(untrusted: Server) -> None:
    async with untrusted.database(SCHEMA, "one") as mine, untrusted.databases(SCHEMA, "two") as theirs:
        their_own = await theirs.fresh()
        assert mine.role != their_own.role
        app = await as_untrusted(untrusted, mine)
        names = [name for (name,) in await app.fetch("SELECT datname FROM pg_database WHERE datallowconn")]
        reached = []
        for name in names:
            try:
                await (await as_untrusted(untrusted, mine, name)).close()
                reached.append(name)
            except asyncpg.InsufficientPrivilegeError:
                continue
        owned = await app.fetch("SELECT datname FROM pg_database WHERE datdba = current_user::regrole")
        assert sorted(reached) == sorted(name for (name,) in owned)
        assert {"postgres", "template1", their_own.name} <= set(names) - set(reached)
        await app.close()


@pytest.mark.parametrize(
    "attack",
    [
        'DROP DATABASE "{theirs}"',
        'ALTER DATABASE "{theirs}" RENAME TO gone',
        'ALTER DATABASE "{theirs}" WITH ALLOW_CONNECTIONS false',
        'CREATE DATABASE copy TEMPLATE "{theirs}"',
        "DROP DATABASE template1",
        "CREATE ROLE more SUPERUSER",
        "ALTER ROLE current_user SUPERUSER",
        "ALTER ROLE current_user CONNECTION LIMIT -1",
        "ALTER ROLE \"{role}\" PASSWORD 'x'",
        "SET ROLE postgres",
        "SET SESSION AUTHORIZATION postgres",
        "GRANT pg_execute_server_program TO current_user",
        "ALTER SYSTEM SET max_connections = 1",
        "SET temp_file_limit = -1",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY (SELECT 1) TO '/tmp/untrusted'",
        "COPY book (title) FROM '/etc/passwd'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "CREATE EXTENSION dblink",
        "CREATE EXTENSION postgres_fdw",
        "LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE pg_authid IN SHARE MODE",
        "CREATE LANGUAGE plpythonu",
        "LOAD '/tmp/untrusted.so'",
        "SELECT pg_reload_conf()",
        "CHECKPOINT",
    ],
)
async def test_what_untrusted_code_tries_is_refused(untrusted: Server, attack: str) -> None:
    async with untrusted.database(SCHEMA, "one") as mine, untrusted.database(SCHEMA, "two") as theirs:
        app = await as_untrusted(untrusted, mine)
        with pytest.raises(asyncpg.PostgresError) as refused:
            await app.execute(attack.format(theirs=theirs.name, role=theirs.role))
        assert not isinstance(refused.value, asyncpg.PostgresSyntaxError), refused.value
        await app.close()
        assert await theirs.admin.fetchval("SELECT count(*) FROM book") == 0


async def test_an_untrusted_role_ends_nobody_elses_session(untrusted: Server) -> None:
    async with untrusted.database(SCHEMA, "one") as mine, untrusted.database(SCHEMA, "two") as theirs:
        app = await as_untrusted(untrusted, mine)
        pid = await theirs.admin.fetchval("SELECT pg_backend_pid()")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.fetchval("SELECT pg_terminate_backend($1)", pid)
        seen = await app.fetchval("SELECT query FROM pg_stat_activity WHERE pid = $1", pid)
        assert seen == "<insufficient privilege>"
        await app.close()


async def test_a_trigger_fires_with_the_untrusted_roles_rights(untrusted: Server) -> None:
    """The kit puts rows into tables whose triggers are not ours: they must not run as the administrator."""
    async with untrusted.database(SCHEMA, "one") as mine:
        app = await as_untrusted(untrusted, mine)
        await app.execute("""
            CREATE TABLE seen (who text, super bool);
            CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                EXECUTE 'RESET ROLE; RESET SESSION AUTHORIZATION';
                INSERT INTO seen SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user;
                RETURN NEW; END $$;
            CREATE TRIGGER spy BEFORE INSERT ON book FOR EACH ROW EXECUTE FUNCTION spy();
        """)
        await mine.admin.execute("INSERT INTO book (title) VALUES ('Emma')")
        assert await app.fetch("SELECT who, super FROM seen") == [(mine.role, False)]
        await app.close()


async def test_connections_run_out_for_the_untrusted_role_alone(untrusted: Server) -> None:
    async with untrusted.database(SCHEMA, "one") as mine, untrusted.database(SCHEMA, "two") as theirs:
        admin = await untrusted.connect()
        most = await admin.fetchval("SELECT rolconnlimit FROM pg_roles WHERE rolname = $1", mine.role)
        assert 20 <= most < await admin.fetchval("SELECT current_setting('max_connections')::int")
        await admin.execute(f'ALTER ROLE "{mine.role}" CONNECTION LIMIT 5')  # as 280 would be, and quicker
        apps = [await as_untrusted(untrusted, mine) for _ in range(4)]  # and the connection that looks
        with pytest.raises(asyncpg.TooManyConnectionsError):
            await as_untrusted(untrusted, mine)
        await (await as_untrusted(untrusted, theirs)).close()
        for app in apps:
            await app.close()
        await admin.close()


async def test_large_tables_are_filled_and_explained_by_the_untrusted_role(untrusted: Server) -> None:
    rows = "INSERT INTO book (title) SELECT current_user FROM generate_series(1, 3000)"
    async with untrusted.databases(SCHEMA, "one") as databases:
        one = await databases.filled(rows)
        assert await one.admin.fetchval("SELECT DISTINCT title FROM book") == one.role
        plan = await Explain(Login(one, untrusted.address)).sql("SELECT * FROM book WHERE title = current_user")
        assert (plan.rows, plan.buffers) == (3000, plan.tables["book"])
        await databases.drop(one)
        assert await (await databases.filled(rows)).admin.fetchval("SELECT count(*) FROM book") == 3000
    admin = await untrusted.connect()
    assert not await admin.fetch("SELECT FROM pg_database WHERE datname ~ '^workbook_filled_'")
    await admin.close()


async def test_nothing_of_an_untrusted_run_stays(untrusted: Server) -> None:
    admin = await untrusted.connect()
    before = await admin.fetch("SELECT datname FROM pg_database ORDER BY 1")
    async with untrusted.database(SCHEMA, "one") as mine:
        app = await as_untrusted(untrusted, mine)
        await app.execute("CREATE SCHEMA more; SELECT lo_create(0); ALTER ROLE CURRENT_USER SET work_mem = '1MB'")
        async with mine.another_role("secret") as other:
            await (await login(untrusted, mine.name, other.role, other.password)).close()
    assert await admin.fetch("SELECT datname FROM pg_database ORDER BY 1") == before
    assert not await admin.fetch("SELECT rolname FROM pg_roles WHERE rolname ~ $1", f"^{UNTRUSTED_ROLE_PREFIX}")
    await admin.close()
    app.terminate()


async def test_what_a_killed_run_left_is_dropped(untrusted: Server) -> None:
    admin = await untrusted.connect()
    left = f"{UNTRUSTED_ROLE_PREFIX}0123456789abcdef"
    await admin.execute(f'CREATE ROLE "{left}"')
    await admin.execute(f'CREATE DATABASE "workbook_template_dead" OWNER "{left}"')
    async with untrusted.database(SCHEMA, "one"):
        assert not await admin.fetchval("SELECT count(*) FROM pg_database WHERE datname = 'workbook_template_dead'")
        assert not await admin.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", left)
    await admin.close()


async def test_an_administrator_who_may_make_no_roles_hears_it(untrusted: Server) -> None:
    poor = Server(untrusted._source, Rights(superuser=False, createdb=True, createrole=False), "18", share=1)
    with pytest.raises(PostgresUnavailable, match="CREATEROLE"):
        async with poor.database(SCHEMA, "one"):
            pass
