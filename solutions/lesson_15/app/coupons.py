"""Coupons. A code has at most one active coupon. Those that were withdrawn stay: orders refer to them by code."""

from typing import Annotated

from fastapi import APIRouter, Path
from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert

from app.database import Session
from app.models import Coupon
from app.refusals import NotFound
from app.schemas import NO_NUL, CouponIn, CouponOut

router = APIRouter(prefix="/coupons/{code}")

Code = Annotated[str, Path(min_length=1, max_length=40, pattern=NO_NUL)]


@router.put("")
async def set_coupon(code: Code, body: CouponIn, session: Session) -> CouponOut:
    """Makes the active coupon of this code, or changes it. One statement, so no other request comes in between."""
    added = insert(Coupon).values(code=code, percent=body.percent)
    stored = added.on_conflict_do_update(
        index_elements=[Coupon.shop_id, Coupon.code],
        index_where=text("active"),  # without the condition of the index, PostgreSQL does not find it
        set_={"percent": added.excluded.percent, "times_set": Coupon.times_set + 1},
    ).returning(Coupon)
    async with session.begin():
        return CouponOut.model_validate(await session.scalar(stored))


@router.get("")
async def read_coupon(code: Code, session: Session) -> CouponOut:
    coupon = await session.scalar(select(Coupon).where(Coupon.code == code, Coupon.active))
    if coupon is None:
        raise NotFound(f"no such coupon: {code}")
    return CouponOut.model_validate(coupon)


@router.delete("", status_code=204)
async def withdraw_coupon(code: Code, session: Session) -> None:
    withdrawn = update(Coupon).where(Coupon.code == code, Coupon.active).values(active=False).returning(Coupon.id)
    async with session.begin():
        if await session.scalar(withdrawn) is None:
            raise NotFound(f"no such coupon: {code}")
