from fastapi import APIRouter
from sqlalchemy import select

from app.database import Session
from app.models import Book
from app.refusals import NotFound
from app.sales.pricing import CurrentPrices, price_cents
from app.schemas import QuoteIn, QuoteOut, SoldLine

router = APIRouter(prefix="/quotes")


@router.post("")
async def quote(body: QuoteIn, session: Session, prices: CurrentPrices) -> QuoteOut:
    """What an order of these books costs now. Nothing is reserved, so the stock does not matter."""
    found = await session.scalars(select(Book).where(Book.id.in_({line.book_id for line in body.lines})))
    books = {book.id: book for book in found}
    bulk_discount = prices.bulk_discount(body.lines)
    lines = []
    for line in body.lines:
        book = books.get(line.book_id)
        if book is None:
            raise NotFound(f"no such book: {line.book_id}")
        price = price_cents(book, bulk_discount)
        lines.append(SoldLine(title=book.title, quantity=line.quantity, price_cents=price))
    return QuoteOut(lines=lines, total_cents=sum(line.quantity * line.price_cents for line in lines))
