"""Lesson 07: what belongs to one transaction. Here: a checkout whose outcome nobody knows, and the second try."""

from checks.kit.report import expect, plural
from checks.kit.testbed.invariants import read_ledger
from checks.lesson_07.orders import (
    IMPATIENT,
    NOT_FOUND,
    after,
    at_each_commit,
    changes,
    checkout_of,
    contents,
    expect_no_step_alone,
    expect_order,
    expect_sums,
    first_of,
    key_of,
    ledger_and_order,
    login,
    order_in_database,
    order_of,
    reason,
)

UNKNOWN = "No response is an outcome, too"
KEY = "One key for all tries"

PAID = "The customer has paid, and must see that the order is paid."
SETTLE = """
    WITH paid AS (UPDATE payments SET status = '{1}' WHERE order_id = $1)
    UPDATE orders SET status = '{0}' WHERE id = $1
"""

TWICE = "To the provider a new key is a new purchase. The customer pays twice for one order."


async def test_without_an_outcome_the_order_is_pending(launch, shop, provider):
    """If the provider does not say whether it charged, the response is 202 and `GET /orders/{id}` finds it pending."""
    app = await launch(env=IMPATIENT)
    ids = await shop.seed(books=1, customers=2)
    [book] = ids.books
    customer = ids.customers[0]
    copies = await read_ledger(shop)
    for how in (500, 404, "breaks the connection", "does not respond in time"):
        before, asked = await contents(shop), len(provider.calls)
        request = await checkout_without_outcome(app, provider, how, customer, (book, 2))
        response = await request
        stored = await order_in_database(shop, customer) or {}
        changed = changes(before | {"orders": before["orders"] + 1}, await contents(shop))
        expect(
            response.status == 202 and stored.get("status") == "pending" and stored.get("payment") == "pending",
            f"{after(provider.calls[asked:], f'The provider {does(how)}')}: {response}. "
            f"Stored: {stored or 'no order'}. Expected: 202, an order that is pending, and its payment, pending.",
            because=reason(provider.calls[asked:], NOT_FOUND),
            section=UNKNOWN,
        )
        expect_order(response, stored, f"The provider {does(how)}")
        stock = f"stock of book {book}"
        kept = (await contents(shop))[stock] == before[stock] - 2
        expect(
            kept,
            f"The provider {does(how)}. Changed: {changed}. Expected: the 2 copies stay reserved.",
            because="The card may have been charged, and the copies are sold to somebody else meanwhile.",
            section=UNKNOWN,
        )
        found = await app.get(f"/orders/{response['id']}", headers=login(customer))
        expect(
            found.status == 200 and found.json == response.json and found["status"] == "pending",
            f"The provider {does(how)}. The response was {response.json}; GET /orders/{response['id']}: {found}. "
            "Expected: the same, and pending.",
            because=NOT_FOUND,
            section=UNKNOWN,
        )
    await provider.close()
    response = await app.post("/checkout", json=checkout_of((book, 1)), headers=login(customer))
    expect(
        response.status == 202,
        f"The provider could not be reached: {response}. Expected: 202.",
        because=NOT_FOUND,
        section=UNKNOWN,
    )
    expect_order(response, await order_in_database(shop, customer) or {}, "The provider could not be reached")
    await expect_sums(shop, copies, provider)


async def test_a_second_try_uses_the_same_key(launch, shop, wire, provider):
    """`POST /checkout/{id}` repeats the call with the same key and body. It makes no call if the outcome is known."""
    app, another = await launch(env=IMPATIENT), await launch()
    ids = await shop.seed(books=2, customers=2)
    first, second = ids.books
    customer, other = ids.customers
    copies = await read_ledger(shop)
    keys = []
    slow, broken = "does not respond in time", "breaks the connection"
    outcomes = {"accepts": (201, 200, "paid", (500, broken, slow)), "refuses": (402, 402, "cancelled", (500,))}
    for how, (answer, status, becomes, kinds) in outcomes.items():
        for unknown in kinds:
            asked = len(provider.calls)
            lines = ((first, 1), (second, 2), (first, 2))
            response = await (await checkout_without_outcome(app, provider, unknown, customer, *lines))
            order = await order_in_database(shop, customer) or {}
            expect(
                response.status == 202 and order,
                f"{after(provider.calls[asked:], f'The provider {does(unknown)}')}: {response}. "
                f"Stored: {order or 'no order'}. Expected: 202, and an order.",
                because=reason(provider.calls[asked:], NOT_FOUND),
                section=UNKNOWN,
            )
            path = f"/checkout/{order['id']}"
            await shop.execute("UPDATE books SET price_cents = price_cents + 250", step="all prices rise by 250 cents")
            await two_days_pass(shop, order["id"])
            provider.respond(status=503)
            still = await app.post(path, headers=login(customer))
            expect(
                still.status == 202,
                f"POST {path}, and the provider returns 503 again: {still}. Expected: 202.",
                because=NOT_FOUND,
                section=UNKNOWN,
            )
            expect_order(still, order, "The provider returned 503 again")
            provider.respond(status=answer, json={"id": "ch_1"})
            settled, seen, early = await at_each_commit(
                another,
                wire,
                lambda path=path: another.start_request("POST", path, headers=login(customer)),
                lambda: ledger_and_order(shop, customer),
            )
            expect_no_step_alone(copies, seen, f"POST {path}, and the provider {how}")
            expect(
                not early,
                f"POST {path}, and the provider {how}. The response came while a COMMIT was still on its way.",
                because="If the COMMIT fails now, the customer has been told an outcome that is not stored.",
                section=KEY,
            )
            calls = provider.calls[asked:]
            found = {key_of(call) for call in calls}
            expect(
                len(calls) >= 3 and len(found) == 1 and "" not in found,
                f"The provider {does(unknown)}. Then POST {path} came to one process of the service, and to another "
                f"one. The provider got {', '.join(map(str, calls))}. Expected: the same key each time.",
                because=TWICE,
                section=KEY,
            )
            expect(
                all(call.json == calls[0].json for call in calls),
                f"The provider {does(unknown)}. Then the prices of all books rose, and POST {path} came twice. The "
                f"provider got {', '.join(call.body.decode() for call in calls)}. Expected: the same each time.",
                because="The customer has agreed to the first amount. A provider that finds another body under a key "
                "that it knows refuses it, or charges what nobody has agreed to.",
                section=KEY,
            )
            keys += found
            order = await order_in_database(shop, customer) or {}
            expect(
                settled.status == status and order.get("status") == becomes,
                f"POST {path}, and the provider {how}: {settled}. Stored: {order}. Expected: {status}, and {becomes}.",
                because=PAID if becomes == "paid" else "The client must learn that the card was refused.",
                section=KEY,
            )
            if becomes == "paid":
                expect_order(settled, order, f"POST {path}, and the provider {how}")
            more = len(provider.calls)
            again = await app.post(path, headers=login(customer))
            expect(
                again.status == status and len(provider.calls) == more,
                f"POST {path} once more, when the outcome is known: {again}; calls since: "
                f"{len(provider.calls) - more}. Expected: {status}, and none.",
                because="The outcome is known. A further call can only do harm.",
                section=KEY,
            )
            if becomes == "paid":
                await expect_still_shipped(app, shop, provider, customer, order["id"])
    expect(
        len(set(keys)) == len(keys),
        f"{len(keys)} orders used {plural(len(set(keys)), 'key')}. Expected: a key for each.",
        because="For a key that it knows, the provider returns the old outcome. The second order is sent, and nobody "
        "has paid for it.",
        section=KEY,
    )
    await expect_not_for_others(app, shop, provider, customer, other, (first, 1))
    await expect_sums(shop, copies, provider)


async def two_days_pass(shop, order):
    """The order and its payment are two days older than they were."""
    for table, column in (("orders", "id"), ("payments", "order_id")):
        await shop.execute(
            f"UPDATE {table} SET created_at = created_at - interval '2 days' WHERE {column} = $1",
            order,
            step=f"two days pass: {table}",
        )


async def expect_still_shipped(app, shop, provider, customer, order):
    """A paid order is shipped. A further try calls nobody, returns the order, and leaves it shipped."""
    await shop.execute("UPDATE orders SET status = 'shipped' WHERE id = $1", order, step=f"order {order} is shipped")
    asked = len(provider.calls)
    response = await app.post(f"/checkout/{order}", headers=login(customer))
    stored = await order_in_database(shop, customer) or {}
    expect(
        (response.status, stored.get("status"), len(provider.calls) - asked) == (200, "shipped", 0),
        f"POST /checkout/{order}, when the order was paid and shipped: {response}. Stored: {stored}; calls of the "
        f"provider: {len(provider.calls) - asked}. Expected: 200, an order that is still shipped, and none.",
        because="The customer pays again for what has been sent, or the shop sends it again.",
        section=KEY,
    )
    found = await app.get(f"/orders/{order}", headers=login(customer))
    expect(
        response.json == found.json,
        f"The order was paid and shipped. POST /checkout/{order}: {response.json}; GET /orders/{order}: {found}. "
        "Expected: the same order.",
        because="The customer reads that the order costs something else, or that it is still to be sent.",
        section=KEY,
    )


async def checkout_without_outcome(app, provider, how, customer, *lines):
    """Starts a checkout whose provider `how`: returns this status, or does what the text says."""
    options = {"json": checkout_of(*lines), "headers": login(customer)}
    provider.respond(status=how if isinstance(how, int) else 503)
    if how == "breaks the connection":
        provider.break_next()
    elif how == "does not respond in time":
        async with provider.hold() as held:
            request = app.start_request("POST", "/checkout", **options)
            await first_of(held.arrived(), request)
            await first_of(held.client_left(), request)
        return request
    return app.start_request("POST", "/checkout", **options)


def does(how):
    return f"returned {how}" if isinstance(how, int) else how


async def expect_not_for_others(app, shop, provider, customer, other, one):
    """An order of somebody else is 404, a try for an order without a payment 409, and nobody is called."""
    provider.respond(status=503)
    await app.post("/checkout", json=checkout_of(one), headers=login(customer))
    asked = len(provider.calls)
    order = await order_in_database(shop, customer)
    placed = await app.post("/orders", json=order_of(one), headers=login(other))
    doors = {"pending": [("POST", f"/checkout/{order['id']}"), ("GET", f"/orders/{order['id']}")]}
    doors |= {"by bill": [("POST", f"/checkout/{placed['id']}")], "that does not exist": [("POST", "/checkout/1")]}
    for status, payment in (("paid", "accepted"), ("shipped", "accepted"), ("cancelled", "refused")):
        doors[f"{status}, and their payment {payment}"] = doors["pending"]
    for kind, requests in doors.items():
        settled = kind.split(",")[0]
        if settled in ("paid", "shipped", "cancelled"):
            await shop.execute(SETTLE.format(settled, kind.split()[-1]), order["id"], step=f"an order is {kind}")
        for method, path in requests:
            theirs = await app.request(method, path, headers=login(customer if kind == "by bill" else other))
            expect(
                theirs.status == 404 and len(provider.calls) == asked,
                f"{method} {path}, for an order of somebody else, {kind}: {theirs}. Calls of the provider: "
                f"{len(provider.calls) - asked}. Expected: 404, and none.",
                because="Anybody could count up the numbers of orders, read them, and have other people's cards "
                "charged.",
                section=KEY,
            )
    await shop.execute(SETTLE.format("pending", "pending"), order["id"], step="it is pending again")
    tries = {}
    for status in ("paid", "shipped", "cancelled", "pending"):  # pending again at the end, because its copy is taken
        await shop.execute(f"UPDATE orders SET status = '{status}' WHERE id = $1", placed["id"])
        tries[status] = await app.post(f"/checkout/{placed['id']}", headers=login(other))
    expect(
        {response.status for response in tries.values()} == {409} and len(provider.calls) == asked,
        "POST /checkout/{id} for an order by bill, without a payment: "
        f"{'; '.join(f'{status}: {response}' for status, response in tries.items())}. Calls of the provider: "
        f"{len(provider.calls) - asked}. Expected: 409 each time, and none.",
        because="The client reads that a card was charged, or refused, for an order that has nothing to do with cards.",
        section=KEY,
    )
