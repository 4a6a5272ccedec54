"""Prints what each order costs, as CSV: `python -m app.report`.

It is a command: what it has to say goes to standard error, and its exit code is 0 only if the report is complete.
"""

import asyncio
import csv
import sys
from collections.abc import Sequence

from sqlalchemy import Row, func, select
from sqlalchemy.exc import SQLAlchemyError

from app.busy import Unavailable
from app.database import open_engine
from app.models import Order, OrderLine, OrderStatus
from app.settings import ReportSettings, load_settings

TOTAL = func.coalesce(func.sum(OrderLine.quantity * OrderLine.price_cents), 0)
QUERY = (
    select(Order.id, Order.status, TOTAL)
    .outerjoin(OrderLine)
    .where(Order.status != OrderStatus.cancelled)
    .group_by(Order.id)
    .order_by(Order.id)
)


async def read_orders(database_url: str) -> Sequence[Row[int, OrderStatus, int]]:
    async with open_engine(database_url, pool_size=1) as engine, engine.connect() as connection:
        return (await connection.execute(QUERY)).all()


def main() -> None:
    settings = load_settings(ReportSettings)
    try:
        orders = asyncio.run(read_orders(settings.database_url))
    except (Unavailable, SQLAlchemyError) as error:
        raise SystemExit(f"no report, for the database cannot be read: {error.__cause__ or error}") from None
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(("order_id", "status", "total_cents"))
    table.writerows(orders)


if __name__ == "__main__":
    main()
