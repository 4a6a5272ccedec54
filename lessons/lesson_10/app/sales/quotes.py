from fastapi import APIRouter, HTTPException
from sqlalchemy import select

from app.database import Session
from app.models import Book
from app.schemas import QuoteIn, QuoteOut, SoldLine
from app.settings import Settings, load_settings

router = APIRouter(prefix="/quotes")
settings = load_settings(Settings)


@router.post("")
async def quote(body: QuoteIn, session: Session) -> QuoteOut:
    """What an order of these books costs now. Nothing is reserved, so the stock does not matter."""
    found = await session.scalars(select(Book).where(Book.id.in_({line.book_id for line in body.lines})))
    books = {book.id: book for book in found}
    lines = []
    for line in body.lines:
        book = books.get(line.book_id)
        if book is None:
            raise HTTPException(404, f"no such book: {line.book_id}")
        price = discounted(book, line.quantity)
        lines.append(SoldLine(title=book.title, quantity=line.quantity, price_cents=price))
    return QuoteOut(lines=lines, total_cents=sum(line.quantity * line.price_cents for line in lines))


def discounted(book: Book, quantity: int) -> int:
    """Cents for one copy, with the discount of the book or the bulk discount."""
    percent = book.discount_percent
    if quantity >= settings.bulk_from:
        percent = max(percent, settings.bulk_percent)
    return round(book.price_cents * (100 - percent) / 100)
