"""Finds books by an attribute or by their title. Each list is sorted by id."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import func, or_, select

from app.database import Session
from app.models import Book
from app.schemas import NO_NUL, FoundBook

router = APIRouter(prefix="/search")

Text = Annotated[str, Query(max_length=1000, pattern=NO_NUL)]


@router.get("/attributes")
async def find_by_attribute(name: Text, value: Text, session: Session) -> list[FoundBook]:
    """Books whose attribute `name` is the text `value`, or a list with this text in it."""
    # The index knows which books contain a piece of JSON. It does not know what `->>` makes of a name.
    holds_it = or_(Book.attributes.contains({name: value}), Book.attributes.contains({name: [value]}))
    books = await session.scalars(select(Book).where(holds_it).order_by(Book.id))
    return [FoundBook.model_validate(book) for book in books]


@router.get("/titles")
async def find_by_title(title: Text, session: Session) -> list[FoundBook]:
    """Books with this title, whatever the case of its letters."""
    # PostgreSQL computes both sides: Python has other rules about letters, and strips more than spaces.
    key = func.lower(func.btrim(title))
    books = await session.scalars(select(Book).where(Book.title_key == key).order_by(Book.id))
    return [FoundBook.model_validate(book) for book in books]
