"""The outbox: mail that is to be sent, a row for each."""

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Session
from app.models import Mail
from app.schemas import FailedMail

router = APIRouter(prefix="/mails")


async def write_confirmation(session: AsyncSession, order_id: int, recipient: str, total_cents: int) -> None:
    """Stores the mail about an order. The notification that wakes the worker is sent with it."""
    async with session.begin():
        session.add(Mail(order_id=order_id, recipient=recipient, total_cents=total_cents))


@router.get("/failed")
async def list_failed(session: Session) -> list[FailedMail]:
    """Mail that was given up, for a person to look at."""
    mails = await session.scalars(select(Mail).where(Mail.status == "failed").order_by(Mail.id))
    return [FailedMail.model_validate(mail) for mail in mails]
