"""Lesson 16: observability. Here: what the log says about each request."""

import asyncio
import contextlib
import itertools
import time
from uuid import uuid4

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.kit.service.app import NoResponse
from checks.lesson_16.furnished import break_wishes
from checks.lesson_16.lines import (
    LOST,
    PING,
    REQUEST_ID,
    Log,
    asks,
    held_until,
    must,
    new_id,
    said,
    send,
    short,
    shown,
    skeleton,
    templates,
)

BLIND = "It was slow between two and three. Nobody can say whether the database, the pool or the code was the reason."
FALSE = "With an id that it made up, a client hides its requests among others, or breaks a program that reads the log."
WHILE = 0.3
"""Seconds for which something is held: less than the app's own limits, and more than everything else takes."""


async def test_each_request_has_one_line(app, testbed, wire, shop, furnished, endpoints):
    """Each request has one line in the log, with its method, the template of its path, and its status, also 500."""
    log, template = Log(app), await templates(app)
    sent = [(one.method, one.path, one.options) for one in endpoints(furnished.ids, headers=furnished.logins[0])]
    sent += [
        ("POST", "/auth/login", {"json": {"email": "nobody@example.com", "password": "wrong"}}),
        ("POST", "/auth/login", {"json": {"email": 1}}),
        ("POST", "/orders", {"json": {"lines": []}}),
        ("POST", "/auth/register", {"content": b"x" * (2**20 + 1), "headers": {"content-type": "application/json"}}),
        ("GET", "/books/1?page=7", {}),
        ("PATCH", "/live", {}),
        ("GET", "/no/such/path", {}),
    ]
    for method, path, options in sent:
        name, response = await send(app, method, path, **options)
        await expect_line(log, name, method, path, template, response.status)
    async with wire.outage("nothing_listens"):
        name, response = await send(app, "GET", furnished.book)
        await expect_line(log, name, "GET", furnished.book, template, response.status)
    await expect_line_without_client(app, log, wire, furnished)
    await expect_line_of_a_broken_export(app, log, wire, shop)
    await break_wishes(testbed, shop)
    for _ in range(2):
        name, response = await send(app, "GET", "/wishlist", headers=furnished.logins[0])
        await expect_line(log, name, "GET", "/wishlist", template, 500)


async def expect_line_without_client(app, log, wire, furnished):
    """A request whose client hangs up has its line, too. Its status is left open."""
    name = new_id()
    async with wire.hold(asks, limit=1) as held:
        request = app.start_request("GET", furnished.book, headers=name)
        await held.wait_for()
        await request.disconnect()
        await app.flush()
        held.release()
    line = await log.request(name["X-Request-ID"], f"GET {furnished.book}, whose client hung up,")
    expect(
        line.get("route") == "/books/{book_id}",
        f"A client of GET {furnished.book} hung up. The line of the request: {shown([line])}. Expected: its route.",
        because=LOST,
        section="One line for each request",
    )


async def expect_line_of_a_broken_export(app, log, wire, shop):
    """A response that breaks after it has begun: its status was sent long before."""
    await add_many_books(shop)
    name = new_id()
    async with second_batch_held(app, wire, name) as export:
        await wire.cut()
    with contextlib.suppress(NoResponse):
        await export
    what = "GET /export/books.csv, whose second statement about books failed,"
    line = await log.request(name["X-Request-ID"], what)
    expect(
        line.get("route") == "/export/books.csv",
        f"{what} has this line: {shown([line])}. Expected: its route.",
        because=LOST,
        section="One line for each request",
    )


async def add_many_books(shop):
    """So many that an export reads them in three batches."""
    await shop.execute(
        "INSERT INTO books (isbn, title, author_id, price_cents, shop_id) SELECT 'm' || n, 'Many', author_id, 900, "
        "shop_id FROM generate_series(1, 2500) AS n, (SELECT author_id, shop_id FROM books LIMIT 1) AS one"
    )


@contextlib.asynccontextmanager
async def second_batch_held(app, wire, headers):
    """An export whose response has begun: the statement for the second batch of books is held."""
    async with wire.hold(lambda one: one.data and "FROM books" in one.text, limit=2) as held:
        export = app.start_request("GET", "/export/books.csv", headers=headers)
        await held.wait_for()
        held.release_one()
        await held.wait_for()
        yield export


async def expect_line(log, name, method, path, template, status):
    what = f"{method} {path}"
    line = await log.request(name, what)
    expected = {"method": method, "status": status}
    if path.startswith("/no/such"):
        told = path not in str(line.get("route"))
    elif status == 405:
        told = True
    else:
        expected["route"] = template(method, path)
        told = True
    expect(
        told and expected.items() <= line.items(),
        f"{what} → {status}. Its line: {shown([line])}. Expected: {expected}"
        f"{'' if 'route' in expected or status == 405 else ', and a route that does not repeat the path'}.",
        because=LOST,
        section="One line for each request",
    )


async def test_statements_are_counted(app, wire, shop, furnished, endpoints):
    """`statements` is the number of statements that the request has sent, for each endpoint."""
    await add_many_books(shop)
    log, alone = Log(app), {}
    for endpoint in endpoints(furnished.ids, headers=furnished.logins[0]):
        with wire.watching() as seen:
            name, response = await send(app, endpoint.method, endpoint.path, **endpoint.options)
            line = await log.request(name, str(endpoint))
        expect_count(line, seen, f"{response.request} → {response.status}")
        alone[endpoint.method, endpoint.path] = line["statements"]
    book, order = furnished.book, furnished.order
    async with wire.hold(asks, limit=1) as held:
        first = new_id()
        slow = app.start_request("GET", order, headers=first | furnished.logins[0])
        await held.wait_for()
        second, _ = await send(app, "GET", book)
        quick = await log.request(second, f"GET {book}")
    await slow
    line = await log.request(first["X-Request-ID"], f"GET {order}")
    counted = {order: line["statements"], book: quick["statements"]}
    expected = {path: alone["GET", path] for path in counted}
    expect(
        counted == expected,
        f"Two requests overlapped. Their lines count {counted} statements. Alone, they have {expected}.",
        because=BLIND,
        section="Where a request spends its time",
    )


def sets_up(statement):
    """What SQLAlchemy asks on its first connection, and the driver about types; the ping of a pool is empty."""
    return statement.driver and bool(statement.text.strip("; \n"))


def expect_count(line, seen, what):
    own = [one for one in seen.statements if one.process == "app"]
    data = [one for one in own if one.data]
    optional = sum(map(sets_up, own))
    at_once = sum(
        one.text == before.text and one.connection == before.connection and one.started <= (before.finished or 0)
        for before, one in itertools.pairwise(data)
    )
    optional += sum(one.verb in ("SAVEPOINT", "RELEASE") or "TO SAVEPOINT" in one.text.upper() for one in own)
    pings = sum(bool(PING.fullmatch(one.text)) for one in data)  # the app may watch the database by itself
    least = 0 if line["route"] == "/ready" else len(data) - at_once - pings  # it may ask past the engine
    expect(
        least <= line["statements"] <= len(data) + optional,
        f"{what}: {plural(len(data), 'statement')} crossed the wire, besides BEGIN, COMMIT and the like. Its line says "
        f"{line['statements']}: {shown([line])}",
        because="This number shows a loop that sends a statement for each row. A wrong one hides it.",
        section="Where a request spends its time",
    )


async def test_times_are_told_apart(launch, wire, shop, furnished, provider):
    """`database_ms` is the time of statements, and `pool_wait_ms` that of waiting for a connection."""
    app = await launch(env={"DATABASE_CONNECTIONS": "1"})
    log = Log(app)
    await app.get(furnished.book)
    async with wire.hold(lambda one: one.data and "FROM books" in one.text, limit=1) as held:
        first, second = new_id(), new_id()
        slow = app.start_request("GET", furnished.book, headers=first)
        await held.wait_for()
        since = time.perf_counter()
        behind = app.start_request("GET", furnished.book, headers=second)
        await app.flush()
        await app.flush()
        waiting_since = time.perf_counter()
        now = await held_until(waiting_since + WHILE, behind)
        held.release()
        await asyncio.wait({slow.task, behind.task})
    what = f"GET {furnished.book}"
    line = await log.request(first["X-Request-ID"], what)
    expect_at_least(line, "database_ms", now - since, f"a statement of {what} was held")
    line = await log.request(second["X-Request-ID"], what)
    expect_at_least(line, "pool_wait_ms", now - waiting_since, f"{what} waited for the only connection")

    async with wire.hold(asks, limit=1) as held:
        first = new_id()
        slow = app.start_request("GET", furnished.book, headers=first)
        await held.wait_for()
        since = time.perf_counter()
        now = await held_until(since + WHILE, slow)
        await wire.cut()
        await slow
    line = await log.request(first["X-Request-ID"], what)
    expect_at_least(line, "database_ms", now - since, f"a statement of {what} was held, and then its connection broke")

    async with wire.hold(asks, limit=1) as held:
        slow = app.start_request("GET", furnished.book)
        await held.wait_for()
        name, refused = await send(app, "GET", furnished.book)
        held.release()
        await slow
    line = await log.request(name, what)
    if refused.status == 503:
        expect_at_least(line, "pool_wait_ms", line["duration_ms"] / 2000, f"{what} waited, and got no connection")

    await add_many_books(shop)
    first = new_id()
    async with second_batch_held(app, wire, first) as export:
        since = time.perf_counter()
        now = await held_until(since + WHILE, export)
    await export
    line = await log.request(first["X-Request-ID"], "GET /export/books.csv")
    expect_at_least(line, "database_ms", now - since, "the second statement about books of an export was held")

    async with provider.hold() as held:
        first = new_id()
        body = furnished.basket() | {"card_token": "tok"}
        slow = app.start_request("POST", "/checkout", json=body, headers=first | furnished.logins[0])
        await held.arrived()
        since = time.perf_counter()
        now = await held_until(since + WHILE, slow)
        held.release()
        await slow
    line = await log.request(first["X-Request-ID"], "POST /checkout")
    rest = line["duration_ms"] - line["database_ms"] - line["pool_wait_ms"]
    expect(
        rest >= 900 * (now - since),
        f"For {1000 * (now - since):.0f} ms POST /checkout waited for the payment provider. Its line: {shown([line])}. "
        f"It leaves {rest:.0f} ms for what is neither the database nor the pool.",
        because=BLIND,
        section="Where a request spends its time",
    )


def expect_at_least(line, name, seconds, what):
    parts = line["database_ms"] + line["pool_wait_ms"]
    expect(
        line[name] >= 900 * seconds,
        f"For at least {1000 * seconds:.0f} ms {what}. Its line has a smaller `{name}`: {shown([line])}",
        because=BLIND,
        section="Where a request spends its time",
    )
    expect(
        parts <= 1.05 * line["duration_ms"] + 1,
        f"For at least {1000 * seconds:.0f} ms {what}. In its line, `database_ms` and `pool_wait_ms` together are more "
        f"than `duration_ms`: {shown([line])}",
        because=BLIND,
        section="Where a request spends its time",
    )


async def test_ids_do_not_mix(launch, testbed, shop, wire, furnished, provider):
    """Each line that is written while a request is handled has its id, also if requests overlap, or end with 500."""
    app = await launch(env={"SLOW_STATEMENT_MS": "60000"})
    log, headers = Log(app), furnished.logins
    paid = furnished.basket() | {"card_token": "tok"}
    idle, runs = await lines_of_nobody(app), {"/checkout": [], "/orders": []}
    for path, number in itertools.product(runs, (0, 3)):
        before = len(log.lines)
        name, response = await order(app, log, path, furnished, number)
        expect_only_id(log.lines[before:], name, response, idle)
        runs[path].append(log.of(name))
    async with contextlib.AsyncExitStack() as busy:
        for path, lines in runs.items():  # once more, over a connection that is opened for it
            held = await busy.enter_async_context(wire.hold(asks, limit=1))
            app.start_request("GET", furnished.book)
            await held.wait_for()
            name, _ = await order(app, log, path, furnished, 3)
            lines.append(log.of(name))
    alone = {path: said_each_time(*lines) for path, lines in runs.items()}
    known = {line for lines in alone.values() for line in said(lines)}

    def of(name):
        return [line for line in log.of(name) if skeleton(line) in known]

    async with provider.hold() as held:
        sent = []
        for number in range(3):
            name = new_id()
            request = app.start_request("POST", "/checkout", json=paid, headers=name | headers[number])
            sent.append((name, "/checkout", request))
            await held.arrived(number + 1)
        for number in range(3):
            held.release_one()
            await sent[number][2]
    async with wire.hold(lambda one: one.commits and one.process == "app", limit=1) as commits:
        first, second = new_id(), new_id()
        body = {"json": furnished.basket(1)}
        slow = app.start_request("POST", "/orders", headers=first | headers[1], **body)
        await commits.wait_for()
        quick = app.start_request("POST", "/orders", headers=second | headers[2], json=furnished.basket(2))
        await quick
    await slow
    sent += [(first, "/orders", slow), (second, "/orders", quick)]
    for name, path, request in sent:
        response = await request
        name = name["X-Request-ID"]
        await log.until(lambda name=name, path=path: said(of(name)) == said(alone[path]))
        missing, strange = said(alone[path]) - said(of(name)), said(of(name)) - said(alone[path])
        expect(
            not missing and not strange and response.headers.get(REQUEST_ID) == name,
            f"POST {path} overlapped with others. Alone, it has {plural(len(alone[path]), 'line')} with its id. Now "
            f"its X-Request-ID is {name}. These lines lack this id: "
            f"{short(one for one in alone[path] if skeleton(one) in missing)}. These have it, and are too many: "
            f"{short(one for one in of(name) if skeleton(one) in strange)}. "
            f"The response has X-Request-ID: {response.headers.get(REQUEST_ID)}.",
            because=LOST,
            section="Ids of requests that overlap",
        )
    await break_wishes(testbed, shop)
    before = len(log.lines)
    name, response = await send(app, "GET", "/wishlist", headers=headers[0])
    await log.until(lambda: log.requests(name))
    await app.flush()
    expect_only_id(log.lines[before:], name, response, idle)


async def order(app, log, path, furnished, number):
    """Orders a book, at /checkout by card. The id of the request and its response, when all lines are written."""
    body = furnished.basket(number) | ({"card_token": "tok"} if path == "/checkout" else {})
    name, response = await send(app, "POST", path, json=body, headers=furnished.logins[0])
    must(response, 201)
    await log.request(name, f"POST {path}")
    await app.flush()
    return name, response


def said_each_time(first, *others):
    """The lines that requests of one kind have in the same number. Others are about the state of a pool, perhaps."""
    counts = [said(lines) for lines in (first, *others)]
    return [line for line in first if len({count[skeleton(line)] for count in counts}) == 1]


async def lines_of_nobody(app):
    """What the server says when no request is under way, as skeletons."""
    idle = Log(app)
    await app.flush()
    await idle.until(lambda: idle.lines)
    return set(said(idle.lines))


def expect_only_id(lines, name, response, idle):
    """Each line that was written while this was the only request has its id."""
    strange = [line for line in lines if line.get("request_id") != name and skeleton(line) not in idle]
    expect(
        not strange,
        f"{response}, with X-Request-ID: {name}. Meanwhile the app wrote lines without this id: {shown(strange)}",
        because="Support has the id of a failed request, and the error itself is not among the lines with this id.",
        section="Which middleware sees which errors",
    )


async def test_responses_tell_their_id(app, testbed, shop, wire, furnished):
    """Each response tells the id of its request: that of the client, if it is a UUID, or else a new one."""
    await break_wishes(testbed, shop)
    login = {"headers": furnished.logins[0]}
    wrong = {"json": {"email": "nobody@example.com", "password": "wrong"}}
    many = {"json": {"lines": [{"book_id": furnished.ids.books[0], "quantity": 1000}]}}
    sent = {
        "GET /live": ({}, 200),
        f"GET {furnished.book}": ({}, 200),
        "GET /export/books.csv": ({}, 200),
        "POST /auth/login": (wrong, 401),
        "GET /me": ({}, 401),
        "GET /books/1": ({}, 404),
        "GET /no/such/path": ({}, 404),
        "DELETE /live": ({}, 405),
        "POST /orders": (login | many, 409),
        "POST /books/import": ({"content": b"[" + b" " * 2**20 + b"]"}, 413),
        "POST /auth/refresh": ({"json": {}}, 422),
        "GET /wishlist": (login, 500),
    }
    log = Log(app)
    for what, (options, status) in sent.items():
        await expect_id(app, log, what, options, status)
    async with wire.outage("reset"):
        await expect_id(app, log, f"GET {furnished.book}", {}, 503)
    await expect_new_ids(app, log, furnished)


async def expect_id(app, log, what, options, status):
    """Once with an id of the client's, and once without."""
    method, path = what.split()
    for header in (new_id(), {}):
        response = await app.request(method, path, **options | {"headers": options.get("headers", {}) | header})
        name = response.headers.get(REQUEST_ID, "")
        told = response.json.get("request_id") if status >= 400 else name
        expected = header.get("X-Request-ID", name)
        expect(
            bool(name) and name == expected and told == name,
            f"{what} was sent with X-Request-ID: {header.get('X-Request-ID', 'none')}. The response has X-Request-ID: "
            f"{name or 'none'}{'' if status < 400 else f', and request_id: {told} in its body'}. Expected: "
            f"{'this id' if header else 'a new id'}{'' if status < 400 else ', the same in both'}. {response}",
            because="A customer reads this id to support on the phone. Without it nobody finds the request.",
            section="Which middleware sees which errors",
        )
        await log.request(name, what)


async def expect_new_ids(app, log, furnished):
    """An id of the client's that is not a UUID is replaced, and is in no line of the log."""
    mine = str(uuid4())
    await app.get("/live", headers={"X-Request-ID": mine})
    strange = [
        "x" * 5000, f"{mine}\t{mine}", f'{mine}", "level": "error', '{"event": "request"}', f"{mine}, {mine}",
        f"{mine}x", f"{mine}x", "-" * 36,
        "../../etc/passwd", "é".encode("latin-1"), "", f"<script>{mine}</script>", "%0a%0d", "select 1",
    ]  # fmt: skip
    given = set()
    for name in [*strange, None, None]:
        headers = {} if name is None else {"X-Request-ID": name}
        response = await app.get(furnished.book, headers=headers)
        new = response.headers.get(REQUEST_ID, "")
        safe = 0 < len(new) <= 64 and new.replace("-", "").isalnum() and new.isascii()
        expect(
            safe and new != mine and new not in given,
            f"A request had X-Request-ID: {str(name)[:60]!r}. The response has {new[:60]!r}. Expected: a new id, of at "
            "most 64 letters, digits and hyphens.",
            because=FALSE,
            section="Ids of requests that overlap",
        )
        await log.request(new, f"GET {furnished.book}")
        given.add(new)
    kept = [one for one in strange if len(one) > 6 and any(str(one)[:60] in str(line.values()) for line in log.lines)]
    expect(
        not kept,
        f"The log holds these texts, which came as X-Request-ID and are no UUIDs: {[str(one)[:60] for one in kept]}",
        because=FALSE,
        section="Ids of requests that overlap",
    )
    expect(
        len(log.requests(mine)) == 1,
        f"One request had X-Request-ID: {mine}. {plural(len(log.requests(mine)), 'line')} with event=request and "
        "this id are in the log. Others had it only as a part of their header. Expected: one line.",
        because=FALSE,
        section="Ids of requests that overlap",
    )
