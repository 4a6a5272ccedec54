"""Orders that are paid by card.

An HTTP call cannot be part of a transaction: it cannot be rolled back, and it may take long. So there are two
transactions. The first one reserves the books and records what is about to be tried, with the key under which the
provider knows it. Then comes the call. The second transaction records the outcome.
"""

from http import HTTPStatus
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, HTTPException, Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import CurrentCustomer
from app.busy import Unavailable
from app.database import Session
from app.models import Customer, Order, OrderStatus, Payment, PaymentStatus
from app.ordering import give_back, take_order
from app.orders import OwnOrder
from app.outbox import write_confirmation
from app.payments import PaymentProvider
from app.sales.pricing import CurrentPrices
from app.schemas import Charge, CheckoutIn, OrderOut

router = APIRouter(prefix="/checkout")

UNPAID = {OrderStatus.pending: HTTPStatus.ACCEPTED, OrderStatus.cancelled: HTTPStatus.PAYMENT_REQUIRED}
"""The status of a response about an order that is not paid."""

OUTCOMES: dict[int | str, dict[str, Any]] = {status: {"model": OrderOut} for status in UNPAID.values()}


@router.post("", status_code=201, responses=OUTCOMES)
async def check_out(
    body: CheckoutIn,
    customer: CurrentCustomer,
    session: Session,
    provider: PaymentProvider,
    prices: CurrentPrices,
    response: Response,
) -> OrderOut:
    async with session.begin():
        order = await take_order(session, customer.id, body.lines, prices)
        payment = Payment(order_id=order.id, key=uuid4(), card_token=body.card_token, amount_cents=order.total_cents)
        session.add(payment)
        await session.flush()
        charge = Charge.model_validate(payment)
    order.status = await pay(session, provider, charge)
    response.status_code = UNPAID.get(order.status, HTTPStatus.CREATED)
    return order


@router.post("/{order_id}", responses=OUTCOMES)
async def try_again(order: OwnOrder, session: Session, provider: PaymentProvider, response: Response) -> OrderOut:
    """Asks the provider again, with the same key, about a payment whose outcome is not known."""
    async with session.begin():
        payment = await session.scalar(select(Payment).where(Payment.order_id == order.id))
        if payment is None:
            raise HTTPException(409, "this order is not paid by card")
        charge = Charge.model_validate(payment)
    if order.status == OrderStatus.pending:
        order.status = await pay(session, provider, charge)
    response.status_code = UNPAID.get(order.status, HTTPStatus.OK)
    return order


async def pay(session: AsyncSession, provider: PaymentProvider, charge: Charge) -> OrderStatus:
    """Calls the provider while no transaction is open: no row is locked meanwhile, and no connection is taken."""
    outcome = await provider.charge(charge.key, charge.card_token, charge.amount_cents)
    if outcome == PaymentStatus.pending:
        return OrderStatus.pending
    try:
        async with session.begin():
            return await record(session, charge, outcome)
    except Unavailable:  # not status 503, which invites the client to begin a second order
        return OrderStatus.pending


async def record(session: AsyncSession, charge: Charge, outcome: PaymentStatus) -> OrderStatus:
    """Stores the outcome once, although two calls with one key may return at the same time."""
    payment = await session.get_one(Payment, charge.id, with_for_update=True, populate_existing=True)
    order = await session.get_one(Order, charge.order_id, populate_existing=True)
    if payment.status == PaymentStatus.pending:
        payment.status = outcome
        order.status = OrderStatus.paid if outcome == PaymentStatus.accepted else OrderStatus.cancelled
        if order.status == OrderStatus.cancelled:
            await give_back(session, order.id)
        else:
            customer = await session.get_one(Customer, order.customer_id)
            write_confirmation(session, order.id, customer.email, charge.amount_cents)
    return order.status
