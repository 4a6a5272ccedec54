"""The shop as customers meet it: a database of this run, made by the migrations, and a server with real HTTP.

No test cleans up. Each one makes the customers and books that it looks at, so what others have left does not matter.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest
import uvicorn
from alembic import command
from alembic.config import Config
from provider import Provider
from rows import Rows
from sqlalchemy import make_url

SECRET = "a secret of the tests, 32 characters or more"


@pytest.fixture(scope="session")
async def database_url() -> AsyncIterator[str]:
    """An empty database of this run, beside the one in DATABASE_URL. At the end it is dropped.

    Without FORCE, for the app has closed its connections by then. FORCE fails while autovacuum works in the database:
    only a superuser may end its process. A plain DROP waits for it.
    """
    given = make_url(os.environ["DATABASE_URL"])
    plain = given.set(drivername="postgresql").render_as_string(hide_password=False)
    name = f"test_{uuid4().hex}"
    connection = await asyncpg.connect(plain)
    await connection.execute(f'CREATE DATABASE "{name}"')
    try:
        yield given.set(database=name).render_as_string(hide_password=False)
    finally:
        await connection.execute(f'DROP DATABASE "{name}"')
        await connection.close()


@pytest.fixture(scope="session")
async def migrated(database_url: str) -> str:
    """The URL of that database, after `alembic upgrade head`: what production runs, with triggers and constraints."""
    with environment(DATABASE_URL=database_url):
        folder = Path(__file__).parents[1]
        config = Config(folder / "alembic.ini", attributes={"configure_logger": False})
        config.set_main_option("script_location", str(folder / "migrations"))
        await asyncio.to_thread(command.upgrade, config, "head")  # it runs an event loop of its own
    return database_url


@pytest.fixture(scope="session")
async def provider() -> AsyncIterator[Provider]:
    """A payment provider on this machine, which accepts each charge unless a test tells it otherwise."""
    provider = Provider()
    async with serving(provider) as provider.url:
        yield provider


@pytest.fixture(scope="session")
async def shop(migrated: str, provider: Provider) -> AsyncIterator[httpx.AsyncClient]:
    """The app, started as in production: lifespan, HTTP, and a pool of several connections."""
    from app.main import app

    with environment(DATABASE_URL=migrated, PAYMENT_URL=provider.url, JWT_SECRET=SECRET):
        async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
            # opens connections of the pool now: a lock of a test must not wait for that
            await asyncio.gather(*(client.get("/authors") for _ in range(4)))
            yield client


@pytest.fixture(scope="session")
async def rows(migrated: str) -> AsyncIterator[Rows]:
    """A connection of the tests' own, which the app does not have: what it reads is stored."""
    connection = await asyncpg.connect(migrated.replace("+asyncpg", ""))
    yield Rows(connection, SECRET)
    await connection.close()


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@contextlib.asynccontextmanager
async def serving(app: object) -> AsyncIterator[str]:
    """A server on a free port, for the time of the block; its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))  # type: ignore[arg-type]
    running = asyncio.create_task(server.serve())
    while not server.started:
        if running.done():
            running.result()
        await asyncio.sleep(0.001)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await running
