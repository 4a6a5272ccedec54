"""Lesson 09: mail that is sent in the background. Here: workers that have nothing wrong with them."""

import asyncio
from asyncio import gather
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from time import perf_counter

import pytest

from checks.kit.report import expect
from checks.kit.testbed.outside_service import NeverCalled
from checks.lesson_09.buyer import NO_MAIL, TWICE, WAYS, calls_about, key_of, order_of
from checks.lesson_09.kills import nth_commit
from checks.lesson_09.workers import FOR_NOTHING, LATE, SILENCE, START, TRIES, accepted, sent_by

HEARD = "A notification is heard once or not at all"
CLAIMED = "Two workers and one row"
MANY = 13
"""Orders that wait at the same time; more than a worker may have at hand, which is AT_HAND."""
AT_HAND = 10
ENDS = ("COMMIT", "ROLLBACK", "END")
AGAIN = "POST /checkout/{order_id}"
LEASE = 4.0
"""Seconds of a claim, where each call takes a little more than half as long."""


async def test_mail_that_came_while_no_worker_ran_is_sent(app, buyer, gateway, wire, workers):
    """A worker sends at once the mail of all orders that were placed before it started, or while it was starting."""
    orders = [(await buyer.buy(app)).order_id for _ in range(MANY)]
    async with wire.hold(lambda one: one.process.startswith("worker") and one.verb == "LISTEN", limit=1) as listens:
        starting = asyncio.ensure_future(workers.start())
        await listens.count_within(1, START)
        late = (await buyer.buy(app)).order_id
    began = perf_counter()
    worker = await starting
    await workers.send(gateway, *orders)
    await workers.call(gateway, lambda: late in accepted(gateway), LATE)
    gaps = [longest_gap(gateway, orders, began)]
    found = {order_of(call) for call in gateway.calls}
    missing = len(set(orders) - found)
    expect(
        not missing,
        f"{MANY} orders were placed, then a worker was started. It sent no mail for {missing} of them.",
        because="Each deploy and each crash of the worker loses the mail of the orders that are placed meanwhile. "
        + NO_MAIL,
        section=HEARD,
    )
    expect(
        late in found,
        "A worker was about to send its LISTEN when an order was placed. It sent the other mail, had nothing to do, "
        f"and did not send the mail of this order within {LATE} s.",
        because=NO_MAIL,
        section=HEARD,
    )
    while gaps[-1] > LATE and len(gaps) < TRIES:  # a machine may be busy
        await worker.kill()
        orders = [(await buyer.buy(app)).order_id for _ in range(MANY)]
        began = perf_counter()
        worker = await workers.start()
        await workers.send(gateway, *orders)
        gaps.append(longest_gap(gateway, orders, began))
    expect(
        gaps[-1] <= LATE,
        f"{MANY} orders were placed, then a worker was started, {len(gaps)} times. Before one of the calls it sent "
        f"nothing for {', '.join(f'{seconds:.1f}' for seconds in gaps)} s. Expected: at most {LATE} s.",
        because="After each deploy, mail waits although the worker has nothing else to do.",
        section=HEARD,
    )


@pytest.mark.start_early
async def test_an_idle_worker_is_woken_and_does_not_poll(app, buyer, gateway, provider, shop, wire, workers):
    """A worker with nothing to do is woken by PostgreSQL; by itself it looks at most once in five seconds."""
    worker = await workers.start(MAIL_TIMEOUT_SECONDS="60")
    async with gateway.hold() as held:
        await buyer.buy(app)
        with suppress(NeverCalled):
            await held.arrived()
        idle = await workers.start()
        often = await workers.looks_again()
    await idle.kill()
    expect(
        not often,
        "A worker waited for the gateway's response, and another one had nothing to do. One of them sent the same "
        f"statement {often} times, less than five seconds apart.",
        because="Each worker that polls keeps the database busy all night. One that polls less often sends later.",
        section=HEARD,
    )
    for way in (*WAYS, AGAIN):
        waited = []
        for _ in range(TRIES):  # a machine may be busy
            await workers.settled()
            waited.append(await seconds_to_call(app, buyer, gateway, provider, way))
            if waited[-1] <= LATE:
                break
        expect(
            waited[-1] <= LATE,
            f"{way}: an order was placed while the worker had nothing to do, {len(waited)} times. Its mail was sent "
            f"after {', '.join(f'{seconds:.1f}' for seconds in waited)} s, or not at all. Expected: within {LATE} s.",
            because="A worker that only looks from time to time sends each mail late.",
            section=HEARD,
        )
    await workers.settled()
    before = len(workers.done)
    await shop.execute(FOR_NOTHING, step="the worker was woken for nothing")
    await workers.until(lambda: len(workers.done) > before, 2)
    await workers.settled()
    if ends := sum(one.verb in ENDS for one in workers.done[before:]):
        async with wire.hold(nth_end(worker.name, ends)) as last:
            await shop.execute(FOR_NOTHING, step="the worker was woken for nothing")
            await last.count_within(1, 2)
            order = (await buyer.buy(app)).order_id
        expect(
            await workers.get_on(gateway, lambda: order in accepted(gateway)),
            "The worker was woken, and found no mail. Before it waited again, an order was placed. The mail of this "
            "order was not sent.",
            because=NO_MAIL,
            section=HEARD,
        )


async def test_two_workers_send_each_mail_once(app, buyer, gateway, wire, workers):
    """Workers send each mail once; one that starts does not touch what another one is sending."""
    names = [one.name for one in await gather(*(workers.start(MAIL_TIMEOUT_SECONDS="60") for _ in range(2)))]
    async with wire.hold(first_change(names[0])) as one, wire.hold(first_change(names[1])) as other:
        orders = [(await buyer.buy(app)).order_id for _ in range(3)]
        await one.count_within(1)
        await other.count_within(1, 1)  # the other one may have to wait for the first
    await workers.send(gateway, *orders)
    async with wire.hold(nth_commit(names[0], 1)) as claims:
        async with wire.hold(sent_by(names[1])):
            orders += [(await buyer.buy(app)).order_id for _ in range(2)]
            await claims.count_within(1)
        # the other one looks while the claim of the first is not stored yet
        await workers.call(gateway, lambda: len(accepted(gateway)) == len(orders) - 1, 1)
    orders += [(await buyer.buy(app)).order_id for _ in range(MANY)]
    await workers.send(gateway, *orders)
    async with gateway.hold() as held:
        orders.append((await buyer.buy(app)).order_id)
        await held.arrived()
        await workers.start()  # while another one is sending a mail
    await workers.send(gateway, *orders)
    found = Counter(order_of(call) for call in gateway.calls)
    twice = sum(count > 1 for count in found.values())
    expect(
        not twice,
        f"Two workers ran, a third one was started, and {len(orders)} orders were placed. {twice} of them got more "
        f"than one mail, in {len(gateway.calls)} calls with {len(set(map(key_of, gateway.calls)))} different keys.",
        because=TWICE,
        section=CLAIMED,
    )
    expect(
        set(found) == set(orders),
        f"Two workers ran, a third one was started, and {len(orders)} orders were placed. "
        f"{len(set(orders) - set(found))} of them got no mail.",
        because=NO_MAIL,
        section=CLAIMED,
    )


@pytest.mark.needs("test_a_sale_does_not_wait_for_the_gateway")
async def test_workers_share_the_mail(another_gateway, app, buyer, gateway, shop, workers):
    """While one worker waits for the gateway, with at most ten mails, another one sends the rest."""
    # an address of its own tells which of them calls
    addresses = ({}, {"MAIL_URL": another_gateway.url})
    running = await gather(*(workers.start(MAIL_TIMEOUT_SECONDS="60", **address) for address in addresses))
    services = {gateway, another_gateway}
    async with gateway.hold() as one, another_gateway.hold() as other:
        held = {gateway: one, another_gateway: other}
        orders = [(await buyer.buy(app)).order_id]
        await called(services, lambda: any(service.calls for service in services))
        busy = gateway if gateway.calls else another_gateway
        orders.append((await buyer.buy(app)).order_id)
        await called(services, lambda: all(service.calls for service in services), 2)  # unless one took both
        orders += [(await buyer.buy(app)).order_id for _ in range(2 * AT_HAND)]  # more than two workers may have
        await workers.settled()
        at_hand = max(len(service.calls) for service in services)
        expect(
            at_hand <= AT_HAND,
            f"{len(orders)} mails were to be sent, and the gateway did not respond. A worker began {at_hand} of them. "
            f"Expected: at most {AT_HAND}.",
            because="A worker that begins everything leaves nothing to the others, and a deploy interrupts all of it.",
            section=CLAIMED,
        )
        begun = {service: len(service.calls) for service in services}
        held[busy].release_one()
        await called(services, lambda: any(len(service.calls) > begun[service] for service in services), 2)
        for service in services:
            if len(service.calls) > begun[service]:
                busy = service  # whoever calls now has seen all that waits
        [free] = services - {busy}
        held[free].release()
        rest = len(orders) - AT_HAND - 1
        await workers.get_on(free, lambda: len(accepted(free)) >= rest, 15)
        served = len(accepted(free))
        expect(
            served >= rest,
            f"{len(orders)} mails were to be sent, and a worker waited for the gateway's response. Meanwhile the other "
            f"one sent {served} of them. Expected: at least {rest}.",
            because="One slow response of the gateway stops all mail, however many workers run.",
            section=CLAIMED,
        )

        def waiting():
            return set(orders) - {order_of(call) for service in services for call in service.calls}

        await called(services, lambda: not waiting(), 2)
        claimed = waiting()
    if claimed:  # it has claimed more than it has begun
        for worker in running:
            await worker.kill()
        await expect_claims_until_their_turn(another_gateway, app, buyer, gateway, shop, workers)


async def expect_claims_until_their_turn(another_gateway, app, buyer, gateway, shop, workers):
    """A mail that a worker has claimed and not begun is not sent twice when the worker's turn comes late."""
    settings = {"MAIL_LEASE_SECONDS": f"{LEASE}", "MAIL_TIMEOUT_SECONDS": f"{0.75 * LEASE}"}
    orders = [(await buyer.buy(app)).order_id for _ in range(AT_HAND)]
    async with gateway.hold() as held:
        first = await workers.begin(**settings)
        with suppress(NeverCalled):
            await held.arrived()
        await workers.begin(**settings, MAIL_URL=another_gateway.url)
        await asyncio.wait({first.exit}, timeout=0.6 * LEASE)
        held.release_one()
        with suppress(NeverCalled):
            await held.arrived(2, timeout=2)
        await asyncio.wait({first.exit}, timeout=0.5 * LEASE)  # the claims have ended, unless they were renewed
        await shop.execute(FOR_NOTHING, step="both workers were woken")
        await workers.settled()
    await workers.get_on(gateway, lambda: set(orders) <= accepted(gateway) | accepted(another_gateway))
    await workers.settled()
    twice = sum(len(calls_about(gateway, order) + calls_about(another_gateway, order)) > 1 for order in orders)
    expect(
        not twice,
        f"A worker claimed several mails at a time, with a lease of {LEASE:.0f} s. Each call took less. Another "
        f"worker ran, and {twice} of {len(orders)} mails were sent more than once.",
        because=TWICE,
        section=CLAIMED,
    )


def longest_gap(gateway, orders, began):
    """The most seconds that went by from `began` to the first call about these orders, or from one to the next."""
    now = perf_counter()  # for an order whose mail has not come
    arrived = [min((call.arrived for call in calls_about(gateway, order)), default=now) for order in orders]
    return max(later - earlier for earlier, later in pairwise([began, *sorted(arrived)]))


async def seconds_to_call(app, buyer, gateway, provider, way):
    """Seconds until the gateway has got the mail of an order that is placed in this way, or until it counts as lost."""
    if way == AGAIN:
        provider.respond_next(status=500)
        order = (await buyer.ask(app, "POST /checkout"))["id"]
        began = perf_counter()
        await app.post(f"/checkout/{order}", headers=buyer.headers)
    else:
        began = perf_counter()
        order = (await buyer.buy(app, way)).order_id
    with suppress(TimeoutError, NeverCalled):
        async with asyncio.timeout(SILENCE):
            await gateway.received(1, lambda call: order_of(call) == order)
    return perf_counter() - began


async def called(services, holds, seconds=10):
    """Returns when `holds()` is true, which is looked at after each call that arrives, or after so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not holds():
                waits = [asyncio.ensure_future(service.received(len(service.calls) + 1)) for service in services]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for wait in waits:
                        wait.cancel()
                    await asyncio.gather(*waits, return_exceptions=True)


def nth_end(process, number):
    """For `wire.hold`: the statement with which this process ends its n-th transaction from now on."""
    seen = []

    def matches(statement):
        if statement.process == process and statement.verb in ENDS:
            seen.append(statement)
        return len(seen) == number and seen[-1] is statement

    return matches


def first_change(process):
    """For `wire.hold`: the first statement of this process that changes something."""
    seen = []

    def matches(statement):
        if statement.process == process and statement.changes:
            seen.append(statement)
        return statement.process == process and seen == [statement]

    return matches
