from fastapi import APIRouter
from sqlalchemy import text

from app.database import Session
from app.schemas import Dashboard

router = APIRouter(prefix="/dashboard")

FIGURES = text("""
    SELECT (SELECT count(*) FROM books) AS books,
           (SELECT count(*) FROM customers) AS customers,
           (SELECT count(*) FROM orders) AS orders,
           (SELECT coalesce(sum(quantity * price_cents), 0) FROM order_lines) AS revenue_cents
""")


@router.get("")
async def read_dashboard(session: Session) -> Dashboard:
    row = (await session.execute(FIGURES)).mappings().one()
    return Dashboard(**row)
