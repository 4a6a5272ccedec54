from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import select
from sqlalchemy.orm import contains_eager, joinedload

from app.database import Session
from app.models import Author, Book
from app.schemas import AuthorOut, Listed, Opinion, Page, PageEntry

router = APIRouter()


@router.get("/authors")
async def list_authors(session: Session) -> list[AuthorOut]:
    query = select(Author).order_by(Author.name, Author.id)
    return [await author_out(author) for author in await session.scalars(query)]


async def author_out(author: Author) -> AuthorOut:
    books = await author.awaitable_attrs.books
    return AuthorOut(id=author.id, name=author.name, books=[Listed.model_validate(book) for book in books])


@router.get("/catalogue")
async def read_page(
    session: Session,
    page: Annotated[int, Query(ge=1, le=2**31 - 1)] = 1,
    size: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page:
    total = len((await session.scalars(select(Book))).all())
    query = (
        select(Book)
        .outerjoin(Book.reviews)
        .options(joinedload(Book.author, innerjoin=True), contains_eager(Book.reviews))
        .order_by(Book.title)
        .limit(size)
        .offset((page - 1) * size)
    )
    books = (await session.scalars(query)).unique()
    return Page(total=total, books=[entry(book) for book in books])


def entry(book: Book) -> PageEntry:
    return PageEntry(
        id=book.id,
        title=book.title,
        price_cents=book.price_cents,
        author=book.author.name,
        reviews=[Opinion.model_validate(review) for review in book.reviews],
    )
