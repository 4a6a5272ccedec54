from fastapi import APIRouter, HTTPException
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Session
from app.models import Book
from app.schemas import BookIn, ImportedLine, ImportReport, PublishersList

router = APIRouter(prefix="/books/import")
BATCH = 50


@router.post("")
async def import_books(body: PublishersList, session: Session) -> ImportReport:
    """Stores the good lines of a publisher's list, and says what is wrong with the others."""
    lines: list[ImportedLine] = []
    try:
        for start in range(0, len(body), BATCH):  # in batches, so that no transaction is long
            lines += await import_batch(session, start + 1, body[start : start + BATCH])
    except IntegrityError as error:
        raise HTTPException(409, "a line was refused") from error
    return ImportReport(stored=sum(line.reason is None for line in lines), lines=lines)


async def import_batch(session: AsyncSession, first: int, batch: list[object]) -> list[ImportedLine]:
    lines: list[ImportedLine] = []
    added: list[tuple[ImportedLine, Book]] = []
    with session.no_autoflush:  # one INSERT for the batch instead of one for each line
        for number, fields in enumerate(batch, first):
            lines.append(line := ImportedLine(line=number))
            try:
                book = BookIn.model_validate(fields)
            except ValidationError as error:
                problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
                line.reason = "; ".join(problems)
                continue
            if await session.scalar(select(Book.id).where(Book.isbn == book.isbn)) is not None:
                line.reason = "this ISBN is taken"
                continue
            added.append((line, Book(**book.model_dump())))
            session.add(added[-1][1])
    await session.flush()
    for line, stored in added:
        line.book_id = stored.id
    await session.commit()
    return lines
