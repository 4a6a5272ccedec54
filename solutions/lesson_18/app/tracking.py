"""Links with which a customer's friends follow an order without a login. They do not tell how many orders there are."""

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy import func, select, update

from app.database import Session
from app.models import Order
from app.orders import OwnOrder
from app.refusals import NotFound
from app.schemas import Tracked, TrackingLink

router = APIRouter()


@router.get("/orders/{order_id}/tracking")
async def read_link(order: OwnOrder, session: Session) -> TrackingLink:
    """An order that the backfill has not reached gets its id here, and the backfill leaves it alone then."""
    missing = update(Order).where(Order.id == order.id, Order.public_id.is_(None))
    async with session.begin():
        await session.execute(missing.values(public_id=func.gen_random_uuid()))
        public_id = await session.scalar(select(Order.public_id).where(Order.id == order.id))
    return TrackingLink.model_validate({"public_id": public_id})


@router.get("/track/{public_id}")
async def track(public_id: UUID, session: Session) -> Tracked:
    status = await session.scalar(select(Order.status).where(Order.public_id == public_id))
    if status is None:
        raise NotFound("no such order")
    return Tracked(status=status)
