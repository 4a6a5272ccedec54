"""Whether a shop adds up after whatever happened: copies, credit, and money at the payment provider."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from checks.kit.testbed.invariants import Ledger, charged, read_ledger

if TYPE_CHECKING:
    from checks.kit.testbed.outside_service import Call, OutsideService
    from checks.kit.testbed.shop import Shop

MONEY = """
    SELECT o.id, o.status::text, p.status::text AS payment, p.key::text, p.amount_cents
      FROM payments p JOIN orders o ON o.id = p.order_id ORDER BY o.id
"""


def charges(provider: OutsideService) -> dict[str, int]:
    """What the provider has taken, by key."""
    return charged(call for call in provider.calls if call.path == "/charges")


def refunds(provider: OutsideService) -> list[Call]:
    """The calls with which the app asked for refunds, in their order."""
    return [call for call in provider.calls if call.path == "/refunds"]


def given_back(provider: OutsideService) -> dict[str, int]:
    """What the provider has given back, by the key of the charge.

    It does each call once for a key. A key that it knows of a charge is none of a refund: it responds as it did then.
    """
    given: dict[str, int] = {}
    seen = set(charges(provider))
    for call in refunds(provider):
        key = call.headers.get("idempotency-key", f"call {len(seen)} without a key")
        if call.decided is not None and call.decided.status == 201 and key not in seen:
            seen.add(key)
            charge = str(call["charge_key"])
            given[charge] = given.get(charge, 0) + int(call["amount_cents"])
    return given


def asked_back(provider: OutsideService) -> dict[str, int]:
    """What the app has asked back, by the key of the charge, and no more than was taken.

    How often it asked, and with which keys, is the matter of one check. The others do not turn red for it.
    """
    taken, asked = charges(provider), dict[str, int]()
    for call in refunds(provider):
        if call.decided is not None and call.decided.status == 201:
            charge = str(call["charge_key"])
            asked[charge] = min(asked.get(charge, 0) + int(call["amount_cents"]), taken.get(charge, 0))
    return asked


async def discrepancies(shop: Shop, before: Ledger, provider: OutsideService, *, exactly: bool = False) -> list[str]:
    """What does not add up, a sentence for each. `exactly`: each refund counts as the provider treats it."""
    short = await shop.rows("SELECT id, stock FROM books WHERE stock < 0")
    return [
        *of_stock(before, await read_ledger(shop)),
        *(f"Book {row['id']} has a stock of {row['stock']}." for row in short),
        *of_money(await shop.rows(MONEY), charges(provider), given_back(provider) if exactly else asked_back(provider)),
    ]


def of_stock(before: Ledger, now: Ledger) -> Iterable[str]:
    for book, copies in before.copies.items():
        if now.copies.get(book) != copies:
            yield f"Of book {book} there were {copies} copies, in stock and sold. Now there are {now.copies.get(book)}."
    for customer, cents in before.credits.items():
        if now.credits.get(customer) != cents:
            yield f"The credit of customer {customer} is not what the transfers say."


def of_money(rows: list[dict[str, object]], taken: dict[str, int], given: dict[str, int]) -> Iterable[str]:
    for key in taken.keys() - {row["key"] for row in rows}:
        yield f"The provider took {taken[key]} cents under a key that the shop does not know."
    for row in rows:
        paid = taken.get(str(row["key"]), 0) - given.get(str(row["key"]), 0)
        due = row["amount_cents"] if row["status"] in ("paid", "shipped") else 0
        if row["payment"] != "pending" and paid != due:
            yield f"Order {row['id']} is {row['status']}. The provider has {paid} cents for it, and should have {due}."
