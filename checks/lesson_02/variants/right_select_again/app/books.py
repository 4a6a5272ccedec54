from fastapi import APIRouter, HTTPException
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Session
from app.models import Book
from app.schemas import BookIn, BookOut, BookPatch

router = APIRouter(prefix="/books")


@router.post("", status_code=201)
async def create_book(body: BookIn, session: Session) -> BookOut:
    try:
        async with session.begin():
            book = Book(**body.model_dump())
            session.add(book)
            await session.flush()
            book_id = book.id
    except IntegrityError as error:
        raise HTTPException(409, "this ISBN is taken, or the author is unknown") from error
    [created] = await stored(session, [book_id])
    return created


@router.post("/bulk", status_code=201)
async def create_books(body: list[BookIn], session: Session) -> list[BookOut]:
    rows = [one.model_dump() for one in body]
    try:
        async with session.begin():
            books = [Book(**row) for row in rows]
            session.add_all(books)
            await session.flush()
            ids = [book.id for book in books]
    except IntegrityError as error:
        raise HTTPException(409, "an ISBN is taken, or an author is unknown") from error
    return await stored(session, ids)


@router.patch("/{book_id}")
async def change_book(book_id: int, body: BookPatch, session: Session) -> BookOut:
    try:
        async with session.begin():
            book = await session.get(Book, book_id)
            if book is None:
                raise HTTPException(404, "no such book")
            for name, value in body.model_dump(exclude_unset=True).items():
                setattr(book, name, value)
    except IntegrityError as error:
        raise HTTPException(409, "this ISBN is taken") from error
    [changed] = await stored(session, [book_id])
    return changed


@router.get("/{book_id}")
async def read_book(book_id: int, session: Session) -> BookOut:
    book = await session.get(Book, book_id)
    if book is None:
        raise HTTPException(404, "no such book")
    return BookOut.model_validate(book)


async def stored(session: AsyncSession, ids: list[int]) -> list[BookOut]:
    query = select(Book).where(Book.id.in_(ids)).execution_options(populate_existing=True)
    books = {book.id: book for book in await session.scalars(query)}
    return [BookOut.model_validate(books[id_]) for id_ in ids]
