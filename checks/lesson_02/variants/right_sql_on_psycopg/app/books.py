from typing import Any

from fastapi import APIRouter, HTTPException
from sqlalchemy import RowMapping, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Session
from app.schemas import BookIn, BookOut, BookPatch

router = APIRouter(prefix="/books")
COLUMNS = "isbn, title, author_id, price_cents, stock"


async def rows(session: AsyncSession, sql: str, values: dict[str, Any]) -> list[RowMapping]:
    return list((await session.execute(text(sql), values)).mappings())


async def insert(session: AsyncSession, books: list[BookIn]) -> list[BookOut]:
    values = {f"{name}_{n}": value for n, one in enumerate(books) for name, value in one.model_dump().items()}
    places = ", ".join(
        f"(:isbn_{n}, :title_{n}, CAST(:author_id_{n} AS bigint), CAST(:price_cents_{n} AS int), "
        f"CAST(:stock_{n} AS int))"
        for n in range(len(books))
    )
    try:
        async with session.begin():
            stored = await rows(session, f"INSERT INTO books ({COLUMNS}) VALUES {places} RETURNING *", values)
    except IntegrityError as error:
        raise HTTPException(409, "this ISBN is taken, or the author is unknown") from error
    return [BookOut(**row) for row in stored]


@router.post("", status_code=201)
async def create_book(body: BookIn, session: Session) -> BookOut:
    return (await insert(session, [body]))[0]


@router.post("/bulk", status_code=201)
async def create_books(body: list[BookIn], session: Session) -> list[BookOut]:
    return await insert(session, body)


@router.patch("/{book_id}")
async def change_book(book_id: int, body: BookPatch, session: Session) -> BookOut:
    values = body.model_dump(exclude_unset=True)
    setting = ", ".join(f"{name} = :{name}" for name in values)
    sql = f"UPDATE books SET {setting}, updated_at = now() WHERE id = :id RETURNING *"
    try:
        async with session.begin():
            changed = await rows(session, sql, values | {"id": book_id})
    except IntegrityError as error:
        raise HTTPException(409, "this ISBN is taken") from error
    if not changed:
        raise HTTPException(404, "no such book")
    return BookOut(**changed[0])


@router.get("/{book_id}")
async def read_book(book_id: int, session: Session) -> BookOut:
    found = await rows(session, "SELECT * FROM books WHERE id = :id", {"id": book_id})
    if not found:
        raise HTTPException(404, "no such book")
    return BookOut(**found[0])
