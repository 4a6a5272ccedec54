import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.database import Sessions
from app.models import Author, Book

router = APIRouter(prefix="/export")
COLUMNS = ("id", "isbn", "title", "author", "price_cents", "stock")
AS_CSV: dict[str, Any] = {"content": {"text/csv": {"schema": {"type": "string"}}}}
BATCH = 1000
Batch = Sequence[Row[int, str, str, str, int, int]]


@router.get("/books.csv", response_class=StreamingResponse, responses={200: AS_CSV})
async def export_books(sessions: Sessions) -> StreamingResponse:
    first = await read_batch(sessions, after=0)  # before the response begins, while it can still be a 503
    return StreamingResponse(lines(sessions, first), media_type="text/csv")


async def lines(sessions: async_sessionmaker[AsyncSession], rows: Batch) -> AsyncIterator[str]:
    """The books as CSV, beginning with `rows`. While the client reads, no connection is taken."""
    yield as_csv([COLUMNS])
    while rows:
        yield as_csv(rows)
        rows = await read_batch(sessions, after=rows[-1].id)


async def read_batch(sessions: async_sessionmaker[AsyncSession], after: int) -> Batch:
    query = (
        select(Book.id, Book.isbn, Book.title, Author.name, Book.price_cents, Book.stock)
        .join(Author)
        .where(Book.id > after)
        .order_by(Book.id)
        .limit(BATCH)
    )
    async with sessions() as session:
        return (await session.execute(query)).all()


def as_csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
