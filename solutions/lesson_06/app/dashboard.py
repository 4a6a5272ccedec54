import asyncio

from fastapi import APIRouter
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.database import Sessions
from app.models import Book, Customer, Order, OrderLine
from app.schemas import Dashboard

router = APIRouter(prefix="/dashboard")


async def figure(sessions: async_sessionmaker[AsyncSession], query: Select[int]) -> int:
    """One number, read in a session of its own: a session serves one task at a time."""
    async with sessions() as session:
        return await session.scalar(query) or 0


@router.get("")
async def read_dashboard(sessions: Sessions) -> Dashboard:
    books, customers, orders, revenue = await asyncio.gather(
        figure(sessions, select(func.count()).select_from(Book)),
        figure(sessions, select(func.count()).select_from(Customer)),
        figure(sessions, select(func.count()).select_from(Order)),
        figure(sessions, select(func.sum(OrderLine.quantity * OrderLine.price_cents))),
    )
    return Dashboard(books=books, customers=customers, orders=orders, revenue_cents=revenue)
