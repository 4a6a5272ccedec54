"""The outbox: mail that is to be sent, a row for each. A row belongs to one worker at a time, until its lease ends."""

from datetime import timedelta

from fastapi import APIRouter
from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Session
from app.models import Mail
from app.schemas import FailedMail

router = APIRouter(prefix="/mails")

CONFIRMATION, CANCELLATION = "order_confirmation", "order_cancellation"
"""The kinds of mail, which are also the names of the gateway's templates."""

ATTEMPTS = 5
"""After so many attempts a mail is given up."""

OPEN = Mail.status.in_(["pending", "processing"])
DUE = (OPEN, Mail.due_at <= func.now())


def write_confirmation(session: AsyncSession, order_id: int, recipient: str, total_cents: int) -> None:
    """Adds the mail about an order to the order's transaction: both are stored, or neither."""
    session.add(Mail(order_id=order_id, recipient=recipient, total_cents=total_cents, kind=CONFIRMATION))


def write_cancellation(session: AsyncSession, order_id: int, recipient: str, total_cents: int) -> None:
    """The same for a cancellation."""
    session.add(Mail(order_id=order_id, recipient=recipient, total_cents=total_cents, kind=CANCELLATION))


async def claim(session: AsyncSession, lease: timedelta) -> Mail | None:
    """The shop's mail that is due next; None if there is none. Nobody else gets it before the lease ends.

    The attempt is counted before it is made. So a mail that ends its worker each time is given up, too: here.
    """
    await session.execute(update(Mail).where(*DUE, Mail.attempts >= ATTEMPTS).values(status="failed"))
    # a row that another worker is just claiming is passed over, not waited for
    one = select(Mail.id).where(*DUE).order_by(Mail.due_at, Mail.id).limit(1).with_for_update(skip_locked=True)
    claimed = await session.scalars(
        update(Mail)
        .where(Mail.id == one.scalar_subquery())
        .values(status="processing", attempts=Mail.attempts + 1, due_at=func.now() + lease)
        .returning(Mail)
    )
    return claimed.one_or_none()


async def mark_sent(session: AsyncSession, mail: Mail) -> None:
    """Also if the lease has ended meanwhile: the gateway has accepted the mail, so nobody needs to try it again."""
    await session.execute(update(Mail).where(Mail.id == mail.id).values(status="sent"))


async def mark_failed(session: AsyncSession, mail: Mail, error: str, wait: timedelta) -> None:
    """Puts the mail back, to be tried again after `wait`; after the last attempt it is set aside."""
    status = "pending" if mail.attempts < ATTEMPTS else "failed"
    values = {"status": status, "error": error, "due_at": func.now() + wait}
    await session.execute(update(Mail).where(*held(mail)).values(values))


def held(mail: Mail) -> tuple[ColumnElement[bool], ...]:
    """The row, unless the lease has ended and another worker has begun an attempt of its own."""
    return (Mail.id == mail.id, Mail.attempts == mail.attempts, OPEN)


async def next_mail(session: AsyncSession) -> tuple[int, float] | None:
    """Of all shops: which one has the mail that is due first, and in how many seconds; None if there is no mail.

    It may be one to take from a worker that died. A function of the owner looks, for we see the rows of one shop.
    """
    first = (await session.execute(text("SELECT shop_id, seconds FROM next_mail()"))).one_or_none()
    return None if first is None else (first.shop_id, first.seconds)


@router.get("/failed")
async def list_failed(session: Session) -> list[FailedMail]:
    """Mail that was given up, for a person to look at."""
    mails = await session.scalars(select(Mail).where(Mail.status == "failed").order_by(Mail.id))
    return [FailedMail.model_validate(mail) for mail in mails]
