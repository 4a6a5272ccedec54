"""Fills the new columns of old rows: `python -m app.backfill`, while both releases serve.

It may be stopped at any time and started again, and two of them may run at once. Its exit code is 0 only if all rows
are filled.
"""

import asyncio

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.busy import Unavailable
from app.database import open_engine
from app.settings import ReportSettings, load_settings

BATCH = 1000

# It goes through the table by its key, and not from one empty row to the next: what somebody else fills meanwhile
# cannot make a batch look like the end. Rows are locked in the order of their keys, so two of these do not deadlock.
# For a row that somebody else had locked, the condition is tested again: a value that is there stays.
FILL = """
    WITH batch AS (SELECT id FROM {table} WHERE id > :after ORDER BY id LIMIT :size FOR NO KEY UPDATE),
        filled AS (UPDATE {table} SET {column} = {value} FROM batch WHERE {table}.id = batch.id AND {column} IS NULL)
    SELECT max(id) FROM batch
"""
FILLS = (
    FILL.format(table="orders", column="public_id", value="gen_random_uuid()"),
    FILL.format(table="coupons", column="discount_percent", value="percent"),
)


async def fill(engine: AsyncEngine, statement: str) -> None:
    """Each batch is a transaction: it holds its locks for a moment, and what it has done is not lost."""
    after: int | None = 0
    while after is not None:
        async with engine.begin() as connection:
            after = await connection.scalar(text(statement), {"after": after, "size": BATCH})


async def fill_all(database_url: str) -> None:
    async with open_engine(database_url, pool_size=1) as engine:
        for statement in FILLS:
            await fill(engine, statement)


def main() -> None:
    settings = load_settings(ReportSettings)
    try:
        asyncio.run(fill_all(settings.database_url))
    except (Unavailable, SQLAlchemyError) as error:
        raise SystemExit(f"not all rows are filled, start it again: {error.__cause__ or error}") from None


if __name__ == "__main__":
    main()
