"""Lesson 09: mail that is sent in the background. Here: deploys and outages."""

import asyncio
from collections import Counter
from signal import SIGTERM
from time import perf_counter

import pytest

from checks.kit.report import expect
from checks.kit.service.launcher import RESPONSE_TIMEOUT
from checks.lesson_09.buyer import NO_MAIL, TWICE, calls_about, expect_same_keys, order_of
from checks.lesson_09.kills import nth_commit
from checks.lesson_09.workers import LATE, SILENCE, START, TRIES, accepted, sent_by

STOPPED = "SIGTERM ends the worker after the mail at hand"
HEARD = "A notification is heard once or not at all"
UNNOTICED = "Until somebody notices it and starts the worker again, no mail is sent, and no error is logged."
LEASE = 6
"""Seconds of the claims of a worker that sends several mails at a time."""
SEVERAL = 6
"""Mails that are to be sent at the same time."""
CLAIMS = 5
"""Workers that get SIGTERM while they claim one mail; as many as it may have attempts."""
AT_ITS_CLAIM = "The worker got SIGTERM while its COMMIT was on its way to PostgreSQL."
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
    patient = await workers.start(MAIL_LEASE_SECONDS="600", MAIL_TIMEOUT_SECONDS="600", MAIL_URL=another_gateway.url)
    async with another_gateway.hold() as long:
        late = (await buyer.buy(app)).order_id
        await long.arrived()
        patient.signal(SIGTERM)
        began = perf_counter()
        several = await expect_ends(app, buyer, gateway, orders, wire, workers)
        expect(
            not calls_about(gateway, late),
            "A worker got SIGTERM while it sent a mail, and waited for the response. Then other workers got SIGTERM, "
            "and more were started. They sent the same mail.",
            because=TWICE,
            section=STOPPED,
        )
        await asyncio.wait({patient.exit}, timeout=began + PATIENCE - perf_counter())
        expect(
            not patient.exit.done(),
            "A worker got SIGTERM while it sent a mail. The gateway had not responded, and a call may take 600 s. "
            f"The worker ended within {perf_counter() - began:.0f} s.",
            because="Each deploy interrupts the mail at hand. Nobody knows then whether it was sent.",
            section=STOPPED,
        )
    await expect_end(
        patient, f"The worker got SIGTERM, and the gateway responded {perf_counter() - began:.0f} s later."
    )
    await expect_results_of_failures(app, buyer, gateway, workers)
    if several:
        await expect_several_results(app, buyer, gateway, wire, workers)


async def expect_ends(app, buyer, gateway, orders, wire, workers):
    """Workers end as they should, wherever SIGTERM finds them. Returns whether one sends several mails at a time."""
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
        several = len(held.calls) > 1
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
    await expect_end(worker, AT_ITS_CLAIM)
    for _ in range(CLAIMS):
        await workers.settled()
        if orders[-1] in accepted(gateway):
            break
        async with wire.hold(lambda one: one.process.startswith("worker") and one.commits, limit=1) as commits:
            worker = await workers.begin()
            await commits.count_within(1)
            worker.signal(SIGTERM)
        await expect_end(worker, AT_ITS_CLAIM)
    worker = await workers.start()
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
    await worker.kill()
    return several


async def expect_several_results(app, buyer, gateway, wire, workers):
    """A worker that sends several mails at a time stores all results, also if PostgreSQL takes 1.5 s for the first."""
    settings = {"MAIL_TIMEOUT_SECONDS": "60", "MAIL_LEASE_SECONDS": f"{LEASE}"}
    worker = await workers.start(**settings)
    async with gateway.hold() as held:
        async with wire.hold(sent_by(worker.name)):
            orders = [(await buyer.buy(app)).order_id for _ in range(SEVERAL)]
        await held.arrived()
        await workers.settled()
        worker.signal(SIGTERM)
        async with wire.hold(nth_commit(worker.name, 1)) as commits:
            held.release()
            await commits.count_within(1)
            await asyncio.wait({worker.exit}, timeout=1.5)
    await expect_end(worker, "The worker got SIGTERM, and the gateway responded.")
    left = held.calls[0].arrived + LEASE - perf_counter()
    await asyncio.sleep(max(0, left))  # a result that is not stored shows then
    worker = await workers.start(**settings)
    await workers.send(gateway, *orders)
    twice = sum(len(calls_about(gateway, order)) > 1 for order in orders)
    expect(
        not twice,
        f"The worker sent {len(held.calls)} mails at a time, and the gateway accepted all. PostgreSQL took 1.5 s to "
        f"store the first result. When the lease had ended, the next worker sent {twice} of these mails again.",
        because=TWICE,
        section=STOPPED,
    )
    await worker.kill()


async def expect_results_of_failures(app, buyer, gateway, workers):
    """A worker ends while a mail waits for its next attempt, and stores a failure that comes after SIGTERM."""
    worker = await workers.start(MAIL_RETRY_SECONDS="3600")
    gateway.respond_next(status=503)
    orders = [(await buyer.buy(app)).order_id]
    await workers.call(gateway, lambda: gateway.calls[-1].answer is not None and gateway.calls[-1].answer.status == 503)
    await workers.settled()
    worker.signal(SIGTERM)
    await expect_end(worker, "The next attempt to send a mail was due in an hour. The worker got SIGTERM.")
    worker = await workers.start(MAIL_RETRY_SECONDS="3600")
    gateway.respond_next(status=503)
    async with gateway.hold() as held:
        orders.append((await buyer.buy(app)).order_id)
        await held.arrived()
        worker.signal(SIGTERM)
        await asyncio.wait({worker.exit}, timeout=0.3)
    await expect_end(worker, "The worker got SIGTERM while it sent a mail, and the gateway returned status 503.")
    worker = await workers.start()
    await workers.send(gateway, (await buyer.buy(app)).order_id)
    again = sum(len(calls_about(gateway, order)) > 1 for order in orders)
    expect(
        not again,
        "A worker got SIGTERM after a mail had failed, and another one while it sent a mail, which failed then. "
        f"MAIL_RETRY_SECONDS is 3600. The next worker tried {again} of the two mails again at once.",
        because="Each deploy uses up attempts. A gateway that is away for some minutes then costs the mail of these "
        "minutes.",
        section=STOPPED,
    )
    await worker.kill()


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
    await expect_woken(app, buyer, gateway, workers)
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
    await app_is_back(app)
    worker = await workers.start()
    async with gateway.hold() as held:
        await buyer.buy(app)
        await held.arrived()
        async with wire.outage("starting_up"):
            worker.signal(SIGTERM)
            await asyncio.wait({worker.exit}, timeout=0.3)
            held.release()
            await expect_end(
                worker, "The database was away. The worker got SIGTERM, and then the gateway's response to a mail."
            )


async def expect_woken(app, buyer, gateway, workers):
    """The worker's connections were cut; notifications wake it again."""
    waited = []
    for _ in range(TRIES):  # a machine may be busy
        await workers.send(gateway, (await buyer.buy(app)).order_id)  # the worker has just looked
        began = perf_counter()
        order = (await buyer.buy(app)).order_id
        await workers.call(gateway, lambda: order in accepted(gateway), SILENCE)  # noqa: B023 - awaited here
        waited.append(perf_counter() - began)
        if waited[-1] <= LATE:
            return
    expect(
        False,
        f"The worker's connections were cut, and it sent mail again. It had nothing to do when an order was placed, "
        f"{TRIES} times. The mail was sent after {', '.join(f'{seconds:.1f}' for seconds in waited)} s, or not at all.",
        because="The worker does not hear notifications any more, and only looks from time to time.",
        section=HEARD,
    )


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
        because="A process manager takes any other exit code for a crash. It kills a worker that does not end in time.",
        section=STOPPED,
    )
