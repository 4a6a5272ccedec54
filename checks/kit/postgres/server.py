"""A live server and the databases that a run makes on it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from checks.kit.postgres.address import Address
from checks.kit.postgres.errors import PostgresUnavailable
from checks.kit.postgres.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

MARK = "made by the Bookshop workbook, kept from"
"""Stands in the comment of every database that we make, before the database that holds its run's lock."""

SPARE = "a spare one of the Bookshop workbook"
"""Begins the comment of a clone that waits for the next run; behind it stands its catalogue's fingerprint."""

MOST_CONNECTIONS = 120
"""Of a stranger's role; each costs the server memory that no limit of a process counts."""

STRANGER = "workbook_stranger_"
"""Begins the name of a role that is made for one run; behind it stands the token of the run's lock."""

SPARES = 3
"""How many clones of a template may wait: as many as a run has stages at a time."""

ROLES, TEMPLATES = 0x626F6F6B, 0x626F6F6C
"""Keys of the advisory locks under which the role and the templates are made, one run at a time."""

CATALOGUE = """
    WITH ours AS (
        SELECT oid FROM pg_namespace WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
    )
    SELECT md5(string_agg(part, ' ' ORDER BY part)) FROM (
        SELECT concat_ws('.', 'class', oid, relname) FROM pg_class WHERE relnamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT concat_ws('.', 'column', attrelid, attnum, attname, atttypid, attnotnull, atthasdef)
          FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
         WHERE attnum > 0 AND relnamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT concat_ws('.', 'constraint', oid, conname) FROM pg_constraint
         WHERE connamespace IN (SELECT oid FROM ours)
        UNION ALL SELECT concat_ws('.', 'default', oid) FROM pg_attrdef
        UNION ALL SELECT concat_ws('.', 'trigger', oid, tgname) FROM pg_trigger
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
"""One value for everything that a database has besides rows; whoever changes a table changes it."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What the administrator's role may do."""

    superuser: bool
    createdb: bool
    createrole: bool


class Server:
    """A server that is there until `close`.

    With `share`, the databases are for strangers: each run has a role of its own that reaches nothing else, and
    at most a share, one of so many, of the server's connections. The administrator then never enters a database.
    """

    def __init__(self, source: Source, rights: Rights, version: str, share: int = 0) -> None:
        self._source = source
        self._rights = rights
        self._version = version
        self._share = share

    @property
    def summary(self) -> str:
        """One line: which PostgreSQL this is."""
        return f"PostgreSQL {self._version}, {self._source.name}"

    @property
    def own(self) -> bool:
        """Whether this is the embedded server, on which nobody else has anything."""
        return self._source.known

    @property
    def address(self) -> Address:
        return self._source.address

    @property
    def binaries(self) -> Path | None:
        """The folder with this server's own psql and pgbench, where there is one."""
        return self._source.binaries

    async def connect(self, database: str | None = None) -> asyncpg.Connection[Any]:
        """A connection as administrator, beside the tap."""
        return await connect(self._source, database or self._source.maintenance)

    @asynccontextmanager
    async def databases(
        self, schema: str, label: str, load: Callable[[Database], Awaitable[None]] | None = None
    ) -> AsyncIterator[Databases]:
        """Fresh databases with `schema` loaded, owned by an ordinary role; dropped when the block ends.

        `schema` is SQL; or, with `load`, any text that is another one for other tables, which `load` then makes.
        They are cloned from a template that is made once for each schema. While the block lasts, a connection
        of ours holds an advisory lock; a database whose lock is free belongs to a run that died, and goes.
        """
        guard = await self.connect()
        try:
            await sweep(guard, self._source.maintenance)
            token = secrets.token_hex(8)
            await guard.execute("SELECT pg_advisory_lock($1)", _key(token))
            async with AsyncExitStack() as stack:
                if self._share:
                    if self._source.known:  # others' doors are not ours to close
                        await self._close_doors(guard)
                    role, password = await stack.enter_async_context(one_role(guard, token, self._rights, self._share))
                else:
                    role, password = await self._role(guard)
                template = await self._template(guard, schema, role, password, load)
                databases = Databases(
                    self._source, guard, template, role, password, label, token, strangers=bool(self._share)
                )
                stack.push_async_callback(databases.drop_all)
                yield databases
        finally:
            await guard.close()

    @asynccontextmanager
    async def database(self, schema: str, label: str) -> AsyncIterator[Database]:
        """A single fresh database."""
        async with self.databases(schema, label) as databases:
            yield await databases.fresh()

    async def _close_doors(self, guard: asyncpg.Connection[Any]) -> None:
        """Lets nobody into the databases that every server has but its administrator."""
        async with _alone(guard, ROLES):
            await guard.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")

    async def _role(self, guard: asyncpg.Connection[Any]) -> tuple[str, str]:
        """An ordinary role for apps, and its password; the administrator's own where it may not make roles.

        Both are derived from the administrator's name and password: every run finds the same role without
        keeping a secret, and runs of other people on the same server have others.
        """
        source = self._source
        if not (self._rights.superuser or self._rights.createrole):
            return source.user, source.password
        digest = hashlib.sha256(f"bookshop\0{source.user}\0{source.password}".encode()).hexdigest()
        role, password = f"bookshop_{digest[:8]}", digest[8:40]
        async with _alone(guard, ROLES):
            if not await guard.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                await guard.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{password}'")
                if not self._rights.superuser:
                    await guard.execute(f'GRANT "{role}" TO CURRENT_USER')
        return role, password

    async def _template(
        self,
        guard: asyncpg.Connection[Any],
        schema: str,
        role: str,
        password: str,
        load: Callable[[Database], Awaitable[None]] | None,
    ) -> str:
        """The name of a database that holds `schema`; made under a lock, and named only once it is whole."""
        name = "workbook_template_" + hashlib.sha256(f"{role}\0{schema}".encode()).hexdigest()[:16]
        if await _exists(guard, name):
            return name
        # a stranger's schema may take for ever, and nobody else needs its template
        async with _alone(guard, _key(role[-16:]) + 1 if self._share else TEMPLATES):
            if await _exists(guard, name):
                return name
            draft = f"{name}_draft"
            await guard.execute(f'DROP DATABASE IF EXISTS "{draft}" WITH (FORCE)')
            create = f'CREATE DATABASE "{draft}" TEMPLATE template0 ENCODING \'UTF8\' OWNER "{role}"'
            await guard.execute(f"{create} {_copying(self._source)}")
            await guard.execute(f'REVOKE ALL ON DATABASE "{draft}" FROM PUBLIC')
            loader = await connect(self._source, draft, role, password)
            try:
                if load is None:
                    await loader.execute(f"{schema}\n;SELECT 1")  # asyncpg cannot take a script without statements
                else:
                    await load(Database(draft, role, password, loader))
            finally:
                await loader.close()
            await guard.execute(f'ALTER DATABASE "{draft}" RENAME TO "{name}"')
        return name

    def close(self) -> None:
        """Lets the server go: stops it if it is ours and nobody else uses it."""
        self._source.let_go()


class Databases:
    """Makes clones of one template for one run."""

    def __init__(
        self,
        source: Source,
        guard: asyncpg.Connection[Any],
        template: str,
        role: str,
        password: str,
        label: str,
        token: str,
        strangers: bool = False,
    ) -> None:
        self._source = source
        self._strangers = strangers
        self._guard = guard
        self._template = template
        self._role = role
        self._password = password
        self._label = label
        self._token = token
        self._count = 0
        self._there: list[Database] = []
        self._idle: list[Database] = []
        self._turn = asyncio.Lock()  # the guard runs one statement at a time

    async def fresh(self) -> Database:
        """The tables of the schema, all empty: a database that was given back, else a new clone."""
        while self._idle:
            database = self._idle.pop()
            if await database.reset():
                return database
            self._there.remove(database)
            await self._drop(database)
        self._count += 1
        name = f"workbook_{self._label}_{self._count}_{self._token}"
        async with self._turn:
            fingerprint = spare = None if self._strangers else await self._spare(name)
            if fingerprint is None:
                create = f'CREATE DATABASE "{name}" TEMPLATE "{self._template}" OWNER "{self._role}"'
                await self._guard.execute(f"{create} {_copying(self._source)}")
                await self._guard.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
            mark = f"{MARK} {_quoted(self._source.maintenance)}"
            await self._guard.execute(f"COMMENT ON DATABASE \"{name}\" IS '{mark}'")
        # a stranger's trigger runs with the rights of whoever fires it: there we look with the stranger's own
        login = (self._role, self._password) if self._strangers else ()
        admin = await connect(self._source, name, *login)
        fingerprint = fingerprint or await admin.fetchval(CATALOGUE)
        database = Database(name, self._role, self._password, admin, fingerprint, self._administer)
        self._there.append(database)
        if spare and not await database.reset():  # somebody changed it while it waited
            self._there.remove(database)
            await self._drop(database)
            return await self.fresh()
        return database

    async def _spare(self, name: str) -> str | None:
        """Gives a clone that an earlier run left the name `name`; its fingerprint, or None if there is none."""
        import asyncpg

        for spare, comment in await self._spares():
            try:
                await self._guard.execute(f'ALTER DATABASE "{spare}" RENAME TO "{name}"')
            except (asyncpg.InvalidCatalogNameError, asyncpg.ObjectInUseError):  # another run was faster
                continue
            return str(comment).rpartition(" ")[2]
        return None

    async def _spares(self) -> list[tuple[str, str]]:
        rows = await self._guard.fetch(
            "SELECT datname, description FROM pg_database d JOIN pg_shdescription s ON s.objoid = d.oid "
            "WHERE s.classoid = 'pg_database'::regclass AND starts_with(datname, $1) AND starts_with(description, $2)",
            f"{self._template}_spare_",
            SPARE,
        )
        return [(row["datname"], row["description"]) for row in rows]

    async def _administer(self, statement: str) -> None:
        async with self._turn:
            await self._guard.execute(statement)

    def give_back(self, database: Database) -> None:
        """The caller is done with it. Emptying it takes milliseconds, cloning up to a third of a second."""
        self._idle.append(database)

    async def drop_all(self) -> None:
        """Drops every clone, whoever is still connected to it; on a server of our own some wait for the next run."""
        import asyncpg

        gone = (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError)
        with contextlib.suppress(*gone):  # a server that has gone: the next run sweeps up
            for database in self._there:
                keep = self._source.known and not self._strangers and database in self._idle
                if not (keep and await self._keep(database)):
                    await self._drop(database)

    async def _keep(self, database: Database) -> bool:
        """Leaves a clone, rows and all, for the next run; False if there are enough, or it is still in use."""
        import asyncpg

        async with self._turn:
            if len(await self._spares()) >= SPARES:
                return False
            await database.end_others()
            await database.admin.close()
            spare = f"{self._template}_spare_{secrets.token_hex(4)}"
            try:
                await self._guard.execute(f'ALTER DATABASE "{database.name}" RENAME TO "{spare}"')
            except asyncpg.ObjectInUseError:
                return False
            await self._guard.execute(f"COMMENT ON DATABASE \"{spare}\" IS '{SPARE} {database.catalogue}'")
            return True

    async def _drop(self, database: Database) -> None:
        await database.admin.close()
        async with self._turn:
            await self._guard.execute(f'DROP DATABASE IF EXISTS "{database.name}" WITH (FORCE)')


class Database:
    """A database of this run.

    `admin` is the connection for checks to look with, the administrator's unless the database is a stranger's;
    `administer` runs a statement as the administrator, in another database.
    """

    def __init__(
        self,
        name: str,
        role: str,
        password: str,
        admin: asyncpg.Connection[Any],
        catalogue: str | None = None,
        administer: Callable[[str], Awaitable[object]] | None = None,
    ) -> None:
        self.name = name
        self.role = role
        self.password = password
        self.admin = admin
        self.catalogue = catalogue
        self._administer = administer or admin.execute

    def url(
        self,
        host: str,
        port: int,
        scheme: str = "postgresql+asyncpg",
        role: str | None = None,
        password: str | None = None,
    ) -> str:
        """The URL under which an app reaches this database at host:port, with everything percent-encoded."""
        user, password = quote(role or self.role, safe=""), quote(password or self.password, safe="")
        return f"{scheme}://{user}:{password}@{host}:{port}/{quote(self.name, safe='')}"

    @asynccontextmanager
    async def another_role(self, password: str) -> AsyncIterator[str]:
        """A role with this password that acts as the ordinary one, so that it owns nothing. Needs CREATEROLE."""
        name = f"{self.role[:40]}_{secrets.token_hex(4)}"
        # nothing that a stranger's database says may become a part of what the administrator runs
        literal = _quoted(password)
        await self._administer(f'CREATE ROLE "{name}" LOGIN PASSWORD \'{literal}\' IN ROLE "{self.role}"')
        try:
            await self._administer(f"ALTER ROLE \"{name}\" SET role = '{self.role}'")
            yield name
        finally:
            await self._administer(f'DROP ROLE "{name}"')

    async def end_others(self) -> None:
        """Ends all connections to the database but ours."""
        await self.admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )

    async def reset(self) -> bool:
        """Ends all other connections to the database and empties every table; identities start at 1 again.

        False, with nothing emptied, if an app or a check has changed the tables themselves.
        """
        await self.end_others()
        if await self.admin.fetchval(CATALOGUE) != self.catalogue:
            return False
        tables = await self.admin.fetchval(
            "SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> 'alembic_version'"
        )
        if tables:
            await self.admin.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
        return True


@asynccontextmanager
async def one_role(
    guard: asyncpg.Connection[Any], token: str, rights: Rights, share: int
) -> AsyncIterator[tuple[str, str]]:
    """A role for one run, and its password: no database but those it will own, a share of the connections.

    Raises PostgresUnavailable if the administrator may not make roles.
    """
    if not (rights.superuser or rights.createrole):
        user = await guard.fetchval("SELECT current_user")
        raise PostgresUnavailable(
            f"Every submission needs a database role of its own, and the role {user!r} may not make roles. As a "
            f'superuser, type: ALTER ROLE "{user}" CREATEROLE; or unset DATABASE_URL to use the embedded PostgreSQL.'
        )
    role, password = f"{STRANGER}{token}", secrets.token_hex(16)
    import asyncpg

    most = min(max(int(await guard.fetchval("SHOW max_connections")) // share - 20, 20), MOST_CONNECTIONS)
    await guard.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{password}' CONNECTION LIMIT {most}")
    try:
        if rights.superuser:
            await guard.execute(f"ALTER ROLE \"{role}\" SET temp_file_limit = '256MB'")
        else:
            await guard.execute(f'GRANT "{role}" TO CURRENT_USER')
        yield role, password
    finally:
        with contextlib.suppress(asyncpg.PostgresError):  # a stranger found a way to hold on to it: for a later sweep
            await _drop_role(guard, role)


async def connect(
    source: Source, database: str, user: str | None = None, password: str | None = None
) -> asyncpg.Connection[Any]:
    """A connection to one of the source's databases, as its administrator unless `user` is given."""
    import asyncpg

    return await asyncpg.connect(
        host=source.address.host,
        port=source.address.port,
        user=user or source.user,
        password=password if user else source.password,
        database=database,
        ssl=source.address.tls or False,
        timeout=20,
        # a role may have another search_path set for itself, in which count() is a function of its own
        server_settings={"application_name": "workbook", "search_path": "public"},
        statement_cache_size=0,
    )


async def sweep(guard: asyncpg.Connection[Any], maintenance: str) -> int:
    """Drops databases of runs that died; returns how many. Only ours: by name and by the comment."""
    rows = await guard.fetch(
        "SELECT datname FROM pg_database d JOIN pg_shdescription s ON s.objoid = d.oid "
        "WHERE s.classoid = 'pg_database'::regclass AND datname ~ '^workbook_.+_[0-9a-f]{16}$' "
        "AND s.description = $1",
        f"{MARK} {maintenance}",
    )
    import asyncpg

    dropped = 0
    for (name,) in rows:
        key = _key(name[-16:])
        if await guard.fetchval("SELECT pg_try_advisory_lock($1)", key):
            try:
                await guard.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
                dropped += 1
            finally:
                await guard.execute("SELECT pg_advisory_unlock($1)", key)
    for (role,) in await guard.fetch("SELECT rolname FROM pg_roles WHERE rolname ~ $1", f"^{STRANGER}[0-9a-f]{{16}}$"):
        key = _key(role[-16:])
        if await guard.fetchval("SELECT pg_try_advisory_lock($1)", key):
            try:
                with contextlib.suppress(asyncpg.PostgresError):
                    await _drop_role(guard, role)
            finally:
                await guard.execute("SELECT pg_advisory_unlock($1)", key)
    return dropped


async def _drop_role(guard: asyncpg.Connection[Any], role: str) -> None:
    """Drops a stranger's role, with the databases that it owns."""
    owned = "SELECT datname FROM pg_database WHERE datdba = (SELECT oid FROM pg_roles WHERE rolname = $1)"
    for (name,) in await guard.fetch(owned, role):
        await guard.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    await guard.execute(f'DROP ROLE IF EXISTS "{role}"')


@asynccontextmanager
async def _alone(guard: asyncpg.Connection[Any], key: int) -> AsyncIterator[None]:
    """Holds an advisory lock."""
    await guard.execute("SELECT pg_advisory_lock($1)", key)
    try:
        yield
    finally:
        await guard.execute("SELECT pg_advisory_unlock($1)", key)


def _copying(source: Source) -> str:
    """Files are copied in half the time of blocks, where nothing is flushed to disk; that is for our own server."""
    return "STRATEGY file_copy" if source.known else ""


async def _exists(guard: asyncpg.Connection[Any], name: str) -> bool:
    return bool(await guard.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name))


def _key(token: str) -> int:
    """The 63-bit key of a run's advisory lock."""
    return int(token, 16) >> 1


def _quoted(text: str) -> str:
    return text.replace("'", "''")
