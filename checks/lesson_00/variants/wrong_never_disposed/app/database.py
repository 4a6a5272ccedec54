"""The engine lives exactly as long as the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


@asynccontextmanager
async def open_engine(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine for the time of the block; on the way out every connection is closed properly."""
    engine = create_async_engine(url)
    yield engine


async def ping(engine: AsyncEngine) -> None:
    """One round trip to the database; raises what the driver raises."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
