"""One engine for the service, one session for each unit of work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine


@asynccontextmanager
async def open_engine(url: str, pool_size: int) -> AsyncIterator[AsyncEngine]:
    """An engine for the time of the block; on the way out every connection is closed properly.

    It never has more than `pool_size` connections, and nothing waits without a limit: all times are in seconds,
    those of the server in milliseconds.
    """
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,  # costs round trips for each checkout, and a fail-over goes unnoticed
        connect_args={
            "timeout": 2,
            "command_timeout": 9,  # for a server that is silent; one that is slow is stopped by statement_timeout
            "server_settings": {"statement_timeout": "2500", "idle_in_transaction_session_timeout": "10000"},
        },
    )
    try:
        yield engine
    finally:
        await engine.dispose()


async def ping(engine: AsyncEngine) -> None:
    """One round trip to the database; raises what the driver raises."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def get_sessions(request: Request) -> async_sessionmaker[AsyncSession]:
    sessions: async_sessionmaker[AsyncSession] = request.state.sessions
    return sessions


Sessions = Annotated[async_sessionmaker[AsyncSession], Depends(get_sessions)]


async def get_session(sessions: Sessions) -> AsyncIterator[AsyncSession]:
    """A session of the request's own. It never commits: what is below `yield` runs after the answer was sent.

    Whoever writes commits, with `async with session.begin()`. Closing rolls back the rest.
    """
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]
