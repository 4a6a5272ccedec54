"""Lesson 19: money that is taken, and money that goes back."""

import asyncio
from contextlib import suppress

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.kit.testbed.outside_service import Answer, NeverCalled
from checks.kit.wire import committing
from checks.lesson_17.waiting import IN_TRANSACTION
from checks.lesson_19 import audit
from checks.lesson_19.traffic import TIMEOUT, patiently

STALLED = 3
NEWEST = "SELECT max(id) FROM orders WHERE customer_id = $1"
YESTERDAY = "UPDATE payments SET created_at = created_at - interval '1 day' WHERE order_id = $1"


async def test_a_payment_under_way_is_not_cancelled(rehearsal):
    """While nobody knows whether an order is paid, or once it is shipped, its cancellation gets status 409."""
    a, b = await rehearsal.open()
    buyer = rehearsal.world.buyers[0]
    async with rehearsal.provider.hold() as held:
        paying = a.start_request("POST", "/checkout", json=buyer.card(0, 1), headers=buyer.headers, timeout=TIMEOUT)
        await held.arrived(timeout=TIMEOUT)
        order = await rehearsal.shop.value(NEWEST, buyer.customer)
        rehearsal.timeline.note(f"the charge of order {order} is under way at the provider")
        expect_refused(await rehearsal.cancel(buyer, order, b), "The charge of an order was under way at the provider")
    paid = await paying
    rehearsal.timeline.note(f"the provider has charged: status {paid.status}, order {await rehearsal.status(order)}")
    expect(
        paid.status == 201 and await rehearsal.status(order) == "paid",
        f"The provider took the money of an order whose cancellation was sent meanwhile. {paid} "
        f"The order is {await rehearsal.status(order)}. Expected: paid.",
        because="The customer has paid for an order that is cancelled.",
        section="Payments",
    )
    rehearsal.provider.break_next()
    unknown = await rehearsal.pay(buyer, 2, status=202)
    await rehearsal.shop.execute(YESTERDAY, unknown)  # it does not become known by waiting
    rehearsal.timeline.note(f"the charge of order {unknown} has no response since yesterday")
    expect_refused(await rehearsal.cancel(buyer, unknown, b), "The charge of an order had no response")
    shipped = buyer.owner.ids.orders[0]
    expect_refused(await rehearsal.cancel(buyer, shipped, a), "An order was shipped")
    again = await patiently(a, "POST", f"/checkout/{unknown}", headers=buyer.headers)
    responses = [again, await rehearsal.cancel(buyer, order, b), await rehearsal.cancel(buyer, unknown, a)]
    failed = [one for one in responses if one.status != 200]
    expect(
        not failed,
        f"Two orders were paid, and then cancelled. {(failed or [''])[0]}. Expected: status 200.",
        because="The customer cannot cancel any more.",
        section="Payments",
    )
    await rehearsal.expect_it_adds_up("Payments")


def expect_refused(response, how):
    expect(
        response.status == 409,
        f"{how}. Its cancellation: {response}. Expected: status 409.",
        because="The books go back into stock, although the customer pays for them, or has them already.",
        section="Payments",
    )


async def test_a_slow_provider_stops_nobody(rehearsal):
    """While refunds wait for the provider, no transaction is open, and others buy the same books."""
    apps = await rehearsal.open(DATABASE_CONNECTIONS="6")
    buyers = rehearsal.world.of(rehearsal.world.a)
    orders = [await rehearsal.pay(buyer, n) for n, buyer in enumerate(buyers[:STALLED])]
    async with rehearsal.provider.hold(lambda call: call.path == "/refunds") as held:
        waiting = [
            apps[n % 2].start_request(
                "POST", f"/orders/{order}/cancellation", headers=buyers[n].headers, timeout=TIMEOUT
            )
            for n, order in enumerate(orders)
        ]
        with suppress(NeverCalled):
            await held.arrived(STALLED, timeout=TIMEOUT / 3)
        expect(
            len(held.calls) == STALLED,
            f"{STALLED} customers cancelled orders that were paid by card, while the provider did not respond. It got "
            f"{len(held.calls)} calls: one refund waits for another one.",
            because="One slow response of the provider stops the cancellations of all others.",
            section="Payments",
        )
        open_ = await rehearsal.shop.value(IN_TRANSACTION, rehearsal.role)
        rehearsal.timeline.note(f"{STALLED} refunds wait for the provider; transactions that are open: {open_}")
        expect(
            not open_,
            f"{STALLED} refunds waited for the provider. Meanwhile {plural(open_, 'transaction')} of the app "
            f"{'was' if open_ == 1 else 'were'} open. Expected: none.",
            because="Each of them holds a connection and the locks of its books until the provider responds.",
            section="Payments",
        )
        sent = await rehearsal.traffic(24, "meanwhile, traffic")
        rehearsal.expect_served(sent, f"{STALLED} refunds waited for the provider", "Payments")
        late = [await rehearsal.order(buyer, n) for n, buyer in enumerate(buyers[:STALLED])]
    responses = await asyncio.gather(*waiting)
    failed = [one for one in responses if one.status not in (200, 202)]
    expect(
        late and not failed,
        f"The provider has responded to all refunds. {(failed or [''])[0]}. Expected: status 200 or 202.",
        because="The customer does not know whether the order is cancelled.",
        section="Payments",
    )
    await rehearsal.expect_it_adds_up("Payments")


async def test_a_customer_gets_back_what_was_paid(rehearsal):
    """A cancelled order brings back what was paid, once, also if the provider's response or the process is lost."""
    apps = await rehearsal.open(PAYMENT_TIMEOUT="1")
    buyer, book = rehearsal.world.buyers[0], rehearsal.world.buyers[0].owner.book
    for how, cancel in FIRST.items():
        order = await rehearsal.pay(buyer, 0, 1, app=apps[1])
        paid, key = (await rehearsal.shop.rows(PAID, order))[0].values()
        raised = {"json": {"price_cents": paid + 7}, "headers": buyer.owner.visit | {"If-Match": "*"}}
        await patiently(apps[1], "PATCH", f"/books/{book}", **raised)
        rehearsal.timeline.note(f"order {order} is paid with {paid} cents; then its books cost more. Case: {how}")
        before = len(audit.refunds(rehearsal.provider))
        first = await cancel(rehearsal, buyer, order)
        if how == "the provider responds" or (how == "a COMMIT is lost" and first is not None):
            expect_cancelled(first, (200, 202), how)
        else:
            if first is not None:
                expect_cancelled(first, (202,), how)
            await expect_listed(rehearsal, buyer, order, True)
        again = [await rehearsal.cancel(buyer, order, apps[1]) for _ in range(2)]
        await expect_listed(rehearsal, buyer, order, False)
        await expect_it_stays_known(rehearsal, buyer, order)
        calls = audit.refunds(rehearsal.provider)[before:]
        rehearsal.timeline.note(f"the provider has got {len(calls)} calls about it")
        if first is None or first.status != 200:  # else nothing is left to do, which may be status 409
            expect_cancelled(again[0], (200, 202), how)
        keys = {call.headers.get("idempotency-key") for call in calls}
        expect(
            len(keys) == 1 and key not in keys and all(call["charge_key"] == key for call in calls),
            f"{how.capitalize()}: the provider was asked for the refund of an order {plural(len(calls), 'time')}, with "
            f"{plural(len(keys), 'key')}: {', '.join(sorted(map(str, keys)))}. Expected: the same key each time, and "
            f"another one than that of the charge, which is {key}.",
            because="The provider gives the money back once for each key. With a key that it knows it does nothing.",
            section="Payments",
        )
        back = audit.given_back(rehearsal.provider).get(key, 0)
        expect(
            back == paid,
            f"{how.capitalize()}: {paid} cents were paid, and {back} cents given back. The order was cancelled, and "
            "its cancellation sent again. The books of the order have another price by now.",
            because="The customer gets too little, or too much, or nothing.",
            section="Payments",
        )
    await rehearsal.expect_it_adds_up("Payments", exactly=True)


PAID = "SELECT amount_cents, key::text FROM payments WHERE order_id = $1"


def expect_cancelled(response, statuses, how):
    expect(
        response.status in statuses and response["status"] == "cancelled",
        f"{how.capitalize()}, and an order was cancelled. {response}. Expected: cancelled, and status "
        f"{' or '.join(map(str, statuses))}.",
        because="The customer does not learn what became of the money.",
        section="Payments",
    )


async def expect_listed(rehearsal, buyer, order, is_open):
    listed = await patiently(rehearsal.apps[1], "GET", "/refunds/open", headers=buyer.headers)
    known = "Nobody knows" if is_open else "The provider has responded, so it is known"
    expect(
        listed.ok and is_open is (order in [one["order_id"] for one in listed.json]),
        f"{known} whether the money of order {order} was given back. {listed}. Expected: this order "
        f"{'in' if is_open else 'not in'} it.",
        because="A person who looks after open refunds misses this one, or sees one that is done.",
        section="Payments",
    )


async def expect_it_stays_known(rehearsal, buyer, order):
    """A refund that is known is not forgotten when the provider is asked no more, or fails."""
    usual = Answer(201, {"id": "once more"})
    rehearsal.provider.respond(lambda call: Answer(500) if call.path == "/refunds" else usual)
    later = await rehearsal.cancel(buyer, order, rehearsal.apps[1])
    rehearsal.provider.respond(usual)
    expect(
        later.status in (200, 409),
        f"The money of an order was given back, which was known. Then the provider failed, and the order was "
        f"cancelled once more. {later}. Expected: status 200 or 409.",
        because="The customer waits for money that is there already.",
        section="Payments",
    )
    await expect_listed(rehearsal, buyer, order, False)


async def lost(rehearsal, buyer, order):
    rehearsal.provider.break_next()
    return await rehearsal.cancel(buyer, order)


async def failing(rehearsal, buyer, order):
    rehearsal.provider.respond_next(status=500)
    first = await rehearsal.cancel(buyer, order)
    rehearsal.provider.respond_next(status=429)
    second = await rehearsal.cancel(buyer, order)
    return second if first.status == 202 else first


async def silent(rehearsal, buyer, order):
    async with rehearsal.provider.hold(lambda call: call.path == "/refunds"):
        return await rehearsal.cancel(buyer, order)


async def crash(rehearsal, buyer, order):
    """The process is killed while it waits for the provider, who does the work."""
    async with rehearsal.provider.hold(lambda call: call.path == "/refunds") as held:
        path = f"/orders/{order}/cancellation"
        request = rehearsal.apps[0].start_request("POST", path, headers=buyer.headers)
        await held.arrived(timeout=TIMEOUT)
        await rehearsal.apps[0].process.kill()
        await asyncio.gather(request.task, return_exceptions=True)
    rehearsal.timeline.note("the process was killed while it waited for the provider")


async def unknown(rehearsal, buyer, order):
    """The order is cancelled, and the response to that COMMIT is lost; None if the app does not find out."""
    async with rehearsal.wire.lost_response(committing, limit=1):
        first = await rehearsal.cancel(buyer, order)
    return first if first.ok else None


FIRST = {
    "the provider responds": lambda rehearsal, buyer, order: rehearsal.cancel(buyer, order),
    "the response is lost": lost,
    "the provider fails": failing,
    "no response": silent,
    "a COMMIT is lost": unknown,
    "a crash": crash,
}
"""How an order is cancelled the first time. After the last one, a process is gone."""
