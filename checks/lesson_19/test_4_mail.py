"""Lesson 19: mail."""

from collections import Counter

import pytest

from checks.kit.report import expect
from checks.kit.testbed.outside_service import Answer
from checks.lesson_15.mailing import sent
from checks.lesson_17.waiting import until_true

SETTINGS = {"MAIL_RETRY_SECONDS": "0.02", "MAIL_LEASE_SECONDS": "3"}
FAILED = "SELECT order_id FROM outbox WHERE status = 'failed' ORDER BY order_id"
EMAIL = "SELECT email FROM customers WHERE id = $1"
OPEN = "SELECT count(*) FROM outbox WHERE status NOT IN ('sent', 'failed')"
POISON, EMPTY = 3, 5
"""Orders by their numbers: the mail of one always fails, and one has no lines. They are not cancelled."""


@pytest.mark.start_early
@pytest.mark.patient
async def test_each_mail_is_sent(rehearsal):
    """Each order's confirmation and cancellation is sent once, though one mail always fails and a worker is killed."""
    await rehearsal.open()
    buyers, gateway = rehearsal.world.buyers, rehearsal.gateway
    orders = [(buyer, await rehearsal.order(buyer, n)) for n, buyer in enumerate(buyers)]
    to = {order: await rehearsal.shop.value(EMAIL, buyer.customer) for buyer, order in orders}
    for buyer, order in orders[::2]:
        await rehearsal.cancel(buyer, order)
    poisoned, empty = orders[POISON][1], orders[EMPTY][1]
    await rehearsal.shop.execute("DELETE FROM order_lines WHERE order_id = $1", empty)  # there is no invoice of it
    gateway.respond(lambda call: Answer(500 if call["data"]["order_id"] == poisoned else 202, {"id": "m"}))
    expected = {("order_confirmation", order, to[order]) for _, order in orders if order not in (poisoned, empty)}
    expected |= {("order_cancellation", order, to[order]) for _, order in orders[::2]}
    rehearsal.timeline.note(f"{len(orders)} orders, {len(orders[::2])} of them cancelled")
    rehearsal.timeline.note(f"the mail of order {poisoned} fails always, and the invoice of order {empty}")
    async with gateway.hold(limit=1) as held:
        victim = await rehearsal.worker(**SETTINGS)
        await held.arrived(timeout=60)
        await victim.kill()
        rehearsal.timeline.note("the worker was killed while the gateway had its mail")
    workers = [await rehearsal.worker(**SETTINGS) for _ in range(2)]
    while len(accepted(gateway)) < len(expected):
        if not await sent(gateway, workers[0], len(gateway.calls) + 1):  # no more of them come
            break
    await until_true(lambda: settled(rehearsal.shop), 60)  # as the last tries take on a busy machine
    mails = accepted(gateway)
    counts = Counter(mail for mail in mails.values())
    rehearsal.timeline.note(f"the gateway accepted {len(counts)} mails of {len(expected)} under {len(mails)} keys")
    missing, twice = expected - set(counts), [mail for mail, count in counts.items() if count > 1]
    expect(
        not missing and not twice,
        f"The mail of order {poisoned} failed always, and order {empty} has no lines, so it has no invoice. Of the "
        f"other mails, {len(missing)} were not sent: {told(missing)}. Sent under more than one key: {told(twice)}. "
        "The gateway sends one mail for each key.",
        because="A customer does not learn that the order is placed, or cancelled, or learns it twice.",
        section="Mail",
    )
    aside = [row["order_id"] for row in await rehearsal.shop.rows(FAILED)]
    sent_all_the_same = empty in [order for _, order, _ in mails.values()]
    expect(
        aside == [poisoned] + [empty] * (not sent_all_the_same),
        f"The mail about order {poisoned} failed always, and so did the invoice of order {empty}. Set aside as failed: "
        f"mails of the orders {aside}.",
        because="A person looks at what was set aside, and at nothing else.",
        section="Mail",
    )


async def settled(shop):
    return not await shop.value(OPEN)


def accepted(gateway):
    """The mails that the gateway sends: template, order and recipient by key. What a key says first counts."""
    mails = {}
    for call in gateway.calls:
        if call.decided is not None and call.decided.status == 202:
            mail = (call["template"], call["data"]["order_id"], call["to"])
            mails.setdefault(call.headers.get("idempotency-key"), mail)
    return mails


def told(mails):
    return ", ".join(f"{kind} of order {order} to {to}" for kind, order, to in sorted(mails)[:4]) or "none"
