from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import CurrentCustomer
from app.database import Session
from app.models import Customer, Gift
from app.ordering import take_order
from app.outbox import write_confirmation
from app.sales.pricing import CurrentPrices
from app.schemas import GiftIn, GiftOut, Recipient

router = APIRouter(prefix="/gifts")


@router.post("", status_code=201)
async def give(body: GiftIn, customer: CurrentCustomer, session: Session, prices: CurrentPrices) -> GiftOut:
    """An order that the customer pays and somebody else gets. A recipient without an account gets one."""
    async with session.begin():
        recipient_id = await find_or_add_recipient(session, body.recipient)
        order = await take_order(session, customer.id, body.lines, prices)
        gift = Gift(order_id=order.id, recipient_id=recipient_id, message=body.message)
        session.add(gift)
        write_confirmation(session, order.id, customer.email, order.total_cents)
        await session.flush()
        return GiftOut(id=gift.id, order_id=order.id, recipient_id=recipient_id, total_cents=order.total_cents)


async def find_or_add_recipient(session: AsyncSession, recipient: Recipient) -> int:
    added = insert(Customer).values(email=recipient.email, name=recipient.name).on_conflict_do_nothing()
    await session.execute(added)
    return (await session.execute(select(Customer.id).where(Customer.email == recipient.email))).scalar_one()
