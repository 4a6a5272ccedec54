import asyncio
import logging

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.settings import DATABASE_URL

logger = logging.getLogger("uvicorn.error")

engine = create_async_engine(DATABASE_URL)


async def ping() -> bool:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    return True


async def keep_warm() -> None:
    """Keeps one connection open, so that the first customer of the day does not wait for it."""
    while True:
        try:
            await ping()
            await asyncio.sleep(30)
        except:
            logger.warning("database not reachable, trying again")
            await asyncio.sleep(1)
