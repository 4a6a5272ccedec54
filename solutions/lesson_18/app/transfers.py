from fastapi import APIRouter, HTTPException
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import CurrentCustomer
from app.database import Session
from app.models import Customer, Transfer
from app.retry import repeated
from app.schemas import TransferIn, TransferOut

router = APIRouter(prefix="/transfers")


@router.post("", status_code=201)
async def transfer_credit(body: TransferIn, customer: CurrentCustomer, session: Session) -> TransferOut:
    """Moves credit of the customer who sends the request to another customer."""
    if body.recipient_id == customer.id:
        raise HTTPException(422, "the recipient is the sender")
    return await repeated(lambda: move(session, customer.id, body))


async def move(session: AsyncSession, sender_id: int, body: TransferIn) -> TransferOut:
    async with session.begin():
        both = select(Customer).where(Customer.id.in_((sender_id, body.recipient_id)))
        # every transfer locks the lower id first, so that two of them never wait for each other
        locked = await session.scalars(both.order_by(Customer.id).with_for_update(key_share=True))
        customers = {customer.id: customer for customer in locked}
        if body.recipient_id not in customers:
            raise HTTPException(404, "no such customer")
        if customers[sender_id].credit_cents < body.cents:
            raise HTTPException(409, "not enough credit")
        customers[sender_id].credit_cents -= body.cents
        customers[body.recipient_id].credit_cents += body.cents
        transfer = Transfer(sender_id=sender_id, recipient_id=body.recipient_id, cents=body.cents)
        session.add(transfer)
        await session.flush()
        return TransferOut.model_validate(transfer)
