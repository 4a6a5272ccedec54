from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Response
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from app.database import Session
from app.models import Book
from app.schemas import BookIn, BookList, BookOut, BookPatch, Id

router = APIRouter(prefix="/books")


@router.post("", status_code=201)
async def create_book(body: BookIn, session: Session, response: Response) -> BookOut:
    try:
        async with session.begin():
            book = Book(**body.model_dump())
            session.add(book)
            await session.flush()
            await session.refresh(book)  # a trigger has changed the ISBN
            created = BookOut.model_validate(book)
    except IntegrityError as error:
        raise HTTPException(409, "this ISBN is taken, or the author is unknown") from error
    response.headers["ETag"] = etag(created)
    return created


@router.post("/bulk", status_code=201)
async def create_books(body: BookList, session: Session) -> list[BookOut]:
    rows = [one.model_dump() for one in body]
    try:
        async with session.begin():
            books = await session.scalars(insert(Book).returning(Book, sort_by_parameter_order=True), rows)
            created = [BookOut.model_validate(book) for book in books]
    except IntegrityError as error:
        raise HTTPException(409, "an ISBN is taken, or an author is unknown") from error
    return created


@router.patch("/{book_id}")
async def change_book(
    book_id: Id,
    body: BookPatch,
    session: Session,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> BookOut:
    """Changes a book. With the ETag of a response as If-Match, it changes only that version of the book."""
    try:
        async with session.begin():
            book = await session.get(Book, book_id)
            if book is None:
                raise HTTPException(404, "no such book")
            if if_match not in (None, "*", etag(book)):
                raise HTTPException(412, "the book has changed since you read it")
            for name, value in body.model_dump(exclude_unset=True).items():
                setattr(book, name, value)
            await session.flush()
            await session.refresh(book)  # PostgreSQL has set updated_at, revision and the ISBN
            changed = BookOut.model_validate(book)
    except IntegrityError as error:
        raise HTTPException(409, "this ISBN is taken") from error
    response.headers["ETag"] = etag(changed)
    return changed


@router.get("/{book_id}")
async def read_book(book_id: Id, session: Session, response: Response) -> BookOut:
    book = await session.get(Book, book_id)
    if book is None:
        raise HTTPException(404, "no such book")
    response.headers["ETag"] = etag(book)
    return BookOut.model_validate(book)


def etag(book: Book | BookOut) -> str:
    """Another text after each change: a trigger counts `revision` up with every UPDATE."""
    return f'"{book.revision}"'
