from fastapi import APIRouter, HTTPException
from sqlalchemy import select
from sqlalchemy.orm import joinedload, selectinload

from app.database import Session
from app.models import Customer, Order
from app.schemas import Account, HistoryEntry, HistoryLine, Id

router = APIRouter(prefix="/customers/{customer_id}")


@router.get("")
async def read_account(customer_id: Id, session: Session) -> Account:
    everything = [joinedload(Customer.orders), joinedload(Customer.reviews)]
    customer = await session.get(Customer, customer_id, options=everything)
    if customer is None:
        raise HTTPException(404, "no such customer")
    return Account.model_validate(customer)


@router.get("/orders")
async def read_history(customer_id: Id, session: Session) -> list[HistoryEntry]:
    query = select(Order).where(Order.customer_id == customer_id).options(selectinload(Order.lines)).order_by(Order.id)
    return [await history_entry(order) for order in await session.scalars(query)]


async def history_entry(order: Order) -> HistoryEntry:
    lines = []
    for line in order.lines:
        book = await line.awaitable_attrs.book
        author = await book.awaitable_attrs.author
        lines.append(
            HistoryLine(
                title=book.title,
                author=author.name,
                quantity=line.quantity,
                price_cents=line.price_cents,
            )
        )
    return HistoryEntry(id=order.id, created_at=order.created_at, lines=lines)
