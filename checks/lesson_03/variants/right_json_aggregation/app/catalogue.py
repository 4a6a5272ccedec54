from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import func, select, text
from sqlalchemy.orm import joinedload, selectinload

from app.database import Session
from app.models import Book
from app.schemas import AuthorOut, Opinion, Page, PageEntry

router = APIRouter()


@router.get("/authors")
async def list_authors(session: Session) -> list[AuthorOut]:
    rows = await session.execute(text(AUTHORS))
    return [AuthorOut.model_validate(dict(row)) for row in rows.mappings()]


AUTHORS = """
    SELECT a.id, a.name, coalesce(
             json_agg(json_build_object('id', b.id, 'title', b.title, 'price_cents', b.price_cents) ORDER BY b.title, b.id)
             FILTER (WHERE b.id IS NOT NULL), '[]') AS books
      FROM authors a LEFT JOIN books b ON b.author_id = a.id
     GROUP BY a.id ORDER BY a.name, a.id
"""


@router.get("/catalogue")
async def read_page(
    session: Session,
    page: Annotated[int, Query(ge=1)] = 1,
    size: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page:
    total = await session.scalar(select(func.count()).select_from(Book))
    query = (
        select(Book)
        .options(joinedload(Book.author, innerjoin=True), selectinload(Book.reviews))
        .order_by(Book.title, Book.id)  # titles may tie; a page needs an order without ties
        .limit(size)
        .offset((page - 1) * size)
    )
    books = await session.scalars(query)
    return Page(total=total or 0, books=[entry(book) for book in books])


def entry(book: Book) -> PageEntry:
    return PageEntry(
        id=book.id,
        title=book.title,
        price_cents=book.price_cents,
        author=book.author.name,
        reviews=[Opinion.model_validate(review) for review in book.reviews],
    )
