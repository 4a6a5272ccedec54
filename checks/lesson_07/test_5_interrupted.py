"""Lesson 07: what belongs to one transaction. Here: two tries at once, and what fails during a call."""

import asyncio
from contextlib import asynccontextmanager

from checks.kit.report import expect
from checks.kit.testbed.invariants import read_ledger
from checks.kit.testbed.waiting import served_meanwhile, wait_quiescent
from checks.kit.wire import committing
from checks.kit.wire.faults import SENTENCES
from checks.lesson_07.orders import (
    LONG,
    NOT_CALLED,
    NOT_FOUND,
    after,
    checkout_of,
    expect_order,
    expect_sums,
    first_of,
    key_of,
    login,
    moved,
    order_in_database,
    order_of,
    reason,
    until_blocked,
)

UNKNOWN = "No response is an outcome, too"
KEY = "One key for all tries"

PAID = "The customer has paid, and must see that the order is paid."
COPIES = (
    "The books of one order come back twice, or not at all. The shop sells copies that it does not have, or cannot "
    "sell those that it has."
)
TWICE = "To the provider a new key is a new purchase. The customer pays twice for one order."
AWAY = (
    (201, "nothing_listens", "starting_up"),
    (201, "too_many_connections", "reset"),
    (503, "reset", "nothing_listens"),
    (201, "starting_up", "too_many_connections"),
)
"""What the provider returns, and how the database is away when it does: during the first call and a second try."""
SHIP_IF_FREE = """
    UPDATE orders SET status = 'shipped'
     WHERE id = (SELECT id FROM orders WHERE id = $1 AND status = 'paid' FOR UPDATE SKIP LOCKED)
"""
"""Ships an order if it is paid, unless a transaction under way has locked its row."""
START_AGAIN = (
    "The card is charged. A response that invites the client to try again makes a second order, and a second charge."
)


async def test_an_outcome_is_settled_once(apps, shop, wire, provider):
    """An outcome is settled once, even if two tries learn it at the same time, or one of them much later."""
    ids = await shop.seed(books=2, customers=2)
    first, second = ids.books
    customer, other = ids.customers
    copies = await read_ledger(shop)
    provider.respond(status=500)
    pending = await apps[0].post("/checkout", json=checkout_of((first, 3), (second, 1)), headers=login(customer))
    expect(
        pending.status == 202,
        f"{after(provider.calls, 'The provider returned 500')}: {pending}. Expected: 202.",
        because=reason(provider.calls, NOT_FOUND),
        section=UNKNOWN,
    )
    provider.respond(status=402)
    path = f"/checkout/{pending['id']}"
    async with provider.hold() as held:
        requests = apps.start_requests([("POST", path, {"headers": login(customer)})] * 2)
        for n, request in enumerate(requests, 1):
            await first_of(held.arrived(n), request)
        await served_meanwhile(apps[0], "POST", "/orders", json=order_of((first, 5)), headers=login(other))
        async with wire.hold(lambda statement: statement.changes) as writes:
            held.release()
            await until_blocked(shop, [request.task for request in requests], writes, count=2)
    responses = await asyncio.gather(*requests)
    now = await read_ledger(shop)
    expect(
        not moved(copies, now),
        f"Two processes asked about one payment. Meanwhile somebody else bought 5 copies of book {first}. Then both "
        f"processes learned that the card is refused: {[response.status for response in responses]}. Copies in "
        f"stock and in orders: {moved(copies, now)}.",
        because=COPIES,
        section=KEY,
    )
    order = await order_in_database(shop, customer) or {}
    statuses = sorted(response.status for response in responses)
    expect(
        statuses in ([402, 402], [202, 402]) and order.get("status") == "cancelled",
        f"Two processes asked about one payment, and the card is refused: {statuses}. Stored: {order}. "
        "Expected: 402 twice, or 402 and 202, and an order that is cancelled.",
        because="The client must learn that the card was refused.",
        section=KEY,
    )
    body = checkout_of((first, 2))
    await expect_settled_meanwhile(apps, shop, wire, provider, customer, body, 201)
    await expect_settled_meanwhile(apps, shop, wire, provider, customer, body, 201, first_call=True)
    await expect_settled_meanwhile(apps, shop, wire, provider, customer, body, 402, first_call=True)
    now = await read_ledger(shop)
    expect(
        not moved(copies, now),
        "The first call and a second try, in two processes, learned at the same moment that the card is refused. "
        f"Copies in stock and in orders: {moved(copies, now)}.",
        because=COPIES,
        section=KEY,
    )
    await expect_refused_once(apps, shop, wire, provider, customer, body)
    now = await read_ledger(shop)
    expect(
        not moved(copies, now),
        "The provider refused, and the response to the COMMIT of the outcome was lost. Then the order was tried "
        f"again. Copies in stock and in orders: {moved(copies, now)}.",
        because=COPIES,
        section=KEY,
    )
    for late, outcome in ((402, 402), (500, 402), (201, 201), (500, 201)):
        await expect_settled_by_the_second(apps, shop, provider, customer, body, (late, outcome))
        now = await read_ledger(shop)
        expect(
            not moved(copies, now),
            f"A second try learned {outcome} from the provider and stored it, while the first call was under way. Then "
            f"the first call returned {late}. Copies in stock and in orders: {moved(copies, now)}.",
            because=COPIES,
            section=KEY,
        )
    await expect_sums(shop, copies)


async def test_a_charge_is_never_lost(launch, shop, wire, provider):
    """If database, client or process fail during the call, the order is found, and a second try settles it."""
    app = await launch()
    ids = await shop.seed(books=1, customers=1)
    [book], [customer] = ids.books, ids.customers
    copies = await read_ledger(shop)
    checkout = ("/checkout", checkout_of((book, 1)))
    provider.respond(status=201, json={"id": "ch_1"})

    for does, away, away_again in AWAY:
        provider.respond(status=does, json={"id": "ch_1"})
        said = "accepted" if does == 201 else f"returned {does}"
        async with calling(app, provider, customer, *checkout) as (request, held), wire.outage(away):
            held.release()
            response = await request
        await expect_unknown(shop, customer, response, f"The provider {said}, and {SENTENCES[away]}")
        again = f"/checkout/{response['id']}"
        async with calling(app, provider, customer, again) as (request, held), wire.outage(away_again):
            held.release()
            response = await request
        await expect_unknown(shop, customer, response, f"A second try: it {said}, and {SENTENCES[away_again]}")
        provider.respond(status=201, json={"id": "ch_1"})
        await expect_settled(app, shop, provider, customer, "the database could not be reached")

    for moment, name in ((lambda statement: statement.changes, "a change"), (committing, "the COMMIT")):
        cut = f"The connection was cut while {name} of the outcome was on its way"
        async with calling(app, provider, customer, *checkout) as (request, held):
            response = await cut_at(wire, request, held, moment)
        await expect_unknown(shop, customer, response, cut, 201)
        again = f"/checkout/{response['id']}"
        async with calling(app, provider, customer, again) as (request, held):
            response = await cut_at(wire, request, held, moment)
        await expect_unknown(shop, customer, response, f"At a second try: {cut}", 200)
    async with (
        calling(app, provider, customer, again) as (request, held),
        wire.lost_response(committing, limit=1),
    ):
        held.release()
        response = await request
    await wait_quiescent(app, wire)
    await expect_unknown(shop, customer, response, "At a second try, the response to its last COMMIT was lost", 200)
    await expect_settled(app, shop, provider, customer, "the connection was cut")

    async with (
        calling(app, provider, customer, *checkout) as (request, held),
        wire.lost_response(committing, limit=1),
    ):
        held.release()
        response = await request
    await wait_quiescent(app, wire)
    await expect_unknown(shop, customer, response, "The response to the COMMIT of the outcome was lost", 201)
    await expect_settled(app, shop, provider, customer, "the response to a COMMIT was lost")

    async with calling(app, provider, customer, *checkout) as (request, _):
        await request.disconnect()
        await served_meanwhile(app, "GET", "/health")  # the app has seen by now that the client has left
    await wait_quiescent(app, wire)
    await expect_settled(app, shop, provider, customer, "the client hung up")
    again = await pending_order(app, provider, customer, checkout[1])
    provider.respond(status=201, json={"id": "ch_1"})
    async with calling(app, provider, customer, again) as (request, _):
        await request.disconnect()
        await served_meanwhile(app, "GET", "/health")
    await wait_quiescent(app, wire)
    await expect_settled(app, shop, provider, customer, "the client of a second try hung up")

    async with calling(app, provider, customer, *checkout):
        app.process.kill()
        await app.stop()
    app = await launch()
    await expect_settled(app, shop, provider, customer, "the process was killed")
    await expect_sums(shop, copies, provider)


async def pending_order(app, provider, customer, body):
    """Sends a checkout without an outcome, and returns the path for a second try."""
    provider.respond(status=500)
    response = await app.post("/checkout", json=body, headers=login(customer))
    return f"/checkout/{response['id']}"


async def expect_settled_meanwhile(apps, shop, wire, provider, customer, body, outcome, *, first_call=False):
    """Two calls about one payment return `outcome`. One is stored while the other process is about to write.

    The slower one is that of a second try or, with `first_call`, that of POST /checkout itself. Its changes are held
    until the other one's are stored, and until the order is shipped, if it is paid. It has read by then.
    """
    slow_options = {"json": body} if first_call else {}
    slow_path = "/checkout" if first_call else await pending_order(apps[1], provider, customer, body)
    provider.respond(status=outcome, json={"id": "ch_1"})
    async with provider.hold(limit=1) as slow_call, provider.hold() as fast_call:
        slow = apps[1].start_request("POST", slow_path, headers=login(customer), timeout=LONG, **slow_options)
        await first_of(slow_call.arrived(), slow)
        order = await order_in_database(shop, customer) or {}
        fast = apps[0].start_request("POST", f"/checkout/{order.get('id')}", headers=login(customer), timeout=LONG)
        await first_of(fast_call.arrived(), fast)
        async with wire.hold(changes_of(apps[0])) as fast_writes, wire.hold(changes_of(apps[1])) as slow_writes:
            fast_call.release()
            await fast_writes.wait_for_or(fast.task)
            slow_call.release()
            await until_blocked(shop, [slow.task], slow_writes)
            fast_writes.release()
            await fast
            await slow_writes.wait_for_or(slow.task)
            await shop.execute(SHIP_IF_FREE, order.get("id"), step="the order is shipped, if it is paid")
            before = await order_in_database(shop, customer) or {}
    statuses = [(await fast).status, (await slow).status]
    order = await order_in_database(shop, customer) or {}
    done, becomes = {201: (200, ("shipped", "paid")), 402: (402, ("cancelled",))}[outcome]
    wanted = before["status"] if before.get("status") in becomes else becomes[-1]
    expect(
        done in statuses
        and {*statuses} <= {done, 202, outcome if first_call else done}
        and (order.get("status"), order.get("payment")) == (wanted, "accepted" if outcome == 201 else "refused"),
        f"A second try and {'the first call' if first_call else 'another one'}, in two processes, both got {outcome} "
        f"from the provider. One stored it, and the order was {wanted} before the other one could store anything: "
        f"{statuses}. Stored in the end: {order}. Expected: {done}, then 202 or the outcome, and an order that is "
        f"{wanted}.",
        because="An order that changes after its outcome is stored is sent twice, or is paid and not sent.",
        section=KEY,
    )


async def expect_refused_once(apps, shop, wire, provider, customer, body):
    """A refusal whose COMMIT gets no response is settled all the same, or by the next try."""
    path = await pending_order(apps[0], provider, customer, body)
    provider.respond(status=402)
    async with wire.lost_response(committing, limit=1):
        lost = await apps[0].post(path, headers=login(customer))
    await wait_quiescent(apps[0], wire)
    again = await apps[1].post(path, headers=login(customer))
    order = await order_in_database(shop, customer) or {}
    expect(
        again.status == 402 and (order.get("status"), order.get("payment")) == ("cancelled", "refused"),
        f"The provider refused, and the response to the COMMIT of the outcome was lost: {lost}. A further try: "
        f"{again}. Stored: {order}. Expected: 402, and an order that is cancelled.",
        because="The client must learn that the card was refused.",
        section=KEY,
    )


def changes_of(app):
    """For `wire.hold`: what this process changes."""
    return lambda statement: statement.changes and statement.process == app.process.name


async def expect_settled_by_the_second(apps, shop, provider, customer, body, answers):
    """A second try learns the outcome while the first call is under way. What the first one learns changes nothing."""
    late, outcome = answers
    status, becomes = (402, "cancelled") if outcome == 402 else (200, "shipped")
    first_may = (late,) if late == 402 else (202, 201 if outcome == 201 else 402)
    provider.respond(status=late, json={"id": "ch_1"})
    async with provider.hold(limit=1) as held:
        request = apps[0].start_request("POST", "/checkout", json=body, headers=login(customer), timeout=LONG)
        await first_of(held.arrived(), request)
        order = await order_in_database(shop, customer) or {}
        provider.respond(status=outcome, json={"id": "ch_1"})
        second = await apps[1].post(f"/checkout/{order.get('id')}", headers=login(customer))
        expect(
            second.status == status,
            f"The provider had not responded to POST /checkout, of {order or 'no order'}. A second try got {outcome} "
            f"from it: {second}. Expected: {status}.",
            because=PAID,
            section=KEY,
        )
        if outcome == 201:
            shipped = "UPDATE orders SET status = 'shipped' WHERE id = $1"
            await shop.execute(shipped, order["id"], step=f"order {order['id']} is shipped")
    first = await request
    stored = await order_in_database(shop, customer) or {}
    payment = "refused" if outcome == 402 else "accepted"
    expect(
        (stored.get("status"), stored.get("payment")) == (becomes, payment) and first.status in first_may,
        f"A second try learned {outcome} from the provider, and the order became {becomes}. Then the first call "
        f"returned {late}: {first}. Stored: {stored}. Expected: {' or '.join(map(str, first_may))}, and {becomes} as "
        "before.",
        because="An order that changes after its outcome is stored is sent twice, or is paid and not sent.",
        section=KEY,
    )


@asynccontextmanager
async def calling(app, provider, customer, path, body=None):
    """A request whose call has arrived at the provider, which responds when it is released, or at the block's end."""
    async with provider.hold() as held:
        options = {} if body is None else {"json": body}
        request = app.start_request("POST", path, headers=login(customer), timeout=LONG, **options)
        await first_of(held.arrived(), request)
        expect(
            held.calls or body is None,  # without a body it is a second try, which may know the outcome
            f"The provider was not called by POST {path}: {request.status}. Expected: a call.",
            because=NOT_CALLED,
            section=UNKNOWN,
        )
        yield request, held


async def cut_at(wire, request, held, moment):
    """Lets the provider respond, and cuts all connections when the first such statement is on its way."""
    async with wire.hold(moment, limit=1) as statements:
        held.release()
        await statements.wait_for_or(request.task)
        await wire.cut()
    return await request


async def expect_unknown(shop, customer, response, happened, *others):
    """The response is 202 and the order, pending; or one of `others` and the order, if it is stored as paid."""
    allowed = " or ".join(map(str, (202, *others)))
    expect(
        response.status in (202, *others),
        f"{happened}: {response}. Expected: {allowed}.",
        because=START_AGAIN,
        section=UNKNOWN,
    )
    stored = await order_in_database(shop, customer) or {}
    expect_order(response, stored, happened)
    if response.status == 202:
        agrees = response["status"] in ("pending", stored["status"])
    else:
        agrees = response["status"] == stored["status"] == "paid"
    expect(
        agrees,
        f"{happened}: {response}. Stored: {stored}. Expected: 202, and an order that is pending"
        f"{f'; or {others[0]}, and an order that is paid, if that is stored' if others else ''}.",
        because="The customer reads that the order is paid, and the shop does not know of it.",
        section=UNKNOWN,
    )


async def expect_settled(app, shop, provider, customer, when):
    """The customer's newest order is found, a second try has the first one's key, and then it is paid."""
    key = key_of(provider.calls[-1]) if provider.calls else ""
    asked = len(provider.calls)
    order = await order_in_database(shop, customer) or {}
    expect(
        order.get("status") in ("pending", "paid"),
        f"{after(provider.calls, 'While the provider charged')}, {when}. Stored: {order or 'no order'}. Expected: an "
        "order that is pending or paid.",
        because=reason(provider.calls, NOT_FOUND),
        section=UNKNOWN,
    )
    found = await app.get(f"/orders/{order['id']}", headers=login(customer))
    again = await app.post(f"/checkout/{order['id']}", headers=login(customer))
    keys = {key_of(call) for call in provider.calls[asked:]}
    expect(
        found.status == 200 and again.status == 200 and again["status"] == "paid" and keys <= {key},
        f"While the provider charged, {when}. Then: {found}; {again}. Keys of the first and the second call: {key!r}; "
        f"{', '.join(map(repr, keys)) or 'none'}. Expected: 200 twice, paid, and the same key.",
        because=PAID if keys <= {key} else TWICE,
        section=KEY,
    )
