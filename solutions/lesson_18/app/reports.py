from fastapi import APIRouter
from sqlalchemy import text

from app.database import Session
from app.schemas import Sales

router = APIRouter(prefix="/reports")

QUERY = text("SELECT author, revenue_cents FROM sales_by_author ORDER BY author, author_id")


@router.get("/sales")
async def read_sales(session: Session) -> list[Sales]:
    return [Sales.model_validate(row) for row in (await session.execute(QUERY)).mappings()]
