from fastapi import APIRouter, HTTPException
from sqlalchemy.exc import IntegrityError

from app.database import Session
from app.models import Book
from app.schemas import BookIn, BookList, BookOut, BookPatch, Id

router = APIRouter(prefix="/books")


@router.post("", status_code=201)
async def create_book(body: BookIn, session: Session) -> BookOut:
    book = Book(**body.model_dump())
    try:
        async with session.begin():
            session.add(book)
    except IntegrityError as error:
        raise HTTPException(409, "this ISBN is taken, or the author is unknown") from error
    return BookOut.model_validate(book)


@router.post("/bulk", status_code=201)
async def create_books(body: BookList, session: Session) -> list[BookOut]:
    books = [Book(**one.model_dump()) for one in body]
    try:
        async with session.begin():
            session.add_all(books)
            await session.flush()
            for book in books:
                await session.refresh(book)
            created = [BookOut.model_validate(book) for book in books]
    except IntegrityError as error:
        raise HTTPException(409, "an ISBN is taken, or an author is unknown") from error
    return created


@router.patch("/{book_id}")
async def change_book(book_id: Id, body: BookPatch, session: Session) -> BookOut:
    try:
        async with session.begin():
            book = await session.get(Book, book_id)
            if book is None:
                raise HTTPException(404, "no such book")
            for name, value in body.model_dump(exclude_unset=True).items():
                setattr(book, name, value)
            await session.flush()
            changed = BookOut.model_validate(book)
    except IntegrityError as error:
        raise HTTPException(409, "this ISBN is taken") from error
    return changed


@router.get("/{book_id}")
async def read_book(book_id: Id, session: Session) -> BookOut:
    book = await session.get(Book, book_id)
    if book is None:
        raise HTTPException(404, "no such book")
    return BookOut.model_validate(book)
