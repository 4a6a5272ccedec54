"""One engine and one session for the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine


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


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    """The service's session. When the request is done, it commits what the request wrote."""
    session: AsyncSession = request.state.session
    yield session
    await session.commit()


Session = Annotated[AsyncSession, Depends(get_session)]
