from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.settings import database_url

try:
    engine = create_async_engine(database_url())
except ValueError:
    raise SystemExit("DATABASE_URL has a port that is no number") from None


async def ping():
    async with engine.begin() as connection:
        await connection.execute(text("SELECT 1"))
