from fastapi import APIRouter, HTTPException
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from app.database import Session
from app.models import Book, Customer, Order, OrderLine
from app.schemas import Account, HistoryEntry, HistoryLine, Id

router = APIRouter(prefix="/customers/{customer_id}")


@router.get("")
async def read_account(customer_id: Id, session: Session) -> Account:
    everything = [selectinload(Customer.orders), selectinload(Customer.reviews)]
    customer = await session.get(Customer, customer_id, options=everything)
    if customer is None:
        raise HTTPException(404, "no such customer")
    return Account.model_validate(customer)


@router.get("/orders")
async def read_history(customer_id: Id, session: Session) -> list[HistoryEntry]:
    if await session.get(Customer, customer_id) is None:
        raise HTTPException(404, "no such customer")
    whole = selectinload(Order.lines).joinedload(OrderLine.book).joinedload(Book.author)
    query = select(Order).where(Order.customer_id == customer_id).options(whole).order_by(Order.id)
    return [history_entry(order) for order in await session.scalars(query)]


def history_entry(order: Order) -> HistoryEntry:
    lines = [
        HistoryLine(
            title=line.book.title,
            author=line.book.author.name,
            quantity=line.quantity,
            price_cents=line.price_cents,
        )
        for line in order.lines
    ]
    return HistoryEntry(id=order.id, created_at=order.created_at, lines=lines)
