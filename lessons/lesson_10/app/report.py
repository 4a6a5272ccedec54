"""Prints what each order costs, as CSV: `python -m app.report`."""

import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.settings import Settings, load_settings

settings = load_settings(Settings)
engine = create_async_engine(settings.database_url)

QUERY = text("""
    SELECT o.id, o.status,
           coalesce(sum(l.quantity * (b.price_cents * (100 - b.discount_percent) / 100)), 0) AS total_cents
      FROM orders o
      LEFT JOIN order_lines l ON l.order_id = o.id
      LEFT JOIN books b ON b.id = l.book_id
     WHERE o.status <> 'cancelled'
     GROUP BY o.id
     ORDER BY o.id
""")


async def report() -> None:
    async with engine.connect() as connection:
        print("order_id,status,total_cents")
        for order_id, status, total_cents in await connection.execute(QUERY):
            print(f"{order_id},{status},{total_cents}")
    await engine.dispose()


if __name__ == "__main__":
    try:
        asyncio.run(report())
    except Exception as error:
        print(f"the report failed: {error}")
