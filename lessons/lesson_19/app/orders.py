import logging
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, HTTPException
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import CurrentCustomer
from app.database import Session
from app.idempotency import Key, claim
from app.models import Order, OrderLine
from app.ordering import take_order
from app.outbox import write_confirmation
from app.retry import repeated
from app.sales.pricing import CurrentPrices, PriceRule
from app.schemas import Id, Me, OrderIn, OrderOut

router = APIRouter(prefix="/orders")
log = logging.getLogger(__name__)


@router.post("", status_code=201)
async def place_order(
    body: OrderIn,
    customer: CurrentCustomer,
    session: Session,
    background: BackgroundTasks,
    prices: CurrentPrices,
    key: Key = None,
) -> OrderOut:
    placed, is_new = await repeated(lambda: place_once(session, customer, body, key, prices))
    if is_new:
        background.add_task(log_order, placed, customer.email)
    return placed


async def place_once(
    session: AsyncSession, customer: Me, body: OrderIn, key: str | None, prices: PriceRule
) -> tuple[OrderOut, bool]:
    """The order, and whether this request placed it. The order and the response to its key are stored together."""
    async with session.begin():
        claimed = None if key is None else await claim(session, customer.id, key, body)
        if claimed is not None and claimed.response is not None:
            return OrderOut.model_validate(claimed.response), False
        placed = await take_order(session, customer.id, body.lines, prices)
        write_confirmation(session, placed.id, customer.email, placed.total_cents)
        if claimed is not None:
            claimed.response = placed.model_dump(mode="json")
        return placed, True


def log_order(order: OrderOut, email: str) -> None:
    """Writes the line that the accountants read. It is lost if the process ends before it is written."""
    log.info("order %s for %s: %s cents", order.id, email, order.total_cents)


async def get_own_order(order_id: Id, customer: CurrentCustomer, session: Session) -> OrderOut:
    """The order in the path, if it is the customer's. The transaction ends here, so an endpoint can begin its own."""
    async with session.begin():
        order = await session.get(Order, order_id)
        if order is None or order.customer_id != customer.id:  # others do not learn whether it exists
            raise HTTPException(404, "no such order")
        total = await session.scalar(
            select(func.sum(OrderLine.quantity * OrderLine.price_cents)).where(OrderLine.order_id == order_id)
        )
        return OrderOut(id=order.id, customer_id=order.customer_id, total_cents=total or 0, status=order.status)


OwnOrder = Annotated[OrderOut, Depends(get_own_order)]


@router.get("/{order_id}")
async def read_order(order: OwnOrder) -> OrderOut:
    return order
