"""What the tills of our branches have sold. A till sends its receipts in batches, some of them days later."""

import secrets
from datetime import UTC, date, datetime, time, timedelta
from time import time_ns
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query
from sqlalchemy import Date, cast, func, insert, select

from app.database import Session
from app.models import Receipt
from app.refusals import NotFound
from app.schemas import NO_NUL, DaySales, ReceiptIds, ReceiptOut, ReceiptsIn

router = APIRouter()

DAY = timedelta(days=1)
MAX_DAYS = 31

Day = Annotated[date, Query(ge=date(1990, 1, 1), le=date(2099, 12, 31))]
ZoneName = Annotated[str, Query(max_length=60, pattern=NO_NUL)]


@router.post("/receipts", status_code=201)
async def store_receipts(body: ReceiptsIn, session: Session) -> ReceiptIds:
    """Stores a batch. The keys are made here: for those that PostgreSQL makes, SQLAlchemy sends row after row."""
    rows = [{"id": growing_uuid(), **receipt.model_dump()} for receipt in body.receipts]
    async with session.begin():
        await session.execute(insert(Receipt), rows)
    return ReceiptIds(ids=[row["id"] for row in rows])


@router.get("/receipts/{receipt_id}")
async def read_receipt(receipt_id: UUID, session: Session) -> ReceiptOut:
    receipt = await session.get(Receipt, receipt_id)
    if receipt is None:
        raise NotFound("no such receipt")
    return ReceiptOut.model_validate(receipt)


@router.get("/reports/daily")
async def read_daily(first: Day, last: Day, zone: ZoneName, session: Session) -> list[DaySales]:
    """What was sold on each day from `first` to `last`. PostgreSQL knows at which moments a day of `zone` begins."""
    # PostgreSQL refuses an unknown zone here. The report's query would do so only if it finds a row to convert.
    await session.execute(select(func.timezone(zone, func.now())))
    days = [first + n * DAY for n in range((last - first).days + 1)]
    if not 0 < len(days) <= MAX_DAYS:
        raise HTTPException(422, f"there must be 1 to {MAX_DAYS} days from the first one to the last one")
    day = cast(func.timezone(zone, Receipt.sold_at), Date)
    midnight = datetime.combine(first, time(), UTC)
    query = (
        select(day, func.count(), func.sum(Receipt.cents))
        .where(day.between(first, last))
        # The index has moments and not days. No zone is a day away from UTC, so this leaves out nothing.
        .where(Receipt.sold_at.between(midnight - DAY, midnight + (len(days) + 1) * DAY))
        .group_by(day)
    )
    found = {on: (count, cents) for on, count, cents in await session.execute(query)}
    return [DaySales(day=on, receipts=count, cents=cents) for on in days for count, cents in [found.get(on, (0, 0))]]


def growing_uuid() -> UUID:
    """A UUID of version 7 (RFC 9562): milliseconds since 1970, then random bits. Python has it since 3.14."""
    milliseconds = time_ns() // 1_000_000
    return UUID(int=milliseconds << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62))
