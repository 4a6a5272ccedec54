from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from app.database import Session
from app.models import Invoice, OrderLine
from app.orders import OwnOrder
from app.refusals import NotFound, Refusal
from app.schemas import InvoiceOut, SoldLine

router = APIRouter(prefix="/orders/{order_id}/invoice")


async def write_invoice(session: AsyncSession, order_id: int) -> None:
    """Stores the invoice of an order, unless there is one. It has the prices of the order, whatever books cost now."""
    query = select(OrderLine).where(OrderLine.order_id == order_id).options(joinedload(OrderLine.book))
    lines = [
        SoldLine(title=line.book.title, quantity=line.quantity, price_cents=line.price_cents)
        for line in await session.scalars(query.order_by(OrderLine.id))
    ]
    if not lines:
        raise Refusal(f"order {order_id} has no lines, so it has no invoice")
    new = insert(Invoice).values(
        order_id=order_id,
        lines=[line.model_dump() for line in lines],
        total_cents=sum(line.quantity * line.price_cents for line in lines),
    )
    await session.execute(new.on_conflict_do_nothing())


@router.get("")
async def read_invoice(order: OwnOrder, session: Session) -> InvoiceOut:
    invoice = await session.scalar(select(Invoice).where(Invoice.order_id == order.id))
    if invoice is None:
        raise NotFound("no invoice yet")
    return InvoiceOut.model_validate(invoice)
