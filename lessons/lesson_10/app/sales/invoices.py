from fastapi import APIRouter, HTTPException
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from app.database import Session
from app.models import Book, Invoice, OrderLine
from app.orders import OwnOrder
from app.schemas import InvoiceOut, SoldLine
from app.settings import Settings, load_settings

router = APIRouter(prefix="/{order_id}/invoice")
settings = load_settings(Settings)


async def write_invoice(session: AsyncSession, order_id: int) -> None:
    """Stores the invoice of an order, unless there is one."""
    query = select(OrderLine).where(OrderLine.order_id == order_id).options(joinedload(OrderLine.book))
    ordered = (await session.scalars(query.order_by(OrderLine.id))).all()
    if not ordered:
        raise HTTPException(409, f"order {order_id} has no lines, so it has no invoice")
    copies = sum(line.quantity for line in ordered)
    lines = [
        SoldLine(title=line.book.title, quantity=line.quantity, price_cents=discounted(line.book, copies))
        for line in ordered
    ]
    new = insert(Invoice).values(
        order_id=order_id,
        lines=[line.model_dump() for line in lines],
        total_cents=sum(line.quantity * line.price_cents for line in lines),
    )
    await session.execute(new.on_conflict_do_nothing())


def discounted(book: Book, copies: int) -> int:
    """Cents for one copy in an order of so many."""
    percent = book.discount_percent
    if copies > settings.bulk_from:
        percent += settings.bulk_percent
    return book.price_cents * (100 - percent) // 100


@router.get("")
async def read_invoice(order: OwnOrder, session: Session) -> InvoiceOut:
    invoice = await session.scalar(select(Invoice).where(Invoice.order_id == order.id))
    if invoice is None:
        raise HTTPException(404, "no invoice yet")
    return InvoiceOut.model_validate(invoice)
