from fastapi import APIRouter, HTTPException
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import CurrentCustomer
from app.database import Session
from app.models import Customer, Transfer
from app.schemas import TransferIn, TransferOut

router = APIRouter(prefix="/transfers")
TRIES = 3


@router.post("", status_code=201)
async def transfer_credit(body: TransferIn, customer: CurrentCustomer, session: Session) -> TransferOut:
    """Moves credit of the customer who sends the request to another customer."""
    if body.recipient_id == customer.id:
        raise HTTPException(422, "the recipient is the sender")
    for _ in range(TRIES):
        try:
            return await move(session, customer.id, body)
        except OperationalError:  # a deadlock
            continue
    raise HTTPException(503, "try again in a moment", headers={"Retry-After": "2"})


async def move(session: AsyncSession, sender_id: int, body: TransferIn) -> TransferOut:
    async with session.begin():
        sender = await session.get_one(Customer, sender_id)
        if await session.get(Customer, body.recipient_id) is None:
            raise HTTPException(404, "no such customer")
        if sender.credit_cents < body.cents:
            raise HTTPException(409, "not enough credit")
        for customer_id, cents in ((sender_id, -body.cents), (body.recipient_id, body.cents)):
            credit = Customer.credit_cents + cents
            await session.execute(update(Customer).where(Customer.id == customer_id).values(credit_cents=credit))
        transfer = Transfer(sender_id=sender_id, recipient_id=body.recipient_id, cents=body.cents)
        session.add(transfer)
        await session.flush()
        return TransferOut.model_validate(transfer)
