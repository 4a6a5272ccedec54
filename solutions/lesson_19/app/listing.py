"""The list of books, page by page."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from sqlalchemy import select, tuple_

from app.database import Session
from app.models import Book
from app.schemas import BookOut, BookPage

router = APIRouter(prefix="/books")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)  # as exact as PostgreSQL stores a time


@router.get("")
async def list_books(
    session: Session,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=50)] = None,
) -> BookPage:
    """Newest first. `next` is the cursor of the next page; a page without it is the last one."""
    newest_first = (Book.created_at.desc(), Book.id.desc())  # books of one import have the same time
    query = select(Book).order_by(*newest_first).limit(limit + 1)  # one more than asked for: is there a next page?
    if cursor is not None:
        query = query.where(tuple_(Book.created_at, Book.id) < read_cursor(cursor))
    books = [BookOut.model_validate(book) for book in await session.scalars(query)]
    page, more = books[:limit], books[limit:]
    return BookPage(books=page, next=cursor_after(page[-1]) if more else None)


def cursor_after(book: BookOut) -> str:
    """Names a place in the order, and not a row or a number of rows: these may be gone when the client comes back."""
    return f"{(book.created_at - EPOCH) // MICROSECOND}.{book.id}"


def read_cursor(cursor: str) -> tuple[datetime, int]:
    microseconds, _, book_id = cursor.partition(".")
    try:
        place = EPOCH + int(microseconds) * MICROSECOND, int(book_id)
    except (ValueError, OverflowError):
        raise HTTPException(422, "this is no cursor of ours") from None
    if not 0 < place[1] < 2**63:
        raise HTTPException(422, "this is no cursor of ours")
    return place
