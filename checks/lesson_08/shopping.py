"""What customers of lesson 08 send, and what the database holds afterwards."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from checks.kit.report import expect
from checks.kit.testbed.invariants import charged, discrepancies
from checks.lesson_08.at_once import Together, asks_to_come_again

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from checks.kit.service.app import Response
    from checks.kit.testbed.invariants import Ledger
    from checks.kit.testbed.outside_service import OutsideService
    from checks.kit.testbed.shop import Shop

UNFRIENDLY = (
    "A customer who reads an error of the service does not know what happened, and buys elsewhere or buys twice."
)

SERVED_AT_ONCE = 3
"""How many of a crowd must not get 503: the service attempts each request at least so many times."""

NAMES = {
    "23505": "unique violation",
    "40001": "serialization failure",
    "40P01": "deadlock",
    "55P03": "lock not available",
    "57014": "statement canceled",
}
"""What SQLSTATEs mean that requests at the same moment cause."""

_numbers = itertools.count(1)


def order_of(copies: Mapping[int, int]) -> dict[str, Any]:
    """The body of `POST /orders`, for so many copies of each book."""
    return {"lines": [{"book_id": book, "quantity": quantity} for book, quantity in copies.items()]}


def gift_of(copies: Mapping[int, int], email: str = "") -> dict[str, Any]:
    """The body of `POST /gifts`, for the customer who has this e-mail, or for a new one."""
    recipient = {"email": email or f"friend{next(_numbers)}@example.com", "name": "A Friend"}
    return order_of(copies) | {"recipient": recipient, "message": "For you"}


def checkout_of(copies: Mapping[int, int]) -> dict[str, Any]:
    """The body of `POST /checkout`."""
    return order_of(copies) | {"card_token": f"token-{next(_numbers)}"}


KEYED = "/orders with a key"

WAYS = {"/orders": order_of, KEYED: order_of, "/gifts": gift_of, "/checkout": checkout_of}
"""The ways to buy books, with the bodies that they take. Each keyed order has an Idempotency-Key of its own."""


def buying(way: str, copies: Mapping[int, int], login: Mapping[str, str]) -> dict[str, Any]:
    """What `app.post` or `app.start_request` sends to buy copies in this way; see `path_of`."""
    key = {"Idempotency-Key": f"key {next(_numbers)}"} if way == KEYED else {}
    return {"json": WAYS[way](copies), "headers": {**login, **key}}


def path_of(way: str) -> str:
    """The endpoint of a way to buy books."""
    return way.split(maxsplit=1)[0]


async def row_of(shop: Shop, book: int) -> dict[str, Any]:
    """What an editor sees of a book, and its stock."""
    [row] = await shop.rows("SELECT isbn, title, price_cents, stock FROM books WHERE id = $1", book)
    return row


async def sold(shop: Shop, book: int) -> int:
    """Copies in orders that were not canceled."""
    return int(
        await shop.value(
            "SELECT coalesce(sum(quantity), 0) FROM order_lines JOIN orders o ON o.id = order_id "
            "WHERE book_id = $1 AND status <> 'cancelled'",
            book,
        )
    )


async def credits_of(shop: Shop, customers: list[int]) -> list[int]:
    """The credit of each of them."""
    rows = await shop.rows("SELECT id, credit_cents FROM customers WHERE id = ANY($1)", customers)
    by_id = {row["id"]: row["credit_cents"] for row in rows}
    return [by_id[customer] for customer in customers]


def statuses(responses: Sequence[Response]) -> str:
    """`201 and 409`, or a count of each status where there are many; and PostgreSQL's errors, where they are known."""
    counts = {
        status: sum(one.status == status for one in responses) for status in sorted({r.status for r in responses})
    }
    if len(responses) <= 3:
        told = " and ".join(str(one.status) for one in responses)
    else:
        told = ", ".join(f"{count} × {status}" for status, count in counts.items())
    sqlstates = responses.sqlstates if isinstance(responses, Together) else []
    errors = [f"{one}, {NAMES[one]}" if one in NAMES else one for one in sqlstates]
    return f"{told} (PostgreSQL reported SQLSTATE {'; '.join(errors)})" if errors else told


def expect_status(response: Response, status: int, what: str, because: str = UNFRIENDLY, section: str = "") -> None:
    """The response has this status."""
    expect(
        response.status == status,
        f"{what}: {response}. Expected: {status}.",
        because=because,
        section=section or "See it break",
    )


async def expect_all_served(
    sends: Sequence[Callable[[], Awaitable[Response]]],
    responses: Sequence[Response],
    what: str,
    because: str,
    section: str,
) -> None:
    """Each gets 201. A few of a crowd may get 503 with Retry-After first; they are sent again, one after the other."""
    again = [asks_to_come_again(one) for one in responses]
    later = [await send() if repeat else one for send, repeat, one in zip(sends, again, responses, strict=True)]
    expect(
        all(one.status == 201 for one in later) and len(again) - sum(again) >= SERVED_AT_ONCE,
        f"{what}, at the same moment: {statuses(responses)}. Expected: 201 for all; or for at least "
        f"{SERVED_AT_ONCE}, and 503 with Retry-After for the others. Those were sent again; in the end all of them had "
        f"{statuses(later)}.",
        because=because,
        section=section,
    )


async def expect_sums(
    shop: Shop, before: Ledger, provider: OutsideService | None = None, delivered: Mapping[int, int] | None = None
) -> None:
    """Copies and money add up: what is in stock and sold was delivered, and credits are as the transfers say."""
    taken = charged(provider.calls) if provider is not None else None
    found = await discrepancies(shop, before, delivered=delivered, charged=taken)
    expect(
        not found,
        " ".join(found),
        because="The accountants find copies or money that nobody can account for.",
        section="A lost update on two timelines",
    )
