"""Lesson 19: orders and stock."""

import asyncio
from collections import Counter

import pytest

from checks.kit.report import expect
from checks.kit.testbed.invariants import read_ledger
from checks.kit.testbed.outside_service import Answer
from checks.kit.wire import committing
from checks.lesson_17.waiting import until
from checks.lesson_19.timeline import is_refused
from checks.lesson_19.traffic import TIMEOUT, patiently

COPIES = 10
KEYS = 3
MAILS = "SELECT count(*) FROM outbox WHERE order_id = $1"
STOCK = "SELECT stock FROM books WHERE id = $1"
TWICE = "The shop believes that it has books that are not there, and sells them."


@pytest.mark.start_early
async def test_an_order_is_cancelled_once(rehearsal):
    """However often an order is cancelled, its books are back in stock once, and one mail is written."""
    apps = await rehearsal.open()
    buyer = rehearsal.world.buyers[0]
    book, other = buyer.owner.ids.books[:2]
    before = {one: await rehearsal.shop.value(STOCK, one) for one in (book, other)}
    for paid in (False, False, True):  # on a machine that does much else, one of them may not meet the other
        order = await (rehearsal.pay if paid else rehearsal.order)(buyer, 0, 0, 1)
        at_once = await cancelled_at_once(rehearsal, buyer, order)
        rehearsal.timeline.note(f"two processes cancel order {order} at once: status {', '.join(map(status, at_once))}")
        later = await rehearsal.cancel(buyer, order, apps[1])
        responses = [*at_once, later]
        wrong = [one for one in responses if not (one.ok or one.status in (409, 503))]
        expect(
            not wrong and any(one.ok for one in responses),
            f"The same order was cancelled three times, twice at the same moment. {(wrong or responses)[0]}. "
            "Expected: a success each time, or status 409 after the first one.",
            because="The customer does not know whether the order is cancelled.",
            section="Orders and stock",
        )
        after = {one: await rehearsal.shop.value(STOCK, one) for one in (book, other)}
        mails = await rehearsal.shop.value(MAILS, order) - 1  # the other one is the confirmation
        expect(
            after == before and await rehearsal.status(order) == "cancelled" and mails == 1,
            f"Before an order of three copies, the stock of its books was {before}. The order was cancelled three "
            f"times, twice at the same moment. Then the stock is {after}, the order is "
            f"{await rehearsal.status(order)}, and there are {mails} mails about the cancellation. "
            "Expected: the stock as before, a cancelled order, and one mail.",
            because=TWICE,
            section="Orders and stock",
        )
    await cancelled_while_bought(rehearsal, *rehearsal.world.buyers[0:3:2])
    await rehearsal.expect_it_adds_up("Orders and stock")


async def cancelled_at_once(rehearsal, buyer, order):
    """The responses to two cancellations. The second one is sent while the first one is about to COMMIT."""
    path, options = f"/orders/{order}/cancellation", {"headers": buyer.headers, "timeout": TIMEOUT}
    async with rehearsal.wire.hold(committing, limit=1) as commit:
        first, second = rehearsal.apps[0].start_request("POST", path, **options), None
        if await commit.wait_for_or(first.task):
            second = rehearsal.apps[1].start_request("POST", path, **options)
            await until(second.task.done, or_waits_in=rehearsal.shop)
            early = await second if second.task.done() else None
            expect(
                early is None or not early.ok or await rehearsal.status(order) == "cancelled",
                f"The COMMIT of a cancellation was still on its way. A second one: {early}. Expected: no success yet, "
                f"because the order is {await rehearsal.status(order)}.",
                because="If the first one fails now, the customer believes in a cancellation that is not stored.",
                section="Orders and stock",
            )
    second = second or rehearsal.apps[1].start_request("POST", path, **options)
    return [await first, await second]


async def cancelled_while_bought(rehearsal, buyer, other):
    """Somebody buys the books of an order while its cancellation is about to change their stock."""
    a, b = rehearsal.apps
    order = await rehearsal.order(buyer, 0, 1)
    buying = None
    async with rehearsal.wire.hold(changes_a_book, limit=1) as change:
        path, options = f"/orders/{order}/cancellation", {"headers": buyer.headers, "timeout": TIMEOUT}
        cancelling = a.start_request("POST", path, **options)
        if await change.wait_for_or(cancelling.task):
            basket = {"json": other.basket(0, 1), "headers": other.headers, "timeout": TIMEOUT}
            buying = b.start_request("POST", "/orders", **basket)
            await until(buying.task.done, or_waits_in=rehearsal.shop)
    statuses = [(await one).status for one in (cancelling, buying) if one is not None]
    rehearsal.timeline.note(f"order {order} is cancelled while somebody buys its books: status {statuses}")


def changes_a_book(statement):
    return statement.verb == "UPDATE" and "books" in statement.text


def status(response):
    return str(response.status)


async def test_an_unknown_commit_is_not_repeated(rehearsal):
    """If the app cannot know whether a COMMIT succeeded, it neither repeats the transaction nor confirms it."""
    [app, _] = await rehearsal.open()
    buyer = rehearsal.world.buyers[0]
    friend = {"email": "friend@example.com", "name": "Friend"}
    transfer = {"recipient_id": rehearsal.world.of(buyer.owner)[1].customer, "cents": 1}
    counts = {"orders": "customer_id = $1", "gifts": "$1 > 0", "transfers": "sender_id = $1", "outbox": "$1 > 0"}
    for how, (send, least) in LOST.items():
        order = await rehearsal.order(buyer, 0)
        requests = {
            "/orders": (buyer.basket(0, 1), "orders"),
            "/gifts": (buyer.basket(2) | {"recipient": friend, "message": "For you"}, "gifts"),
            "/transfers": (transfer, "transfers"),
            f"/orders/{order}/cancellation": (None, "outbox"),
        }
        for path, (body, table) in requests.items():
            stored = await rehearsal.shop.count(table, counts[table], buyer.customer)
            response = await send(rehearsal.wire, app, "POST", path, {"json": body, "headers": buyer.headers})
            more = await rehearsal.shop.count(table, counts[table], buyer.customer) - stored
            invited = "retry-after" in response.headers
            rehearsal.timeline.note(f"POST {path}, {how}: {response.status}, {more} stored")
            expect(
                (more == 1 and response.ok) or (least <= more <= 1 and response.status == 503 and not invited),
                f"{path}: {how}. {response} Retry-After: {response.headers.get('retry-after')}. Stored in {table}: "
                f"{more}. Expected: stored once, and a success if the app knows it, or status 503 without Retry-After.",
                because="The customer buys twice, or has a confirmation of something that is not stored.",
                section="Orders and stock",
            )
        again = await rehearsal.cancel(buyer, order)
        rehearsal.timeline.note(f"the cancellation is sent again: status {again.status}")
    await rehearsal.expect_it_adds_up("Orders and stock")


async def loses_the_response(wire, app, method, path, options):
    """The COMMIT is executed, and its response is lost with the connection."""
    async with wire.lost_response(committing, limit=1):
        return await app.request(method, path, **options, timeout=TIMEOUT)


async def loses_the_commit(wire, app, method, path, options):
    """The connection breaks before PostgreSQL gets the COMMIT."""
    async with wire.hold(committing, limit=1) as commit:
        request = app.start_request(method, path, **options, timeout=TIMEOUT)
        if await commit.wait_for_or(request.task):
            await wire.cut()
        return await request


LOST = {
    "the response to its COMMIT is lost": (loses_the_response, 1),
    "its COMMIT is lost": (loses_the_commit, 0),
}
"""How a COMMIT becomes unknown, and how many rows are stored at least."""


@pytest.mark.start_early
async def test_the_sale_adds_up(rehearsal):
    """After a rush for the last copies, with refused cards and cancellations, copies, credit and money add up."""
    apps, buyers = await rehearsal.open(), rehearsal.world.of(rehearsal.world.a)
    book = rehearsal.world.a.book
    await rehearsal.shop.execute("UPDATE books SET stock = $2 WHERE id = $1", book, COPIES)
    rehearsal.before = await read_ledger(rehearsal.shop)
    last = await rehearsal.shop.value("SELECT max(id) FROM orders")
    rehearsal.provider.respond(charge_or_refuse(rehearsal.provider))
    rush = [purchases(apps[n % 2], buyer) for n, buyer in enumerate(buyers)]
    results = [one for some in await asyncio.gather(*rush) for one in some]
    statuses = Counter(one.status for one in results)
    rehearsal.timeline.note(f"a rush for {COPIES} copies: {told(statuses)}")
    wrong = [one for one in results if one.status not in (200, 201, 202, 402, 409) and not is_refused(one)]
    expect(
        not wrong,
        f"In a rush for the last {COPIES} copies of a book: {(wrong or [''])[0]}. Expected: a success, status "
        "402 or 409, or status 503 with Retry-After.",
        because="The customer does not know whether the book was bought.",
        section="Orders and stock",
    )
    placed = [one for one in results if one.status in (200, 201, 202) and one.request.endswith("/orders")]
    ids = Counter(one["id"] for one in placed)
    others = [one for one in placed if one["customer_id"] not in {buyer.customer for buyer in buyers}]
    most = max(ids.values(), default=0)
    expect(
        placed and most == 1 and not others,
        f"Each of {len(buyers)} customers sent {KEYS} orders, with the keys 0 to {KEYS - 1}. "
        f"{len(placed)} orders were confirmed, and one of them {most} times. Expected: each one once, for its own "
        "customer.",
        because="Two customers have the same order, and one of them paid for it.",
        section="Orders and stock",
    )
    await settle(rehearsal, apps)
    await rehearsal.expect_it_adds_up("Orders and stock")
    left = await rehearsal.shop.value(STOCK, book)
    sold = await rehearsal.shop.value(
        "SELECT coalesce(sum(quantity), 0)::int FROM order_lines l JOIN orders o ON o.id = l.order_id "
        "WHERE book_id = $1 AND o.status <> 'cancelled' AND o.id > $2",
        *(book, last),
    )
    expect(
        left + sold == COPIES,
        f"There were {COPIES} copies. {sold} are sold, and {left} are in stock.",
        because=TWICE,
        section="Orders and stock",
    )


def charge_or_refuse(provider):
    """Each third card is refused, each fifth call is lost after the provider has done its work."""
    known = {}

    def answer(call):
        key = call.headers.get("idempotency-key", "")
        number = len(known)
        if key not in known:
            known[key] = 402 if call.path == "/charges" and number % 3 == 2 else 201
            return Answer(known[key], {"id": key}, breaks="request" if number % 5 == 4 else "")
        return Answer(known[key], {"id": key})

    return answer


async def purchases(app, buyer):
    """What a customer buys, one purchase after the other: what came back."""
    return [one for key in range(KEYS) for one in await purchase(app, buyer, key)]


async def purchase(app, buyer, key):
    """An order, a payment, and the cancellation of one of them: what came back."""
    headers = buyer.headers | {"Idempotency-Key": str(key)}
    placed = await patiently(app, "POST", "/orders", json=buyer.basket(0), headers=headers)
    paid = await patiently(app, "POST", "/checkout", json=buyer.card(0), headers=buyer.headers)
    results = [placed, paid]
    for response in (placed, paid)[key % 2 : key % 2 + 1]:
        if response.status in (200, 201, 402):  # 402: it is cancelled already, and its books are back
            path = f"/orders/{response['id']}/cancellation"
            results.append(await patiently(app, "POST", path, headers=buyer.headers))
    return results


async def settle(rehearsal, apps):
    """Asks again about all that nobody knows: payments, and refunds."""
    pending = "SELECT o.id, o.customer_id FROM payments p JOIN orders o ON o.id = p.order_id WHERE p.status = 'pending'"
    refunds = (
        "SELECT r.order_id AS id, o.customer_id FROM refunds r JOIN orders o ON o.id = r.order_id WHERE done_at IS NULL"
    )
    by_customer = {buyer.customer: buyer for buyer in rehearsal.world.buyers}
    for path, query in (("/checkout/{}", pending), ("/orders/{}/cancellation", refunds)):
        for row in await rehearsal.shop.rows(query):
            headers = by_customer[row["customer_id"]].headers
            response = await patiently(apps[0], "POST", path.format(row["id"]), headers=headers)
            rehearsal.timeline.note(f"{response.request}, once more: status {response.status}")


def told(statuses):
    return ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))
