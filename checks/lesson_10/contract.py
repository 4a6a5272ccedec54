"""What the API does with requests of all kinds, as lines that can be compared: the contract with its clients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from checks.kit.service.app import App, Response
    from checks.kit.testbed.endpoints import Endpoints
    from checks.kit.testbed.outside_service import OutsideService
    from checks.kit.testbed.rows import Seeded
    from checks.kit.testbed.shop import Shop
    from checks.kit.wire import Wire
    from checks.lesson_10.shopping import Customer

EXPECTED = (Path(__file__).parent / "contract.txt").read_text(encoding="utf-8").splitlines()
"""A line for each request below. After a change that is meant, copy the line from the verdict."""

TABLES = (Path(__file__).parent / "schema.txt").read_text(encoding="utf-8").splitlines()
"""A line for each table, as migrations 0001 to 0011 make them: with these, production's database was made."""

HEADERS = ("etag", "retry-after", "www-authenticate")
"""What clients read besides the body."""

UNKNOWN = 2**40
"""An id that no row has."""

PASSWORD = "correct horse battery"


def line_of(label: str, response: Response) -> str:
    """`POST /quotes → 200 application/json {lines: [...], total_cents: int}`: status, kind, shape, and headers."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    body = shape_of(response.json) if kind == "application/json" else ""
    sent = [name for name in HEADERS if name in response.headers]
    return " ".join(part for part in (f"{label} → {response.status}", kind, body, *sent) if part)


def shape_of(value: Any) -> str:
    """The fields of objects with their types, without their values."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {shape_of(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return f"[{shape_of(value[0])}]" if value else "[]"
    return "null" if value is None else type(value).__name__


async def tables_of(shop: Shop) -> list[str]:
    """The tables with their columns, as lines like those of TABLES."""
    return [f"{row['name']}: {row['columns']}" for row in await shop.rows(COLUMNS)]


COLUMNS = """
    SELECT table_name AS name, string_agg(column_name || ' ' || udt_name, ', ' ORDER BY column_name) AS columns
      FROM information_schema.columns
     WHERE table_schema = 'public' AND table_name <> 'alembic_version'
     GROUP BY table_name ORDER BY table_name
"""


async def good_requests(
    app: App, endpoints: Endpoints, ids: Seeded, customer: Customer, shop: Shop
) -> AsyncIterator[tuple[str, Response]]:
    """A request that works to each endpoint, in the order of lesson.toml; the invoice is other checks' subject."""
    account = {"email": "member@example.com", "password": PASSWORD}
    await app.post("/auth/register", json={**account, "name": "A Member"})
    tokens = await app.post("/auth/login", json=account)
    await shop.execute("UPDATE orders SET status = 'paid' WHERE id = $1", ids.orders[0])
    payment = {"order_id": ids.orders[0], "card_token": "tok", "amount_cents": 1000, "status": "accepted"}
    await shop.add("payments", key=uuid4(), **payment)
    mail = {"recipient": "x@example.com", "total_cents": 1000, "status": "failed", "attempts": 5}
    await shop.add("outbox", order_id=ids.orders[0], **mail)
    for one in endpoints(ids, headers=customer.headers, refresh_token=tokens["refresh_token"], **account):
        if not one.path.endswith("/invoice"):
            yield one.name, await app.request(one.method, one.path, **one.options)


async def refused_requests(
    app: App, ids: Seeded, customer: Customer, provider: OutsideService
) -> AsyncIterator[tuple[str, Response]]:
    """Requests that are refused, each for a reason of its own, and what makes them be refused."""
    book, login = ids.books[0], {"headers": customer.headers}
    new = {"isbn": "978-0-00-000", "title": "New", "author_id": ids.authors[0], "price_cents": 900}
    review = {"customer_id": ids.customers[0], "rating": 3, "body": ""}
    account = {"email": "member@example.com", "password": PASSWORD}
    wrong = {**account, "password": "another horse battery"}
    match = {"headers": {"If-Match": '"999"'}}
    any_match = {"headers": {"If-Match": "*"}}
    for label, method, path, options in (
        ("an unknown path", "GET", "/nowhere", {}),
        ("a method that is not allowed", "DELETE", "/orders", {}),
        ("a book that is not there", "GET", f"/books/{UNKNOWN}", {}),
        ("an id that is no number", "GET", "/books/first", {}),
        ("an ISBN for the first time", "POST", "/books", {"json": new}),
        ("an ISBN for the second time", "POST", "/books", {"json": new}),
        ("a book of no author", "POST", "/books", {"json": {**new, "isbn": "978-0-00-001", "author_id": UNKNOWN}}),
        ("a book without a title", "POST", "/books", {"json": {**new, "title": ""}}),
        ("several books, one of them again", "POST", "/books/bulk", {"json": [new, {**new, "isbn": "978-0-00-002"}]}),
        ("a list with a bad line", "POST", "/books/import", {"json": [new, 7]}),
        ("a change without If-Match", "PATCH", f"/books/{book}", {"json": {"title": "x"}}),
        ("a change of another version", "PATCH", f"/books/{book}", {"json": {"title": "x"}, **match}),
        ("a change of no book", "PATCH", f"/books/{UNKNOWN}", {"json": {"title": "x"}, **any_match}),
        ("a review of no book", "POST", f"/books/{UNKNOWN}/reviews", {"json": review}),
        ("a review", "POST", f"/books/{book}/reviews", {"json": review}),
        ("a second review", "POST", f"/books/{book}/reviews", {"json": review}),
        ("a customer who is not there", "GET", f"/customers/{UNKNOWN}", {}),
        ("a customer with reviews", "GET", f"/customers/{ids.customers[1]}", {}),
        ("the orders of nobody", "GET", f"/customers/{UNKNOWN}/orders", {}),
        ("the stock of no book", "PUT", f"/books/{UNKNOWN}/stock", {"json": {"stock": 1}}),
        ("a stock that is near", "PUT", f"/books/{book}/stock", {"json": {"stock": 950}}),
        ("a stock that is far off", "PUT", f"/books/{book}/stock", {"json": {"stock": 5000}}),
        ("an address for the second time", "POST", "/auth/register", {"json": {**account, "name": "A Member"}}),
        ("a wrong password", "POST", "/auth/login", {"json": wrong}),
        ("a token that is not ours", "POST", "/auth/refresh", {"json": {"refresh_token": "x"}}),
        ("nobody", "GET", "/me", {}),
        ("the order of somebody else", "GET", f"/orders/{ids.others.orders[0]}", login),
        ("an order that is not there", "GET", f"/orders/{UNKNOWN}", login),
        ("an invoice without a login", "GET", f"/orders/{ids.orders[0]}/invoice", {}),
        ("the invoice of somebody else", "GET", f"/orders/{ids.others.orders[0]}/invoice", login),
        ("an invoice that is not written", "GET", f"/orders/{ids.orders[0]}/invoice", login),
        ("the payment of no order", "POST", f"/checkout/{UNKNOWN}", login),
        ("credit for oneself", "POST", "/transfers", {"json": {"recipient_id": customer.id, "cents": 1}, **login}),
        ("credit for nobody", "POST", "/transfers", {"json": {"recipient_id": UNKNOWN, "cents": 1}, **login}),
        (
            "credit that is not there",
            "POST",
            "/transfers",
            {"json": {"recipient_id": ids.customers[1], "cents": 2**30}, **login},
        ),
        ("a wish for no book", "PUT", f"/wishlist/{UNKNOWN}", login),
        ("a quote for nothing", "POST", "/quotes", {"json": {"lines": []}}),
        ("a quote for no book", "POST", "/quotes", {"json": lines(UNKNOWN, 1)}),
        ("a quote with a second line of no book", "POST", "/quotes", {"json": second(UNKNOWN, 1)(ids.books)}),
    ):
        yield f"{method} {label}", await app.request(method, path, **options)
    for way in ("POST /orders", "POST /gifts", "POST /checkout"):
        yield f"{way} without a login", await app.request(*way.split(), json=lines(book, 1))
        for label, bought in REFUSED.items():
            yield f"{way} {label}", await customer.ask(app, way, bought(ids.books))
    for way in ("POST /orders", "POST /gifts", "POST /checkout", "POST /quotes"):
        for quantity in (0, -1, 2**31):
            yield f"{way} for {quantity} copies", await customer.ask(app, way, lines(book, quantity))
    key = {"headers": customer.headers | {"Idempotency-Key": "k"}}
    yield "POST /orders with a key", await app.post("/orders", json=lines(book, 1), **key)
    yield "POST /orders with its key and another body", await app.post("/orders", json=lines(book, 2), **key)
    order = await customer.ask(app, "POST /orders", lines(book, 1))
    yield "POST the payment of an order without a card", await app.post(f"/checkout/{order['id']}", **login)
    for label, status in (("a card that is refused", 402), ("a card of which nothing is known", 500)):
        provider.respond_next(status=status)
        yield f"POST /checkout with {label}", await customer.ask(app, "POST /checkout", lines(book, 1))


async def requests_without_database(
    app: App, ids: Seeded, customer: Customer, shop: Shop, wire: Wire
) -> AsyncIterator[tuple[str, Response]]:
    """Requests that fail for a fault of the shop's own, or because there is no database."""
    login = {"headers": customer.headers}
    await shop.execute(FAULT, step="PostgreSQL refuses each new wish, with an error that nobody has thought of")
    yield "PUT a wish that cannot be stored", await app.put(f"/wishlist/{ids.books[1]}", **login)
    async with wire.outage("starting_up"):
        for method, path, options in (
            ("GET", "/health", {}),
            ("GET", "/authors", {}),
            ("GET", f"/orders/{ids.orders[0]}/invoice", login),
            ("POST", "/quotes", {"json": lines(ids.books[0], 1)}),
            ("POST", "/orders", {"json": lines(ids.books[0], 1), **login}),
        ):
            name = path.replace(str(ids.orders[0]), "{order}")
            yield f"{method} {name} without a database", await app.request(method, path, **options)


FAULT = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a fault'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON wishes FOR EACH ROW EXECUTE FUNCTION refuse()
"""


def lines(book: int, quantity: int) -> dict[str, Any]:
    return {"lines": [{"book_id": book, "quantity": quantity}]}


def second(book: int, quantity: int) -> Any:
    """A body whose first line can be served; the second one is the one in question."""
    return lambda books: {"lines": [*lines(books[0], 1)["lines"], *lines(book or books[1], quantity)["lines"]]}


REFUSED = {
    "with a second line of no book": second(UNKNOWN, 1),
    "with a second line that is not in stock": second(0, 1001),
    "with a second line beyond the credit": second(0, 900),
}
"""Baskets that cannot be sold: bodies, made of the ids of books of 1000 cents, of which there are 1000 copies."""
