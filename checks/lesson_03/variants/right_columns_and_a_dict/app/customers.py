from fastapi import APIRouter, HTTPException
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from app.database import Session
from app.models import Author, Book, Customer, Order, OrderLine
from app.schemas import Account, HistoryEntry, HistoryLine

router = APIRouter(prefix="/customers/{customer_id}")


@router.get("")
async def read_account(customer_id: int, session: Session) -> Account:
    everything = [selectinload(Customer.orders), selectinload(Customer.reviews)]
    customer = await session.get(Customer, customer_id, options=everything)
    if customer is None:
        raise HTTPException(404, "no such customer")
    return Account.model_validate(customer)


@router.get("/orders")
async def read_history(customer_id: int, session: Session) -> list[HistoryEntry]:
    query = (
        select(Order.id, Order.created_at, Book.title, Author.name, OrderLine.quantity, OrderLine.price_cents)
        .join(OrderLine, OrderLine.order_id == Order.id)
        .join(Book, Book.id == OrderLine.book_id)
        .join(Author, Author.id == Book.author_id)
        .where(Order.customer_id == customer_id)
        .order_by(Order.id, OrderLine.id)
    )
    entries: dict[int, HistoryEntry] = {}
    for order_id, created_at, title, author, quantity, price_cents in await session.execute(query):
        entry = entries.setdefault(order_id, HistoryEntry(id=order_id, created_at=created_at, lines=[]))
        entry.lines.append(HistoryLine(title=title, author=author, quantity=quantity, price_cents=price_cents))
    return list(entries.values())
