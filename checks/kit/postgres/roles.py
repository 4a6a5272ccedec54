"""The roles as which apps log in: ordinary ones that all runs share, and others for each run of untrusted code.

A database belongs to its owner. In most lessons the app logs in as the owner. Where a lesson asks for it there is one
more role, which owns nothing and may do what the owner grants to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from checks.kit.postgres.connect import Login, Rights, advisory_lock, if_free
from checks.kit.postgres.errors import PostgresUnavailable
from checks.kit.postgres.source import Source

if TYPE_CHECKING:
    import asyncpg

UNTRUSTED = "WORKBOOK_UNTRUSTED"
"""In the environment of a grader of other people's code: how many such graders share the server."""

UNTRUSTED_ROLE_PREFIX = "workbook_untrusted_"
"""Begins the name of a role that is made for one run; the token of the run's lock follows."""

MAKER_ROLE_PREFIX = "workbook_suite_"
"""Begins the name of a role with which a test suite makes databases; the token of the run's lock ends it."""

MAKER_CONNECTIONS = 60
"""How many connections such a role may have."""
APP_SUFFIX = "_app"
"""Ends the name of the role that owns nothing."""

MIN_CONNECTIONS, MAX_CONNECTIONS = 20, 120
"""Bounds of an untrusted role's connections; each costs the server memory that no limit of a process counts."""

RESERVED_CONNECTIONS = 20
"""How many connections of its share each grader keeps for itself."""

ROLES_LOCK = 0x626F6F6B
"""Key of the advisory lock under which roles are made and changed, one run at a time."""


@dataclass(frozen=True, slots=True)
class Logins:
    """The owner of a run's databases, and the role that owns nothing; None where the app logs in as the owner."""

    owner: Login
    app: Login | None = None


async def shared_roles(
    lock_connection: asyncpg.Connection[Any], source: Source, rights: Rights, *, app_role: bool = False
) -> Logins:
    """Ordinary roles, made if they are not there; the administrator's own if it may not make roles.

    Names and passwords are derived from the administrator's: every run finds the same roles without keeping a secret,
    and runs of other people on the same server have others. Raises PostgresUnavailable if there can be no `app_role`.
    """
    if app_role:
        await _refuse_without_rights(lock_connection, rights)
    if not rights.may_create_roles:
        return Logins(Login(source.user, source.password))
    digest = hashlib.sha256(f"bookshop\0{source.user}\0{source.password}".encode()).hexdigest()
    ordinary = Login(f"bookshop_{digest[:8]}", digest[8:40])
    # an owner that bypasses policies is another one than that of lessons without them
    owner = Login(f"{ordinary.role}_owner", digest[24:56]) if app_role else ordinary
    app = Login(f"{ordinary.role}{APP_SUFFIX}", digest[32:]) if app_role else None
    async with advisory_lock(lock_connection, ROLES_LOCK):  # CREATE ROLE knows no IF NOT EXISTS
        for login in filter(None, (owner, app)):
            found = await lock_connection.fetchrow("SELECT rolconfig FROM pg_roles WHERE rolname = $1", login.role)
            if found is None:
                await lock_connection.execute(f"CREATE ROLE \"{login.role}\" LOGIN PASSWORD '{login.password}'")
                await _let_administrator_own(lock_connection, login.role, rights)
            elif found["rolconfig"]:  # an app of an earlier run has set it for its own role, as everybody may
                await lock_connection.execute(f'ALTER ROLE "{login.role}" RESET ALL')
        if app_role:
            await _let_bypass(lock_connection, owner.role)
    return Logins(owner, app)


@asynccontextmanager
async def untrusted_roles(
    lock_connection: asyncpg.Connection[Any], token: str, *, rights: Rights, share: int, app_role: bool = False
) -> AsyncIterator[Logins]:
    """Roles for one run: no database but those the owner will own, and one of `share` parts of the connections.

    They go when the block ends, with everything that they own. Raises PostgresUnavailable if the administrator may
    not make roles.
    """
    if app_role:
        await _refuse_without_rights(lock_connection, rights)
    if not rights.may_create_roles:
        user = await lock_connection.fetchval("SELECT current_user")
        raise PostgresUnavailable(
            f"Every submission needs a database role of its own, and the role {user!r} may not make roles. As a "
            f'superuser, type: ALTER ROLE "{user}" CREATEROLE; or unset DATABASE_URL to use the embedded PostgreSQL.'
        )
    import asyncpg

    owner = Login(f"{UNTRUSTED_ROLE_PREFIX}{token}", secrets.token_hex(16))
    app = Login(f"{owner.role}{APP_SUFFIX}", secrets.token_hex(16)) if app_role else None
    available = int(await lock_connection.fetchval("SHOW max_connections")) // share - RESERVED_CONNECTIONS
    limit = min(max(available, MIN_CONNECTIONS), MAX_CONNECTIONS)
    try:
        for login in filter(None, (owner, app)):
            await lock_connection.execute(
                f"CREATE ROLE \"{login.role}\" LOGIN PASSWORD '{login.password}' CONNECTION LIMIT {limit}"
            )
            if rights.superuser:  # only a superuser may set it, so the role cannot raise it again
                await lock_connection.execute(f"ALTER ROLE \"{login.role}\" SET temp_file_limit = '256MB'")
            await _let_administrator_own(lock_connection, login.role, rights)
        if app_role:
            await _let_bypass(lock_connection, owner.role)
        yield Logins(owner, app)
    finally:
        with contextlib.suppress(asyncpg.PostgresError):  # untrusted code found a way to keep it: for a later run
            await drop_role(lock_connection, owner.role)


async def revoke_public(lock_connection: asyncpg.Connection[Any]) -> None:
    """Lets nobody but the administrator into the databases that every server has; every role may enter by default."""
    async with advisory_lock(lock_connection, ROLES_LOCK):  # two at once fail with "tuple concurrently updated"
        await lock_connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")


async def drop_dead_roles(lock_connection: asyncpg.Connection[Any]) -> None:
    """Drops the roles that were made for runs that died, with everything that they own."""
    import asyncpg

    for (role,) in await lock_connection.fetch(
        "SELECT rolname FROM pg_roles WHERE rolname ~ $1",
        f"^({UNTRUSTED_ROLE_PREFIX}|{MAKER_ROLE_PREFIX}[0-9a-f]+_)[0-9a-f]{{16}}$",
    ):
        async with if_free(lock_connection, role[-16:]) as dead:
            if dead:
                with contextlib.suppress(asyncpg.PostgresError):
                    await drop_role(lock_connection, role)


async def make_maker(lock_connection: asyncpg.Connection[Any], login: Login, member_of: str) -> None:
    """A role that may make databases, and may do what the role `member_of` may. Needs CREATEROLE and CREATEDB."""
    await lock_connection.execute(
        f'CREATE ROLE "{login.role}" LOGIN CREATEDB CONNECTION LIMIT {MAKER_CONNECTIONS} '
        f"PASSWORD '{login.password}' IN ROLE \"{member_of}\""
    )
    if not await lock_connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        await lock_connection.execute(f'GRANT "{login.role}" TO CURRENT_USER')


async def _refuse_without_rights(lock_connection: asyncpg.Connection[Any], rights: Rights) -> None:
    """Raises PostgresUnavailable unless the administrator may make the two roles of a lesson with an app role."""
    if rights.superuser or (rights.createrole and rights.bypassrls):
        return
    user = await lock_connection.fetchval("SELECT current_user")
    raise PostgresUnavailable(
        f"In this lesson the app logs in as a role of its own, and the role {user!r} may not make what that takes. "
        f'As a superuser, type: ALTER ROLE "{user}" CREATEROLE BYPASSRLS; or unset DATABASE_URL to use the '
        "embedded PostgreSQL."
    )


async def _let_bypass(lock_connection: asyncpg.Connection[Any], role: str) -> None:
    """Lets the owner see what a policy hides, with FORCE ROW LEVEL SECURITY, too: checks of `grade` look as it."""
    if not await lock_connection.fetchval("SELECT rolbypassrls FROM pg_roles WHERE rolname = $1", role):
        await lock_connection.execute(f'ALTER ROLE "{role}" BYPASSRLS')


async def _let_administrator_own(lock_connection: asyncpg.Connection[Any], role: str, rights: Rights) -> None:
    """CREATE DATABASE ... OWNER asks of anybody but a superuser to be a member of the owner's role."""
    if not rights.superuser:
        await lock_connection.execute(f'GRANT "{role}" TO CURRENT_USER')


async def drop_role(lock_connection: asyncpg.Connection[Any], role: str) -> None:
    """Drops a role with the databases that it owns."""
    # first the databases: PostgreSQL drops no role that owns anything
    owned = "SELECT datname FROM pg_database WHERE datdba = (SELECT oid FROM pg_roles WHERE rolname = $1)"
    for (name,) in await lock_connection.fetch(owned, role):
        await lock_connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    for name in (f"{role}{APP_SUFFIX}", role):
        await lock_connection.execute(f'DROP ROLE IF EXISTS "{name}"')
