"""Lesson 08: many customers at once. Here: a request that is sent again with the same Idempotency-Key."""

import contextlib
import itertools

import pytest

from checks.kit.report import expect
from checks.kit.service.app import NoResponse
from checks.kit.testbed.invariants import read_ledger
from checks.kit.testbed.waiting import served_meanwhile
from checks.lesson_08.at_once import PATIENCE, asks_to_come_again, blocked, crowd, in_step, stored_by, until_served
from checks.lesson_08.shopping import KEYED, expect_status, expect_sums, order_of, statuses
from checks.lesson_08.test_3_transfers import Failure, rolling_back

KEYS = "One key, one order"
LONGEST = 255
"""Characters of a key."""

KEY = "4f6f_0a4e%'"
"""A key with what is special in LIKE and in SQL."""

TWICE = (
    "The customer clicked twice, or the app repeated the request after a time-out, and now two parcels are on the way."
)
NONE = "The customer waits for a parcel that nobody will send."
WRONG = "The customer reads about another order than the one that was placed."
OTHERS = (
    "A key is chosen by a client. Two clients may choose the same one, and must not see or lose each other's orders."
)


@pytest.mark.start_early
async def test_a_key_places_one_order(servers, shop, login):
    """`POST /orders` with an Idempotency-Key that has placed an order of this customer returns the first response."""
    ids = await shop.seed(books=3, customers=3, stock=5)
    anna, ben, cleo = ids.customers
    one, other, third = ids.books
    await shop.execute("UPDATE books SET price_cents = 1000", step="all books have the same price")
    body = order_of({one: 2, other: 1})
    first = await post(servers[0], login, anna, body, KEY)
    expect_status(first, 201, "An order with a new Idempotency-Key", section=KEYS)
    changes = {
        "nothing else happened": "SELECT 1",
        "the prices went up": "UPDATE books SET price_cents = price_cents + 50",
        "the last copies were sold": "UPDATE books SET stock = 0",
        "the order was shipped": "UPDATE orders SET status = 'shipped'",
        "the customer's credit was used up": "UPDATE customers SET credit_cents = 0",
    }
    for number, (what, sql) in enumerate(changes.items(), 1):
        await shop.execute(sql, step=what)
        again = await post(servers[number % 2], login, anna, body, KEY)
        expect_repeated(first, again, f"Then {what}")
    await expect_orders(shop, anna, 1, f"{len(changes) + 1} requests with one key")
    await shop.execute("UPDATE books SET stock = 9, price_cents = 1000")
    await shop.execute("UPDATE customers SET credit_cents = 500000")
    others = {
        "one copy more": order_of({one: 3, other: 1}),
        "one book less": order_of({one: 2}),
        "the first line twice": {"lines": [order_of({one: 2})["lines"][0], *body["lines"]]},
        "the same quantities the other way round": order_of({one: 1, other: 2}),
        "another book at the same price": order_of({one: 2, third: 1}),
        "a book that does not exist": order_of({one: 2, third + 100_000: 1}),
    }
    for what, another in others.items():
        refused = await post(servers[1], login, anna, another, KEY)
        expect_status(refused, 422, f"A key that was used, and in the order {what}", WRONG, KEYS)
    await expect_orders(shop, anna, 1, "other orders with the same key")
    for customer, wanted in ((ben, body), (cleo, order_of({third: 1}))):
        theirs = await post(servers[0], login, customer, wanted, KEY)
        expect(
            theirs.status == 201 and theirs["id"] != first["id"] and theirs["customer_id"] == customer,
            f"{first}. Then another customer used the same key: {theirs}. Expected: 201 and an order of customer "
            f"{customer}.",
            because=OTHERS,
            section=KEYS,
        )
    expect_repeated(first, await post(servers[1], login, anna, body, KEY), "Then two others used the same key")
    single, longest = order_of({other: 1}), "x" * (LONGEST - 1)
    keys = (f"{longest}1", f"{longest}2", f"3{longest}", KEY.upper(), KEY.replace("_", "-"), KEY.replace("_", ""))
    for key in (None, None, *keys):
        placed = await post(servers[1], login, anna, single, key)
        expect_status(placed, 201, "The same books again, without a key or with another one", section=KEYS)
    too_long = await post(servers[1], login, anna, single, f"{longest}12")
    expect_status(too_long, 422, f"A key of {LONGEST + 1} characters", section=KEYS)
    await expect_orders(
        shop,
        anna,
        9,
        f"a customer had ordered the same again on purpose, twice without a key, with three keys of {LONGEST} "
        "characters of which one is different, and with three that are nearly the first key,",
    )
    await expect_customer_and_key_are_two_things(servers[1], shop, login, anna, order_of({third: 1}))


async def test_a_double_click_places_one_order(apps, shop, wire, login):
    """Requests with the same Idempotency-Key at the same moment place one order, and all learn of the same one."""
    ids = await shop.seed(books=3, customers=2, stock=50)
    ledger = await read_ledger(shop)
    anna, ben = ids.customers
    apart = ids.books[2]
    body = order_of({ids.books[0]: 1, ids.books[1]: 2})
    for number, pair in enumerate((apps, apps[:1] * 2), 1):
        key = f"click {number}"
        responses = await in_step(wire, shop, *(sending(app, login, anna, body, key) for app in pair))
        await expect_one(shop, apps[0], login, anna, body, key, number, responses)
    responses = await crowd(apps, [lambda app: post(app, login, anna, body, "many clicks")] * 8)
    await expect_one(shop, apps[1], login, anna, body, "many clicks", 3, responses)
    bodies = (body, order_of({ids.books[1]: 1}))
    responses = await in_step(
        wire, shop, *(sending(app, login, anna, one, "two") for app, one in zip(apps, bodies, strict=True))
    )
    count = await shop.count("orders", "customer_id = $1", anna)
    expect(
        count == 4 and sum(one.ok for one in responses) == 1,
        f"Two different orders with the same key at the same moment: {statuses(responses)}, and {count - 3} were "
        "placed. Expected: one of them, and 422 for the other.",
        because=WRONG,
        section=KEYS,
    )
    for one, response in zip(bodies, responses, strict=True):
        again = await post(apps[0], login, anna, one, "two")
        expect_status(again, 201 if response.ok else 422, "One of these two orders, sent again", WRONG, KEYS)
    _, storing = await stored_by(wire, sending(apps[0], login, anna, body, "another"))
    async with wire.hold(storing.which, limit=1) as held:
        request = sending(apps[0], login, anna, body, "the same")()
        await held.wait_for_or(request.task)
        meanwhile = []
        for key, within in (("a different one", PATIENCE), ("the same", 5)):
            # where one lock is for all orders, the key is not to blame
            if all(response is not None and response.status == 201 for response in meanwhile):
                options = {"json": order_of({apart: 1}), "headers": login(ben) | {"Idempotency-Key": key}}
                meanwhile.append(await served_meanwhile(apps[1], "POST", "/orders", within=within, **options))
    expect(
        len(meanwhile) == 1 or (meanwhile[1] is not None and meanwhile[1].status == 201),
        "While the order of a customer was under way, another customer ordered another book, first with a different "
        f"key, and then with the same one: {meanwhile[0]}; {meanwhile[-1] or 'no response'}. Expected: 201 twice.",
        because=OTHERS,
        section=KEYS,
    )
    with contextlib.suppress(NoResponse):
        await request
    for customer, wanted in ((anna, body), (ben, order_of({apart: 1}))):
        own = await post(apps[0], login, customer, wanted, "the same")
        expect(
            own.status == 201 and own["customer_id"] == customer,
            f"Two customers used the same key at the same moment. Customer {customer} sent the order again: {own}. "
            "Expected: 201 and this customer's order.",
            because=OTHERS,
            section=KEYS,
        )
    await expect_sums(shop, ledger)


async def test_a_key_outlives_a_failure(apps, launch, shop, wire, login):
    """After a failure of the service, the same request with the same Idempotency-Key places the order, if none is."""
    ids = await shop.seed(books=1, customers=1, stock=50)
    ledger = await read_ledger(shop)
    [anna] = ids.customers
    body, total = order_of({ids.books[0]: 2}), itertools.count(1)

    async def expect_retried(key, failure, apps=apps):
        """The request, sent again, returns 201, and there is one order of this key."""
        send = [lambda app=app: post(app, login, anna, body, key) for app in reversed(apps)]
        responses = [await until_served(one) for one in send]
        expect(
            all(one.status == 201 for one in responses) and all(one.json == responses[0].json for one in responses),
            f"{failure}. The same request with the same key, sent again: {'; '.join(map(str, responses))}. Expected: "
            "201.",
            because=NONE,
            section=KEYS,
        )
        orders = await shop.count("orders", "customer_id = $1", anna) - (next(total) - 1)
        expect(
            orders == 1,
            f"{failure}. The same request with the same key was sent again, and the key has {orders} orders. Expected: "
            "1.",
            because=TWICE if orders > 1 else NONE,
            section=KEYS,
        )

    placed, storing = await stored_by(wire, sending(apps[0], login, anna, body, "no failure"))
    await expect_retried("no failure", f"A request with a key: {placed.status}")
    for at in ("UPDATE", "COMMIT"):
        async with rolling_back(shop, Failure(KEYED, "40P01", at, "books"), times=1_000_000):
            failed = await post(apps[0], login, anna, body, f"overload at {at}")
        await expect_retried(f"overload at {at}", f"The order was rolled back at its {at} ({failed.status})")
    for number in range(1, storing.count + 1):
        which = f"COMMIT {number} of {storing.count}" if storing.count > 1 else "the COMMIT"
        async with wire.lost_response(storing.number(number)):
            failed = await post(apps[0], login, anna, body, f"lost {number}")
        await expect_retried(f"lost {number}", f"The response to {which} was lost ({failed.status})")
        async with wire.hold(storing.which, limit=number) as held:
            request = sending(apps[0], login, anna, body, f"hung up {number}")()
            await until_held(held, request, number)
            await request.disconnect()
        await wire.wait_idle(strict=False)
        await expect_retried(f"hung up {number}", f"The client hung up before {which}")
        victim = await launch()
        async with wire.hold(storing.which, limit=number) as held:
            request = sending(victim, login, anna, body, f"killed {number}")()
            await until_held(held, request, number)
            twin = sending(apps[0], login, anna, body, f"killed {number}")()
            await blocked(shop, [twin], 1)
            victim.process.kill()
            await victim.process.exit
        with contextlib.suppress(NoResponse):
            await request
        expect(
            is_busy(await twin) or (await twin).status == 201,
            f"Two requests with the same key were under way in two processes, and that of the first one was killed "
            f"before {which}. The second one: {await twin}. Expected: 201; or, if it does not wait for the first one, "
            "409 or 503 with Retry-After.",
            because=NONE,
            section=KEYS,
        )
        async with shop.lock("books, customers, idempotency_keys"):
            pass  # PostgreSQL has noticed that the process is gone, and has rolled back what it had begun
        await expect_retried(f"killed {number}", f"The service was killed before {which}")
    await expect_sums(shop, ledger)


async def expect_customer_and_key_are_two_things(app, shop, login, customer, body):
    """The digits of the customer's id and the key, in a row, are those of another customer and another key."""
    namesake = int(f"{customer}7")
    await shop.execute(
        "INSERT INTO customers (id, email, name) OVERRIDING SYSTEM VALUE VALUES ($1, 'namesake@example.com', 'Dee')",
        namesake,
        step=f"there is a customer {namesake}, too",
    )
    for owner, key in ((customer, "75"), (namesake, "5")):
        placed = await post(app, login, owner, body, key)
        expect(
            placed.status == 201 and placed["customer_id"] == owner,
            f"Customer {customer} used the key 75, and customer {namesake} the key 5. Customer {owner} got: {placed}. "
            f"Expected: 201 and an order of customer {owner}.",
            because=OTHERS,
            section=KEYS,
        )


async def post(app, login, customer, body, key):
    headers = login(customer) | ({"Idempotency-Key": key} if key else {})
    return await app.post("/orders", json=body, headers=headers)


def sending(app, login, customer, body, key):
    """What to send for `in_step`."""
    headers = login(customer) | {"Idempotency-Key": key}
    return lambda: app.start_request("POST", "/orders", json=body, headers=headers)


async def expect_orders(shop, customer, expected, after):
    count = await shop.count("orders", "customer_id = $1", customer)
    expect(
        count == expected,
        f"After {after} the customer has {count} orders. Expected: {expected}.",
        because=TWICE if count > expected else NONE,
        section=KEYS,
    )


async def expect_one(shop, app, login, customer, body, key, total, responses):
    """One order came of these responses; each is that order's, or says that the request is under way."""
    placed = [one for one in responses if one.status == 201]
    busy = [one for one in responses if is_busy(one)]
    count = await shop.count("orders", "customer_id = $1", customer) - (total - 1)
    expect(
        count == 1,
        f"{len(responses)} requests with one key at the same moment: {statuses(responses)}, and {count} orders. "
        "Expected: one order, and 201 for each; while the first one is under way, 409 or 503 with Retry-After.",
        because=TWICE if count > 1 else NONE,
        section=KEYS,
    )
    again = await post(app, login, customer, body, key)
    expect(
        len(placed) + len(busy) == len(responses) and again.status == 201
        and all(one.json == again.json for one in placed),
        f"{len(responses)} requests with one key at the same moment: {statuses(responses)}. Sent once more: {again}. "
        f"Expected: the same response each time; only while the first one is under way, 409 or 503 with Retry-After.",
        because=WRONG,
        section=KEYS,
    )  # fmt: skip
    await expect_orders(shop, customer, total, "one more request with this key")


def is_busy(response):
    """What a request may get while another one with its key is under way."""
    return response.status == 409 or asks_to_come_again(response)


async def until_held(held, request, number):
    """Returns when the statement with this number is held; those before it go on."""
    for _ in range(number - 1):
        if await held.wait_for_or(request.task):
            held.release_one()
    await held.wait_for_or(request.task)


def expect_repeated(first, again, what):
    """The response is the first one once more."""
    expect(
        again.status == 201 and again.json == first.json,
        f"{first}. {what}, and the same request came again: {again}. Expected: the same response.",
        because=TWICE
        if again.ok
        else "The client repeats its request because it never saw the response. Now it believes that the order failed.",
        section=KEYS,
    )
