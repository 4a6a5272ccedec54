"""The steps of an order. None of them commits: the endpoint that calls them decides where the transaction ends."""

from collections.abc import Iterable, Sequence

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Book, Customer, Order, OrderLine, OrderStatus
from app.refusals import NotFound, Refusal
from app.sales.pricing import PriceRule, price_cents
from app.schemas import LineIn, OrderOut


async def take_order(session: AsyncSession, customer_id: int, lines: Sequence[LineIn], prices: PriceRule) -> OrderOut:
    """Adds a pending order and takes its books out of stock. Each line keeps the price that a copy has now."""
    # One order at a time for each customer: the check of the credit does not see an order that is not committed yet.
    await session.execute(select(Customer.id).where(Customer.id == customer_id).with_for_update(key_share=True))
    books = await lock_books(session, {line.book_id for line in lines})
    order = Order(customer_id=customer_id)
    session.add(order)
    await session.flush()
    total, bulk_discount = 0, prices.bulk_discount(lines)
    for line in lines:
        book = reserve(books, line)
        price = price_cents(book, bulk_discount)
        total += line.quantity * price
        session.add(
            OrderLine(
                order_id=order.id,
                book_id=book.id,
                quantity=line.quantity,
                price_cents=price,
            )
        )
    await session.flush()
    return OrderOut(id=order.id, customer_id=customer_id, total_cents=total, status=OrderStatus.pending)


async def lock_books(session: AsyncSession, ids: Iterable[int]) -> dict[int, Book]:
    """The books, locked until the end of the transaction, as they are after every change before the lock.

    All transactions lock books in the order of their ids, so that no two of them wait for each other.
    """
    query = select(Book).where(Book.id.in_(ids)).order_by(Book.id).with_for_update(key_share=True)
    books = await session.scalars(query, execution_options={"populate_existing": True})
    return {book.id: book for book in books}


def reserve(books: dict[int, Book], line: LineIn) -> Book:
    book = books.get(line.book_id)
    if book is None:
        raise NotFound(f"no such book: {line.book_id}")
    if book.stock < line.quantity:
        raise Refusal(f"only {book.stock} left of {book.title}")
    book.stock -= line.quantity
    return book


async def give_back(session: AsyncSession, order_id: int) -> None:
    """Puts the books of an order back into stock. Several lines may be about one book."""
    await lock_books(session, await session.scalars(select(OrderLine.book_id).where(OrderLine.order_id == order_id)))
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
