"""Lesson 09: mail that is sent in the background. Here: what goes wrong."""

import asyncio
from asyncio import gather
from contextlib import suppress
from itertools import pairwise
from time import perf_counter

import pytest

from checks.kit.report import expect
from checks.kit.testbed.outside_service import Answer, NeverCalled
from checks.lesson_09.buyer import NO_MAIL, calls_about, expect_same_keys, order_of
from checks.lesson_09.kills import POINTS, killed
from checks.lesson_09.workers import FOR_NOTHING, SILENCE, accepted, sent_by, stretched

KILLED = "What a killed worker leaves behind"
REFUSED = "A mail that cannot be delivered"
ATTEMPTS = 5
WHAT_FAILED = {
    "bad": "status 500, with a body that is not what its Content-Encoding says",
    "slow": "no response at first, then status 500",
    "gone": "a connection that was refused at first, then status 500",
    "broken": "a connection that broke",
}
MAYBE_FINAL = {
    "refused": "status 500, then 302, whose Location is a page that returns 200, then 422",
    "in doubt": "status 503, then 307, whose Location is a page that returns 200, then 429, 409 and 410",
    "unknown": "status 404",
}
"""A mail may be given up at once when the gateway refuses it with a 4xx."""
PAGE = b"<h1>Error</h1>\0\xff"
"""A body that is no text, and that no column of PostgreSQL takes as text."""
REFUSALS = (
    Answer(500),
    Answer(503, headers={"Retry-After": "1"}),
    Answer(500, breaks="request"),
    Answer(429, headers={"Retry-After": "1"}),
    Answer(302),
    Answer(422),
    Answer(500, breaks="half", body=b"not now"),
)
"""What the gateway makes of mail that it does not accept. A second is less than the shop wants to wait."""
RETRY = 6.0
"""Seconds between two attempts, where no second one should come."""
LONG_LEASE = 10
"""Seconds of a lease: more than LOOKS_EVERY."""
LOOKS_EVERY = 5
"""Seconds after the end of a lease in which another worker sends the mail."""
SPARE = 2
"""Seconds that a busy machine may add."""


@pytest.mark.start_early
async def test_a_worker_that_is_killed_loses_no_mail(app, buyer, gateway, shop, wire, workers):
    """At whatever point a worker is killed, another sends its mail after MAIL_LEASE_SECONDS, with the same key."""
    orders = []
    for point in POINTS:
        worker = await workers.start(MAIL_LEASE_SECONDS="1")
        async with killed(point, worker, wire, gateway):
            orders.append((await buyer.buy(app)).order_id)
    short, long = ({"MAIL_LEASE_SECONDS": seconds, "MAIL_RETRY_SECONDS": "0.2"} for seconds in ("2", "3600"))
    first, second, last = await gather(*(workers.start(**settings) for settings in (short, short, long)))
    await workers.send(gateway, *orders)
    missing = len(set(orders) - accepted(gateway))
    expect(
        not missing,
        f"{len(orders)} workers were killed, each at another point of its work, with a lease of 1 s, and others were "
        f"started. {missing} of {len(orders)} mails were not sent.",
        because="Each crash, and each machine that is switched off, loses the mail at hand. " + NO_MAIL,
        section=KILLED,
    )
    gateway.respond_next(status=500)
    async with gateway.hold(limit=2) as held:
        async with wire.hold(sent_by(last.name)):  # it is woken, and finds both mails taken
            async with wire.hold(sent_by(second.name)):
                late = (await buyer.buy(app)).order_id
                await held.arrived()
            async with wire.hold(sent_by(first.name)):
                orders.append((await buyer.buy(app)).order_id)
                await held.arrived(2)
        await second.kill()
        async with wire.hold(sent_by(first.name)):  # so that it is the last one that takes the mail
            taken = await workers.get_on(gateway, lambda: orders[-1] in accepted(gateway))
        # a worker that keeps its claim while it waits for the gateway is as good
        await workers.call(gateway, lambda: late in accepted(gateway), 1 if taken else 0)
        await workers.settled()  # the other one has stored that, before the first call fails
        done = late in accepted(gateway)
        tried = len(calls_about(gateway, late))
    await workers.call(gateway, lambda: len(calls_about(gateway, late)) > tried, 0.7)
    again = len(calls_about(gateway, late)) - tried
    expect(
        not (done and again),
        "A call took longer than the lease. Another worker sent the mail, and the gateway accepted it. Then the first "
        f"call failed. The gateway got the mail {tried} times until then, and {again} times afterwards.",
        because="A worker that comes late undoes what another one has stored. What the customer has got is sent again, "
        "or is listed as given up.",
        section=KILLED,
    )
    if not taken:  # workers may compare the age of a claim with their own setting: it must be that of the killed one
        for worker in (first, last):
            await worker.kill()
        taken = await is_taken_over({late, *orders}, app, buyer, gateway, shop, wire, workers)
    expect(
        taken,
        f"A worker was killed while it waited for the gateway, with a lease of {LONG_LEASE} s. Another worker had "
        "nothing else to do, and did not send the mail within five seconds after that.",
        because="A mail waits until the next customer orders something. At night that is hours.",
        section=KILLED,
    )
    expect_same_keys(gateway, KILLED)


async def is_taken_over(known, app, buyer, gateway, shop, wire, workers):
    """Whether the mail of a killed worker is sent within five seconds after its lease, which both workers know."""
    settings = {"MAIL_LEASE_SECONDS": f"{LONG_LEASE}"}
    other, worker = await gather(workers.start(**settings), workers.start(**settings))
    async with wire.hold(sent_by(other.name)), gateway.hold(lambda call: order_of(call) not in known, 1) as held:
        order = (await buyer.buy(app)).order_id
        [call] = await held.arrived()
        await worker.kill()
    await asyncio.wait({other.exit}, timeout=LONG_LEASE - 1)
    await shop.execute(FOR_NOTHING, step="the other worker was woken just before the lease ended")
    left = call.arrived + LONG_LEASE + LOOKS_EVERY + SPARE - perf_counter()
    return await workers.call(gateway, lambda: order in accepted(gateway), left)


async def test_each_attempt_has_the_same_key(app, buyer, gateway, workers):
    """Mail that the gateway did not accept is sent again with the same Idempotency-Key; each mail has its own."""
    worker = await workers.start(MAIL_RETRY_SECONDS="0.2")
    gateway.respond_next(status=503)
    orders = [(await buyer.buy(app)).order_id]
    await workers.send(gateway, *orders)
    gateway.break_next("request")
    orders.append((await buyer.buy(app)).order_id)
    await workers.send(gateway, *orders)
    await worker.kill()
    between = {"MAIL_RETRY_SECONDS": "1", "MAIL_LEASE_SECONDS": "1"}
    worker = await workers.start(**between)
    gateway.respond(status=503)
    orders.append((await buyer.buy(app)).order_id)
    await workers.call(gateway, lambda: bool(calls_about(gateway, orders[-1])))
    await workers.settled()
    await worker.kill()  # between two attempts
    gateway.respond(status=204)
    await workers.start_fresh(**between, PYTHONHASHSEED="9")
    await workers.send(gateway, *orders)
    for order, what in zip(
        orders,
        ("status 503", "a connection that broke", "status 503, and its worker was killed before the second"),
        strict=True,
    ):
        expect(
            order in accepted(gateway),
            f"The first attempt to send a mail got {what}. The gateway has got {len(calls_about(gateway, order))} "
            "attempt(s) by now, and has accepted none.",
            because="A gateway that is down for a moment costs the mail of that moment. " + NO_MAIL,
            section=REFUSED,
        )
    expect_same_keys(gateway, REFUSED)


@pytest.mark.start_early
async def test_a_failed_mail_does_not_hold_up_the_others(another_buyer, app, buyer, gateway, wire, workers):
    """While a mail that failed waits for MAIL_RETRY_SECONDS, the others are sent, and it is not tried again."""
    retry = stretched(RETRY)
    settings = {"MAIL_RETRY_SECONDS": f"{retry}", "MAIL_LEASE_SECONDS": f"{retry / 2}"}
    kinds = {}

    def response(call):
        if call["to"] == another_buyer.email:
            return Answer(200)
        return kinds.setdefault(order_of(call), REFUSALS[len(kinds) % len(REFUSALS)])

    worker = await workers.start(**settings)
    gateway.respond(response)
    async with gateway.hold(limit=1) as held:
        async with wire.hold(sent_by(worker.name)):
            refused = [(await buyer.buy(app)).order_id for _ in range(10)]
            good = [(await another_buyer.buy(app)).order_id for _ in range(3)]
        await held.arrived()
        await asyncio.wait({worker.exit}, timeout=1)  # a call that takes long
    await workers.send(gateway, *good)
    late = len(set(good) - accepted(gateway))
    expect(
        not late,
        f"The gateway refuses {len(refused)} mails. Of the {len(good)} mails after them, {late} were not sent.",
        because="One address with a mistake in it stops the mail of all other customers.",
        section=REFUSED,
    )
    ends = [call.ended for call in gateway.calls if call.ended and order_of(call) in refused]
    # a second worker starts meanwhile; what it does at its start is one look
    often, _ = await gather(workers.looks_within(4, min(ends) + retry), workers.start(**settings))
    await workers.send(gateway, (await another_buyer.buy(app)).order_id)
    # an attempt that is counted from its beginning comes a second too early
    await workers.call(gateway, lambda: False, held.calls[0].ended + retry - 0.7 - perf_counter())
    pauses = [
        later.arrived - (earlier.ended or later.arrived)
        for order in refused
        for earlier, later in pairwise(calls_about(gateway, order))
    ]
    early = [seconds for seconds in pauses if seconds < retry]
    expect(
        not early,
        f"The gateway refused {len(refused)} mails, one of them after a second. MAIL_RETRY_SECONDS is {retry:.0f}. "
        f"{len(early)} attempts came earlier than that after the attempt before had failed: the first one after "
        f"{min(early, default=0):.1f} s. The two workers run in different time zones, UTC+5:30 and UTC-8.",
        because="All attempts are used up before the gateway is back, or it is flooded while it is in trouble.",
        section=REFUSED,
    )
    expect(
        not often,
        f"The next attempts were not due yet. Within four seconds, a worker sent one statement {often} times.",
        because="A single mail that cannot be delivered makes each worker poll.",
        section=REFUSED,
    )


@pytest.mark.start_early
async def test_a_mail_is_given_up_after_five_attempts(another_gateway, app, buyer, gateway, workers):
    """After five failed attempts a mail is given up. `GET /mails/failed` lists it, and no other mail."""
    orders = {}
    responses = {
        "good": (500, 500, 500, 500, 208),
        "refused": (500, 302, 422),
        "in doubt": (503, 307, 429, 409, 410),
        "unknown": (404,),
    }

    def response(call):
        if call.path != "/messages":
            return Answer(200)  # the page to which the gateway redirects
        name = next((name for name, order in orders.items() if order == order_of(call)), "")
        statuses = responses.get(name, (500,))
        status = statuses[min(len(calls_about(gateway, order_of(call))), len(statuses)) - 1]
        headers = {"Location": "/login"} | ({"Content-Encoding": "gzip"} if name == "bad" else {})
        return Answer(status, headers=headers, body=PAGE, breaks="request" if name == "broken" else "")

    gateway.respond(response)
    pause = 2.0
    settings = {"MAIL_RETRY_SECONDS": f"{pause}", "MAIL_TIMEOUT_SECONDS": "1"}
    worker = await workers.start(**settings, MAIL_URL=another_gateway.url)
    async with another_gateway.hold(limit=1) as held:
        orders["slow"] = (await buyer.buy(app)).order_id
        with suppress(NeverCalled):
            await held.client_left()
    began = perf_counter()
    await workers.settled()
    await another_gateway.close()  # from now on it refuses connections
    before = len(workers.done)
    orders["gone"] = (await buyer.buy(app)).order_id
    await workers.until(lambda: any(one.commits for one in workers.done[before:]), 3)
    await workers.settled()
    early = (await app.get("/mails/failed")).json
    await worker.terminate()  # between two attempts
    more = int((perf_counter() - began) / pause)  # attempts for which a busy machine has left time
    worker = await workers.start(MAIL_RETRY_SECONDS="0.05")
    for name in ("bad", "refused", "good", "broken", "in doubt", "unknown"):
        orders[name] = (await buyer.buy(app)).order_id
    expect(
        early == [] or more >= ATTEMPTS - 1,
        f"The first attempts to send some mails had failed, and none was given up. GET /mails/failed returned {early}.",
        because="Somebody looks into each of them by hand, although the next attempt may succeed.",
        section=REFUSED,
    )
    await workers.send(gateway, orders["good"])
    failed = {order for name, order in orders.items() if name != "good"}
    listed = await until_listed(app, gateway, workers, failed)
    for name, what in (WHAT_FAILED | MAYBE_FINAL).items():
        before = name in ("slow", "gone")
        tried = len(calls_about(gateway, orders[name])) + before
        least = 1 if name in MAYBE_FINAL else ATTEMPTS - more * before
        expect(
            least <= tried <= ATTEMPTS,
            f"A mail that was never accepted ({what}) was tried {tried} time(s). Expected: {ATTEMPTS}.",
            because="A mail that nobody can deliver is sent for ever, and each year there are more of them."
            if tried > ATTEMPTS
            else "A gateway that is away for some minutes costs the mail of these minutes.",
            section=REFUSED,
        )
    expect(
        orders["good"] in accepted(gateway),
        "The first four attempts to send a mail failed, and there was no fifth one.",
        because="A gateway that is away for some minutes costs the mail of these minutes.",
        section=REFUSED,
    )
    expected = {orders[name]: ATTEMPTS for name in WHAT_FAILED}
    expected |= {orders[name]: listed.get(orders[name], ATTEMPTS) for name in MAYBE_FINAL}
    missing, stray = sorted(expected.keys() - listed.keys()), sorted(listed.keys() - expected.keys())
    expect(
        not stray,
        f"GET /mails/failed lists {stray}. The gateway has accepted this mail, at the fifth attempt."
        if stray == [orders["good"]]
        else f"GET /mails/failed lists {stray}, which are no orders whose mail was given up.",
        because="Somebody sends the mail by hand, and the customer gets it twice.",
        section=REFUSED,
    )
    expect(
        not missing,
        f"{len(failed)} mails could not be delivered. GET /mails/failed does not list those of the orders {missing}."
        + "".join(
            f" One of them: {what}." for name, what in (WHAT_FAILED | MAYBE_FINAL).items() if orders[name] in missing
        ),
        because="Nobody learns that a customer got no mail, so nobody corrects the address.",
        section=REFUSED,
    )
    expect(
        listed == expected,
        f"GET /mails/failed returned these orders with their attempts: {listed}. Expected: {expected}.",
        because="The support team reads from the list how often the shop has tried, and reads a wrong number.",
        section=REFUSED,
    )


async def test_a_kill_in_the_fifth_attempt_loses_no_mail(app, buyer, gateway, workers):
    """A mail is not listed during its fifth attempt; if the worker is killed in it, the mail is sent or listed."""
    gateway.respond(lambda call: Answer(500))
    settings = {"MAIL_RETRY_SECONDS": "0.05", "MAIL_LEASE_SECONDS": "3"}
    worker = await workers.start(**settings)
    async with gateway.hold(lambda call: len(calls_about(gateway, order_of(call))) == ATTEMPTS) as held:
        order = (await buyer.buy(app)).order_id
        await held.arrived(timeout=4 * SILENCE)  # before each attempt a worker may wait until it looks again
        listed = await listed_by(app)
        await worker.kill()
    expect(
        order not in listed,
        "The gateway had not responded yet to the fifth attempt to send a mail, and GET /mails/failed listed it.",
        because="Somebody sends the mail by hand, and the customer gets it twice.",
        section=REFUSED,
    )
    await workers.start(**settings)
    expect(
        order in await until_listed(app, gateway, workers, {order}),
        "A worker was killed during the fifth attempt to send a mail, and another one was started. The mail was not "
        "sent, and GET /mails/failed does not list it.",
        because="Nobody learns that a customer got no mail. " + NO_MAIL,
        section=REFUSED,
    )


async def until_listed(app, gateway, workers, orders):
    """The attempts by order that `GET /mails/failed` lists, once it lists these, or if no worker does anything more."""

    def endless():
        return max(len(calls_about(gateway, order)) for order in orders) > 2 * ATTEMPTS

    while True:
        before = len(workers.done)
        listed = await listed_by(app)
        if orders <= listed.keys() or endless():
            break
        if not await workers.get_on(gateway, lambda: endless() or len(workers.done) > before):  # noqa: B023
            listed = await listed_by(app)  # a lease may have ended meanwhile, which takes no statement
            break
    await workers.settled()
    return listed


async def listed_by(app):
    """The attempts by order that `GET /mails/failed` lists."""
    response = await app.get("/mails/failed")
    return {one["order_id"]: one["attempts"] for one in response.json} if response.ok else {0: str(response)}
