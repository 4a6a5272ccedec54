"""Coupons. A code has at most one active coupon. Those that were withdrawn stay: orders refer to them by code."""

from typing import Annotated

from fastapi import APIRouter, Path
from sqlalchemy import select, update

from app.database import Session
from app.models import Coupon
from app.refusals import NotFound
from app.schemas import NO_NUL, CouponIn, CouponOut

router = APIRouter(prefix="/coupons/{code}")

Code = Annotated[str, Path(min_length=1, max_length=40, pattern=NO_NUL)]


@router.put("")
async def set_coupon(code: Code, body: CouponIn, session: Session) -> CouponOut:
    """Makes the active coupon of this code, or changes it."""
    async with session.begin():
        coupon = await session.scalar(select(Coupon).where(Coupon.code == code, Coupon.active))
        if coupon is None:
            coupon = Coupon(code=code, percent=body.percent)
            session.add(coupon)
        else:
            coupon.percent = body.percent
            coupon.times_set += 1
        await session.flush()
        await session.refresh(coupon)
        return CouponOut.model_validate(coupon)


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
