"""A live server, and the databases that a run makes on it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from checks.kit.postgres import roles, templates
from checks.kit.postgres.address import Address
from checks.kit.postgres.connect import Rights, connect, lock_key
from checks.kit.postgres.database import Database
from checks.kit.postgres.databases import Databases, drop_dead_databases
from checks.kit.postgres.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg


class Server:
    """A server that is there until `close`.

    `version` is its major version. With a `share` above 0, the databases are for untrusted code: each run has a role
    of its own that reaches nothing else, and one of `share` parts of the server's connections. The administrator
    then never enters a database.
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
    def is_ours(self) -> bool:
        """Whether this is the embedded server, on which nobody else has anything."""
        return self._source.is_ours

    @property
    def address(self) -> Address:
        return self._source.address

    @property
    def binaries(self) -> Path | None:
        """The folder with this server's own psql and pgbench; None for a server that is not ours."""
        return self._source.binaries

    async def connect(self, database: str | None = None) -> asyncpg.Connection[Any]:
        """A connection as administrator, not through the proxy; to the maintenance database unless one is named."""
        return await connect(self._source, database or self._source.maintenance)

    @asynccontextmanager
    async def databases(
        self, schema: str, label: str, load: templates.Load | None = None, *, app_role: bool = False
    ) -> AsyncIterator[Databases]:
        """Fresh databases with `schema` loaded, owned by an ordinary role; dropped when the block ends.

        `schema` is SQL. With `load`, which makes the tables instead, it is any text that differs when the tables do.
        `label` becomes a part of the databases' names. With `app_role` there is a role that may only connect to them.
        They are cloned from a template that is made once for each schema. While the block lasts, a connection
        of ours holds an advisory lock; a database whose lock is free belongs to a run that died, and is dropped.
        """
        lock_connection = await self.connect()
        try:
            await drop_dead_databases(lock_connection, self._source.maintenance)
            await roles.drop_dead_roles(lock_connection)
            token = secrets.token_hex(8)
            # before anything has this token in its name, or another run would take that for a dead one's
            await lock_connection.execute("SELECT pg_advisory_lock($1)", lock_key(token))
            async with AsyncExitStack() as stack:
                logins = await self._logins(lock_connection, token, stack, app_role)
                # the schema of untrusted code may take forever, and nobody else needs its template
                lock = lock_key(token) + 1 if self._share else templates.TEMPLATES_LOCK
                template = await templates.find_or_make(
                    lock_connection, self._source, schema, logins.owner, logins.app, load=load, lock=lock
                )
                databases = Databases(
                    self._source, lock_connection, template, logins,
                    label=label, token=token, untrusted=bool(self._share),
                )  # fmt: skip
                # pushed last, so done first: a role goes only after the databases that it owns
                stack.push_async_callback(databases.drop_all)
                yield databases
        finally:
            await lock_connection.close()  # which releases the run's lock

    async def _logins(
        self, lock_connection: asyncpg.Connection[Any], token: str, stack: AsyncExitStack, app_role: bool
    ) -> roles.Logins:
        if not self._share:
            return await roles.shared_roles(lock_connection, self._source, self._rights, app_role=app_role)
        if self.is_ours:  # on somebody else's server we do not decide who may connect to the database postgres
            await roles.revoke_public(lock_connection)
        return await stack.enter_async_context(
            roles.untrusted_roles(lock_connection, token, rights=self._rights, share=self._share, app_role=app_role)
        )

    @asynccontextmanager
    async def database(self, schema: str, label: str) -> AsyncIterator[Database]:
        """A single fresh database; see `databases`."""
        async with self.databases(schema, label) as databases:
            yield await databases.fresh()

    def close(self) -> None:
        """Lets the server go: stops it if it is ours and nobody else uses it."""
        self._source.release()
