"""The steps of an order. None of them commits: the endpoint that calls them decides where the transaction ends."""

from collections.abc import Sequence

from fastapi import HTTPException
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Book, Order, OrderLine, OrderStatus
from app.schemas import LineIn, OrderOut


async def take_order(session: AsyncSession, customer_id: int, lines: Sequence[LineIn]) -> OrderOut:
    """Adds a pending order and takes its books out of stock."""
    books = await find_books(session, lines)
    order = Order(customer_id=customer_id)
    session.add(order)
    await session.flush()
    total = 0
    for line in lines:
        book = books[line.book_id]
        await reserve(session, book, line)
        total += line.quantity * book.price_cents
        session.add(
            OrderLine(
                order_id=order.id,
                book_id=book.id,
                quantity=line.quantity,
                price_cents=book.price_cents,
            )
        )
    await session.flush()
    return OrderOut(id=order.id, customer_id=customer_id, total_cents=total, status=OrderStatus.pending)


async def find_books(session: AsyncSession, lines: Sequence[LineIn]) -> dict[int, Book]:
    """The books of an order. If one does not exist, the order is refused before any row is locked."""
    ids = {line.book_id for line in lines}
    books = {book.id: book for book in await session.scalars(select(Book).where(Book.id.in_(ids)))}
    for book_id in ids - books.keys():
        raise HTTPException(404, f"no such book: {book_id}")
    return books


async def reserve(session: AsyncSession, book: Book, line: LineIn) -> None:
    """Locks the book, so that nobody else sells the same copies, and takes them out of stock."""
    await session.execute(select(Book).where(Book.id == book.id).with_for_update())
    if book.stock < line.quantity:
        raise HTTPException(409, f"only {book.stock} left of {book.title}")
    book.stock -= line.quantity


async def give_back(session: AsyncSession, order_id: int) -> None:
    """Puts the books of an order back into stock. Several lines may be about one book."""
    taken = (
        select(OrderLine.book_id, func.sum(OrderLine.quantity).label("quantity"))
        .where(OrderLine.order_id == order_id)
        .group_by(OrderLine.book_id)
        .subquery()
    )
    await session.execute(
        update(Book).where(Book.id == taken.c.book_id).values(stock=Book.stock + taken.c.quantity),
        execution_options={"synchronize_session": False},
    )
