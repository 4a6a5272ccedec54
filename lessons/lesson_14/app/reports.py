from fastapi import APIRouter
from sqlalchemy import func, select

from app.database import Session
from app.models import Author, Book, Order, OrderLine, OrderStatus
from app.schemas import Sales

router = APIRouter(prefix="/reports")

QUERY = (
    select(Author.name, func.sum(OrderLine.quantity * OrderLine.price_cents))
    .join(Book, Book.author_id == Author.id)
    .join(OrderLine, OrderLine.book_id == Book.id)
    .join(Order, Order.id == OrderLine.order_id)
    .where(Order.status != OrderStatus.cancelled)
    .group_by(Author.id)
    .order_by(Author.name, Author.id)
)


@router.get("/sales")
async def read_sales(session: Session) -> list[Sales]:
    return [Sales(author=author, revenue_cents=revenue) for author, revenue in await session.execute(QUERY)]
