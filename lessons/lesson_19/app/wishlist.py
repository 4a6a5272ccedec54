from fastapi import APIRouter, HTTPException
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from app.auth import CurrentCustomer
from app.database import Session
from app.models import Book, Wish
from app.schemas import Id, WishOut

router = APIRouter(prefix="/wishlist")


@router.put("/{book_id}")
async def wish(book_id: Id, customer: CurrentCustomer, session: Session) -> WishOut:
    """Puts a book on the customer's list. A book that is on it already stays as it is."""
    async with session.begin():
        if await session.get(Book, book_id) is None:
            raise HTTPException(404, "no such book")
        new = insert(Wish).values(customer_id=customer.id, book_id=book_id)
        await session.execute(new.on_conflict_do_nothing())  # returns no row if there is one, so the row is read
        query = select(Wish).where(Wish.customer_id == customer.id, Wish.book_id == book_id)
        return WishOut.model_validate((await session.scalars(query)).one())


@router.get("")
async def read_wishlist(customer: CurrentCustomer, session: Session) -> list[WishOut]:
    query = select(Wish).where(Wish.customer_id == customer.id).order_by(Wish.id)
    return [WishOut.model_validate(one) for one in await session.scalars(query)]
