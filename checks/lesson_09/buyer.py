"""A customer who buys, in each of the ways that make an order, and the mail that must follow."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt

from checks.kit.report import expect
from checks.kit.testbed.outside_service import UnexpectedCall

if TYPE_CHECKING:
    from checks.kit.service.app import App, PendingRequest, Response
    from checks.kit.testbed.outside_service import Call, OutsideService

WAYS = ("POST /orders", "POST /gifts", "POST /checkout")
"""The endpoints that make an order."""

NO_MAIL = "The customer waits for a confirmation that never comes, and calls, or orders the books again."
TWICE = "A customer who gets a confirmation twice believes that the books come twice, and are paid twice."


@dataclass(frozen=True, slots=True)
class Bought:
    """An order that the app has confirmed, and what its mail must say."""

    way: str
    order_id: int
    total_cents: int


class Buyer:
    """A customer who is logged in. The books have prices of their own."""

    def __init__(self, customer_id: int, email: str, books: list[int], secret: str) -> None:
        self.id, self.email, self.books = customer_id, email, books
        claims = {
            "sub": str(customer_id),
            "iss": "bookshop",
            "aud": "bookshop-api",
            "iat": int(time.time()),
            "exp": int(time.time()) + 1800,
        }
        self.headers = {"Authorization": f"Bearer {jwt.encode(claims, secret, 'HS256')}"}

    def options(
        self, way: str, quantity: int = 1, *, lines: list[dict[str, int]] | None = None, key: str = ""
    ) -> dict[str, Any]:
        """Headers and body of a request that buys two of the books, the first one `quantity` times.

        `key` is its Idempotency-Key.
        """
        body: dict[str, Any] = {
            "lines": lines
            or [{"book_id": self.books[0], "quantity": quantity}, {"book_id": self.books[1], "quantity": 1}]
        }
        if way == "POST /gifts":
            body |= {"recipient": {"email": "friend@example.com", "name": "A Friend"}, "message": "Happy birthday"}
        if way == "POST /checkout":
            body |= {"card_token": "tok_visa"}
        return {"json": body, "headers": self.headers | ({"Idempotency-Key": key} if key else {})}

    def start(self, app: App, way: str, quantity: int = 1, **more: Any) -> PendingRequest:
        """Sends such a request and returns without waiting for the response."""
        method, path = way.split()
        return app.start_request(method, path, **self.options(way, quantity, **more))

    async def ask(self, app: App, way: str, quantity: int = 1, **more: Any) -> Response:
        """Sends such a request, for a response of any kind."""
        method, path = way.split()
        return await app.request(method, path, **self.options(way, quantity, **more))

    async def buy(self, app: App, way: str = "POST /orders", quantity: int = 1, **more: Any) -> Bought:
        """Buys; the response must be 201."""
        response = await self.ask(app, way, quantity, **more)
        expect(response.status == 201, f"{response}. Expected: 201.", because=SELLS, section="See it break")
        return Bought(way, int(response["order_id" if way == "POST /gifts" else "id"]), int(response["total_cents"]))


SELLS = "Customers must be able to buy."


def order_of(call: Call) -> int:
    """The id of the order that a mail confirms; 0 if it names none."""
    try:
        return int(call["data"]["order_id"])
    except (UnexpectedCall, KeyError, TypeError, ValueError):
        return 0


def key_of(call: Call) -> str:
    """The key by which the gateway tells a repetition from a new mail."""
    return call.headers.get("idempotency-key", "")


def calls_about(gateway: OutsideService, order: int) -> list[Call]:
    """All attempts to send the mail of this order."""
    return [call for call in gateway.calls if order_of(call) == order]


def expect_same_keys(gateway: OutsideService, section: str) -> None:
    """All calls about an order have one key, and no two orders share one."""
    keys: dict[int, set[str]] = {}
    for call in gateway.calls:
        keys.setdefault(order_of(call), set()).add(key_of(call))
    several = {order: found for order, found in keys.items() if len(found) > 1}
    for order, found in several.items():
        expect(
            False,
            f"The mail about order {order} was sent more than once, with {len(found)} different keys.",
            because="The gateway tells a repetition by its key. With another key, the customer gets the mail again.",
            section=section,
        )
    shared = len(keys) - len({key for found in keys.values() for key in found})
    expect(
        not shared and "" not in {key for found in keys.values() for key in found},
        f"{len(keys)} orders were confirmed, with {len(keys) - shared} different keys. Expected: a key for each.",
        because="The gateway takes a mail with a known key for a repetition, and does not send it.",
        section=section,
    )
