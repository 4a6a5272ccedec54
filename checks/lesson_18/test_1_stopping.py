"""Lesson 18: what a deploy stops. Here: SIGTERM, and what is under way when it arrives."""

import asyncio

import pytest

from checks.kit.report import expect
from checks.kit.service.app import NoResponse
from checks.lesson_18.running import last_line

STOPPED = (0, 143)
"""Exit codes of a process that was asked to stop and did: its own, or that of SIGTERM, which uvicorn sends itself."""

LOST = "With each deploy customers read an error page, and some buy a second time."
KILLED = "The deploy waits for the whole grace period. Then the platform kills the service, with all that is under way."
SENT_AGAIN = "The next worker sends the mail again, because nothing says that it was sent."
CRASHED = "The platform takes such an exit code for a crash. It raises an alarm with each deploy."
WAIT = 120
"""Seconds that a check waits for an interpreter to do its work, on a busy machine; a bound for failures."""

ATTEMPTS = 3
"""How often an order is tried: the first one in a new interpreter can exceed the time limits of a good service."""

SLOW = 0.3
"""Seconds that each round trip of the request takes after the signal, so that it takes more than two in all."""


@pytest.mark.patient
async def test_a_request_under_way_is_completed(release, furnished, shop, wire):
    """After SIGTERM, `web` accepts no connections, and a request under way gets its whole response."""
    web = await release.web()
    path, body = "/orders", furnished.basket()
    before = await shop.count("orders")
    async with wire.hold(lambda one: one.process == "web" and one.changes, limit=1) as held:
        early = []
        while not held.waiting and len(early) < ATTEMPTS:
            request = web.app.start_request("POST", path, json=body, headers=furnished.logins[0])
            if not await held.wait_for_or(request.task, WAIT):
                early.append(str(await response_of(request) or "no response"))
        expect(
            held.waiting,
            f"Before any signal an order was tried {ATTEMPTS} times. Expected: it comes to its first INSERT or UPDATE. "
            f"The responses: {', '.join(early)}.",
            because="The new release takes no orders.",
            section="Five ways to write CMD",
        )
        web.stop()
        ending = asyncio.ensure_future(ended_by_the_platform(web))
        refused = await web.refuses()
        async with wire.latency(SLOW):
            held.release()
            response = await response_of(request)
    code = await ending
    stored = await shop.count("orders") - before
    expect(
        refused,
        f"After {web.stop_signal.name} the service went on to serve new clients for {web.grace:.0f} s, until the "
        "platform killed it.",
        because="The platform sends requests to it until the end, and nobody responds to the last ones.",
        section="Five ways to write CMD",
    )
    expect(
        response is not None and response.status == 201 and stored == 1,
        f"`POST {path}` was under way when {web.stop_signal.name} arrived. Its response: {response or 'none'}. "
        f"Orders stored: {stored}. The process {ended(code, web)}. Expected: status 201, and one order.",
        because=LOST,
        section="Five ways to write CMD",
    )
    expect_stopped(code, web)


@pytest.mark.patient
async def test_connections_are_closed_properly(release, furnished, wire):
    """When `web` stops, it closes each connection to the database with a Terminate message."""
    web = await release.web(env={"DATABASE_CONNECTIONS": "4"})
    await asyncio.gather(*(response_of(web.app.start_request("GET", furnished.book)) for _ in range(8)))
    web.stop()
    code = await web.ended()
    await web.process.kill()
    await wire.all_closed()
    mine = [one for one in wire.closed if one.process == "web"]
    rude = [one for one in mine if one.close_reason != "terminate"]
    assert mine
    expect(
        not rude,
        f"The service had {len(mine)} connections to the database. {len(rude)} of them ended without a Terminate "
        f"message. The process {ended(code, web)}. Expected: each of them sends one.",
        because="PostgreSQL logs an error for each. It keeps their locks until it notices that the client is gone.",
        section="What a stop leaves behind",
    )
    expect_stopped(code, web)


@pytest.mark.patient
@pytest.mark.start_early
async def test_a_client_that_stalls_keeps_nobody(release):
    """After SIGTERM, `web` ends within its grace period, also if a client never sends the rest of its request."""
    web = await release.web()
    reader, writer = await web.dial()
    writer.write(b"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
                 b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n")  # fmt: skip
    begun = await asyncio.wait_for(reader.readline(), WAIT)
    assert b"100" in begun, begun  # so the app waits for the body
    writer.write(b'{"lines"')
    web.stop()
    code = await web.ended()
    writer.close()
    expect(
        code in STOPPED,
        f"A client had sent half of its request. After {web.stop_signal.name} the process {ended(code, web)}. "
        "Expected: it ends by itself.",
        because=KILLED if code is None else CRASHED,
        section="What a stop leaves behind",
    )


@pytest.mark.patient
async def test_the_worker_finishes_its_mail(release, app, furnished, gateway, shop):
    """After SIGTERM, `worker` finishes the mail that it is sending, and ends with exit code 0."""
    worker = await release.start("worker", only_variables=True)
    async with gateway.hold() as held:
        placed = await app.post("/orders", json=furnished.basket(), headers=furnished.logins[0])
        assert placed.status == 201, placed
        early = await ended_before(held.arrived(timeout=WAIT), worker)
        expect(
            early is None,
            f"`worker` {ended(early, worker)}, and sent no mail. Its secrets were variables, and not files.",
            because="Customers get no confirmation of what they have paid for.",
            section="Where a secret ends up",
        )
        worker.stop()
        held.release()
        code = await worker.ended()
    sent = await shop.count("outbox", "status = 'sent'")
    expect(
        code == 0 and sent == 1 and len(gateway.calls) == 1,
        f"A mail was on its way when {worker.stop_signal.name} arrived. The worker {ended(code, worker)}. "
        f"Mails that the gateway got: {len(gateway.calls)}; noted as sent: {sent}. Expected: 1, 1, and exit code 0.",
        because=SENT_AGAIN if sent != 1 else KILLED if code is None else CRASHED,
        section="Five ways to write CMD",
    )


async def ended_before(event, started):
    """Waits for an event, such as a call that arrives; the exit code if the process ends before that."""
    awaited = asyncio.ensure_future(event)
    await asyncio.wait({awaited, started.process.exit}, return_when=asyncio.FIRST_COMPLETED)
    if awaited.done():
        await awaited  # raises if it did not happen in time
        return None
    awaited.cancel()
    return started.process.exit.result()


async def ended_by_the_platform(started):
    """The exit code; None if the process is still there at the end of its grace period, and is killed."""
    code = await started.ended()
    if code is None:
        await started.process.kill()
    return code


async def response_of(request):
    """The response, or None if there is none."""
    try:
        return await request.task
    except NoResponse:
        return None


def ended(code, started):
    """How a process ended, as the end of a sentence."""
    if code is None:
        return f"still runs after the grace period of {started.grace:.0f} s"
    how = f"ended with exit code {code}"
    return how if code in STOPPED else f"{how} ({last_line(started.process.log)})"


def expect_stopped(code, started):
    expect(
        code in STOPPED,
        f"After {started.stop_signal.name} the process {ended(code, started)}. Expected: it ends by itself, with exit "
        f"code {' or '.join(map(str, STOPPED))}.",
        because=KILLED if code is None else CRASHED,
        section="Five ways to write CMD",
    )
