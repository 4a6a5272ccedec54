"""Two requests at the same moment: a lock of the test's own keeps both until both have come."""

import asyncio

import httpx
from rows import Rows


async def test_the_last_copy_is_sold_once(shop: httpx.AsyncClient, rows: Rows) -> None:
    book, customers = await rows.book(stock=1), [await rows.customer(), await rows.customer()]
    async with rows.connection.transaction():
        await rows.connection.execute("SELECT FROM books WHERE id = $1 FOR NO KEY UPDATE", book)
        body = {"lines": [{"book_id": book, "quantity": 1}]}
        sent = [asyncio.create_task(shop.post("/orders", json=body, headers=one.headers)) for one in customers]
        await rows.waiting(2)
    assert sorted(response.status_code for response in await asyncio.gather(*sent)) == [201, 409]
    assert await rows.stock(book) == 0


async def test_a_key_is_one_order_at_the_same_moment(shop: httpx.AsyncClient, rows: Rows) -> None:
    book, ann = await rows.book(), await rows.customer()
    headers = {**ann.headers, "Idempotency-Key": "once"}
    async with rows.connection.transaction():
        await rows.connection.execute("SELECT FROM books WHERE id = $1 FOR NO KEY UPDATE", book)
        body = {"lines": [{"book_id": book, "quantity": 1}]}
        sent = [asyncio.create_task(shop.post("/orders", json=body, headers=headers)) for _ in range(2)]
        await rows.waiting(2)
    assert [response.status_code for response in await asyncio.gather(*sent)] == [201, 201]
    assert (await rows.orders(ann), await rows.stock(book)) == (1, 4)


async def test_two_transfers_keep_the_sum(shop: httpx.AsyncClient, rows: Rows) -> None:
    ann, ben = await rows.customer(credit=1000), await rows.customer(credit=0)
    async with rows.connection.transaction():
        await rows.connection.execute("SELECT FROM customers WHERE id = $1 FOR NO KEY UPDATE", ann.id)
        body = {"recipient_id": ben.id, "cents": 300}
        sent = [asyncio.create_task(shop.post("/transfers", json=body, headers=ann.headers)) for _ in range(2)]
        await rows.waiting(2)
    assert [response.status_code for response in await asyncio.gather(*sent)] == [201, 201]
    assert (await rows.credit(ann), await rows.credit(ben)) == (400, 600)
