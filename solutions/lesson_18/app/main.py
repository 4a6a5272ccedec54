from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypedDict

import httpx
from fastapi import FastAPI
from pydantic import SecretStr
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
    metrics,
    orders,
    outbox,
    probes,
    receipts,
    reports,
    reviews,
    search,
    stock,
    tracking,
    transfers,
    wishlist,
)
from app.busy import answer_busy
from app.database import open_engine
from app.limits import LimitBody
from app.logs import configure_logs
from app.observe import Observe
from app.payments import Provider
from app.problems import DOCUMENTED, answer_problems
from app.refusals import answer_refusals
from app.sales import invoices, quotes
from app.sales.pricing import PriceRule
from app.settings import Settings, load_settings
from app.tracing import sending_spans
from app.tries import LoginLimit

MAX_BODY = 2**20


class State(TypedDict):
    engine: AsyncEngine
    jwt_secret: SecretStr
    login_limit: LoginLimit
    provider: Provider
    price_rule: PriceRule


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    configure_logs()
    settings = load_settings(Settings)
    async with (
        sending_spans(settings.otel_exporter_otlp_endpoint),
        open_engine(settings.app_database_url, settings.pool_size, settings.slow_statement_ms / 1000) as engine,
        httpx.AsyncClient(base_url=str(settings.payment_url), timeout=settings.payment_timeout) as client,
    ):
        metrics.watch_pool(engine, settings.pool_size)
        yield {
            "engine": engine,
            "jwt_secret": settings.jwt_secret,
            "provider": Provider(client, settings.payment_timeout),
            "price_rule": PriceRule(settings.bulk_from, settings.bulk_percent),
            "login_limit": LoginLimit(settings.login_tries, timedelta(seconds=settings.login_seconds)),
        }


app = FastAPI(title="Bookshop", lifespan=lifespan, responses=DOCUMENTED)
app.add_middleware(LimitBody, limit=MAX_BODY)
app.add_middleware(Observe)  # added last, so it is around the others
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
app.include_router(probes.router)
app.include_router(metrics.router)
