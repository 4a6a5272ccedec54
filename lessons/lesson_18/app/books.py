from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Response
from sqlalchemy import delete, insert

from app.database import Session
from app.models import Book
from app.schemas import BookIn, BookList, BookOut, BookPatch, Id

router = APIRouter(prefix="/books")


@router.post("", status_code=201)
async def create_book(body: BookIn, session: Session, response: Response) -> BookOut:
    async with session.begin():
        book = Book(**body.model_dump())
        session.add(book)
        await session.flush()
        await session.refresh(book)  # a trigger has changed the ISBN
        created = BookOut.model_validate(book)
    response.headers["ETag"] = etag(created)
    return created


@router.post("/bulk", status_code=201)
async def create_books(body: BookList, session: Session) -> list[BookOut]:
    rows = [one.model_dump() for one in body]
    async with session.begin():
        books = await session.scalars(insert(Book).returning(Book, sort_by_parameter_order=True), rows)
        return [BookOut.model_validate(book) for book in books]


@router.patch("/{book_id}")
async def change_book(
    book_id: Id,
    body: BookPatch,
    session: Session,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> BookOut:
    """Changes a book that is still as the client has read it: the client sends back the ETag of what it read."""
    if if_match is None:
        raise HTTPException(428, "send the book's ETag as If-Match")
    async with session.begin():
        # the lock is taken by the statement that reads, so that nobody changes the book after the comparison
        book = await session.get(Book, book_id, with_for_update={"key_share": True})
        if book is None:
            raise HTTPException(404, "no such book")
        if if_match not in ("*", etag(book)):
            raise HTTPException(412, "the book has changed since you read it")
        for name, value in body.model_dump(exclude_unset=True).items():
            setattr(book, name, value)
        await session.flush()
        await session.refresh(book)  # PostgreSQL has set updated_at, revision and the ISBN
        changed = BookOut.model_validate(book)
    response.headers["ETag"] = etag(changed)
    return changed


@router.get("/{book_id}")
async def read_book(book_id: Id, session: Session, response: Response) -> BookOut:
    book = await session.get(Book, book_id)
    if book is None:
        raise HTTPException(404, "no such book")
    response.headers["ETag"] = etag(book)
    return BookOut.model_validate(book)


@router.delete("/{book_id}", status_code=204)
async def delete_book(book_id: Id, session: Session) -> None:
    """Deletes a book with its reviews and wishes. PostgreSQL refuses to delete a book that is in an order."""
    async with session.begin():
        deleted = await session.scalar(delete(Book).where(Book.id == book_id).returning(Book.id))
        if deleted is None:
            raise HTTPException(404, "no such book")


def etag(book: Book | BookOut) -> str:
    """Another text after each change: a trigger counts `revision` up with every UPDATE."""
    return f'"{book.revision}"'
