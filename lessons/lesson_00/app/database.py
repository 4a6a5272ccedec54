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
    """Keeps a connection open, so that the first customer of the day does not wait for it."""
    while True:
        try:
            await asyncio.sleep(30)
            await ping()
        except:
            logger.warning("database not reachable, trying again")
