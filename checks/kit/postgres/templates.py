"""Templates: databases that hold a schema and nothing else, made once for each schema and then cloned."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from checks.kit.postgres.connect import Login, advisory_lock, connect
from checks.kit.postgres.database import Database
from checks.kit.postgres.source import Source

if TYPE_CHECKING:
    import asyncpg

Load = Callable[[Database], Awaitable[None]]
"""Makes the tables of a schema in an empty database."""

PREFIX = "workbook_template_"
"""Begins the name of each template."""

TEMPLATES_LOCK = 0x626F6F6C
"""Key of the advisory lock under which a template is made, one run at a time."""


def template_name(schema: str, login: Login, prefix: str = PREFIX) -> str:
    """`prefix` and 16 hexadecimal digits, which are others for each schema and role."""
    return prefix + hashlib.sha256(f"{login.role}\0{schema}".encode()).hexdigest()[:16]


async def find_or_make(
    lock_connection: asyncpg.Connection[Any],
    source: Source,
    schema: str,
    login: Login,
    app: Login | None = None,
    *,
    load: Load | None = None,
    lock: int = TEMPLATES_LOCK,
    base: str = "template0",
    prefix: str = PREFIX,
) -> str:
    """The name of the template for `schema`, owned by the role of `login`; it begins with `prefix`.

    `app` is the role that owns nothing, for `load` to know of.

    Made of the database `base` under the advisory lock `lock`, and named only once it is whole: a template that exists
    can be used.
    """
    name = template_name(schema, login, prefix)
    if await _exists(lock_connection, name):
        return name
    async with advisory_lock(lock_connection, lock):
        if await _exists(lock_connection, name):  # made by the run that held the lock before us
            return name
        draft = f"{name}_draft"
        await lock_connection.execute(f'DROP DATABASE IF EXISTS "{draft}" WITH (FORCE)')  # of a run that was killed
        # not of template1, which may hold what somebody added to it
        create = f'CREATE DATABASE "{draft}" TEMPLATE "{base}" ENCODING \'UTF8\' OWNER "{login.role}"'
        await lock_connection.execute(f"{create} {copy_strategy(source)}")
        await lock_connection.execute(f'REVOKE ALL ON DATABASE "{draft}" FROM PUBLIC')
        try:
            await _load(Database(draft, login, await connect(source, draft, login), app=app), schema, load)
        except Exception:  # or each attempt of somebody who looks for a mistake would leave its draft
            await lock_connection.execute(f'DROP DATABASE IF EXISTS "{draft}" WITH (FORCE)')
            raise
        await lock_connection.execute(f'ALTER DATABASE "{draft}" RENAME TO "{name}"')
    return name


async def _load(database: Database, schema: str, load: Load | None) -> None:
    """Makes the tables, and closes the connection: PostgreSQL renames and clones no database that somebody uses."""
    try:
        if load is None:
            await database.admin.execute(f"{schema}\n;SELECT 1")  # asyncpg cannot take a script without statements
        else:
            await load(database)
    finally:
        await database.admin.close()


def copy_strategy(source: Source) -> str:
    """Option of CREATE DATABASE. Copying files takes half the time of copying blocks through the WAL.

    Only for a server of our own, where nothing is flushed to disk: elsewhere it costs two checkpoints.
    """
    return "STRATEGY file_copy" if source.is_ours else ""


async def _exists(lock_connection: asyncpg.Connection[Any], name: str) -> bool:
    return bool(await lock_connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name))
