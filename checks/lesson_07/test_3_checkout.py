"""Lesson 07: what belongs to one transaction. Here: the checkout, which calls a payment provider."""

import asyncio

import pytest

from checks.kit.report import expect, plural
from checks.kit.testbed.invariants import read_ledger
from checks.kit.testbed.waiting import served_meanwhile, wait_quiescent
from checks.lesson_07.orders import (
    CARD,
    LONG,
    NOT_CALLED,
    PATIENCE,
    TOGETHER,
    after,
    at_each_commit,
    checkout_of,
    expect_no_step_alone,
    expect_sums,
    first_of,
    gift_of,
    key_of,
    ledger_and_order,
    login,
    moved,
    order_in_database,
    order_of,
    reason,
)

SLOW_CHECKOUTS = 12
"""Requests that wait for the provider together: more than the connections that a driver's own pool opens by itself."""

CALL = "A call inside a transaction holds locks and a connection"
STEPS = "Reserve, call, confirm"

PAID = "The customer has paid, and must see that the order is paid."
LOCKED = "While one customer's bank is slow, nobody else can buy this book or set its stock."
TAKEN = "A provider that is slow for a minute takes all connections, and the whole shop stands still."
STOCK_LOST = (
    "After a refused card, copies that nobody has bought are gone, or the shop sells copies that it does not have."
)
NO_RECORD = (
    "The provider has a record of this attempt. When the customer or the bank asks about it, the shop has nothing to "
    "look at."
)


@pytest.mark.start_early
async def test_an_accepted_payment_is_a_paid_order(app, shop, wire, provider):
    """If the provider accepts, `POST /checkout` charges the card once, and returns 201 after the order is stored."""
    ids = await shop.seed(books=2, customers=2)
    first, second = ids.books
    customer = ids.customers[1]
    copies = await read_ledger(shop)
    provider.respond(status=201, json={"id": "ch_1"})
    keys: set[str] = set()
    for patience in (PATIENCE, 0):
        body = checkout_of((first, 2), (second, 1), (first, 1))
        asked = len(provider.calls)
        last = (await order_in_database(shop, customer) or {}).get("id")
        response, seen, early = await at_each_commit(
            app,
            wire,
            lambda body=body: app.start_request("POST", "/checkout", json=body, headers=login(customer)),
            lambda: order_in_database(shop, customer),
            patience,
        )
        order = seen[-1] or {}
        apart = [one for one in seen if one and one["id"] != last and (one["status"], one["payment"]) not in TOGETHER]
        expect(
            response.status == 201 and order.get("status") == "paid" and order.get("payment") == "accepted",
            f"{after(provider.calls[asked:], 'The provider accepted')}: {response}. Stored: {order or 'no order'}. "
            "Expected: 201, an order that is paid, and its payment, accepted.",
            because=reason(provider.calls[asked:], PAID),
            section=STEPS,
        )
        expect(
            not apart,
            f"Before a COMMIT of POST /checkout, others saw an order without its payment, or with another status: "
            f"{apart[:1]}. Expected: both pending, or paid and accepted.",
            because="If the process ends at that moment, nobody can tell whether this order is paid by card, or try "
            "again.",
            section=STEPS,
        )
        expect(
            not early,
            "The response came while a COMMIT was still on its way.",
            because="If the COMMIT fails now, the customer has a confirmation, and the order is not paid.",
            section=STEPS,
        )
        calls = provider.calls[asked:]
        total = response["total_cents"]
        expect(
            len(calls) == 1
            and (calls[0]["card_token"], calls[0]["amount_cents"]) == (CARD, total)
            and key_of(calls[0]),
            f"One checkout of {total} cents: {plural(len(calls), 'call')} of the provider. {calls[:2]}. Expected: one, "
            "with the card's token, the amount, and an Idempotency-Key.",
            because="The customer pays another amount, or twice, or gets books that nobody has paid for.",
            section=STEPS,
        )
        expect(
            key_of(calls[0]) not in keys,
            f"A customer sent the same order twice, and the provider got one key, {key_of(calls[0])}, for both. "
            "Expected: a key for each.",
            because="For a key that it knows, the provider returns the old result. The second order is sent, and "
            "nobody has paid for it.",
            section=STEPS,
        )
        keys.add(key_of(calls[0]))
        found = await app.get(f"/orders/{response['id']}", headers=login(customer))
        expect(
            found.status == 200 and found.json == response.json and found["status"] == "paid",
            f"The response was {response.json}. GET /orders/{response['id']} returns {found}.",
            because=PAID,
            section=STEPS,
        )
    await expect_sums(shop, copies, provider)


async def test_a_slow_provider_locks_no_book(app, shop, wire, provider):
    """While the provider has not responded, other requests can buy the same book, give it, and set its stock."""
    ids = await shop.seed(books=1, customers=3)
    [book] = ids.books
    customer, other = ids.customers[:2]
    copies = await read_ledger(shop)
    provider.respond(status=500)
    pending = await app.post("/checkout", json=checkout_of((book, 1)), headers=login(customer))
    provider.respond(status=201, json={"id": "ch_1"})
    slow = {"/checkout": {"json": checkout_of((book, 2))}}
    if pending.status == 202:
        slow[f"/checkout/{pending['id']}"] = {}
    for path, options in slow.items():
        async with provider.hold(limit=1) as held:
            request = app.start_request("POST", path, headers=login(customer), timeout=LONG, **options)
            await first_of(held.arrived(), request)
            expect(
                bool(held.calls),
                f"The provider was not called by POST {path}: {request.status}. Expected: a call.",
                because=NOT_CALLED,
                section=CALL,
            )
            for method, door, body in (
                ("POST", "/orders", order_of((book, 1))),
                ("POST", "/checkout", checkout_of((book, 1))),
                ("POST", "/gifts", gift_of("friend@example.com", (book, 1))),
                ("PUT", f"/books/{book}/stock", None),
            ):
                body = body or {"stock": await shop.value("SELECT stock FROM books WHERE id = $1", book)}
                served = await served_meanwhile(
                    app, method, door, within=LONG / 3, json=body, headers=login(other), timeout=LONG
                )
                expect(
                    served is not None and served.ok,
                    f"While the provider had not responded to POST {path}, another customer sent {method} {door} about "
                    f"the same book: {served or 'no response'}. Expected: 2xx.",
                    because=LOCKED,
                    section=CALL,
                )
                await wait_quiescent(app, wire)  # what comes after a response must not meet the next request
        response = await request
        expect(
            response.ok and response["status"] == "paid",
            f"Then the provider accepted the first one's payment: {response}. Expected: an order that is paid.",
            because=PAID,
            section=CALL,
        )
    await expect_sums(shop, copies, provider)


async def test_a_slow_provider_takes_no_connection(launch, shop, wire, provider):
    """Checkouts that wait for the provider take none of two connections, and no transaction is open meanwhile."""
    app = await launch(env={"DATABASE_CONNECTIONS": "2"})
    ids = await shop.seed(books=SLOW_CHECKOUTS, customers=SLOW_CHECKOUTS // 2)
    customers = ids.customers * 2  # each of them buys two books
    copies = await read_ledger(shop)
    requests = [
        ("/checkout", {"json": checkout_of((book, 1)), "headers": login(customer)})
        for book, customer in zip(ids.books, customers, strict=True)
    ]
    provider.respond(status=503)
    responses = await expect_no_connection_taken(app, wire, provider, requests, "checkouts")
    if all(response.status == 202 for response in responses):
        requests = [
            (f"/checkout/{order['id']}", {"headers": login(customer)})
            for order, customer in zip(responses, customers, strict=True)
        ]
        provider.respond(status=201, json={"id": "ch_1"})
        await expect_no_connection_taken(app, wire, provider, requests, "second tries, POST /checkout/{id}")
        await expect_sums(shop, copies, provider)


async def test_a_refused_payment_gives_the_books_back(app, shop, wire, provider):
    """If the provider refuses, the response is 402, the books are in stock again, and the attempt is on record."""
    ids = await shop.seed(books=2, customers=2)
    first, second = ids.books
    customer, other = ids.customers
    copies = await read_ledger(shop)
    provider.respond(status=402, json={"error": "card declined"})
    for _ in range(2):
        asked = len(provider.calls)
        async with provider.hold() as held:
            body = checkout_of((first, 2), (second, 1), (first, 1))
            request = app.start_request("POST", "/checkout", json=body, headers=login(customer), timeout=LONG)
            await first_of(held.arrived(), request)
            await served_meanwhile(app, "POST", "/orders", json=order_of((first, 5)), headers=login(other))
        response = await request
        order = await order_in_database(shop, customer) or {}
        expect(
            response.status == 402,
            f"{after(provider.calls[asked:], 'The provider refused')}: {response}. Expected: 402.",
            because=reason(
                provider.calls[asked:],
                "The client must learn that the card was refused, so that the customer can take another one.",
            ),
            section=STEPS,
        )
        keys = {key_of(call) for call in provider.calls[asked:]}
        expect(
            len(keys) == 1,
            f"The provider refused, and was asked with {plural(len(keys), 'key')} about one checkout. Expected: 1.",
            because="To the provider a new key is a new purchase. The card may be charged for it, and the shop has "
            "a record of the refusal only.",
            section=STEPS,
        )
        now = await read_ledger(shop)
        expect(
            not moved(copies, now),
            f"The provider refused an order of 3 copies of book {first} in two lines, and 1 of book {second}. "
            f"Meanwhile somebody else bought 5 of book {first}. Copies in stock and in orders: {moved(copies, now)}.",
            because=STOCK_LOST,
            section=STEPS,
        )
        expect(
            order.get("status") == "cancelled" and order.get("payment") == "refused",
            f"The provider refused. Stored: {order or 'no order'}. Expected: an order that is cancelled, and its "
            "payment, refused.",
            because=NO_RECORD,
            section=STEPS,
        )
        found = await app.get(f"/orders/{order['id']}", headers=login(customer))
        expect(
            found.status == 200 and found["status"] == "cancelled",
            f"GET /orders/{order['id']} after the refusal: {found}. Expected: 200, and cancelled.",
            because=NO_RECORD,
            section=STEPS,
        )
    _, seen, early = await at_each_commit(
        app,
        wire,
        lambda: app.start_request("POST", "/checkout", json=checkout_of((first, 2)), headers=login(customer)),
        lambda: ledger_and_order(shop, customer),
    )
    expect_no_step_alone(copies, seen, "The provider refused")
    expect(
        not early,
        "The provider refused. The response came while a COMMIT was still on its way.",
        because="If the COMMIT fails now, the books stay reserved, and nobody knows of the refusal.",
        section=STEPS,
    )
    await expect_sums(shop, copies, provider)


async def expect_no_connection_taken(app, wire, provider, requests, what):
    """While the provider holds all of these requests, no connection is in use, and others are served.

    They are sent one after the other: two connections are few for requests that come together on a slow machine.
    """
    waited = f"While {len(requests)} {what} waited for the provider"
    async with provider.hold() as held:
        sent: list = []
        before = 0
        for path, options in requests:
            sent.append(app.start_request("POST", path, timeout=LONG, **options))
            await first_of(held.arrived(len(sent)), sent[-1])
            before = before if len(sent) > 1 else len(wire.connections)
            if len(held.calls) < len(sent):
                break  # the others would wait as long
        responded = [request.status for request in sent if request.responded]
        expect(
            len(held.calls) == len(requests) and not responded,
            f"The service has two connections, and the provider did not respond. Of {len(requests)} {what}, one after "
            f"the other, {len(held.calls)} reached the provider, and then one did not; responses meanwhile: "
            f"{responded or 'none'}. Expected: {len(requests)}, and none.",
            because=TAKEN,
            section=CALL,
        )
        more = len(wire.connections) - before
        expect(
            more < len(sent) - 1,
            f"{waited}, the service had {plural(len(wire.connections), 'connection')}, {more} more than while one of "
            "them waited. Expected: a request that waits for the provider keeps none.",
            because="PostgreSQL refuses connections when there are too many. A slow provider then stops the shop.",
            section=CALL,
        )
        await wire.wait_idle(2, strict=False)
        inside = sum(connection.status in ("T", "E") for connection in wire.connections)
        expect(
            inside == 0,
            f"{waited}, {plural(inside, 'connection')} of the app stayed inside a transaction. Expected: 0.",
            because="An open transaction keeps its locks and its connection, and VACUUM cannot remove what it might "
            "still see.",
            section=CALL,
        )
        for path in ("/health", "/catalogue?page=1&size=10"):
            served = await served_meanwhile(app, "GET", path, within=LONG / 3, timeout=LONG)
            expect(
                served is not None and served.ok,
                f"{waited}, GET {path}: {served or 'no response'}. Expected: 200.",
                because=TAKEN,
                section=CALL,
            )
    return await asyncio.gather(*sent)
