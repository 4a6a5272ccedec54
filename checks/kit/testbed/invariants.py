"""What must hold of the shop after whatever happened: no copy and no cent appears or is gone.

    before = await read_ledger(shop)
    ...
    await assert_the_shop_adds_up(shop, before, delivered={book: 5}, charged=charged(provider.calls))

It looks at those tables that the lesson has: books and order lines, customers, transfers, payments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from checks.kit.testbed.outside_service import Call
    from checks.kit.testbed.shop import Shop

MAX_TOLD = 3
"""Differences of one kind that a verdict names."""

COPIES = """
    SELECT b.id, b.stock, coalesce(sum(l.quantity) FILTER (WHERE o.status::text <> 'cancelled'), 0)::bigint AS sold
      FROM books b LEFT JOIN order_lines l ON l.book_id = b.id LEFT JOIN orders o ON o.id = l.order_id
     GROUP BY b.id ORDER BY b.id
"""

CREDITS = "SELECT id, credit_cents, 0::bigint AS sent, 0::bigint AS received FROM customers ORDER BY id"

CREDITS_WITH_TRANSFERS = """
    SELECT c.id, c.credit_cents,
           (SELECT coalesce(sum(cents), 0)::bigint FROM transfers t WHERE t.sender_id = c.id) AS sent,
           (SELECT coalesce(sum(cents), 0)::bigint FROM transfers t WHERE t.recipient_id = c.id) AS received
      FROM customers c ORDER BY c.id
"""

PAYMENTS = """
    SELECT p.order_id AS id, p.status::text, p.amount_cents, p.key::text, o.status::text AS order_status,
           (SELECT coalesce(sum(quantity * price_cents), 0)::bigint FROM order_lines WHERE order_id = o.id) AS total
      FROM payments p JOIN orders o ON o.id = p.order_id ORDER BY p.id
"""

PAID = "SELECT id FROM orders WHERE status::text IN ('paid', 'shipped') ORDER BY id"

STATUS_OF_ORDER = {"accepted": ("paid", "shipped"), "refused": ("cancelled",), "pending": ("pending",)}
"""The statuses of an order that agree with the status of its payment."""


class DoesNotAddUp(Exception):
    """Copies or money have appeared or are gone; the message says which, with the numbers."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What there is at one moment, counted so that no sale and no transfer changes it.

    `copies` of each book: in stock, and sold in orders that are not cancelled. `credits` of each customer, in cents:
    what transfers have sent counts as still there, and what they have brought does not. `paid` are the orders that are
    paid.
    """

    copies: Mapping[int, int]
    credits: Mapping[int, int]
    paid: frozenset[int] = field(default_factory=frozenset)


async def read_ledger(shop: Shop) -> Ledger:
    """What there is now."""
    copies = {row["id"]: row["stock"] + row["sold"] for row in await shop.rows(COPIES)}
    credits = {row["id"]: _before_transfers(row) for row in await _credits(shop)}
    return Ledger(copies, credits, frozenset(row["id"] for row in await shop.rows(PAID)))


async def assert_the_shop_adds_up(
    shop: Shop,
    before: Ledger,
    *,
    delivered: Mapping[int, int] | None = None,
    charged: Mapping[str, int] | None = None,
    settled: bool = False,
) -> None:
    """Raises DoesNotAddUp, with which a check fails, unless `discrepancies` finds nothing. It has the same arguments.

    Call it when no request is under way: `before` was read at the beginning.
    """
    if found := await discrepancies(shop, before, delivered=delivered, charged=charged, settled=settled):
        raise DoesNotAddUp(" ".join(found))


async def discrepancies(
    shop: Shop,
    before: Ledger,
    *,
    delivered: Mapping[int, int] | None = None,
    charged: Mapping[str, int] | None = None,
    settled: bool = False,
) -> list[str]:
    """What does not add up, a sentence for each kind: stock plus sold is what was delivered, and so on with money.

    `delivered` are copies that came since `before`, by book. `charged` is what the payment provider took, in cents by
    key; see `charged`. With `settled` no payment may be pending any more.
    """
    copies = await shop.rows(COPIES)
    expected = dict(before.copies)
    for book, more in (delivered or {}).items():
        expected[book] = expected.get(book, 0) + more
    credits = await _credits(shop)
    found = [
        _told(
            "Copies in stock and sold are not those that were delivered",
            (
                f"book {row['id']}: {row['stock']} in stock and {row['sold']} sold of {expected[row['id']]}"
                for row in copies
                if row["id"] in expected and row["stock"] + row["sold"] != expected[row["id"]]
            ),
        ),
        _told(
            "Books are gone",
            (
                f"book {book} and its {count} copies"
                for book, count in expected.items()
                if count and book not in {row["id"] for row in copies}
            ),
        ),
        _told("Stock is below zero", (f"book {row['id']}: {row['stock']}" for row in copies if row["stock"] < 0)),
        _told(
            "Credit is not what the transfers say",
            (
                f"customer {row['id']}: {row['credit_cents']} cents, and {before.credits[row['id']]} before, "
                f"{row['sent']} sent, {row['received']} received"
                for row in credits
                if row["id"] in before.credits and _before_transfers(row) != before.credits[row["id"]]
            ),
        ),
        _told(
            "Credit is below zero",
            (f"customer {row['id']}: {row['credit_cents']} cents" for row in credits if row["credit_cents"] < 0),
        ),
    ]
    if await _has(shop, "payments"):
        found += _about_payments(await shop.rows(PAYMENTS), settled)
        found += _about_orders(await shop.rows(PAYMENTS), await shop.rows(PAID), before)
        if charged is not None:
            found += _about_charges(await shop.rows(PAYMENTS), charged)
    return [sentence for sentence in found if sentence]


def charged(calls: Iterable[Call], amount: str = "amount_cents") -> dict[str, int]:
    """What a payment provider took, in cents by Idempotency-Key, however often it was asked with one key.

    `calls` are `provider.calls`. Those count that the provider meant to answer with 2xx, also where the response was
    not delivered. A call without a key is one more charge. `amount` is the field of the body.
    """
    taken: dict[str, int] = {}
    for number, call in enumerate(calls, 1):
        if call.decided is not None and 200 <= call.decided.status < 300:
            key = call.headers.get("idempotency-key", "").strip() or f"call {number} without a key"
            taken.setdefault(key, int(call[amount]))
    return taken


def _about_payments(payments: list[dict[str, Any]], settled: bool) -> Iterable[str]:
    yield _told(
        "Payments are not about the totals of their orders",
        (
            f"order {row['id']}: {row['amount_cents']} cents for {row['total']}"
            for row in payments
            if row["amount_cents"] != row["total"]
        ),
    )
    accepted = {row["id"] for row in payments if row["status"] == "accepted"}
    yield _told(
        "Orders and their payments disagree",
        (
            f"order {row['id']} is {row['order_status']}, its payment {row['status']}"
            for row in payments
            if row["order_status"] not in STATUS_OF_ORDER[row["status"]]
            # an order may be paid after a card that was refused
            and not (row["id"] in accepted and row["status"] != "accepted")
        ),
    )
    if settled:
        yield _told(
            "Payments are still pending", (f"order {row['id']}" for row in payments if row["status"] == "pending")
        )


def _about_orders(payments: list[dict[str, Any]], paid: list[dict[str, Any]], before: Ledger) -> Iterable[str]:
    accepted = [row["id"] for row in payments if row["status"] == "accepted"]
    yield _told(
        "Orders are paid without exactly one payment",
        (
            f"order {row['id']}: {accepted.count(row['id'])} payments"
            for row in paid
            if row["id"] not in before.paid and accepted.count(row["id"]) != 1
        ),
    )


def _about_charges(payments: list[dict[str, Any]], charged: Mapping[str, int]) -> Iterable[str]:
    known = {row["key"]: row for row in payments}
    yield _told(
        "The provider took money that the shop does not know of",
        (
            f"{cents} cents under {key}"
            for key, cents in charged.items()
            if key not in known or known[key]["status"] == "refused" or known[key]["amount_cents"] != cents
        ),
    )
    yield _told(
        "The shop counts money that the provider did not take",
        (
            f"order {row['id']}: {row['amount_cents']} cents"
            for row in payments
            if row["status"] == "accepted" and row["key"] not in charged
        ),
    )


def _told(what: str, differences: Iterable[str]) -> str:
    """`What: the first; the second; and 5 more.`; empty if there are none."""
    listed = list(differences)
    more = [f"and {len(listed) - MAX_TOLD} more"] if len(listed) > MAX_TOLD else []
    return f"{what}: {'; '.join([*listed[:MAX_TOLD], *more])}." if listed else ""


def _before_transfers(row: Mapping[str, int]) -> int:
    return row["credit_cents"] + row["sent"] - row["received"]


async def _credits(shop: Shop) -> list[dict[str, Any]]:
    return await shop.rows(CREDITS_WITH_TRANSFERS if await _has(shop, "transfers") else CREDITS)


async def _has(shop: Shop, table: str) -> bool:
    return bool(await shop.value("SELECT to_regclass($1) IS NOT NULL", f"public.{table}"))
