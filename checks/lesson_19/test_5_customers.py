"""Lesson 19: who may read and do what."""

from checks.kit.report import expect
from checks.lesson_15.hosted import owned_tables, reads
from checks.lesson_19.timeline import Timeline
from checks.lesson_19.traffic import patiently

LEAK = "The shop's owner learns what a competitor sells, and to whom."
REFUND = (
    "INSERT INTO refunds (order_id, key, charge_key, amount_cents, shop_id) "
    "VALUES ($1, gen_random_uuid(), gen_random_uuid(), $2, $3)"
)


async def test_no_shop_sees_another(apps, hosted, as_app, shop, testbed):
    """A visitor of a shop reads rows of that shop only, in whatever order the shops are visited."""
    a, b = hosted
    timeline = Timeline()
    testbed.add_evidence("The timeline of the rehearsal", timeline.lines)
    for owner in hosted:
        await shop.execute(REFUND, owner.order, 100 * owner.id, owner.id)
    for number, (owner, other) in enumerate(((a, b), (b, a), (a, b))):
        app = apps[number % 2]
        headers = await owner.log_in(app)
        for path, own in (reads(owner) | {"/refunds/open": f'"amount_cents":{100 * owner.id}'}).items():
            for one in apps:
                response = await patiently(one, "GET", path, headers=headers)
                seen = other.seen_in(response.text)
                expect(
                    response.ok and own in response.text and not seen,
                    f"{owner}: {response.request} → {response.status}. Of {other}: {', '.join(seen[:3]) or 'nothing'}. "
                    f"Expected: {own!r}, and nothing of another shop.",
                    because=LEAK,
                    section="Login and tenants",
                )
        timeline.note(f"{owner} was visited; both processes showed its own rows")
    with as_app.connected() as nobody:
        for table in await owned_tables(shop):
            error, _, found = nobody.run(f"SELECT * FROM {table}")
            expect(
                not found,
                f"The app's role, in no shop, reads {len(found)} rows of {table}. Error: {error or 'none'}.",
                because="One query without a condition shows the rows of all shops.",
                section="Login and tenants",
            )


async def test_customers_reach_what_is_theirs(rehearsal, endpoints):
    """A customer cancels and gets only their own orders; one who is deactivated is refused at once, everywhere."""
    apps = await rehearsal.open()
    owner, other = rehearsal.world.of(rehearsal.world.a)[:2]
    stranger = rehearsal.world.of(rehearsal.world.b)[0]
    orders = {
        "pending": await rehearsal.order(owner, 0),
        "paid": await rehearsal.pay(owner, 0),
        "shipped": owner.owner.ids.orders[0],
        "cancelled": await rehearsal.pay(owner, 0),
    }
    await rehearsal.cancel(owner, orders["cancelled"])
    for status, order in orders.items():
        for who in (other, stranger):
            response = await rehearsal.cancel(who, order, apps[1])
            expect(
                response.status == 404 and await rehearsal.status(order) == status,
                f"Somebody else cancels an order that is {status}. {response}. Now it is "
                f"{await rehearsal.status(order)}. Expected: status 404, as for an order that does not exist.",
                because="Anybody who tries one number after another can cancel all orders, or learn which ones exist.",
                section="Login and tenants",
            )
    mine, theirs = [await with_key(app, buyer) for app, buyer in zip(apps, (owner, other), strict=True)]
    rehearsal.timeline.note(f"two customers use the same Idempotency-Key: {mine.status}, {theirs.status}")
    expect(
        mine.status == theirs.status == 201 and theirs["customer_id"] == other.customer and mine["id"] != theirs["id"],
        f"Two customers sent the same order with the same Idempotency-Key. {mine} {theirs} Expected: two orders.",
        because="The second customer has no order, and reads that of the first one.",
        section="Login and tenants",
    )
    requests = endpoints(owner.owner.ids, login=True, headers=owner.headers)
    for app in apps:
        await patiently(app, "GET", "/me", headers=owner.headers)
    await rehearsal.shop.execute("UPDATE customers SET active = false WHERE id = $1", owner.customer)
    rehearsal.timeline.note(f"customer {owner.customer} is deactivated")
    for app in apps:
        for one in requests:
            response = await patiently(app, one.method, one.path, **one.options)
            expect(
                response.status == 401,
                f"A customer was deactivated a moment ago. {response}. Expected: status 401.",
                because="A thief who has the account goes on buying.",
                section="Login and tenants",
            )


async def with_key(app, buyer):
    headers = buyer.headers | {"Idempotency-Key": "1"}
    return await patiently(app, "POST", "/orders", json=buyer.basket(0), headers=headers)
