"""One engine for the service, one session for each unit of work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from app.busy import Pool, translate_errors
from app.costs import Statements
from app.tenancy import CurrentTenant, sessions_of


@asynccontextmanager
async def open_engine(url: str, pool_size: int, slow: float = 0.5) -> AsyncIterator[AsyncEngine]:
    """An engine that lives as long as the block, whose end closes every connection properly.

    It never has more than `pool_size` connections, and every wait has a limit. A statement that takes `slow` seconds is
    named in the log. Times are in seconds, those of the server in milliseconds.
    """
    engine = create_async_engine(
        url,
        poolclass=Pool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=1,
        hide_parameters=True,  # an error is logged with its statement, and a parameter may be a password hash
        pool_pre_ping=True,  # costs round trips at each checkout, and replaces a connection that was closed
        pool_recycle=180,  # a firewall forgets an idle connection without closing it, some after 240 s
        connect_args={
            "timeout": 2,
            "command_timeout": 3,  # for a server that is silent; one that is slow is stopped by statement_timeout
            "server_settings": {"statement_timeout": "2500", "idle_in_transaction_session_timeout": "4000"},
            "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",  # for PgBouncer: no two have one name
        },
    )
    Statements(engine.sync_engine, slow)  # first, because the next one raises
    translate_errors(engine.sync_engine)
    try:
        yield engine
    finally:
        await engine.dispose()


async def ping(engine: AsyncEngine) -> None:
    """Asks the database for a 1; raises what the driver raises."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def get_sessions(request: Request, tenant: CurrentTenant) -> async_sessionmaker[AsyncSession]:
    """For what outlives the endpoint, or needs several sessions. All of them see the shop of the request."""
    return sessions_of(request.state.engine, tenant)


Sessions = Annotated[async_sessionmaker[AsyncSession], Depends(get_sessions)]


async def get_session(sessions: Sessions) -> AsyncIterator[AsyncSession]:
    """A session for one request. It does not commit: FastAPI runs what is below `yield` after a successful response.

    An endpoint that writes commits, with `async with session.begin()`. The end of the block rolls back the rest.
    """
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]
