from fastapi import APIRouter, HTTPException
from sqlalchemy import select

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
        query = select(Wish).where(Wish.customer_id == customer.id, Wish.book_id == book_id)
        wished = await session.scalar(query)
        if wished is None:
            wished = Wish(customer_id=customer.id, book_id=book_id)
            session.add(wished)
            await session.flush()
            await session.refresh(wished)
        return WishOut.model_validate(wished)


@router.get("")
async def read_wishlist(customer: CurrentCustomer, session: Session) -> list[WishOut]:
    query = select(Wish).where(Wish.customer_id == customer.id).order_by(Wish.id)
    return [WishOut.model_validate(one) for one in await session.scalars(query)]
