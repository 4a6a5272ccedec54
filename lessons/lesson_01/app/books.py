from fastapi import APIRouter, HTTPException
from sqlalchemy.exc import IntegrityError

from app.database import Session
from app.models import Book
from app.schemas import BookIn, BookOut, Id

router = APIRouter(prefix="/books")


@router.post("", status_code=201)
async def create_book(body: BookIn, session: Session) -> BookOut:
    book = Book(**body.model_dump())
    session.add(book)
    try:
        await session.flush()
    except IntegrityError as error:
        raise HTTPException(409, "this ISBN is taken, or the author is unknown") from error
    return BookOut.model_validate(book)


@router.get("/{book_id}")
async def read_book(book_id: Id, session: Session) -> BookOut:
    book = await session.get(Book, book_id)
    if book is None:
        raise HTTPException(404, "no such book")
    return BookOut.model_validate(book)
