import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from sqlalchemy import select

from app.database import Session
from app.models import Author, Book

router = APIRouter(prefix="/export")
COLUMNS = ("id", "isbn", "title", "author", "price_cents", "stock")


@router.get("/books.csv")
async def export_books(session: Session) -> StreamingResponse:
    query = (
        select(Book.id, Book.isbn, Book.title, Author.name, Book.price_cents, Book.stock).join(Author).order_by(Book.id)
    )
    books = await session.stream(query)

    async def lines() -> AsyncIterator[str]:
        yield as_csv([COLUMNS])
        async for rows in books.partitions(1000):
            yield as_csv(rows)

    return StreamingResponse(lines(), media_type="text/csv")


def as_csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
