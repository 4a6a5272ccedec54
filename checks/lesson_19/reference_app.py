"""The reference: what three endpoints of the shop cost without an ORM and without models of requests and responses.

It keeps the same promises: one transaction for each request, the limits of PostgreSQL in it, the shop of the visitor,
locks in the order of the ids, and the mail in the order's transaction.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

BEGIN = """
    SELECT set_config('statement_timeout', '2500', true),
        set_config('idle_in_transaction_session_timeout', '4000', true),
        set_config('app.shop_id', coalesce($1, (SELECT id::text FROM shops WHERE host = $2)), true)
"""
BOOK = """
    SELECT id, isbn, title, subtitle, author_id, price_cents, discount_percent, published_on, stock, revision,
        created_at, updated_at,
        (SELECT count(*) FROM books o WHERE o.author_id = b.author_id AND o.id <> b.id) AS more_by_author
      FROM books b WHERE id = $1
"""
PAGE = """
    SELECT b.id, b.title, b.price_cents, a.name AS author FROM books b JOIN authors a ON a.id = b.author_id
     ORDER BY b.title, b.id LIMIT $1
"""
REVIEWS = "SELECT id, book_id, rating, body FROM reviews WHERE book_id = ANY($1) ORDER BY id"
LOCK = """
    SELECT id, price_cents, discount_percent, stock FROM books WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE
"""
LINE = "INSERT INTO order_lines (order_id, book_id, quantity, price_cents) VALUES ($1, $2, $3, $4)"
MAIL = """
    INSERT INTO outbox (order_id, recipient, total_cents, kind)
    SELECT $1, email, $2, 'order_confirmation' FROM customers WHERE id = $3
"""


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    url = os.environ["APP_DATABASE_URL"].replace("+asyncpg", "")
    # PgBouncer has no prepared statements and takes no RESET: each transaction sets what it needs
    async with asyncpg.create_pool(url, min_size=1, max_size=5, statement_cache_size=0, reset=nothing) as pool:
        yield {"pool": pool}


async def nothing(connection: Any) -> None:
    """There is nothing to reset."""


@asynccontextmanager
async def transaction(request: Request) -> AsyncIterator[tuple[Any, int]]:
    """A transaction in the shop of the request; who sends it, 0 for a visitor."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    claims = jwt.decode(
        token, os.environ["JWT_SECRET"], ["HS256"], issuer="bookshop", audience="bookshop-api"
    ) if token else {}  # fmt: skip
    host = request.headers["host"].partition(":")[0]
    async with request.state.pool.acquire() as connection, connection.transaction():
        await connection.execute(BEGIN, str(claims["shop"]) if claims else None, host)
        yield connection, int(claims.get("sub", 0))


def respond(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content, default=str), status, media_type="application/json")


async def read_book(request: Request) -> Response:
    async with transaction(request) as (connection, _):
        row = await connection.fetchrow(BOOK, int(request.path_params["book_id"]))
    return respond(dict(row)) if row else JSONResponse({"detail": "no such book"}, 404)


async def read_page(request: Request) -> Response:
    async with transaction(request) as (connection, _):
        total = await connection.fetchval("SELECT count(*) FROM books")
        books = [dict(row) | {"reviews": []} for row in await connection.fetch(PAGE, int(request.query_params["size"]))]
        by_id = {book["id"]: book for book in books}
        for review in await connection.fetch(REVIEWS, list(by_id)):
            by_id[review["book_id"]]["reviews"].append({name: review[name] for name in ("id", "rating", "body")})
    return respond({"total": total, "books": books})


async def place_order(request: Request) -> Response:
    lines = (await request.json())["lines"]
    async with transaction(request) as (connection, customer):
        active = await connection.fetchval("SELECT active FROM customers WHERE id = $1 FOR NO KEY UPDATE", customer)
        if not active:
            return JSONResponse({"detail": "log in first"}, 401)
        books = {row["id"]: row for row in await connection.fetch(LOCK, [line["book_id"] for line in lines])}
        order = await connection.fetchval("INSERT INTO orders (customer_id) VALUES ($1) RETURNING id", customer)
        total = 0
        for line in lines:
            book, quantity = books[line["book_id"]], line["quantity"]
            price = max(1, (book["price_cents"] * (100 - book["discount_percent"]) + 50) // 100)
            total += quantity * price
            await connection.execute("UPDATE books SET stock = stock - $2 WHERE id = $1", book["id"], quantity)
            await connection.execute(LINE, order, book["id"], quantity, price)
        await connection.execute(MAIL, order, total, customer)
    return respond({"id": order, "customer_id": customer, "total_cents": total, "status": "pending"}, 201)


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/books/{book_id:int}", read_book),
        Route("/catalogue", read_page),
        Route("/orders", place_order, methods=["POST"]),
    ],
)
