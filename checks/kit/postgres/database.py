"""One database of a run: how an app reaches it, and how it is emptied."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from checks.kit.postgres.connect import Login, quote_literal

if TYPE_CHECKING:
    import asyncpg

SCHEMA_FINGERPRINT_SQL = """
    WITH ours AS (
        SELECT oid FROM pg_namespace WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
    )
    SELECT md5(string_agg(part, ' ' ORDER BY part)) FROM (
        SELECT concat_ws('.', 'class', oid, relname) FROM pg_class WHERE relnamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT concat_ws('.', 'column', attrelid, attnum, attname, atttypid, atttypmod, attnotnull, atthasdef)
          FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
         WHERE attnum > 0 AND relnamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT concat_ws('.', 'constraint', oid, conname) FROM pg_constraint
         WHERE connamespace IN (SELECT oid FROM ours)
        UNION ALL SELECT concat_ws('.', 'default', oid) FROM pg_attrdef
        UNION ALL SELECT concat_ws('.', 'trigger', oid, tgname, tgenabled) FROM pg_trigger
        UNION ALL SELECT concat_ws('.', 'label', oid, enumlabel) FROM pg_enum
        UNION ALL
        SELECT concat_ws('.', 'function', oid, md5(prosrc)) FROM pg_proc WHERE pronamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT concat_ws('.', 'type', oid, typname) FROM pg_type WHERE typnamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT concat_ws('.', 'setting', datconnlimit, setrole, setconfig)
          FROM pg_database d LEFT JOIN pg_db_role_setting ON setdatabase = d.oid WHERE datname = current_database()
    ) AS parts(part)
"""
"""One value for everything that a database has besides rows: it changes with every change of a table.

OIDs are in it, so that a table which was dropped and made again, the same to look at, counts as changed too."""

KEPT_TABLE = "alembic_version"
"""Alembic's record of the migrations that the tables have had, which emptying them does not undo."""


FILLED_SQL = f"""
    SELECT oid, oid::regclass::text, pg_relation_size(oid) FROM pg_class
     WHERE relkind = 'r' AND pg_relation_size(oid) > 0 AND relname <> '{KEPT_TABLE}' AND relnamespace IN (
        SELECT oid FROM pg_namespace WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
     )
"""
"""Tables that have had rows since they were made or emptied: number, name, and bytes."""

MAX_DELETED_BYTES = 2 << 20
"""Above this, TRUNCATE is quicker."""

FORGET_STATISTICS_SQL = """
    SELECT pg_clear_relation_stats(relnamespace::regnamespace::text, relname) FROM pg_class
     WHERE oid = ANY($1::oid[]) OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = ANY($1::oid[]))
"""


class Database:
    """A database of this run.

    `admin` is the connection for checks to look with: the administrator's, or the role's own if the database belongs
    to untrusted code. `administer` runs a statement as the administrator, in another database.
    `app` is the role that owns nothing, if there is one: the app logs in as that.
    `schema_fingerprint` is that of the tables as they were made, None if the database is never reset.
    """

    def __init__(
        self,
        name: str,
        login: Login,
        admin: asyncpg.Connection[Any],
        *,
        app: Login | None = None,
        schema_fingerprint: str | None = None,
        administer: Callable[[str], Awaitable[object]] | None = None,
    ) -> None:
        self.name = name
        self.login = login
        self.app = app
        self.admin = admin
        self.schema_fingerprint = schema_fingerprint
        self._administer = administer or admin.execute

    @property
    def role(self) -> str:
        """The name of the role that owns the database and everything in it."""
        return self.login.role

    @property
    def password(self) -> str:
        return self.login.password

    def url(self, host: str, port: int, scheme: str = "postgresql+asyncpg", *, login: Login | None = None) -> str:
        """The URL under which an app reaches this database at host:port, with everything percent-encoded.

        It logs in as the owner, or with `login`.
        """
        login = login or self.login
        user, password = quote(login.role, safe=""), quote(login.password, safe="")
        return f"{scheme}://{user}:{password}@{host}:{port}/{quote(self.name, safe='')}"

    def environment(self, host: str, port: int, *, login: Login | None = None) -> dict[str, str]:
        """The URLs of the database by the names of their variables.

        DATABASE_URL is the owner's or that of `login`, APP_DATABASE_URL that of the role that owns nothing.
        """
        urls = {"DATABASE_URL": self.url(host, port, login=login)}
        return urls | ({"APP_DATABASE_URL": self.url(host, port, login=self.app)} if self.app else {})

    @property
    def logins(self) -> list[Login]:
        """Those as which an app may log in: the owner, and the role that owns nothing, if there is one."""
        return [self.login, *([self.app] if self.app else [])]

    @asynccontextmanager
    async def another_role(self, password: str) -> AsyncIterator[Login]:
        """A role with this password that acts as the ordinary one, so that it owns nothing. Needs CREATEROLE."""
        name = f"{self.role[:40]}_{secrets.token_hex(4)}"  # PostgreSQL cuts names after 63 bytes
        # nothing that an untrusted database says may become a part of what the administrator runs
        literal = quote_literal(password)
        await self._administer(f'CREATE ROLE "{name}" LOGIN PASSWORD \'{literal}\' IN ROLE "{self.role}"')
        try:
            # SET ROLE at each login: what it creates then belongs to the ordinary role, and goes with that
            await self._administer(f"ALTER ROLE \"{name}\" SET role = '{self.role}'")
            yield Login(name, password)
        finally:
            await self._administer(f'DROP ROLE "{name}"')

    async def end_others(self) -> None:
        """Ends all connections to the database but ours; waits up to 5 s for each."""
        await self.admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )

    async def reset(self) -> bool:
        """Ends all other connections to the database and empties every table; identities start at 1 again.

        False, with nothing emptied, if an app or a check has changed the tables themselves.
        """
        await self.end_others()  # first: TRUNCATE waits for every transaction that has touched a table
        if await self.admin.fetchval(SCHEMA_FINGERPRINT_SQL) != self.schema_fingerprint:
            return False
        if not await self._delete_rows():
            tables = await self.admin.fetchval(
                "SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables "
                f"WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> '{KEPT_TABLE}'"
            )
            if tables:
                await self.admin.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
        return True

    async def _delete_rows(self) -> bool:
        """Leaves the database as TRUNCATE would, in a fifth of its time; False if that cannot be done here.

        TRUNCATE makes new files for each table and index, with rows or without. This looks at tables with rows only.
        """
        if self.admin.get_server_version().major < 18 or self.admin.get_settings().is_superuser != "on":
            return False
        filled = await self.admin.fetch(FILLED_SQL)
        if sum(size for _, _, size in filled) > MAX_DELETED_BYTES:
            return False
        async with self.admin.transaction():
            await self.admin.execute("SET LOCAL session_replication_role = replica")  # no trigger and no rule
            for _, name, _ in filled:
                await self.admin.execute(f"DELETE FROM ONLY {name}")
            await self.admin.execute("SELECT setval(seqrelid, seqstart, false) FROM pg_sequence")
        if not filled:
            return True
        await self.admin.execute(f"VACUUM {', '.join(name for _, name, _ in filled)}")
        # VACUUM notes that the tables are empty, and the next plans would be made for that
        await self.admin.execute(FORGET_STATISTICS_SQL, [oid for oid, _, _ in filled])
        return not await self.admin.fetch(FILLED_SQL)
