from fastapi import APIRouter
from pydantic import ValidationError
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Session
from app.models import Book
from app.schemas import BookIn, ImportedLine, ImportReport, PublishersList

router = APIRouter(prefix="/books/import")

# Two lists with the same ISBNs in another order would deadlock. The lock ends with the transaction, however that ends.
ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtext('import'))")


@router.post("")
async def import_books(body: PublishersList, session: Session) -> ImportReport:
    """Stores the good lines of a publisher's list, all in one transaction, and says what is wrong with the others."""
    async with session.begin():
        await session.execute(ONE_AT_A_TIME)
        lines = [await import_line(session, number, fields) for number, fields in enumerate(body, 1)]
    return ImportReport(stored=sum(line.reason is None for line in lines), lines=lines)


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
