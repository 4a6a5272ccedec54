"""What customers of lesson 07 send, and what is stored of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt

from checks.kit.lessons.lesson import find_lesson
from checks.kit.report import expect
from checks.kit.testbed.invariants import charged, discrepancies, read_ledger
from checks.kit.testbed.waiting import wait_quiescent
from checks.kit.wire import committing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from checks.kit.service.app import App, PendingRequest, Response
    from checks.kit.testbed.invariants import Ledger
    from checks.kit.testbed.outside_service import Call, OutsideService
    from checks.kit.testbed.shop import Shop
    from checks.kit.wire import Hold, Wire

CARD = "tok_4f1d"
IMPATIENT = {"PAYMENT_TIMEOUT": "0.3"}
"""For an app that is to give up a call: it waits 0.3 s for the payment provider."""

LONG = 55
"""Seconds for a response that takes long, or that a check holds back: a bound for failures, not a measurement."""

NOT_FOUND = (
    "The provider may have charged the card. The customer has paid for an order that nobody can find, and orders again."
)
NOT_CALLED = "Customers must be able to buy. The request ended before the payment provider was asked."
TOGETHER = {("pending", "pending"), ("paid", "accepted"), ("cancelled", "refused")}
"""The statuses of an order and of its payment that say the same."""
SUMS = (
    "Each copy that was delivered is either in stock or in an order that is not cancelled, and each order that is paid "
    "has its payment. Otherwise the shop sells what it does not have, or sends what nobody has paid for."
)

Contents = dict[str, int]
Order = dict[str, Any]


def login(customer_id: int) -> dict[str, str]:
    """The headers of a customer who is logged in."""
    claims = {
        "sub": str(customer_id),
        "iss": "bookshop",
        "aud": "bookshop-api",
        "exp": datetime.now(UTC) + timedelta(minutes=10),
    }
    return {"Authorization": f"Bearer {jwt.encode(claims, find_lesson(7).env['JWT_SECRET'], 'HS256')}"}


def order_of(*lines: tuple[int, int]) -> dict[str, Any]:
    """The body of an order, of pairs: a book and how many copies."""
    return {"lines": [{"book_id": book, "quantity": quantity} for book, quantity in lines]}


def checkout_of(*lines: tuple[int, int]) -> dict[str, Any]:
    return order_of(*lines) | {"card_token": CARD}


def gift_of(email: str, *lines: tuple[int, int], message: str = "Happy birthday!") -> dict[str, Any]:
    return order_of(*lines) | {"recipient": {"email": email, "name": "A friend"}, "message": message}


def after(calls: Sequence[Call], did: str) -> str:
    """The beginning of a verdict: what the provider did, or that nobody asked it."""
    return did if calls else "The provider was not called"


def reason(calls: Sequence[Call], because: str) -> str:
    """Why a failure matters: `because`, if the provider was called."""
    return because if calls else NOT_CALLED


def key_of(call: Call) -> str:
    """The Idempotency-Key of a call; empty if it has none."""
    return call.headers.get("idempotency-key", "").strip()


async def contents(shop: Shop) -> Contents:
    """How many rows the tables have that an order can change, and the stock of each book."""
    tables = ("customers", "orders", "order_lines", "gifts", "payments")
    stock = {f"stock of book {row['id']}": row["stock"] for row in await shop.rows("SELECT id, stock FROM books")}
    return {table: await shop.count(table) for table in tables} | dict(sorted(stock.items()))


def changes(before: Contents, after: Contents) -> str:
    """What differs: `orders: 3 instead of 2; gifts: …`. Empty if nothing does."""
    different = {name: count for name, count in before.items() if after[name] != count}
    return "; ".join(f"{name}: {after[name]} instead of {count}" for name, count in different.items())


async def order_in_database(shop: Shop, customer: int) -> Order | None:
    """The customer's newest order: its id and status, and the status of its payment."""
    rows = await shop.rows(
        "SELECT o.id, o.status::text, p.status::text AS payment, p.amount_cents FROM orders o "
        "LEFT JOIN payments p ON p.order_id = o.id WHERE customer_id = $1 ORDER BY o.id DESC, p.id DESC LIMIT 1",
        customer,
    )
    return rows[0] if rows else None


def expect_no_step_alone(
    before: Ledger, seen: Sequence[tuple[Ledger, Mapping[str, Any] | None]], happened: str
) -> None:
    """At no COMMIT, order and payment say different things, or copies are neither in stock nor in an order."""
    apart = [order for _, order in seen if order and (order["status"], order["payment"]) not in TOGETHER]
    expect(
        not apart,
        f"{happened}. Before a COMMIT, others saw an order and its payment that do not say the same: {apart[:1]}. "
        "Expected: both pending, or both with the outcome.",
        because="If the process ends at that moment, one of the two is wrong for good.",
        section="Reserve, call, confirm",
    )
    lost = [moved(before, ledger) for ledger, _ in seen if moved(before, ledger)]
    expect(
        not lost,
        f"{happened}. Before a COMMIT, copies in stock and in orders that are not cancelled: {', '.join(lost[:1])}.",
        because="If the process ends at that moment, the copies of a cancelled order are lost, or there twice.",
        section="Reserve, call, confirm",
    )


async def ledger_and_order(shop: Shop, customer: int) -> tuple[Ledger, Order | None]:
    """What there is now, and the customer's newest order."""
    return await read_ledger(shop), await order_in_database(shop, customer)


def expect_order(response: Response, stored: Mapping[str, Any], happened: str) -> None:
    """The response is the order, so that its client can find it. `stored` is that of `order_in_database`."""
    body = response.json if isinstance(response.json, dict) else {}
    said = {name: body.get(name) for name in ("id", "total_cents")}
    expect(
        said == {"id": stored.get("id"), "total_cents": stored.get("amount_cents")},
        f"{happened}: {response}. Stored: {dict(stored) or 'no order'}. Expected: the order, with its id and total.",
        because=NOT_FOUND,
        section="No response is an outcome, too",
    )


def moved(before: Ledger, now: Ledger) -> str:
    """Which books have more or fewer copies, in stock and sold: `book 7: 9 instead of 10`. Empty if none has."""
    named = [{f"book {book}": count for book, count in ledger.copies.items()} for ledger in (before, now)]
    return changes(*named)


async def expect_sums(shop: Shop, before: Ledger, provider: OutsideService | None = None) -> None:
    """The copies of all books are as before, and payments agree with their orders and with what the provider took."""
    found = await discrepancies(shop, before)
    if provider is not None:
        taken = sum(charged(provider.calls).values())
        stored = "SELECT coalesce(sum(amount_cents), 0) FROM payments WHERE status = ANY($1::payment_status[])"
        least = await shop.value(stored, ["accepted"])
        most = await shop.value(stored, ["accepted", "pending"])
        if not least <= taken <= most:
            found.append(f"The provider took {taken} cents; {least} are stored as accepted, {most - least} as pending.")
    expect(not found, " ".join(found), because=SUMS, section="Reserve, call, confirm")


PATIENCE = 0.5
"""For `at_each_commit`, once in a check that asks when the response comes."""
MANY_COMMITS = 5
"""After so many COMMITs of one request, `at_each_commit` has no patience any more."""


async def at_each_commit(
    app: App,
    wire: Wire,
    start: Callable[[], PendingRequest],
    look: Callable[[], Awaitable[Any]],
    patience: float = 0,
    within: float = LONG,
) -> tuple[Response, list[Any], bool]:
    """Sends a request, holds each COMMIT of it, and looks before it goes on, and at the end.

    Returns the response, what was seen, and whether the response came while a COMMIT was held. With `patience` each of
    the first COMMITs is held for so many seconds, for a response that is written meanwhile: a bound for what must not
    come. `within` seconds is a bound for the next COMMIT, or the response.
    """
    seen = []
    early = False
    async with wire.hold(committing) as commits:
        request = start()
        while await commits.wait_for_or(request.task, within):
            seen.append(await look())
            await asyncio.wait({request.task}, timeout=patience if len(seen) <= MANY_COMMITS else 0)
            await app.flush()
            early = early or request.responded
            commits.release_one()
        response = await request
        quiescent = asyncio.create_task(wait_quiescent(app, wire))
        while await commits.wait_for_or(quiescent):  # a COMMIT that comes after the response
            seen.append(await look())
            early = True
            commits.release_one()
    return response, [*seen, await look()], early


async def until_blocked(shop: Shop, tasks: Sequence[asyncio.Future[Any]], *holds: Hold, count: int = 1) -> None:
    """Returns when so many of these requests wait, at one of `holds` or for a lock in PostgreSQL, or have ended."""
    waiting = (  # pg_locks: a lock counts as granted as soon as the other transaction has ended
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE NOT granted AND datname = current_database()"
    )
    for _ in range(250):
        ended = sum(task.done() for task in tasks)
        at_hold = sum(len(hold.waiting) for hold in holds)
        if ended + at_hold + await shop.value(waiting) >= count:
            return
        await asyncio.sleep(0.02)  # between two looks at pg_locks


async def first_of(arrived, request):
    """Waits until a call has arrived at the provider, or the request has ended without that."""
    waiting = asyncio.ensure_future(arrived)
    await asyncio.wait({waiting, request.task}, return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
