"""The tests of the shop. They run in the database of DATABASE_URL, which is emptied first."""

import os

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from app.auth import get_customer
from app.base import Base
from app.database import get_session
from app.main import app
from app.models import Author, Book, Customer
from app.payments import get_provider
from app.sales.pricing import PriceRule, get_price_rule
from app.schemas import Me


class FakeProvider:
    """Accepts every payment."""

    async def charge(self, key, card_token, amount_cents):
        return "accepted"


@pytest.fixture(scope="session")
async def engine():
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
        await connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
async def db(engine):
    """One session for the app and for all tests."""
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session


@pytest.fixture(autouse=True)
async def end_of_a_test(db):
    """Ends the transaction of a test. Otherwise the next request fails: a transaction has begun already."""
    yield
    await db.commit()


@pytest.fixture(scope="session")
async def ann(db):
    customer = Customer(email="ann@example.com", name="Ann")
    db.add(customer)
    await db.commit()
    return Me(id=customer.id, email=customer.email, name=customer.name)


@pytest.fixture(scope="session")
async def book(db):
    book = Book(isbn="9780141439587", title="Emma", author=Author(name="Jane"), price_cents=1000, stock=10)
    db.add(book)
    await db.commit()
    return book


@pytest.fixture(scope="session")
async def client(db, ann):
    app.dependency_overrides[get_session] = lambda: db
    app.dependency_overrides[get_customer] = lambda: ann
    app.dependency_overrides[get_provider] = lambda: FakeProvider()
    app.dependency_overrides[get_price_rule] = lambda: PriceRule(10, 10)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        yield client
    app.dependency_overrides.clear()
