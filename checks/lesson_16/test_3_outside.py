"""Lesson 16: observability. Here: what is read from outside: probes, metrics and traces."""

import asyncio
import contextlib
import time
from collections import Counter
from signal import SIGTERM
from uuid import uuid4

import pytest

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.kit.service.app import NoResponse
from checks.kit.testbed.waiting import served_meanwhile
from checks.kit.wire import OUTAGES
from checks.lesson_16.furnished import break_wishes
from checks.lesson_16.lines import PATIENCE, Log, asks, metrics, send, shown, total
from checks.lesson_16.spans import CLIENT, SERVER, received

RESTART = "Kubernetes restarts all processes at once. That helps nobody, and each of them loses the requests under way."
READY = "Customers are sent to a process that cannot serve them, or to none although all could."
SERIES = "Prometheus keeps each combination of labels for weeks. Anybody who sends odd requests fills its memory."
TRACE = "The picture of the request is wrong: its statements are missing, or are those of another request."
HARM = "The shop is down because its monitoring is down."


@pytest.mark.start_early
async def test_liveness_asks_nobody(launch, wire, furnished):
    """`GET /live` returns 200 while the database is silent and all connections are taken, and sends no statement."""
    app = await launch(env={"DATABASE_CONNECTIONS": "1"})
    await app.get(furnished.book)
    async with wire.hold(asks, limit=1) as held:
        slow = app.start_request("GET", furnished.book)
        await held.wait_for()
        for _ in range(10):  # an app may watch the database by itself, every now and then
            with wire.watching() as seen:
                busy = await served_meanwhile(app, "GET", "/live")
            asked = len(seen.statements) + seen.connections_opened
            if not asked:
                break
        held.release()
        await slow
    async with wire.black_hole():
        waiting = app.start_request("GET", "/ready")
        await app.flush()
        silent = await served_meanwhile(app, "GET", "/live")
        await asyncio.wait({waiting.task})
        later = await served_meanwhile(app, "GET", "/live")
    with contextlib.suppress(NoResponse):
        await waiting
    was_silent = "the database was silent"
    for when, response in (("all connections were taken", busy), (was_silent, silent), (was_silent, later)):
        expect(
            response is not None and response.status == 200,
            f"While {when}: GET /live → {response.status if response else 'no response'}. Expected: 200.",
            because=RESTART,
            section="Liveness and readiness",
        )
    expect(
        not asked,
        f"All connections were taken. GET /live sent statements, or opened connections: {asked}. Expected: none.",
        because=RESTART,
        section="Liveness and readiness",
    )


@pytest.mark.start_early
async def test_readiness_follows_the_database(app, wire):
    """`GET /ready` returns 503 while the database is away, in whatever way, and 200 when it is back."""
    for how in OUTAGES:
        before = await ready(app, 200)
        async with wire.outage(how):
            away = await ready(app, 503)
        back = await ready(app, 200)
        expect(
            before == back == {200} and away == {503},
            f"The database was away ({how}). GET /ready before: {listed(before)}, meanwhile: {listed(away)}, "
            f"afterwards: {listed(back)}. Expected: 200, 503, 200, each within 10 s.",
            because=READY,
            section="Liveness and readiness",
        )


async def ready(app, status):
    """The statuses of two requests at once: those that are expected, or the last ones within 10 s."""
    until = asyncio.get_running_loop().time() + PATIENCE
    while True:
        responses = await asyncio.gather(*(app.get("/ready", timeout=10) for _ in range(2)))
        statuses = {one.status for one in responses}
        if statuses == {status} or asyncio.get_running_loop().time() > until:
            return statuses
        await asyncio.sleep(0.05)  # between two looks: an app may look at the database every now and then


def listed(statuses):
    return " and ".join(map(str, sorted(statuses)))


@pytest.mark.needs("test_each_request_has_one_line")
async def test_metrics_have_few_labels(app, testbed, wire, shop, furnished):
    """`/metrics` counts each request by method, route and status, and has no label with what a client has made up."""
    await break_wishes(testbed, shop)
    login, book = furnished.logins[0], "/books/{book_id}"

    sent = Counter()

    async def ask(number):
        for path in (f"/books/{furnished.ids.books[number]}", f"/books/{number + 1}", f"/books/no-{number}"):
            sent[book, (await app.get(path, headers={"User-Agent": f"canary-{number}"})).status] += 1
        await app.get(f"/canary-{number}/{number}?canary-{number}")
        await app.request(f"CANARY{number}", "/live")
        await app.request(f"CANARY{number}", f"/canary-{number}")
        sent["/live", (await app.get("/live", headers={"Host": f"canary-{number}.example"})).status] += 1
        sent["/wishlist", (await app.get("/wishlist", headers=login)).status] += 1
        async with wire.refusing():
            await wire.cut()
            sent[book, (await app.get(furnished.book)).status] += 1

    await ask(0)
    first, since = await metrics(app), time.perf_counter()
    sent.clear()
    for number in range(1, 4):
        await ask(number)
    later, elapsed = await metrics(app), time.perf_counter() - since
    new = {(one.name, *sorted(one.labels.items())) for one in later} - {
        (one.name, *sorted(one.labels.items())) for one in first
    }
    odd = [one for one in new if not one[0].startswith("process_") and "/metrics" not in str(one)]
    expect(
        not odd,
        f"The same odd requests came again, with other values. They made {len(odd)} new series, such as "
        f"{'; '.join(map(series, sorted(odd, key=by_name)[:3]))}.",
        because=SERIES,
        section="Metrics have few labels",
    )
    name = "http_requests_total"
    expected = {(route, str(status)): number for (route, status), number in sent.items()}
    counted = {
        (route, status): total(later, name, method="GET", route=route, status=status)
        - total(first, name, method="GET", route=route, status=status)
        for route, status in expected
    }
    expect(
        counted == expected,
        f"`{name}` has counted these GET requests, by route and status: {counted}. Expected: {expected}.",
        because="The share of requests that fail is wrong, and so is each alarm that depends on it.",
        section="Metrics have few labels",
    )
    seconds = "http_request_duration_seconds_count"
    timed = total(later, seconds, method="GET", route=book) - total(first, seconds, method="GET", route=book)
    expect(
        timed == 12,  # four in each round
        f"`{seconds}` has {timed:g} more GET requests of {book}. Expected: 12.",
        because="A dashboard of how long requests take leaves out those that failed, which are often the slow ones.",
        section="Metrics have few labels",
    )
    seconds = "http_request_duration_seconds_sum"
    lasted = total(later, seconds) - total(first, seconds)
    expect(
        0 < lasted <= 1.5 * elapsed,
        f"Requests were sent one after the other for {elapsed:.2f} s. `{seconds}` grew by {lasted:.2f}. Expected: more "
        f"than 0, and not much more than {elapsed:.2f}.",
        because="An alarm for requests of more than a second is raised for each request, or for none.",
        section="Metrics have few labels",
    )
    kind = (await app.get("/metrics")).headers.get("content-type", "")
    expect(
        kind.startswith(("text/plain", "application/openmetrics-text")),
        f"GET /metrics → content-type: {kind or 'none'}. Expected: text/plain, as for the text format of Prometheus.",
        because="Prometheus 3 refuses metrics whose type it does not know. The dashboards are empty.",
        section="Metrics have few labels",
    )


def by_name(one):
    """Counters before the buckets of a histogram, of which there are many."""
    return "_bucket" in one[0], str(one)


def series(one):
    """As Prometheus writes it."""
    return one[0] + "{" + ", ".join(f'{label}="{value}"' for label, value in one[1:]) + "}"


async def test_the_pool_is_measured(launch, wire, furnished):
    """`db_pool_connections_in_use` is how many connections are lent out, and `/metrics` itself needs none."""
    app = await launch(env={"DATABASE_CONNECTIONS": "3"})
    await metrics(app)  # so that the next time is quick
    for busy in (2, 3):
        if busy == 3:  # what comes and goes without having been lent out must not be counted
            async with wire.outage("nothing_listens"):
                for _ in range(2):
                    await app.get(furnished.book)
        async with wire.hold(asks) as held:
            sent = [app.start_request("GET", furnished.book) for _ in range(busy)]
            await held.wait_for(busy)
            response = await served_meanwhile(app, "GET", "/metrics")
            expect(
                response is not None and response.status == 200,
                f"{busy} of 3 connections were taken. GET /metrics → {response or 'no response'}.",
                because="The metrics are missing for the hour in which somebody needs them.",
                section="Metrics have few labels",
            )
            meanwhile = await metrics(app)
            held.release()
            for request in sent:
                await request
        await wire.wait_idle()
        await app.flush()
        afterwards = await metrics(app)
        told = [total(samples, "db_pool_connections_in_use") for samples in (meanwhile, afterwards)]
        limit = total(meanwhile, "db_pool_connections_limit")
        expect(
            told == [busy, 0] and limit == 3,
            f"{busy} requests had a connection of a pool of 3. `db_pool_connections_in_use` was {told[0]:g}, then "
            f"{told[1]:g}; `db_pool_connections_limit` was {limit:g}. Expected: {busy}, 0 and 3.",
            because="Nobody sees that the pool is too small, or that a request keeps its connection.",
            section="Metrics have few labels",
        )


async def test_spans_have_their_parents(app, wire, furnished, collector):
    """A trace has one span for the request and one for each of its statements, below it, also if requests overlap."""
    login, sent = furnished.logins[0], {}

    def ask(method, path, **options):
        trace, parent = uuid4().hex, uuid4().hex[:16]
        headers = options.pop("headers", {}) | {"traceparent": f"00-{trace}-{parent}-01"}
        sent[trace] = (f"{method} {path}", parent)
        return trace, app.start_request(method, path, headers=headers, **options)

    expected, optional = {}, set()
    for method, path, options in (
        ("GET", furnished.order, {"headers": login}),
        ("GET", furnished.book, {}),
        ("GET", "/export/books.csv", {}),
        ("POST", "/orders", {"headers": login, "json": furnished.basket()}),
        ("DELETE", furnished.book, {}),  # it is in an order, so a statement fails
        ("GET", "/books/1", {}),
        ("GET", "/no/such/path", {}),
    ):
        with wire.watching() as seen:
            trace, request = ask(method, path, **options)
            await request
        expected[trace] = sorted(squeezed(one.text) for one in seen.data_statements if asks(one))
        optional |= {squeezed(one.text) for one in seen.statements if not asks(one)}
    async with wire.hold(asks, limit=1) as held:
        slow, first = ask("GET", furnished.order, headers=login)
        await held.wait_for()
        since = time.perf_counter()
        quick, second = ask("GET", furnished.book)
        await second
        seconds = time.perf_counter() - since
        held.release()
        await first
    same = {what: trace for trace, (what, _) in reversed(sent.items())}
    for trace in (slow, quick):
        expected[trace] = expected[same[sent[trace][0]]]
    for _ in range(2):
        await app.get("/live")
    await app.stop()
    spans = received(collector)
    for trace, (what, parent) in sent.items():
        own = [one for one in spans if one.trace == trace]
        told = [one for one in own if one.statement and not may_lack_a_span(squeezed(one.statement), optional)]
        await expect_trace(own, told, what, parent, expected[trace])
    longest = max((one.seconds for one in spans if one.trace == slow and one.statement), default=0)
    expect(
        longest >= 0.9 * seconds,
        f"A statement was held for {seconds:.3f} s. The longest span of a statement has {longest:.3f} s.",
        because=TRACE,
        section="Traces",
    )
    roots = [one for one in spans if one.kind == SERVER and one.trace not in sent]
    expect(
        len({one.trace for one in roots}) == len(roots) == 2,
        f"Two more requests came without `traceparent`. They have {len(roots)} spans of kind SERVER, in "
        f"{len({one.trace for one in roots})} traces. Expected: two, in two.",
        because=TRACE,
        section="Traces",
    )


async def expect_trace(spans, told, what, parent, statements):
    """`told` are the spans of statements, without those of BEGIN, COMMIT and what drivers send by themselves."""
    servers = [one for one in spans if one.kind == SERVER]
    expect(
        len(servers) == 1 and servers[0].parent == parent,
        f"{what} was sent with a `traceparent`. The collector has {plural(len(servers), 'span')} of kind SERVER for "
        f"it: {shown([one.name for one in servers])}. Expected: one, whose parent is the client's span.",
        because=TRACE,
        section="Traces",
    )
    by_id = {one.id: one for one in spans}
    expect(
        sorted(squeezed(one.statement) for one in told) == statements and {one.kind for one in told} <= {CLIENT},
        f"{what} sent {plural(len(statements), 'statement')}. Its trace has {plural(len(told), 'span')} with the text "
        f"of one, of kinds {sorted({one.kind for one in told})}: {shown([squeezed(one.statement) for one in told])}. "
        f"Expected: one of kind {CLIENT} (CLIENT) for each statement, also for one that fails.",
        because=TRACE,
        section="Traces",
    )
    for one in told:
        seen = set()
        while one.parent in by_id and one.id not in seen:
            seen.add(one.id)
            one = by_id[one.parent]
        expect(
            one is servers[0],
            f"In the trace of {what}, the span of a statement is below {one.name!r}, not below the request.",
            because=TRACE,
            section="Traces",
        )


CONTROL = ("", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


def may_lack_a_span(text, optional):
    """What begins and ends transactions, and what drivers send by themselves."""
    return text in optional or text.partition(" ")[0].upper() in CONTROL


def squeezed(text):
    return " ".join(text.split()).rstrip(";")


@pytest.mark.start_early
async def test_a_silent_collector_harms_nothing(launch, furnished, collector):
    """While the collector is away, or does not respond, requests are served, and SIGTERM ends the app within 5 s."""
    app = await launch(env={"OTEL_EXPORTER_OTLP_ENDPOINT": None})
    usual = await expect_no_harm(app, furnished, "no collector is set", within=15)  # on a busy machine it takes seconds
    async with collector.hold():
        await expect_no_harm(await launch(), furnished, "the collector does not respond", 5 + usual, many=True)
    collector.respond(status=503)
    await expect_no_harm(await launch(), furnished, "the collector responds with 503", 5 + usual)
    for url in ("http://127.0.0.1:9", "http://collector.invalid:4318"):
        app = await launch(env={"OTEL_EXPORTER_OTLP_ENDPOINT": url})
        await expect_no_harm(app, furnished, f"the collector is away ({url})", 5 + usual)


async def leave_many_spans(app, furnished):
    """A request with 300 statements, savepoints included."""
    author = furnished.ids.authors[0]
    books = [{"isbn": f"978-7-{n:06}", "title": "Many", "author_id": author, "price_cents": 900} for n in range(100)]
    response = await app.post("/books/import", json=books, timeout=60)  # if it went on, the app would wait for its end
    expect(
        response.status == 503 or response.json.get("stored") == len(books),
        f"{response}. Expected: {len(books)} books are stored.",
        because=HARM,
        section="Traces",
    )


async def expect_no_harm(app, furnished, how, within, many=False):
    """Requests are served, and SIGTERM ends the app, also with many spans. Returns in how many seconds it ended."""
    log, statuses = Log(app), []
    for _ in range(3):
        try:
            async with asyncio.timeout(8):
                name, response = await send(app, "GET", furnished.book)
        except TimeoutError:
            response = None
        expect(
            response is not None,
            f"While {how}: GET {furnished.book} → no response within 8 s.",
            because=HARM,
            section="Traces",
        )
        await log.request(name, f"GET {furnished.book}")
        statuses.append(response.status)
    expect(
        200 in statuses and {200, 503}.issuperset(statuses),  # 503: one of the app's own limits, on a busy machine
        f"While {how}: GET {furnished.book} → {statuses}. Expected: 200.",
        because=HARM,
        section="Traces",
    )
    if many:
        await leave_many_spans(app, furnished)
    ended = await app.stop(within=within)
    expect(
        ended is not None and ended.code in (0, -SIGTERM),
        f"While {how}, SIGTERM was sent. After {within:.1f} s the app "
        f"{'was still running' if ended is None else f'had ended with exit code {ended.code}'}.",
        because="Each deploy waits for the collector. Then the process is killed, with all requests under way.",
        section="Traces",
    )
    return ended.seconds
