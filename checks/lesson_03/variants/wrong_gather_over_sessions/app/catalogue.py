import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import joinedload, selectinload

from app.database import Session, Sessions
from app.models import Author, Book
from app.schemas import AuthorOut, Listed, Opinion, Page, PageEntry

router = APIRouter()


@router.get("/authors")
async def list_authors(session: Session, sessions: Sessions) -> list[AuthorOut]:
    authors = (await session.scalars(select(Author).order_by(Author.name, Author.id))).all()
    return list(await asyncio.gather(*(author_out(sessions, author) for author in authors)))


async def author_out(sessions: async_sessionmaker[AsyncSession], author: Author) -> AuthorOut:
    async with sessions() as session:
        books = await session.scalars(select(Book).where(Book.author_id == author.id).order_by(Book.title))
        return AuthorOut(id=author.id, name=author.name, books=[Listed.model_validate(book) for book in books])


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
