"""One engine for the service, one session for each unit of work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine


@asynccontextmanager
async def open_engine(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine that lives as long as the block, whose end closes every connection properly."""
    engine = create_async_engine(url)
    try:
        yield engine
    finally:
        await engine.dispose()


async def ping(engine: AsyncEngine) -> None:
    """Asks the database for a 1; raises what the driver raises."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def get_sessions(request: Request) -> async_sessionmaker[AsyncSession]:
    sessions: async_sessionmaker[AsyncSession] = request.state.sessions
    return sessions


Sessions = Annotated[async_sessionmaker[AsyncSession], Depends(get_sessions)]


async def get_session(sessions: Sessions) -> AsyncIterator[AsyncSession]:
    """A session for one request. It does not commit: FastAPI runs what is below `yield` after a successful response.

    An endpoint that writes commits, with `async with session.begin()`. The end of the block rolls back the rest.
    """
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]
