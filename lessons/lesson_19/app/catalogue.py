from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, selectinload

from app.cache import Remembered
from app.database import Session
from app.models import Author, Book
from app.schemas import AuthorOut, Opinion, Page, PageEntry

router = APIRouter()
pages: Remembered[Page] = Remembered(seconds=30)


@router.get("/authors")
async def list_authors(session: Session) -> list[AuthorOut]:
    query = select(Author).options(selectinload(Author.books)).order_by(Author.name, Author.id)
    return [AuthorOut.model_validate(author) for author in await session.scalars(query)]


@router.get("/catalogue")
async def read_page(
    session: Session,
    page: Annotated[int, Query(ge=1, le=2**31 - 1)] = 1,
    size: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page:
    return await pages.get((page, size), lambda: make_page(session, page, size))


async def make_page(session: AsyncSession, page: int, size: int) -> Page:
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
