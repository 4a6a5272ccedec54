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
        book = await session.get(Book, book_id, with_for_update={"key_share": True})
        if book is None:
            raise NotFound(f"no such book: {book_id}")
        book.attributes = merged(book.attributes, body)
        return book.attributes


def merged(target: Any, patch: Any) -> Any:
    """What `target` becomes by a JSON Merge Patch (RFC 7396): objects are merged, null removes, the rest replaces.

    The result is made of new objects. The session compares it with the old value, and a change inside of an object
    that both of them share would look like none.
    """
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result
