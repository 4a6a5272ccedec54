"""Orders that customers cancel, and the money that goes back to them.

As with a checkout, there are two transactions with the call to the provider between them. The first one cancels the
order and records what is about to be given back, with the key of that call. A later request finds the key there.
"""

from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Response
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.busy import Unavailable
from app.database import Session
from app.models import Customer, Order, OrderStatus, Payment, PaymentStatus, Refund
from app.ordering import give_back
from app.orders import OwnOrder
from app.outbox import write_cancellation
from app.payments import PaymentProvider, Provider
from app.refusals import Refusal
from app.schemas import OpenRefund, OrderOut, Owed

router = APIRouter()

OUTCOMES: dict[int | str, dict[str, Any]] = {202: {"model": OrderOut}}


@router.post("/orders/{order_id}/cancellation", responses=OUTCOMES)
async def cancel(order: OwnOrder, session: Session, provider: PaymentProvider, response: Response) -> OrderOut:
    """Cancels an order. Status 202: it is cancelled, and nobody knows whether the money was given back; ask again."""
    async with session.begin():
        refund = await cancel_once(session, order)
    if refund is not None and not await give_money_back(session, provider, refund):
        response.status_code = 202
    return order.model_copy(update={"status": OrderStatus.cancelled})


async def cancel_once(session: AsyncSession, order: OrderOut) -> Owed | None:
    """Cancels the order, unless it is cancelled already. Returns what the customer gets back, if that is something."""
    # First the payment and then the order, as where a payment is recorded, so that none of them waits for the other.
    paid = select(Payment).where(Payment.order_id == order.id).with_for_update()
    payment = await session.scalar(paid)
    now = await session.get_one(Order, order.id, with_for_update=True, populate_existing=True)
    if now.status == OrderStatus.cancelled:
        known = await session.scalar(select(Refund).where(Refund.order_id == order.id))
        return None if known is None else Owed.model_validate(known)
    if now.status == OrderStatus.shipped:
        raise Refusal("the order is on its way")
    if payment is not None and payment.status == PaymentStatus.pending:
        raise Refusal("nobody knows yet whether the order is paid")
    now.status = OrderStatus.cancelled
    await give_back(session, order.id)
    customer = await session.get_one(Customer, order.customer_id)
    write_cancellation(session, order.id, customer.email, order.total_cents)
    if payment is None or payment.status != PaymentStatus.accepted:
        return None
    refund = Refund(order_id=order.id, key=uuid4(), charge_key=payment.key, amount_cents=payment.amount_cents)
    session.add(refund)
    await session.flush()
    return Owed.model_validate(refund)


async def give_money_back(session: AsyncSession, provider: Provider, refund: Owed) -> bool:
    """Calls the provider while no transaction is open. Whether the money is known to be given back."""
    if refund.done_at is not None:
        return True
    if not await provider.refund(refund.key, refund.charge_key, refund.amount_cents):
        return False
    try:
        async with session.begin():
            await session.execute(update(Refund).where(Refund.id == refund.id).values(done_at=func.now()))
    except Unavailable:  # the order is cancelled all the same; with the next request the key is the same
        return False
    return True


@router.get("/refunds/open")
async def list_open_refunds(session: Session) -> list[OpenRefund]:
    """Refunds for a person to look at."""
    refunds = await session.scalars(select(Refund).where(Refund.done_at.is_(None)).order_by(Refund.id))
    return [OpenRefund.model_validate(refund) for refund in refunds]
