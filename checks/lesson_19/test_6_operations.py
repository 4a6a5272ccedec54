"""Lesson 19: deploys, outages, connections, and what is written about all of it."""

import asyncio
from contextlib import suppress

import pytest

from checks.kit.report import expect
from checks.kit.service.app import NoResponse
from checks.kit.testbed.outside_service import NeverCalled
from checks.kit.testbed.waiting import wait_quiescent
from checks.kit.wire.faults import OUTAGES
from checks.lesson_16.lines import Log, metrics, parsed
from checks.lesson_17.others import beginning
from checks.lesson_17.waiting import until_true
from checks.lesson_19.deploy import Deploy
from checks.lesson_19.timeline import FAILED, SERVED, Sent, is_refused
from checks.lesson_19.traffic import TIMEOUT, sent

BUDGET = 3
"""Connections for two processes: an odd number, and one for each process, so that nobody can divide a pool further."""

CLOSED = "The shop is closed during the deploy, at the beginning of the sale."


@pytest.mark.patient
async def test_a_deploy_stops_nobody(testbed):
    """Before, during and after the migration the old release serves, then the new one; no step stops the shop."""
    deploy = Deploy(testbed)
    testbed.add_evidence("The timeline of the deploy", deploy.timeline.lines)
    await deploy.open()
    old = await deploy.old()
    expect_all_served(deploy, "before the migration", await deploy.traffic(old, 1))
    with testbed.server_side.watching() as seen:
        migration = asyncio.ensure_future(deploy.alembic("upgrade", "head"))
        while not migration.done():
            expect_all_served(deploy, "the old release, during the migration", await deploy.traffic(old, 1))
        await migration
    expect_all_served(deploy, "the old release, after the migration", await deploy.traffic(old))
    new = await deploy.new()
    expect_all_served(deploy, "the new release", await deploy.traffic(new))
    expect_all_served(deploy, "the old release, beside the new one", await deploy.traffic(old, 1))
    harm = await deploy.harm(seen.statements)
    deploy.timeline.note(f"statements of the migration that stop the shop: {len(harm)}")
    expect(not harm, " ".join(harm[:2]), because=CLOSED, section="Migrations")


def expect_all_served(deploy, when, requests):
    deploy.timeline.sent(when, requests)
    failed = [one for one in requests if one.mark != SERVED]
    expect(
        not failed,
        f"{when.capitalize()}: {len(failed)} of {len(requests)} requests failed. {(failed or [''])[0]}",
        because=CLOSED,
        section="Migrations",
    )


@pytest.mark.start_early
@pytest.mark.patient
async def test_the_shop_is_back_after_an_outage(rehearsal, endpoints):
    """While the database is away, each request gets 503 with Retry-After, and /live 200; then all works, mail too."""
    apps = await rehearsal.open()
    await rehearsal.worker()
    direct = rehearsal.testbed.server_side
    for how in OUTAGES:
        await rehearsal.traffic(12, "before it, traffic")
        await until_true(lambda: all_sent(rehearsal.shop), 60)
        await wait_quiescent(apps[0], rehearsal.wire)  # the worker has looked once more, and waits for the next mail
        rehearsal.timeline.note(f"the database is away: {how.replace('_', ' ')}")
        requests = list(endpoints(rehearsal.world.a.ids, headers=rehearsal.world.buyers[0].headers))
        requests = [one for one in requests if one.path not in NO_DATABASE]
        async with rehearsal.wire.outage(how):
            await direct.cut(lambda connection: connection.process != "PgBouncer")
            away = await asyncio.gather(
                *(sent(apps[0], one.method, one.path, **host(rehearsal, one)) for one in requests)
            )
            alive = [await apps[0].get(path) for path in ("/live", "/metrics")]
        rehearsal.timeline.sent("meanwhile", away)
        wrong = [one for one in away if not (one.response and (is_refused(one.response) or harmless(one.response)))]
        expect(
            not wrong and all(one.status == 200 for one in alive),
            f"The database was away: {how.replace('_', ' ')}. {(wrong or [one for one in alive if not one.ok])[0]} "
            "Expected: status 503 with Retry-After; 200 of /live and /metrics."
            if wrong or not all(one.ok for one in alive)
            else "",
            because="A client that reads 500 does not come back, and Kubernetes restarts what only has to wait.",
            section="Limits",
        )
        after = await rehearsal.traffic(24, "the database is back, traffic")
        rehearsal.expect_served(after, f"The database was back after it was away ({how.replace('_', ' ')})", "Limits")
        mails = len(rehearsal.gateway.calls)
        order = await rehearsal.order(rehearsal.world.buyers[0], 0)
        expect(
            await has_mail(rehearsal, order),
            f"The database was away ({how.replace('_', ' ')}) and is back. An order was placed, and the worker did not "
            f"send its mail. The gateway has got {len(rehearsal.gateway.calls) - mails} others.",
            because="Customers hear nothing until somebody restarts the worker.",
            section="Limits",
        )
        rehearsal.timeline.note("the worker sends the mail of the next order")


async def all_sent(shop):
    return not await shop.value("SELECT count(*) FROM outbox WHERE status IN ('pending', 'processing')")


NO_DATABASE = ("/live", "/metrics", "/auth/register", "/auth/refresh")


def host(rehearsal, endpoint):
    headers = rehearsal.world.a.visit | endpoint.options.get("headers", {})
    return endpoint.options | {"headers": headers}


def harmless(response):
    """Refused before the database is asked."""
    return response.status in (404, 405, 422, 428)


async def has_mail(rehearsal, order):
    async def came():
        return any(call["data"]["order_id"] == order for call in rehearsal.gateway.calls)

    return await until_true(came, PATIENCE)


PATIENCE = 40
"""Seconds until a mail counts as not sent: several times of what the worker needs, on a machine that does much else."""


async def test_connections_stay_within_their_budget(rehearsal, launch, wire):
    """All processes of the app together use at most DATABASE_CONNECTIONS; while all are in use, /live is 200."""
    app = await launch(env={"DATABASE_CONNECTIONS": str(BUDGET), "WEB_CONCURRENCY": "2"}, workers=2)
    visit, book = rehearsal.world.a.visit, rehearsal.world.a.book
    paths = [f"/books/{book}", "/dashboard", "/reports/sales", "/catalogue", "/ready"] * 6
    for _ in range(20):  # until all connections are open
        await asyncio.gather(*(sent(app, "GET", paths[0], headers=visit) for _ in range(2 * BUDGET)))
        if len(wire.connections) >= BUDGET - 1:  # each process has as many as the other one
            break
    most, requests, asking, left = 0, [], [], []
    async with wire.hold(beginning) as held:
        # those that find no connection are refused after a while
        while most <= BUDGET and (len(requests) < len(paths) or len(left) > BUDGET):
            if len(requests) < len(paths):  # one by one: of many at the same moment, one process may take all
                requests.append(app.start_request("GET", paths[len(requests)], headers=visit, timeout=60))
            left = [request.task for request in requests if not request.task.done()]
            if left:
                await asyncio.wait(left, timeout=0.02)
            if most < len(held.waiting):
                most = len(held.waiting)
                rehearsal.timeline.note(f"{most} connections are in use; somebody asks /live")
                asking += [app.start_request("GET", "/live", timeout=TIMEOUT) for _ in range(4)]
        alive = [await request for request in asking]
    for request in requests:
        with suppress(NoResponse):
            await request
    rehearsal.timeline.note(f"{len(paths)} requests at once used {most} connections")
    expect(
        0 < most <= BUDGET,
        f"With DATABASE_CONNECTIONS={BUDGET} two processes of the app used {most} connections at the same time.",
        because="PostgreSQL has connections for all services together. It refuses those of the next one.",
        section="Limits",
    )
    dead = [one for one in alive if one.status != 200]
    expect(
        alive and not dead,
        f"Of {BUDGET} connections {most} were in use. {(dead or ['No request asked /live'])[0]}. Expected: status 200.",
        because="Kubernetes restarts a process because it has much to do, and then the next one has more.",
        section="Limits",
    )


CARD = "tok_of_a_card_that_nobody_may_read"
PASSWORD = "a password that nobody may read"


async def test_logs_and_metrics_hold_nothing_of_a_client(rehearsal):
    """Each line of the log is JSON and tells no card and no password; metrics have no label that a client chooses."""
    [app, _] = await rehearsal.open(PAYMENT_TIMEOUT="1")
    log, buyer = Log(app), rehearsal.world.buyers[0]
    worker = await rehearsal.worker()
    work = Log(worker)
    account = {"email": "new@example.com", "name": "New", "password": PASSWORD}
    await app.post("/auth/register", json=account, headers=buyer.owner.visit)
    for email in ("nobody@example.com", account["email"]):
        await app.post("/auth/login", json=account | {"email": email}, headers=buyer.owner.visit)
    for how in ("it responds", "it refuses", "it fails", "its response is lost", "it does not respond"):
        await pay(rehearsal, app, buyer, how)
    paid = await rehearsal.pay(buyer, 0, app=app)
    rehearsal.provider.break_next("half")
    for _ in range(2):
        await rehearsal.cancel(buyer, paid, app)
    with suppress(NeverCalled):
        await rehearsal.gateway.received()
    await app.flush()
    texts = [*log.texts, *work.texts]
    told = [text for text in texts if CARD in text or PASSWORD in text or CARD[:20] in text]
    rehearsal.timeline.note(f"{len(texts)} lines of the log; with a secret: {len(told)}")
    expect(
        texts and not told,
        f"{len(told)} lines of the log hold a card or a password: {(told or [''])[0][:300]}",
        because="Everybody who may read the log can pay with this card.",
        section="Observability",
    )
    plain = [text for text in texts if parsed(text) is None or "request_id" not in (parsed(text) or {})]
    expect(
        not plain,
        f"{len(plain)} lines are no JSON object with a request_id: {(plain or [''])[0][:300]}",
        because="The program that reads the log drops them, and nobody finds the request.",
        section="Observability",
    )
    await expect_few_series(rehearsal, app)


async def expect_few_series(rehearsal, app):
    """Strange requests add no series once each kind of them was there."""
    await metrics(app)
    await strange(app, 0)
    before = {(one.name, tuple(sorted(one.labels.items()))) for one in await metrics(app)}
    for number in range(1, STRANGE + 1):
        await strange(app, number)
    new = {(one.name, tuple(sorted(one.labels.items()))) for one in await metrics(app)} - before
    rehearsal.timeline.note(f"requests with invented hosts and paths; new series of metrics: {len(new)}")
    expect(
        len(new) < STRANGE,  # a status that was not there before is no fault
        f"{STRANGE} times, requests with invented hosts, paths, methods and headers added {len(new)} series to the "
        f"metrics: {dict((sorted(new) or [('', ())])[0][1])}",
        because="Prometheus keeps each series for weeks. Anybody can fill its memory.",
        section="Observability",
    )


STRANGE = 12


async def strange(app, number):
    """Requests with something invented in each place."""
    headers = {"Host": f"h{number}.example", "User-Agent": f"agent {number}", "X-Request-ID": f"id {number}"}
    paths = ("GET", "/live"), ("GET", f"/no/{number}"), ("GET", f"/books/{number + 1}"), (f"M{number}", "/books")
    for method, path in paths:
        with suppress(NoResponse):
            await app.request(method, path, headers=headers)


async def pay(rehearsal, app, buyer, how):
    """A payment, and how the provider treats it."""
    provider, body = rehearsal.provider, buyer.card(0, token=CARD)

    async def send():
        return await app.post("/checkout", json=body, headers=buyer.headers)

    if how == "it does not respond":
        async with provider.hold():
            response = await send()
    else:
        if how == "its response is lost":
            provider.break_next()
        elif how != "it responds":
            provider.respond_next(status=402 if how == "it refuses" else 500)
        response = await send()
    rehearsal.timeline.note(f"a payment, and {how}: status {response.status}")
    return Sent("POST /checkout", response).mark != FAILED
