from fastapi import APIRouter
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import create_async_engine

from app.models import Author, Book, OrderLine
from app.schemas import Sales
from app.settings import load_settings

router = APIRouter(prefix="/reports")

QUERY = (
    select(Author.name, func.sum(OrderLine.quantity * OrderLine.price_cents))
    .join(Book, Book.author_id == Author.id)
    .join(OrderLine, OrderLine.book_id == Book.id)
    .group_by(Author.id)
    .order_by(Author.name, Author.id)
)


@router.get("/sales")
async def read_sales() -> list[Sales]:
    engine = create_async_engine(str(load_settings().database_url))
    try:
        async with engine.connect() as connection:
            return [Sales(author=author, revenue_cents=revenue) for author, revenue in await connection.execute(QUERY)]
    finally:
        await engine.dispose()
