"""The role of a lesson with `app_role`, which owns nothing, and the rows of several shops."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets

import asyncpg
import pytest

from checks.kit.lessons.lesson import Lesson
from checks.kit.postgres import Database, Login, PostgresUnavailable, Server
from checks.kit.postgres.connect import Rights, lock_key
from checks.kit.postgres.roles import shared_roles, untrusted_roles
from checks.kit.testbed.rows import STARTS, UNFRIENDLY
from checks.kit.testbed.runtime import settings
from checks.kit.testbed.shop import Shop

SCHEMA = """
CREATE TABLE author (id bigint GENERATED ALWAYS AS IDENTITY, name text);
CREATE TABLE secret (id bigint GENERATED ALWAYS AS IDENTITY, name text);
ALTER TABLE author ENABLE ROW LEVEL SECURITY;
ALTER TABLE author FORCE ROW LEVEL SECURITY;
CREATE POLICY named ON author USING (name = 'Mary');
GRANT SELECT, INSERT ON author TO PUBLIC;
"""

SHOPS = """
CREATE TABLE authors (id bigint PRIMARY KEY, name text, shop_id bigint NOT NULL);
CREATE TABLE books (
    id bigint PRIMARY KEY, isbn text UNIQUE, title text, author_id bigint, price_cents int, stock int,
    shop_id bigint NOT NULL
);
CREATE TABLE customers (id bigint PRIMARY KEY, email text UNIQUE, name text, shop_id bigint NOT NULL);
"""


async def log_in(server: Server, database: Database, login: Login) -> asyncpg.Connection:
    return await asyncpg.connect(
        host=server.address.host, port=server.address.port, user=login.role, password=login.password,
        database=database.name, ssl=server.address.tls or False,
    )  # fmt: skip


async def test_the_app_role_owns_nothing_and_policies_hold_for_it(server: Server) -> None:
    async with server.databases(SCHEMA, "role", app_role=True) as databases:
        for database in (await databases.fresh(), await databases.filled("INSERT INTO author (name) VALUES ('Mary')")):
            assert database.app is not None
            app, owner = await log_in(server, database, database.app), await log_in(server, database, database.login)
            await owner.execute("INSERT INTO author (name) VALUES ('Mary'), ('Jane')")
            counts = [
                await one.fetchval("SELECT count(DISTINCT name) FROM author") for one in (app, owner, database.admin)
            ]
            assert counts == [1, 2, 2]  # FORCE does not keep the owner from looking
            for refused in (
                "SELECT FROM secret",
                "CREATE TABLE mine (id int)",
                "ALTER TABLE author DISABLE ROW LEVEL SECURITY",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await app.execute(refused)
            rights = await app.fetchrow(
                "SELECT rolsuper, rolcreatedb, rolcreaterole, rolbypassrls FROM pg_roles WHERE rolname = current_user"
            )
            assert rights is not None
            assert not any(rights)
            assert not await app.fetchval("SELECT pg_has_role($1, 'MEMBER')", database.role)
            await asyncio.gather(app.close(), owner.close())


async def test_other_lessons_have_another_owner(server: Server) -> None:
    async with server.databases(SCHEMA, "role", app_role=True) as with_role, server.databases("", "role") as without:
        one, other = await with_role.fresh(), await without.fresh()
    assert one.role != other.role
    assert other.app is None


async def test_a_process_finds_both_urls(server: Server) -> None:
    lesson = Lesson(number=99)
    async with server.databases("", "role", app_role=True) as databases, server.database("", "role") as plain:
        database = await databases.fresh()
    assert database.app is not None
    env = settings(lesson, database.environment("h", 1))
    assert env["DATABASE_URL"] == database.url("h", 1)
    assert env["APP_DATABASE_URL"] == database.url("h", 1, login=database.app)
    assert set(settings(lesson, plain.environment("h", 1))) == {"DATABASE_URL"}


async def test_roles_of_untrusted_code_go_together(server: Server) -> None:
    connection = await server.connect()
    token = secrets.token_hex(8)
    await connection.execute("SELECT pg_advisory_lock($1)", lock_key(token))
    everything = Rights(superuser=True, createdb=True, createrole=True)
    there = "SELECT count(*) FROM pg_roles WHERE rolname LIKE '%' || $1 || '%'"
    async with untrusted_roles(connection, token, rights=everything, share=1, app_role=True) as logins:
        assert logins.app is not None
        assert logins.app.password != logins.owner.password
        assert await connection.fetchval(there, token) == 2
    assert await connection.fetchval(there, token) == 0
    await connection.close()


async def test_an_administrator_who_may_not_make_the_roles_is_told_what_to_type(server: Server) -> None:
    connection = await server.connect()
    rights = Rights(superuser=False, createdb=True, createrole=True)
    with pytest.raises(PostgresUnavailable, match="CREATEROLE BYPASSRLS"):
        await shared_roles(connection, server._source, rights, app_role=True)
    await connection.close()


async def test_roles_come_without_the_settings_that_an_app_has_given_them(server: Server) -> None:
    connection = await server.connect()
    everything = Rights(superuser=True, createdb=True, createrole=True)
    settings = "SELECT rolconfig FROM pg_roles WHERE rolname = $1"
    logins = await shared_roles(connection, server._source, everything, app_role=True)
    assert logins.app is not None
    await connection.execute(f'ALTER ROLE "{logins.app.role}" SET extra_float_digits = 1')
    assert await connection.fetchval(settings, logins.app.role) == ["extra_float_digits=1"]
    await shared_roles(connection, server._source, everything, app_role=True)
    assert await connection.fetchval(settings, logins.app.role) is None
    await connection.close()


async def test_rows_of_two_shops_share_no_id_no_isbn_and_no_address(server: Server) -> None:
    async with server.database(SHOPS, "role") as database:
        shop = Shop(database)
        seeded = {number: await shop.seed(books=3, customers=2, shop_id=number) for number in (23, 7)}
        for number, ids in seeded.items():
            assert not ids.others.books
            assert await shop.count("books", "shop_id = $1 AND id = ANY($2)", number, ids.books) == 3
        assert await shop.count("books") == 6
        assert await shop.count("customers") == 4


def test_each_shop_has_its_own_range_of_ids() -> None:
    worlds = [UNFRIENDLY, *(UNFRIENDLY.of_shop(number) for number in range(1, 50))]
    firsts = sorted(world.starts[table] for world in worlds for table in STARTS)
    assert len(set(firsts)) == len(firsts)
    assert dataclasses.replace(worlds[1], starts=UNFRIENDLY.starts, shop=None) == UNFRIENDLY
