"""Connections to a server, and the few things that every statement of ours on it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from checks.kit.postgres.source import Source

if TYPE_CHECKING:
    import asyncpg

CONNECT_TIMEOUT = 20
"""Seconds after which a server counts as out of reach."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What the administrator's role may do."""

    superuser: bool
    createdb: bool
    createrole: bool
    bypassrls: bool = False

    @property
    def may_create_roles(self) -> bool:
        return self.superuser or self.createrole


@dataclass(frozen=True, slots=True)
class Login:
    """A role that may log in, and its password."""

    role: str
    password: str = field(repr=False)


async def connect(source: Source, database: str, login: Login | None = None) -> asyncpg.Connection[Any]:
    """A connection to one of the source's databases, as its administrator unless there is a `login`.

    Raises what asyncpg raises: OSError, TimeoutError, asyncpg.PostgresError.
    """
    import asyncpg

    login = login or Login(source.user, source.password)
    return await asyncpg.connect(
        host=source.address.host,
        port=source.address.port,
        user=login.role,
        password=login.password,
        database=database,
        ssl=source.address.tls or False,
        timeout=CONNECT_TIMEOUT,
        # a role may have another search_path set for itself, in which count() is a function of its own
        server_settings={"application_name": "workbook", "search_path": "public"},
        # tables come and go under this connection, and a cached plan for one that changed is an error
        statement_cache_size=0,
    )


def quote_literal(text: str) -> str:
    """`text` for use between single quotes. CREATE ROLE and COMMENT take no parameters, so it has to be SQL text."""
    return text.replace("'", "''")


def lock_key(token: str) -> int:
    """The key of a run's advisory lock, from its token of 16 hexadecimal digits: a bigint, and therefore 63 bits."""
    return int(token, 16) >> 1


@asynccontextmanager
async def advisory_lock(connection: asyncpg.Connection[Any], key: int) -> AsyncIterator[None]:
    """Holds the server-wide lock `key` within the block; waits for it without limit.

    A lock of the session, not of a transaction: CREATE DATABASE runs in no transaction. PostgreSQL releases it when
    the connection ends, however it ends.
    """
    await connection.execute("SELECT pg_advisory_lock($1)", key)
    try:
        yield
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", key)


@asynccontextmanager
async def if_free(connection: asyncpg.Connection[Any], token: str) -> AsyncIterator[bool]:
    """Whether no run holds the lock of `token`, that is, whether its run has died; if so, held within the block."""
    key = lock_key(token)
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", key):
        yield False
        return
    try:
        yield True
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", key)
