import asyncio

from fastapi import APIRouter
from sqlalchemy import func, select

from app.database import Session
from app.models import Book, Customer, Order, OrderLine
from app.schemas import Dashboard

router = APIRouter(prefix="/dashboard")


@router.get("")
async def read_dashboard(session: Session) -> Dashboard:
    books, customers, orders, revenue = await asyncio.gather(
        session.scalar(select(func.count()).select_from(Book)),
        session.scalar(select(func.count()).select_from(Customer)),
        session.scalar(select(func.count()).select_from(Order)),
        session.scalar(select(func.sum(OrderLine.quantity * OrderLine.price_cents))),
    )
    return Dashboard(books=books or 0, customers=customers or 0, orders=orders or 0, revenue_cents=revenue or 0)
