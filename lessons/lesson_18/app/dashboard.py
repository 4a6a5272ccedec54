from fastapi import APIRouter
from sqlalchemy import func, select

from app.database import Session
from app.models import Book, Customer, Order, OrderLine, OrderStatus
from app.schemas import Dashboard

router = APIRouter(prefix="/dashboard")

REVENUE = func.coalesce(func.sum(OrderLine.quantity * OrderLine.price_cents), 0)


@router.get("")
async def read_dashboard(session: Session) -> Dashboard:
    # one statement: one round trip, one connection, and figures that belong to the same moment
    figures = await session.execute(
        select(
            select(func.count()).select_from(Book).scalar_subquery().label("books"),
            select(func.count()).select_from(Customer).scalar_subquery().label("customers"),
            select(func.count()).select_from(Order).scalar_subquery().label("orders"),
            select(REVENUE)
            .join(Order)
            .where(Order.status != OrderStatus.cancelled)
            .scalar_subquery()
            .label("revenue_cents"),
        )
    )
    return Dashboard.model_validate(figures.mappings().one())
