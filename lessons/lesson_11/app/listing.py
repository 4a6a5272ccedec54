"""The list of books, page by page."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from sqlalchemy import select

from app.database import Session
from app.models import Book

router = APIRouter(prefix="/books")


@router.get("")
async def list_books(session: Session, limit: int = 20, cursor: str | None = None) -> dict[str, Any]:
    """Newest first. `next` is the cursor of the next page; a page without it is the last one."""
    query = select(Book.__table__).order_by(Book.created_at.desc()).limit(limit)
    if cursor is not None:
        query = query.where(Book.created_at < datetime.fromtimestamp(int(cursor) / 1000, UTC))
    books = [dict(row) for row in (await session.execute(query)).mappings()]
    last = len(books) < limit
    return {"books": books, "next": None if last else cursor_after(books[-1])}


def cursor_after(book: dict[str, Any]) -> str:
    """Milliseconds, as in JavaScript."""
    return str(int(book["created_at"].timestamp() * 1000))
