"""The endpoints that need a login, and what they do with tokens that must not work."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from checks.kit.report import expect, plural
from checks.lesson_06.people import bearer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from checks.kit.service.app import App, Response
    from checks.kit.testbed.shop import Shop

SECTION = "What a token holds, and what is verified"
FORGED = (
    "Somebody who can make a token that works is any customer they like: they read that customer's data and order "
    "in that customer's name."
)
NOT_401 = (
    "A client logs in again when it reads 401. Any other status says that something else is wrong: with a 500 it tries "
    "the same token again, and the person on call is woken up by anybody who sends strange tokens."
)
NO_HEADER = (
    "`WWW-Authenticate: Bearer` is how a client learns what kind of login is asked for. HTTP demands the header with "
    "each 401, and client libraries look for it."
)


@dataclass(frozen=True, slots=True)
class Door:
    """An endpoint that needs a login, with a valid request for it."""

    method: str
    path: str
    template: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.template}"

    async def knock(self, app: App, token: str, **more: Any) -> Response:
        """Sends the request with this token."""
        headers = bearer(token) | more.pop("headers", {})
        return await app.request(self.method, self.path, headers=headers, **self.options | more)


async def doors_of(shop: Shop, customer_id: int) -> list[Door]:
    """All of them, as this customer would use them. Seeds the shop with a book and an order."""
    ids = await shop.seed(books=1)
    order = await shop.add("orders", customer_id=customer_id)
    await shop.add("order_lines", order_id=order, book_id=ids.books[0], quantity=1, price_cents=1000)
    lines = {"lines": [{"book_id": ids.books[0], "quantity": 1}]}
    return [
        Door("GET", "/me", "/me"),
        Door("POST", "/orders", "/orders", {"json": lines}),
        Door("GET", f"/orders/{order}", "/orders/{order_id}"),
    ]


async def expect_open(app: App, doors: list[Door], token: str, whose: str) -> None:
    """The token works at each door."""
    for door in doors:
        response = await door.knock(app, token)
        expect(
            response.ok,
            f"{door} with {whose}: {response}. Expected: 2xx.",
            because="A customer who has logged in must be able to use the shop.",
            section=SECTION,
        )


async def expect_refused(app: App, shop: Shop, doors: list[Door], tokens: Mapping[str, str]) -> None:
    """Each token gets 401 with `WWW-Authenticate: Bearer` at each door, and no order is stored."""
    orders = await shop.count("orders")
    for door in doors:
        responses = await asyncio.gather(*(door.knock(app, token) for token in tokens.values()))
        by_kind = dict(zip(tokens, responses, strict=True))
        accepted = [kind for kind, response in by_kind.items() if response.ok]
        stored = await shop.count("orders") - orders
        expect(
            not accepted and not stored,
            f"{door} accepted {_named(accepted, by_kind)}"
            + (f", and stored {plural(stored, 'order')}" if stored else "")
            + ". Expected: 401.",
            because=FORGED,
            section=SECTION,
        )
        others = [kind for kind, response in by_kind.items() if response.status != 401]
        expect(
            not others,
            f"{door} did not return 401 for {_named(others, by_kind)}.",
            because=NOT_401,
            section=SECTION,
        )
        bare = [
            kind
            for kind, response in by_kind.items()
            if "bearer" not in response.headers.get("www-authenticate", "").lower()
        ]
        which = "all of them" if len(bare) == len(by_kind) else ", ".join(bare)
        expect(
            not bare,
            f"{door} returned 401 for {plural(len(tokens), 'token')} that must not work, and that is right. "
            f"The header `WWW-Authenticate: Bearer` was missing for {which}.",
            because=NO_HEADER,
            section=SECTION,
        )


def _named(kinds: list[str], by_kind: Mapping[str, Response]) -> str:
    if not kinds:
        return "no token"
    return "a token with " + "; ".join(f"{kind} ({by_kind[kind].status})" for kind in kinds)


async def parameters_of(app: App, door: Door) -> dict[str, list[str]]:
    """The names of the parameters that the OpenAPI document shows for this door, by where they go: query or header."""
    document = await app.get("/openapi.json")
    if not document.ok or not isinstance(document.json, dict):
        return {}
    operation = document.json.get("paths", {}).get(door.template, {}).get(door.method.lower(), {})
    found: dict[str, list[str]] = {}
    for one in operation.get("parameters", []):
        found.setdefault(one["in"], []).append(one["name"])
    return found
