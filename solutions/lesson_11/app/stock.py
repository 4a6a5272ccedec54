from fastapi import APIRouter, HTTPException, Request
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models import Book
from app.schemas import Counted, Id

router = APIRouter(prefix="/books/{book_id}/stock")


@router.put("")
async def count_stock(book_id: Id, body: Counted, request: Request) -> Counted:
    """Enters what was counted in the shop. The row is locked, so that one of two counts waits for the other."""
    engine: AsyncEngine = request.state.engine
    async with engine.begin() as connection:
        stock = await connection.scalar(select(Book.stock).where(Book.id == book_id).with_for_update())
        if stock is None:
            raise HTTPException(404, "no such book")
        if abs(stock - body.stock) > 100:
            raise HTTPException(409, f"{body.stock} counted, {stock} expected: count again")
        await connection.execute(update(Book).where(Book.id == book_id).values(stock=body.stock))
    return body
