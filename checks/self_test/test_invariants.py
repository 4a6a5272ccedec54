"""Whether the shop adds up: each way in which copies or money appear or disappear is found, and no honest sale is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from checks.kit.lessons.lesson import find_lesson
from checks.kit.postgres import Server
from checks.kit.testbed.invariants import (
    DoesNotAddUp,
    assert_the_shop_adds_up,
    charged,
    discrepancies,
    read_ledger,
)
from checks.kit.testbed.outside_service import Answer, Call
from checks.kit.testbed.rows import Seeded
from checks.kit.testbed.shop import Shop

SCHEMA = (
    (find_lesson(3).folder / "schema.sql").read_text(encoding="utf-8")
    + """
    ALTER TABLE orders ADD status text NOT NULL DEFAULT 'pending';
    CREATE TABLE payments (id bigint GENERATED ALWAYS AS IDENTITY, order_id bigint, key text, amount_cents bigint,
                           status text);
    CREATE TABLE transfers (id bigint GENERATED ALWAYS AS IDENTITY, sender_id bigint, recipient_id bigint, cents int);
"""
)

SALE = """
    WITH sold AS (UPDATE books SET stock = stock - 2 WHERE id = $1 RETURNING id),
         placed AS (INSERT INTO orders (customer_id, status) VALUES ($2, 'paid') RETURNING id),
         line AS (INSERT INTO order_lines (order_id, book_id, quantity, price_cents)
                  SELECT placed.id, sold.id, 2, 150 FROM placed, sold)
    INSERT INTO payments (order_id, key, amount_cents, status) SELECT id, 'k1', 300, 'accepted' FROM placed
"""
TRANSFER = """
    WITH less AS (UPDATE customers SET credit_cents = credit_cents - 70 WHERE id = $1),
         more AS (UPDATE customers SET credit_cents = credit_cents + 70 WHERE id = $2)
    INSERT INTO transfers (sender_id, recipient_id, cents) VALUES ($1, $2, 70)
"""


@pytest.fixture
async def shop(server: Server) -> AsyncIterator[Shop]:
    async with server.database(SCHEMA, "invariants") as database:
        yield Shop(database)


@pytest.fixture
async def ids(shop: Shop) -> Seeded:
    """A shop with old orders, one of them paid and one shipped before there were payments."""
    ids = await shop.seed(books=3, customers=2, orders=3, stock=10)
    await shop.execute("UPDATE orders SET status = 'paid' WHERE id = $1", ids.orders[0])
    await shop.execute("UPDATE orders SET status = 'shipped' WHERE id = $1", ids.orders[1])
    return ids


async def test_honest_sales_transfers_and_deliveries_add_up(shop: Shop, ids: Seeded) -> None:
    before = await read_ledger(shop)
    await shop.execute(SALE, ids.books[0], ids.customers[0])
    await shop.execute(TRANSFER, *ids.customers)
    await shop.execute("UPDATE books SET stock = stock + 7 WHERE id = $1", ids.books[1])
    await shop.execute("UPDATE orders SET status = 'shipped' WHERE status = 'paid'")
    await assert_the_shop_adds_up(shop, before, delivered={ids.books[1]: 7}, charged={"k1": 300}, settled=True)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE books SET stock = stock + 1 WHERE id = {book}", "book {book}: 9 in stock and 3 sold of 11"),
        ("UPDATE order_lines SET quantity = 9 WHERE price_cents = 150", "book {book}: 8 in stock and 10 sold of 11"),
        ("UPDATE orders SET status = 'cancelled' WHERE id = {order}", "book {book}: 8 in stock and 1 sold of 11"),
        ("DELETE FROM order_lines; DELETE FROM books WHERE id = {book}", "Books are gone: book {book} and its 11 "),
        ("ALTER TABLE books DROP CONSTRAINT books_stock_check; UPDATE books SET stock = -1 WHERE id = {book}",
         "Stock is below zero: book {book}: -1"),
        ("UPDATE customers SET credit_cents = credit_cents + 5 WHERE id = {customer}", "customer {customer}: 1000075 "),
        ("DELETE FROM transfers", "Credit is not what the transfers say: customer .*; customer"),
        ("UPDATE customers SET credit_cents = -3 WHERE id = {customer}", "Credit is below zero"),
        ("UPDATE payments SET amount_cents = 299", "the totals of their orders: order {order}: 299 cents for 300"),
        ("UPDATE payments SET status = 'refused'", "order {order} is paid, its payment refused"),
        ("UPDATE orders SET status = 'pending' WHERE id = {order}", "order {order} is pending, its payment accepted"),
        ("UPDATE payments SET status = 'pending'; UPDATE orders SET status = 'pending'", "pending: order {order}"),
        ("DELETE FROM payments", "without exactly one payment: order {order}: 0 payments"),
        ("DELETE FROM payments", "took money that the shop does not know of: 300 cents under k1"),
        ("INSERT INTO payments (order_id, key, amount_cents, status) SELECT order_id, 'k2', 300, status FROM payments",
         "order {order}: 2 payments.* counts money that the provider did not take: order {order}: 300 cents"),
    ],
)  # fmt: skip
async def test_what_appears_or_is_gone_is_told_with_its_numbers(shop: Shop, ids: Seeded, sql: str, said: str) -> None:
    before = await read_ledger(shop)
    await shop.execute(SALE, ids.books[0], ids.customers[0])
    await shop.execute(TRANSFER, *ids.customers)
    names = {
        "book": ids.books[0],
        "customer": ids.customers[1],
        "order": await shop.value("SELECT order_id FROM payments"),
    }
    await shop.database.admin.execute(sql.format(**names))
    with pytest.raises(DoesNotAddUp, match=said.format(**names)):
        await assert_the_shop_adds_up(shop, before, charged={"k1": 300}, settled=True)


async def test_a_pending_payment_may_wait_and_a_second_card_may_pay(shop: Shop, ids: Seeded) -> None:
    before = await read_ledger(shop)
    await shop.execute(SALE, ids.books[0], ids.customers[0])
    await shop.execute(
        "INSERT INTO payments (order_id, key, amount_cents, status) SELECT order_id, 'k0', 300, 'refused' FROM payments"
    )
    assert await discrepancies(shop, before, charged={"k1": 300}) == []
    await shop.execute("UPDATE payments SET status = 'pending' WHERE key = 'k1'")
    await shop.execute("UPDATE orders SET status = 'pending' WHERE id = (SELECT min(order_id) FROM payments)")
    await shop.execute("DELETE FROM payments WHERE key = 'k0'")
    for taken in ({}, {"k1": 300}):
        assert await discrepancies(shop, before, charged=taken) == []
    assert len(await discrepancies(shop, before, settled=True)) == 1


async def test_many_differences_are_counted(shop: Shop, ids: Seeded) -> None:
    before = await read_ledger(shop)
    await shop.execute("UPDATE books SET stock = stock + 1")
    [said] = await discrepancies(shop, before)
    assert said.endswith("; and 1 more.")


async def test_lessons_without_payments_and_transfers_are_looked_at_too(shop: Shop, ids: Seeded) -> None:
    await shop.execute("DROP TABLE payments")
    await shop.execute("DROP TABLE transfers")
    before = await read_ledger(shop)
    assert await discrepancies(shop, before, charged={}) == []
    await shop.execute("UPDATE customers SET credit_cents = 0")
    assert len(await discrepancies(shop, before)) == 1


def call(key: str, cents: int, status: int) -> Call:
    headers = {"idempotency-key": key} if key else {}
    body = b'{"amount_cents": %d}' % cents
    return Call("POST", "/charges", {}, headers, body, None, "closed before its response", Answer(status))


def test_a_charge_counts_once_for_each_key_whether_or_not_the_response_arrived() -> None:
    calls = [call("k1", 5, 201), call("k1", 5, 201), call("k2", 7, 402), call("", 9, 200), call("", 9, 200)]
    assert charged(calls) == {"k1": 5, "call 4 without a key": 9, "call 5 without a key": 9}
