"""A customer of lesson 10, and what the shop says about an order in its several places."""

from __future__ import annotations

import csv
import io
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt

from checks.kit.report import expect

if TYPE_CHECKING:
    from checks.kit.service.app import App, Response
    from checks.kit.testbed.testbed import Testbed
    from checks.lesson_10.baskets import Basket, Book

WAYS = ("POST /orders", "POST /gifts", "POST /checkout")
"""The endpoints that make an order."""

COLUMNS = ("order_id", "status", "total_cents")
"""Of the report."""

SELLS = "A shop that takes no order has no prices to agree about."

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Order:
    """An order that the app has taken, with the total of the response."""

    id: int
    way: str
    basket: Basket
    total: int


class Customer:
    """A customer who is logged in and has enough credit for everything."""

    def __init__(self, number: int, books: list[Book], secret: str) -> None:
        self.id = number
        self.books = books
        now = int(time.time())
        claims = {"sub": str(number), "iss": "bookshop", "aud": "bookshop-api", "iat": now, "exp": now + 1800}
        self.headers = {"Authorization": f"Bearer {jwt.encode(claims, secret, 'HS256')}"}

    def options(self, way: str, body: dict[str, Any]) -> dict[str, Any]:
        """Headers and body of a request that buys; `body` has the lines."""
        more: dict[str, Any] = {}
        if way == "POST /gifts":
            more["recipient"] = {"email": f"friend{next(_numbers)}@example.com", "name": "A Friend"}
            more["message"] = "For you"
        if way == "POST /checkout":
            more["card_token"] = "tok_visa"
        return {"json": body | more, "headers": self.headers}

    async def ask(self, app: App, way: str, body: dict[str, Any]) -> Response:
        """Sends such a request, for a response of any kind."""
        method, path = way.split()
        return await app.request(method, path, **self.options(way, body))

    async def buy(self, app: App, basket: Basket, way: str = "POST /orders") -> Order:
        """Buys; the response must be 201."""
        response = await self.ask(app, way, basket.body)
        expect(response.status == 201, f"{response}. Expected: 201.", because=SELLS, section="See it break")
        return Order(
            int(response["order_id" if way == "POST /gifts" else "id"]), way, basket, int(response["total_cents"])
        )

    async def buy_all(self, app: App, baskets: list[Basket]) -> list[Order]:
        """Buys all baskets, in each of the ways in turn."""
        return [await self.buy(app, basket, way) for basket, way in zip(baskets, itertools.cycle(WAYS), strict=False)]

    async def history(self, app: App) -> dict[int, list[tuple[str, int, int]]]:
        """Title, quantity and cents for one copy of each line of the customer's orders, sorted."""
        response = await app.get(f"/customers/{self.id}/orders")
        return {order["id"]: lines_of(order) for order in response.json}

    async def invoice(self, app: App, order: int) -> Response:
        return await app.get(f"/orders/{order}/invoice", headers=self.headers)


def lines_of(said: Any) -> list[tuple[str, int, int]]:
    """Title, quantity and cents for one copy of each line, sorted; none where the fields have other names."""
    return sorted(lines_in_order(said))


def lines_in_order(said: Any) -> list[tuple[str, int, int]]:
    """The same in the order in which the shop says them."""
    try:
        return [(line["title"], line["quantity"], line["price_cents"]) for line in said["lines"]]
    except (KeyError, TypeError):
        return []


def table_of(text: str) -> list[dict[str, str]]:
    """The lines of a report after the first, by its columns; a column that is missing is empty here."""
    rows = csv.reader(io.StringIO(text, newline=""))
    next(rows, None)
    return [dict(zip(COLUMNS, [*row, "", "", ""], strict=False)) for row in rows]


async def totals_of_report(testbed: Testbed, **env: str | None) -> dict[int, tuple[str, int]]:
    """Status and total of each order, as the report says. It must end with exit code 0."""
    done = await testbed.command("app.report", env=env, apart=True)
    expect(
        done.ok,
        f"{done}.",
        because="The accountants get no report, and nobody can say what was sold.",
        section="A command has an exit code",
    )
    return {
        int(row["order_id"]): (row["status"], int(row["total_cents"]))
        for row in table_of(done.stdout)
        if row["order_id"].isdigit() and row["total_cents"].isdigit()
    }
