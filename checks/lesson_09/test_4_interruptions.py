"""Lesson 09: mail that is sent in the background. Here: deploys and outages."""

import asyncio
from collections import Counter
from signal import SIGTERM
from time import perf_counter

import pytest

from checks.kit.report import expect
from checks.kit.service.launcher import RESPONSE_TIMEOUT
from checks.lesson_09.buyer import NO_MAIL, TWICE, expect_same_keys, order_of
from checks.lesson_09.kills import nth_commit
from checks.lesson_09.workers import START, accepted, sent_by

STOPPED = "SIGTERM ends the worker after the mail at hand"
HEARD = "A notification is heard once or not at all"
UNNOTICED = "Until somebody notices it and starts the worker again, no mail is sent, and no error is logged."
PATIENCE = 6.0
"""Seconds for which the gateway does not respond after SIGTERM."""
OFTEN = 11
"""Cuts, and attempts to connect in an outage, after which a worker that gives up has done so."""
REFUSED_AT = {2: "too_many_connections", 3: "reset"}
"""Cuts after which the first attempt to connect fails, and how."""
OUTAGE = 12.0
"""Seconds after which an outage ends in any case."""


@pytest.mark.start_early
async def test_sigterm_ends_the_worker_after_the_mail_at_hand(another_gateway, app, buyer, gateway, wire, workers):
    """After SIGTERM a worker finishes the mail that it is sending, begins no other one, and ends with exit code 0."""
    worker = await workers.start(MAIL_LEASE_SECONDS="3")  # over when a later worker looks
    async with gateway.hold() as held:
        orders = [(await buyer.buy(app)).order_id]
        await held.arrived()
        worker.signal(SIGTERM)
        await asyncio.wait({worker.exit}, timeout=0.3)
    await expect_end(worker, "The worker got SIGTERM while it sent a mail, and the gateway accepted it.")
    patient = await workers.start(MAIL_TIMEOUT_SECONDS="60", MAIL_URL=another_gateway.url)
    async with another_gateway.hold() as long:
        await buyer.buy(app)
        await long.arrived()
        patient.signal(SIGTERM)
        began = perf_counter()
        await expect_ends(app, buyer, gateway, orders, wire, workers)
        await asyncio.wait({patient.exit}, timeout=began + PATIENCE - perf_counter())
        expect(
            not patient.exit.done(),
            "A worker got SIGTERM while it sent a mail. The gateway had not responded, and a call may take 60 s. "
            f"The worker ended within {perf_counter() - began:.0f} s.",
            because="Each deploy interrupts the mail at hand. Nobody knows then whether it was sent.",
            section=STOPPED,
        )
    await expect_end(
        patient, f"The worker got SIGTERM, and the gateway responded {perf_counter() - began:.0f} s later."
    )


async def expect_ends(app, buyer, gateway, orders, wire, workers):
    """Workers end as they should, wherever SIGTERM finds them."""
    async with wire.hold(lambda one: one.process.startswith("worker") and one.verb == "LISTEN", limit=1) as listens:
        worker = await workers.begin()
        await listens.count_within(1, START)
        worker.signal(SIGTERM)
        await asyncio.wait({worker.exit}, timeout=0.3)
    await expect_end(worker, "A worker got SIGTERM while it started. It had connected to the database.")
    worker = await workers.start(MAIL_TIMEOUT_SECONDS="60")
    async with gateway.hold() as held:
        async with wire.hold(sent_by(worker.name)):
            orders += [(await buyer.buy(app)).order_id for _ in range(3)]
        await held.arrived()
        await workers.settled()
        worker.signal(SIGTERM)
        await asyncio.wait({worker.exit}, timeout=1)
        begun = len(gateway.calls)
        expect(
            not worker.exit.done(),
            f"The gateway had not responded to {len(held.calls)} mail(s) yet. The worker got SIGTERM, and ended.",
            because="Each deploy interrupts the mail at hand. Nobody knows then whether it was sent.",
            section=STOPPED,
        )
    await expect_end(worker, "The worker got SIGTERM, and the gateway responded.")
    expect(
        len(gateway.calls) == begun,
        f"The worker got SIGTERM while it sent {len(held.calls)} mail(s), and began {len(gateway.calls) - begun} more.",
        because="A worker that begins new mail is not done when the time of the deploy is up, and is killed.",
        section=STOPPED,
    )
    worker = await workers.start()
    await workers.send(gateway, *orders)
    async with wire.hold(nth_commit(worker.name, 1)) as commits:
        orders.append((await buyer.buy(app)).order_id)
        await commits.count_within(1)
        worker.signal(SIGTERM)
    await expect_end(worker, "The worker got SIGTERM while its COMMIT was on its way to PostgreSQL.")
    worker = await workers.start(MAIL_RETRY_SECONDS="3600")
    await workers.send(gateway, *orders)
    twice = sum(count > 1 for count in Counter(map(order_of, gateway.calls)).values())
    missing = len(set(orders) - accepted(gateway))
    expect(
        not twice and not missing,
        f"{len(orders)} mails were to be sent, and three workers got SIGTERM meanwhile. With the next worker, "
        f"{missing} were not sent, and {twice} were sent again.",
        because=NO_MAIL if missing else TWICE,
        section=STOPPED,
    )
    gateway.respond_next(status=503)
    await buyer.buy(app)
    await workers.call(gateway, lambda: gateway.calls[-1].answer is not None and gateway.calls[-1].answer.status == 503)
    await workers.settled()
    worker.signal(SIGTERM)
    await expect_end(worker, "The next attempt to send a mail was due in an hour. The worker got SIGTERM.")


@pytest.mark.start_early
async def test_a_worker_survives_an_outage_of_the_database(app, buyer, gateway, wire, workers):
    """A worker goes on by itself after its connections were cut, and after an outage of the database."""
    worker = await workers.start(MAIL_LEASE_SECONDS="1", MAIL_RETRY_SECONDS="0.2")
    async with gateway.hold() as held:
        await buyer.buy(app)
        await held.arrived()
        await wire.cut(lambda one: one.process == worker.name)  # while it sends a mail
    await workers.settled()
    async with wire.hold(lambda one: one.process == worker.name and one.verb == "LISTEN", limit=1) as listens:
        await wire.cut(lambda one: one.process == worker.name)
        await listens.count_within(1, 5)
        meanwhile = (await buyer.buy(app)).order_id
    sent = await workers.send(gateway, meanwhile)
    expect(
        sent and not worker.exit.done(),
        "The worker's connections were cut, and an order was placed before it listened again. "
        + ("The worker has ended." if worker.exit.done() else "Its mail was not sent."),
        because=UNNOTICED,
        section=HEARD,
    )
    for count in range(1, OFTEN + 1):
        if how := REFUSED_AT.get(count):
            await cut_and_refuse(wire, worker, how)
        else:
            await wire.cut(lambda one: one.process == worker.name)
        order = (await buyer.buy(app)).order_id
        sent = await workers.get_on(gateway, lambda: order in accepted(gateway))  # noqa: B023 - awaited here
        expect(
            sent and not worker.exit.done(),
            f"The worker's connections were cut {count} times, and mail was sent in between. "
            + (f"The last time, it could not connect at once ({how.replace('_', ' ')}). " if how else "")
            + ("The worker has ended." if worker.exit.done() else "The next mail was not sent."),
            because=UNNOTICED,
            section=HEARD,
        )
    for how in ("nothing_listens", "starting_up"):
        async with gateway.hold() as held:
            order = (await buyer.buy(app)).order_id
            await held.arrived()
            with wire.watching() as seen:
                async with wire.outage(how):
                    held.release()
                    began, seconds = perf_counter(), 0.0
                    while not worker.exit.done() and seconds < OUTAGE:
                        await asyncio.wait({worker.exit}, timeout=0.1)
                        seconds = perf_counter() - began
                        if seconds > 1 and (how == "nothing_listens" or seen.connections_opened >= OFTEN):
                            break
                tried = seen.connections_opened
        expect(
            tried <= 30 * max(seconds, 1),
            f"The database was away for {seconds:.0f} s, and {tried} connections were opened meanwhile.",
            because="Workers that try without a pause keep a database busy that is about to start.",
            section=HEARD,
        )
        await expect_sent(app, buyer, gateway, workers, worker, f"The database was away ({how.replace('_', ' ')}).")
    expect_same_keys(gateway, HEARD)
    with wire.watching() as seen:
        async with wire.outage("starting_up"):
            for _ in range(30):
                if not seen.connections_opened:  # it does not know yet
                    await asyncio.wait({worker.exit}, timeout=0.1)
            worker.signal(SIGTERM)
            await expect_end(worker, "The worker got SIGTERM while the database was away.")


async def cut_and_refuse(wire, worker, how):
    """Cuts the worker's connections, and refuses the next attempt to connect."""
    with wire.watching() as seen:
        async with wire.refusing(how):
            await wire.cut(lambda one: one.process == worker.name)
            for _ in range(30):
                if not seen.connections_opened:
                    await asyncio.wait({worker.exit}, timeout=0.1)


async def expect_sent(app, buyer, gateway, workers, worker, what):
    """Mail is sent again, by the same worker."""
    await app_is_back(app)
    order = (await buyer.buy(app)).order_id
    sent = await workers.send(gateway, order)
    expect(
        sent and not worker.exit.done(),
        f"{what} After that an order was placed, and "
        + ("its mail was not sent." if not sent else "the worker has ended."),
        because=UNNOTICED,
        section=HEARD,
    )


async def app_is_back(app):
    """The app finds its connections closed, and replaces them at the next request."""
    for _ in range(20):
        if (await app.get("/health")).status == 200:
            return


async def expect_end(worker, what):
    """The worker, which has got SIGTERM, ends with exit code 0."""
    await asyncio.wait({worker.exit}, timeout=RESPONSE_TIMEOUT)
    code = worker.exit.result() if worker.exit.done() else None
    how = "It did not end" if code is None else f"Exit code: {code}"
    expect(
        code == 0,
        f"{what} {how}. Expected: exit code 0.",
        because="A process manager takes any other end for a crash, and one that does not come is made with SIGKILL.",
        section=STOPPED,
    )
