"""The databases of one run: clones of a template, emptied and used again, and what is left of them afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from checks.kit.postgres import filled, roles
from checks.kit.postgres.connect import Login, connect, if_free, quote_literal
from checks.kit.postgres.database import SCHEMA_FINGERPRINT_SQL, Database
from checks.kit.postgres.roles import Logins
from checks.kit.postgres.source import Source
from checks.kit.postgres.templates import copy_strategy

if TYPE_CHECKING:
    import asyncpg

OWNED_COMMENT = "made by the Bookshop workbook, kept from"
"""Begins the comment of every database that a run makes; the database in which the run's lock is held follows."""

IDLE_CLONE = "a spare one of the Bookshop workbook"
"""Begins the comment of a clone that waits for the next run; its schema fingerprint follows."""

MAX_IDLE_CLONES = 3
"""How many clones of a template may wait: as many as a run has checks at a time."""


class Maker:
    """A role that may make databases; see `Databases.maker`."""

    def __init__(self, login: Login, admin: asyncpg.Connection[Any]) -> None:
        self.login = login
        self._admin = admin

    async def made(self) -> list[str]:
        """The names of the databases that it has made and not dropped."""
        owned = "SELECT datname FROM pg_database d JOIN pg_roles r ON r.oid = datdba WHERE rolname = $1 ORDER BY 1"
        return [name for (name,) in await self._admin.fetch(owned, self.login.role)]


class Databases:
    """Makes clones of one template for one run.

    `token` is the 16 hexadecimal digits of the run's lock; it ends the name of each clone, so that a later run can
    tell whether this one is still alive. `label` says in the name what the clones are for. The clones of `untrusted`
    code are dropped at the end, and the administrator never enters them.
    """

    def __init__(
        self,
        source: Source,
        lock_connection: asyncpg.Connection[Any],
        template: str,
        logins: Logins,
        *,
        label: str,
        token: str,
        untrusted: bool = False,
    ) -> None:
        self._source = source
        self._lock_connection = lock_connection
        self._template = template
        self._login, self._app = logins.owner, logins.app
        self._label = label
        self._token = token
        self._untrusted = untrusted
        self._count = 0
        self._made: list[Database] = []
        self._given_back: list[Database] = []
        # several checks ask for databases at a time, and an asyncpg connection runs one statement at a time
        self._lock = asyncio.Lock()

    async def fresh(self) -> Database:
        """The tables of the schema, all empty: a database that was given back, else a clone."""
        while self._given_back:
            database = self._given_back.pop()
            if await database.reset():
                return database
            await self._discard(database)  # its tables were changed
        while True:
            clone = await self._clone()
            if clone is not None:
                return clone

    async def _clone(self) -> Database | None:
        """A clone that waits, else a new one; None if the one that waited has been changed meanwhile."""
        name = self._next_name()
        async with self._lock:
            idle = None if self._untrusted else await self._take_idle_clone(name)
            if idle is None:
                await self._create(name, self._template)
            await self._mark(name)
        # a trigger runs with the rights of the role that fires it: in an untrusted database we have only the role's
        admin = await connect(self._source, name, self._login if self._untrusted else None)
        fingerprint = idle or await admin.fetchval(SCHEMA_FINGERPRINT_SQL)
        database = Database(
            name, self._login, admin, app=self._app, schema_fingerprint=fingerprint, administer=self._execute
        )
        self._made.append(database)
        if idle and not await database.reset():  # it still holds the rows of its last check
            await self._discard(database)
            return None
        return database

    async def filled(self, script: str) -> Database:
        """The tables with the rows that an SQL script inserts, vacuumed and analyzed; `drop` is for its end.

        A clone of a template that is made once for each schema and script. Raises what asyncpg raises where the tables
        do not take the rows.
        """
        import asyncpg

        name = self._next_name()
        while True:
            template = await filled.find_or_make(self._source, self._template, script, self._login)
            try:
                async with self._lock:
                    await filled.use(self._lock_connection, template)
                    await self._create(name, template)
                    await self._mark(name)
                break
            except asyncpg.InvalidCatalogNameError:  # another run has made newer ones, and dropped this one just now
                continue
        admin = await connect(self._source, name, self._login if self._untrusted else None)
        database = Database(name, self._login, admin, app=self._app, administer=self._execute)
        self._made.append(database)
        return database

    async def drop(self, database: Database) -> None:
        """Drops a database that is not to be used again."""
        await self._discard(database)

    @asynccontextmanager
    async def maker(self, database: Database) -> AsyncIterator[Maker]:
        """A role for a test suite: it may make databases, and it may do in `database` what the app's role may.

        It goes at the end of the block, with all that it has made.
        """
        login = Login(f"{roles.MAKER_ROLE_PREFIX}{secrets.token_hex(4)}_{self._token}", secrets.token_hex(16))
        async with self._lock:
            await roles.make_maker(self._lock_connection, login, self._login.role)
        try:
            yield Maker(login, database.admin)
        finally:
            own = await connect(self._source, database.name, login)
            try:
                await own.execute("DROP OWNED BY CURRENT_USER CASCADE")  # tables in the database of somebody else
            finally:
                await own.close()
            async with self._lock:
                await roles.drop_role(self._lock_connection, login.role)

    def give_back(self, database: Database) -> None:
        """The caller is done with it. Emptying it takes milliseconds, cloning up to a third of a second."""
        self._given_back.append(database)

    async def drop_all(self) -> None:
        """Drops every clone, also one that an app is still connected to; on our own server some wait for the next run.

        If the server has gone, nothing is dropped and nothing raised: the next run finds them.
        """
        import asyncpg

        gone = (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError)
        with contextlib.suppress(*gone):
            for database in self._made:
                may_wait = self._source.is_ours and not self._untrusted and database in self._given_back
                if not (may_wait and await self._keep_idle(database)):
                    await self._drop(database)

    # -- clones that wait for the next run

    async def _take_idle_clone(self, name: str) -> str | None:
        """Gives a clone that an earlier run left the name `name`; its fingerprint, or None if there is none."""
        import asyncpg

        for idle, comment in await self._idle_clones():
            try:
                # the rename decides between two runs: PostgreSQL lets one of them find the old name
                await self._lock_connection.execute(f'ALTER DATABASE "{idle}" RENAME TO "{name}"')
            except (asyncpg.InvalidCatalogNameError, asyncpg.ObjectInUseError):
                continue
            return comment.rpartition(" ")[2]
        return None

    async def _keep_idle(self, database: Database) -> bool:
        """Leaves a clone, rows and all, for the next run; False if there are enough, or it is still in use."""
        import asyncpg

        async with self._lock:
            if len(await self._idle_clones()) >= MAX_IDLE_CLONES:
                return False
            await database.end_others()
            await database.admin.close()
            idle = f"{self._template}_spare_{secrets.token_hex(4)}"
            try:
                await self._lock_connection.execute(f'ALTER DATABASE "{database.name}" RENAME TO "{idle}"')
            except asyncpg.ObjectInUseError:  # an app connected again at once
                return False
            comment = f"{IDLE_CLONE} {database.schema_fingerprint}"
            await self._lock_connection.execute(f"COMMENT ON DATABASE \"{idle}\" IS '{comment}'")
            return True

    async def _idle_clones(self) -> list[tuple[str, str]]:
        """Names and comments."""
        rows = await self._lock_connection.fetch(
            "SELECT datname, description FROM pg_database d JOIN pg_shdescription s ON s.objoid = d.oid "
            "WHERE s.classoid = 'pg_database'::regclass AND starts_with(datname, $1) AND starts_with(description, $2)",
            f"{self._template}_spare_",
            IDLE_CLONE,
        )
        return [(row["datname"], row["description"]) for row in rows]

    # -- statements of the administrator

    def _next_name(self) -> str:
        self._count += 1
        return f"workbook_{self._label}_{self._count}_{self._token}"

    async def _create(self, name: str, template: str) -> None:
        create = f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER "{self._login.role}"'
        await self._lock_connection.execute(f"{create} {copy_strategy(self._source)}")
        # privileges on the database itself are not cloned
        await self._lock_connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        if self._app:
            await self._lock_connection.execute(f'GRANT CONNECT ON DATABASE "{name}" TO "{self._app.role}"')

    async def _mark(self, name: str) -> None:
        """To be called at once: a clone without its comment would never be dropped if this run died."""
        comment = f"{OWNED_COMMENT} {quote_literal(self._source.maintenance)}"
        await self._lock_connection.execute(f"COMMENT ON DATABASE \"{name}\" IS '{comment}'")

    async def _execute(self, statement: str) -> None:
        async with self._lock:
            await self._lock_connection.execute(statement)

    async def _discard(self, database: Database) -> None:
        self._made.remove(database)
        await self._drop(database)

    async def _drop(self, database: Database) -> None:
        await database.admin.close()
        await self._execute(f'DROP DATABASE IF EXISTS "{database.name}" WITH (FORCE)')


async def drop_dead_databases(lock_connection: asyncpg.Connection[Any], maintenance: str) -> None:
    """Drops the databases of runs that died. Only ours: by name and by comment.

    `maintenance` is the database to which `lock_connection` leads. An advisory lock belongs to one database, so only
    runs that hold theirs in the same one can be judged from here.
    """
    rows = await lock_connection.fetch(
        "SELECT datname FROM pg_database d JOIN pg_shdescription s ON s.objoid = d.oid "
        "WHERE s.classoid = 'pg_database'::regclass AND datname ~ '^workbook_.+_[0-9a-f]{16}$' "
        "AND s.description = $1",
        f"{OWNED_COMMENT} {maintenance}",
    )
    for (name,) in rows:
        async with if_free(lock_connection, name[-16:]) as dead:
            if dead:
                await lock_connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
