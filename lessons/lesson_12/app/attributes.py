"""Facts about a book that have no column: `attributes`, a JSON object that may have any members."""

from typing import Any

from fastapi import APIRouter

from app.database import Session
from app.models import Book
from app.refusals import NotFound
from app.schemas import Id

router = APIRouter(prefix="/books/{book_id}/attributes")


@router.get("")
async def read_attributes(book_id: Id, session: Session) -> dict[str, Any]:
    book = await session.get(Book, book_id)
    if book is None:
        raise NotFound(f"no such book: {book_id}")
    return book.attributes


@router.patch("")
async def change_attributes(book_id: Id, body: dict[str, Any], session: Session) -> dict[str, Any]:
    async with session.begin():
        book = await session.get(Book, book_id)
        if book is None:
            raise NotFound(f"no such book: {book_id}")
        merge(book.attributes, body)
        return book.attributes


def merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    """Changes `target` by a JSON Merge Patch (RFC 7396): objects are merged, null removes, the rest replaces."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(name), dict):
                target[name] = {}
            merge(target[name], value)
        else:
            target[name] = value
