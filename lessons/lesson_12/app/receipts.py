"""What the tills of our branches have sold. A till sends its receipts in batches, some of them days later."""

from datetime import date, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query
from sqlalchemy import Date, cast, func, select

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
    """Stores a batch."""
    receipts = [
        Receipt(till=one.till, sold_at=one.sold_at.replace(tzinfo=None), cents=one.cents) for one in body.receipts
    ]
    async with session.begin():
        session.add_all(receipts)
        await session.flush()
        return ReceiptIds(ids=[receipt.id for receipt in receipts])


@router.get("/receipts/{receipt_id}")
async def read_receipt(receipt_id: UUID, session: Session) -> ReceiptOut:
    receipt = await session.get(Receipt, receipt_id)
    if receipt is None:
        raise NotFound("no such receipt")
    return ReceiptOut.model_validate(receipt)


@router.get("/reports/daily")
async def read_daily(first: Day, last: Day, zone: ZoneName, session: Session) -> list[DaySales]:
    """What was sold on each day from `first` to `last`."""
    days = [first + n * DAY for n in range((last - first).days + 1)]
    if not 0 < len(days) <= MAX_DAYS:
        raise HTTPException(422, f"there must be 1 to {MAX_DAYS} days from the first one to the last one")
    day = cast(func.timezone(zone, Receipt.sold_at), Date)
    query = select(day, func.count(), func.sum(Receipt.cents)).where(day.between(first, last)).group_by(day)
    found = {on: (count, cents) for on, count, cents in await session.execute(query)}
    return [DaySales(day=on, receipts=count, cents=cents) for on in days for count, cents in [found.get(on, (0, 0))]]
