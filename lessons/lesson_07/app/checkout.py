"""Orders that are paid by card."""

from http import HTTPStatus
from uuid import uuid4

from fastapi import APIRouter, HTTPException, Response
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import CurrentCustomer
from app.database import Session
from app.models import Order, OrderStatus, Payment, PaymentStatus
from app.ordering import add_order
from app.orders import OwnOrder
from app.payments import PaymentProvider
from app.schemas import CheckoutIn, OrderOut

router = APIRouter(prefix="/checkout")

UNPAID = {OrderStatus.pending: HTTPStatus.ACCEPTED, OrderStatus.cancelled: HTTPStatus.PAYMENT_REQUIRED}
"""The status of a response about an order that is not paid."""


@router.post("", status_code=201)
async def check_out(
    body: CheckoutIn, customer: CurrentCustomer, session: Session, provider: PaymentProvider
) -> OrderOut:
    try:
        async with session.begin():
            order = await add_order(session, customer.id, body.lines)
            payment = Payment(
                order_id=order.id, key=uuid4(), card_token=body.card_token, amount_cents=order.total_cents
            )
            session.add(payment)
            await session.flush()
            order.status = await pay(session, provider, payment)
    except IntegrityError as error:
        raise HTTPException(409, "the order was refused") from error
    return order


@router.post("/{order_id}")
async def try_again(order: OwnOrder, session: Session, provider: PaymentProvider, response: Response) -> OrderOut:
    """Asks the provider again about a payment whose outcome is not known."""
    async with session.begin():
        payment = await session.scalar(select(Payment).where(Payment.order_id == order.id))
        if payment is None:
            raise HTTPException(409, "this order is not paid by card")
        if order.status == OrderStatus.pending:
            payment.key = uuid4()
            order.status = await pay(session, provider, payment)
    response.status_code = UNPAID.get(order.status, HTTPStatus.OK)
    return order


async def pay(session: AsyncSession, provider: PaymentProvider, payment: Payment) -> OrderStatus:
    payment.status = await provider.charge(payment.key, payment.card_token, payment.amount_cents)
    if payment.status == PaymentStatus.refused:
        raise HTTPException(HTTPStatus.PAYMENT_REQUIRED, "the card was refused")
    if payment.status == PaymentStatus.pending:
        raise HTTPException(HTTPStatus.BAD_GATEWAY, "the payment provider did not respond")
    order = await session.get_one(Order, payment.order_id)
    order.status = OrderStatus.paid
    return order.status
