import asyncio
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from app.schemas import BookIn, BookOut, Dashboard, OrderIn, OrderOut
from app.settings import load_settings

settings = load_settings()


@asynccontextmanager
async def lifespan(app):
    async with asyncpg.create_pool(str(settings.database_url).replace("+asyncpg", ""), min_size=0) as pool:
        yield {"pool": pool}


app = FastAPI(lifespan=lifespan)


@app.exception_handler(asyncpg.IntegrityConstraintViolationError)
async def refused(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "refused"}, 409)


@app.post("/books", status_code=201)
async def create_book(body: BookIn, request: Request) -> BookOut:
    row = await request.state.pool.fetchrow(
        "INSERT INTO books (isbn, title, author_id, price_cents, stock) VALUES ($1, $2, $3, $4, $5) RETURNING *",
        body.isbn,
        body.title,
        body.author_id,
        body.price_cents,
        body.stock,
    )
    return BookOut(**row)


@app.get("/books/{book_id}")
async def read_book(book_id: int, request: Request) -> BookOut:
    row = await request.state.pool.fetchrow("SELECT * FROM books WHERE id = $1", book_id)
    if row is None:
        raise HTTPException(404)
    return BookOut(**row)


@app.post("/orders", status_code=201)
async def place_order(body: OrderIn, request: Request) -> OrderOut:
    total = 0
    async with request.state.pool.acquire() as connection, connection.transaction():
        order = await connection.fetchval("INSERT INTO orders (customer_id) VALUES ($1) RETURNING id", body.customer_id)
        for line in body.lines:
            price = await connection.fetchval(
                "UPDATE books SET stock = stock - $2 WHERE id = $1 RETURNING price_cents", line.book_id, line.quantity
            )
            if price is None:
                raise HTTPException(404)
            await connection.execute(
                "INSERT INTO order_lines (order_id, book_id, quantity, price_cents) VALUES ($1, $2, $3, $4)",
                order,
                line.book_id,
                line.quantity,
                price,
            )
            total += price * line.quantity
    return OrderOut(id=order, customer_id=body.customer_id, total_cents=total)


@app.get("/orders/{order_id}")
async def read_order(order_id: int, request: Request) -> OrderOut:
    row = await request.state.pool.fetchrow(
        "SELECT o.id, o.customer_id, sum(l.quantity * l.price_cents) AS total_cents "
        "FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.id = $1 GROUP BY o.id",
        order_id,
    )
    if row is None:
        raise HTTPException(404)
    return OrderOut(**row)


@app.get("/dashboard")
async def dashboard(request: Request) -> Dashboard:
    pool = request.state.pool
    books, customers, orders, revenue = await asyncio.gather(
        pool.fetchval("SELECT count(*) FROM books"),
        pool.fetchval("SELECT count(*) FROM customers"),
        pool.fetchval("SELECT count(*) FROM orders"),
        pool.fetchval("SELECT coalesce(sum(quantity * price_cents), 0) FROM order_lines"),
    )
    return Dashboard(books=books, customers=customers, orders=orders, revenue_cents=revenue)
