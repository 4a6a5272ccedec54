import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

import httpx
from fastapi import FastAPI, HTTPException, Request
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import (
    attributes,
    auth,
    books,
    catalogue,
    checkout,
    coupons,
    customers,
    dashboard,
    export,
    gifts,
    imports,
    listing,
    orders,
    outbox,
    receipts,
    reports,
    reviews,
    search,
    stock,
    tracking,
    transfers,
    wishlist,
)
from app.busy import RETRY_AFTER, Unavailable, answer_busy
from app.database import open_engine, ping
from app.limits import LimitBody
from app.payments import Provider
from app.problems import DOCUMENTED, answer_problems
from app.refusals import answer_refusals
from app.sales import invoices, quotes
from app.sales.pricing import PriceRule
from app.settings import Settings, load_settings

MAX_BODY = 2**20


class State(TypedDict):
    engine: AsyncEngine
    jwt_secret: SecretStr
    provider: Provider
    price_rule: PriceRule


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    settings = load_settings(Settings)
    async with (
        open_engine(settings.app_database_url, settings.pool_size) as engine,
        httpx.AsyncClient(base_url=str(settings.payment_url), timeout=settings.payment_timeout) as client,
    ):
        yield {
            "engine": engine,
            "jwt_secret": settings.jwt_secret,
            "provider": Provider(client, settings.payment_timeout),
            "price_rule": PriceRule(settings.bulk_from, settings.bulk_percent),
        }


app = FastAPI(title="Bookshop", lifespan=lifespan, responses=DOCUMENTED)
app.add_middleware(LimitBody, limit=MAX_BODY)
answer_problems(app)
answer_busy(app)
answer_refusals(app)
app.include_router(auth.router)
app.include_router(books.router)
app.include_router(listing.router)
app.include_router(imports.router)
app.include_router(reviews.router)
app.include_router(orders.router)
app.include_router(gifts.router)
app.include_router(checkout.router)
app.include_router(dashboard.router)
app.include_router(catalogue.router)
app.include_router(customers.router)
app.include_router(export.router)
app.include_router(reports.router)
app.include_router(stock.router)
app.include_router(transfers.router)
app.include_router(wishlist.router)
app.include_router(outbox.router)
app.include_router(quotes.router)
app.include_router(invoices.router)
app.include_router(attributes.router)
app.include_router(search.router)
app.include_router(coupons.router)
app.include_router(receipts.router)
app.include_router(tracking.router)


@app.get("/health")
async def health(request: Request) -> dict[str, str]:
    try:
        await ping(request.state.engine)
    except (Unavailable, SQLAlchemyError) as error:
        raise HTTPException(503, "database unreachable", headers=RETRY_AFTER) from error
    return {"status": "ok"}
