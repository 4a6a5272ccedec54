"""Chooses among the four sources of a server, and makes sure that the one chosen can be used."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from checks.kit.postgres.connect import Rights, connect
from checks.kit.postgres.errors import PostgresUnavailable
from checks.kit.postgres.roles import UNTRUSTED
from checks.kit.postgres.server import Server
from checks.kit.postgres.source import Source, from_url

MIN_VERSION = 15
"""The oldest major version that the kit's own statements run on; the lessons are measured on 18."""


def find(root: Path, environ: Mapping[str, str]) -> Server:
    """Finds or starts a server; blocks until it can be used. From a running event loop, call it with asyncio.to_thread.

    `DATABASE_URL` wins; else `WORKBOOK_POSTGRES` names `compose` or `docker`; else it is the embedded server,
    with its data below `root`/.workbook or in the folder WORKBOOK_DATA. Raises PostgresUnavailable.
    """
    share = int(environ.get(UNTRUSTED, 0))
    if url := environ.get("DATABASE_URL"):
        advice = "Start it, fix the URL, or unset DATABASE_URL to use the embedded PostgreSQL."
        return _checked(from_url(url, "DATABASE_URL", advice), advice, share)
    choice = environ.get("WORKBOOK_POSTGRES", "embedded")
    if choice == "embedded":
        from checks.kit.postgres.embedded import start

        everything = Rights(superuser=True, createdb=True, createrole=True)
        return Server(start(root, data_folder(environ), locked=bool(share)), everything, "18", share)
    if choice == "compose":
        return _checked(_compose(root, environ), "Start it with: docker compose up -d --wait", share)
    if choice == "docker":
        from checks.kit.postgres.docker import start_container

        source = start_container()
        try:
            return _checked(source, "Look at it with: docker ps -a", share)
        except BaseException:
            source.release()
            raise
    raise PostgresUnavailable(
        f"WORKBOOK_POSTGRES is {choice!r}. It may be: embedded (the default), compose, docker. "
        "For a server of your own set DATABASE_URL instead."
    )


def data_folder(environ: Mapping[str, str]) -> Path | None:
    """The folder WORKBOOK_DATA, whose ~ a shell leaves as it is in quotes; None if it is not set."""
    text = environ.get("WORKBOOK_DATA")
    try:
        return Path(text).expanduser().resolve() if text else None
    except RuntimeError:
        raise PostgresUnavailable(
            f"WORKBOOK_DATA is {text}, and there is no such home folder. Write the path."
        ) from None


def _compose(root: Path, environ: Mapping[str, str]) -> Source:
    from dotenv import dotenv_values

    settings = {**dotenv_values(root / ".env"), **environ}  # compose, too, lets the environment win
    port = settings.get("WORKBOOK_POSTGRES_PORT") or "54318"
    password = settings.get("WORKBOOK_POSTGRES_PASSWORD") or "bookshop"
    url = f"postgresql://bookshop:{quote(password, safe='')}@127.0.0.1:{port}/bookshop?sslmode=disable"
    name = "the server of compose.yaml"
    return from_url(url, name, "Start it with: docker compose up -d --wait")


def _checked(source: Source, advice: str, share: int) -> Server:
    """Connects once, so that everything that can be wrong is said before the first check.

    Runs an event loop of its own, and so must not be called from one; `find` says so.
    """
    import asyncpg

    where = f"{source.address.host}:{source.address.port}"
    try:
        rights, version = asyncio.run(_look(source))
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise PostgresUnavailable(
            f"The server at {where} does not let the role {source.user!r} of {source.name} in: {error}. "
            "Correct user and password; special characters are written as %40 for @, %2F for /, %25 for %."
        ) from None
    except asyncpg.InvalidCatalogNameError:
        raise PostgresUnavailable(
            f"The server at {where} has no database {source.maintenance!r}, which {source.name} names. "
            f'Create it (CREATE DATABASE "{source.maintenance}";) or name another, such as postgres.'
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise PostgresUnavailable(
            f"The certificate of the server at {where} is not one that {source.name} trusts: "
            f"{error.verify_message or error}. Name its CA with sslrootcert=FILE and the host as the "
            "certificate does, or write sslmode=require to encrypt without checking."
        ) from None
    except (
        OSError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        TimeoutError,
    ) as error:
        raise PostgresUnavailable(
            f"The server at {where}, which {source.name} names, cannot be used: "
            f"{error or type(error).__name__}. {advice}"
        ) from None
    if int(version) < MIN_VERSION:
        raise PostgresUnavailable(
            f"The server at {where} is PostgreSQL {version}; {MIN_VERSION} or newer is needed, and 18 is what the "
            "lessons are measured on. Unset DATABASE_URL to use the embedded one."
        )
    if not (rights.superuser or rights.createdb):
        raise PostgresUnavailable(
            f"The role {source.user!r} may not create databases at {where}, and every lesson needs its own. "
            f'As a superuser, type: ALTER ROLE "{source.user}" CREATEDB;'
        )
    return Server(source, rights, version, share)


async def _look(source: Source) -> tuple[Rights, str]:
    connection = await connect(source, source.maintenance)
    try:
        [row] = await connection.fetch(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )
        version = await connection.fetchval("SELECT current_setting('server_version_num')::int / 10000")
        return Rights(*row), str(version)
    finally:
        await connection.close()
