"""Fills the new columns of old rows: `python -m app.backfill`, while both releases serve."""

import asyncio

from sqlalchemy import func, select, update
from sqlalchemy.exc import SQLAlchemyError

from app.busy import Unavailable
from app.database import open_engine
from app.models import Order
from app.settings import ReportSettings, load_settings

BATCH = 1000


async def fill(database_url: str) -> None:
    """Gives each old order a public id, in batches."""
    async with open_engine(database_url, pool_size=1) as engine, engine.begin() as connection:
        ids = (await connection.scalars(select(Order.id).where(Order.public_id.is_(None)))).all()
        for start in range(0, len(ids), BATCH):
            batch = Order.id.in_(ids[start : start + BATCH])
            await connection.execute(update(Order).where(batch).values(public_id=func.gen_random_uuid()))


def main() -> None:
    settings = load_settings(ReportSettings)
    try:
        asyncio.run(fill(settings.database_url))
    except (Unavailable, SQLAlchemyError) as error:
        raise SystemExit(f"the rows are not filled: {error.__cause__ or error}") from None


if __name__ == "__main__":
    main()
