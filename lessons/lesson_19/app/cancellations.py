"""Orders that customers cancel, and the money that goes back to them."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import CurrentCustomer
from app.database import Session
from app.models import Book, Customer, Order, OrderLine, OrderStatus, Payment, PaymentStatus, Refund
from app.ordering import give_back
from app.outbox import write_cancellation
from app.payments import PaymentProvider
from app.refusals import NotFound, Refusal
from app.schemas import Id, OpenRefund, OrderOut

router = APIRouter()

OUTCOMES: dict[int | str, dict[str, Any]] = {202: {"model": OrderOut}}


@router.post("/orders/{order_id}/cancellation", responses=OUTCOMES)
async def cancel(
    order_id: Id, customer: CurrentCustomer, session: Session, provider: PaymentProvider, response: Response
) -> OrderOut:
    """Cancels an order. Status 202: it is cancelled, and nobody knows whether the money was given back."""
    async with session.begin():
        order = await session.get(Order, order_id)
        if order is None:
            raise NotFound("no such order")
        if order.status == OrderStatus.cancelled:
            raise Refusal("the order is cancelled")
        if order.status == OrderStatus.shipped:
            raise Refusal("the order is on its way")
        order.status = OrderStatus.cancelled
        await give_back(session, order.id)
        total = await worth(session, order.id)
        paid = (Payment.order_id == order.id, Payment.status == PaymentStatus.accepted)
        payment = await session.scalar(select(Payment).where(*paid))
        if payment is not None:
            refund = Refund(order_id=order.id, key=payment.key, charge_key=payment.key, amount_cents=total)
            session.add(refund)
            print(f"refund {refund.key}: {total} cents for order {order.id}", flush=True)
            if await provider.refund(refund.key, refund.charge_key, total):
                refund.done_at = datetime.now(UTC)
            else:
                response.status_code = 202
        buyer = await session.get_one(Customer, order.customer_id)
        write_cancellation(session, order.id, buyer.email, total)
        return OrderOut(id=order.id, customer_id=order.customer_id, total_cents=total, status=order.status)


async def worth(session: AsyncSession, order_id: int) -> int:
    """What the books of an order cost, in cents."""
    lines = select(func.sum(OrderLine.quantity * Book.price_cents)).join(Book, Book.id == OrderLine.book_id)
    return await session.scalar(lines.where(OrderLine.order_id == order_id)) or 0


@router.get("/refunds/open")
async def list_open_refunds(session: Session) -> list[OpenRefund]:
    """Refunds for a person to look at."""
    refunds = await session.scalars(select(Refund).where(Refund.done_at.is_(None)).order_by(Refund.id))
    return [OpenRefund.model_validate(refund) for refund in refunds]
