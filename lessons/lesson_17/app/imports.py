from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Request
from pydantic import ValidationError
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from app.database import Session
from app.models import Book
from app.schemas import BookIn, ImportedLine, ImportReport, PublishersList

router = APIRouter(prefix="/books/import")


@router.post("")
async def import_books(body: PublishersList, session: Session, request: Request) -> ImportReport:
    """Stores the good lines of a publisher's list, all in one transaction, and says what is wrong with the others."""
    async with one_at_a_time(request.state.engine), session.begin():
        lines = [await import_line(session, number, fields) for number, fields in enumerate(body, 1)]
    return ImportReport(stored=sum(line.reason is None for line in lines), lines=lines)


@asynccontextmanager
async def one_at_a_time(engine: AsyncEngine) -> AsyncIterator[None]:
    """Two lists with the same ISBNs in another order would deadlock. The connection keeps the lock until the end."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_advisory_lock(hashtext('import'))"))
        await connection.commit()  # so that no transaction is open meanwhile
        try:
            yield
        finally:
            await connection.execute(text("SELECT pg_advisory_unlock(hashtext('import'))"))
            await connection.commit()


async def import_line(session: AsyncSession, number: int, fields: object) -> ImportedLine:
    try:
        book = BookIn.model_validate(fields)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        return ImportedLine(line=number, reason="; ".join(problems))
    try:
        async with session.begin_nested():  # a savepoint: an error undoes this line and not those before it
            added = insert(Book).values(book.model_dump()).returning(Book.id)
            return ImportedLine(line=number, book_id=await session.scalar(added))
    except IntegrityError:
        return ImportedLine(line=number, reason="this ISBN is taken, or the author is unknown")
