"""Lesson 16: observability. Here: what the log is made of, and what it must not hold."""

import asyncio
import time
import urllib.parse

import pytest

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.lesson_16.furnished import break_wishes
from checks.lesson_16.lines import Log, held_until, metrics, must, new_id, parsed, send, shown, written_twice
from checks.lesson_16.spans import content, received

UNREAD = "A program reads the log. It drops each line that it cannot parse, and the errors are among them."
SECRET = "Everybody who can read this can use the secret: for example to log in as the customer, or pay with the card."
SLOW = "The database has been slow for a week, and nobody knows which statement makes it so."
CANARY = "canary-title"
SEARCH = f"/search/titles?title={CANARY}"
QUOTES = '"o\'hara"@example.com'
LIMIT, WHILE = 300, 0.4
"""Milliseconds from which on a statement is slow, and seconds for which one is held."""


async def test_each_line_is_one_json_object(app, testbed, shop, wire, furnished, provider, gateway):
    """Each line of the app and of the worker is one JSON object, and none is written twice, whatever fails."""
    log, login = Log(app), furnished.logins[0]
    await shop.execute("UPDATE customers SET email = $1 WHERE id = $2", QUOTES, furnished.ids.customers[0])
    ids = []

    async def post(path, body):
        name, response = await send(app, "POST", path, json=body, headers=login)
        ids.append(name)
        return response

    await post("/orders", furnished.basket())
    provider.break_next()
    await post("/checkout", furnished.basket() | {"card_token": "tok"})
    provider.respond_next(status=500)
    await post("/checkout", furnished.basket() | {"card_token": "tok"})
    await post("/auth/login", {"email": QUOTES, "password": '"\n\\'})
    await post("/auth/login", {"email": QUOTES})
    await app.get("/search/titles", params={"title": '"\n{'})
    async with wire.outage("reset"):
        await post("/orders", furnished.basket())
    await break_wishes(testbed, shop)
    name, response = await send(app, "GET", "/wishlist?%22", headers=login)
    must(response, 500)

    gateway.respond_next(status=500, body=b'"\n')
    worker = await testbed.start("app.worker", env={"MAIL_RETRY_SECONDS": "0.01"}, connected=True)
    work = Log(worker)
    await gateway.received(2)
    await worker.terminate()
    await app.stop()
    for process, texts in (("The app", log.texts), ("The worker", work.texts)):
        plain = [text for text in texts if parsed(text) is None]
        expect(
            not plain,
            f"{process} wrote {plural(len(plain), 'line')} that cannot be read as a JSON object: {shown(plain)}",
            because=UNREAD,
            section="A line is one JSON object",
        )
    twice = [line for one in (*ids, name) for line in written_twice(log.of(one)) + log.requests(one)[1:]]
    expect(
        not twice,
        f"Requests have these lines twice: {shown(twice)}",
        because="Each error counts twice. An alarm for ten errors is raised after five.",
        section="A line is one JSON object",
    )


async def test_no_secret_is_told(launch, testbed, shop, wire, furnished, provider, collector):
    """No password, token, card token or query is in a log, a response, a metric or a span, whatever fails."""
    app = await launch(env={"SLOW_STATEMENT_MS": "1"})
    log, told = Log(app), []
    secrets = {"the key of the tokens": testbed.lesson.env["JWT_SECRET"]}

    def secret(what, text):
        secrets[what] = text
        return text

    async def ask(method, path, **options):
        response = await app.request(method, path, **options)
        told.append((f"the response of {response.request.partition('?')[0]}", response.text + str(response.headers)))
        return response

    password, wrong = secret("a password", "canary-pass-Wq7"), secret("a wrong password", "canary-wrong-Xk2")
    anna = {"email": "anna@example.com", "name": "Anna", "password": password}
    await ask("POST", "/auth/register", json=anna)
    await ask("POST", "/auth/register", json=anna)
    await ask("POST", "/auth/register", json=anna | {"name": 5})
    await ask("POST", "/auth/register", json=anna | {"email": "no address"})
    tokens = await app.post("/auth/login", json=anna)
    bearer = {"Authorization": f"Bearer {secret('an access token', tokens['access_token'])}"}
    refresh = {"refresh_token": secret("a refresh token", tokens["refresh_token"])}
    for email in ("anna@example.com", "nobody@example.com"):
        await ask("POST", "/auth/login", json={"email": email, "password": wrong})
    await ask("POST", "/auth/login", json={"email": [anna["email"]], "password": wrong})
    await ask("POST", "/auth/login", json={"password": wrong})
    await ask("POST", "/auth/login", content=b'{"email": "a", "password": "canary-wrong-Xk2', headers=JSON)
    await ask("GET", "/me", headers={"Authorization": f"Basic {secret('a Basic login', 'Y2FuYXJ5OmJhc2lj')}"})
    await ask("GET", "/me", headers={"Authorization": f"Bearer {secret('a forged token', 'canary.forged.Zt8')}"})
    query = f"?token={secret('the query of a URL', 'canary-query-Rm5')}"
    for path in (f"/me{query}", f"/no/such{query}", f"/books/x{query}", f"/books?limit=canary-query-Rm5&{query[1:]}"):
        await ask("GET", path, headers=bearer)
    card = {"card_token": secret("a card token", "4111-1111-canary-1111")}
    paid = furnished.basket() | card
    for fails in (
        lambda: provider.respond_next(status=402, json=card),
        lambda: provider.respond_next(status=500, json=card),
        provider.break_next,
        lambda: None,
    ):
        fails()
        await ask("POST", "/checkout", json=paid, headers=bearer)
    await ask("POST", "/checkout", json=paid | {"lines": "all"}, headers=bearer)
    await ask("POST", "/checkout", json={"lines": [], **card}, headers=bearer)
    async with wire.outage("reset"):
        await ask("POST", f"/checkout{query}", json=paid, headers=bearer)
        await ask("POST", "/auth/login", json=anna)
        await ask("POST", "/auth/refresh", json=refresh)
    renewed = await app.post("/auth/refresh", json=refresh)
    must(renewed, 200)
    again = {"refresh_token": secret("a new refresh token", renewed["refresh_token"])}
    for used in (refresh, again):  # the second use of a token revokes the other one
        await ask("POST", "/auth/refresh", json=used)
    for table, column, path, body in BROKEN:
        testbed.provoked.add(column)
        await shop.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO gone")
        values = {"anna": anna | {"email": "eva@example.com"}, "paid": paid, "refresh": refresh, "login": anna}[body]
        response = await ask("POST", path + query, json=values, headers=bearer)
        must(response, 500)
        await shop.execute(f"ALTER TABLE {table} RENAME COLUMN gone TO {column}")
    told.append(("the metrics", str(await metrics(app))))
    await app.stop()
    told.append(("the log", "\n".join(log.texts)))
    for span in received(collector):
        told += [(f"`{key}` of the span {span.name!r}", str(value)) for key, value in span.attributes.items()]
    bodies = [("what was sent to the collector", content(call).decode("utf-8", "replace")) for call in collector.calls]
    found = leaks(told, secrets) or leaks(bodies, secrets)
    expect(not found, sentence("; ".join(found[:4])), because=SECRET, section="Where secrets leak")


def leaks(told, secrets):
    """A sentence for each secret and each place in which it is."""
    found = {}
    for where, text in told:
        for what, value in secrets.items():
            if value in text or urllib.parse.quote(value) in text:
                found.setdefault((what, where), f"{where} has {what}: {around(text, value)}")
    return list(found.values())


def sentence(text):
    return text[:1].upper() + text[1:]


JSON = {"content-type": "application/json"}
BROKEN = (
    ("payments", "card_token", "/checkout", "paid"),
    ("customers", "password_hash", "/auth/register", "anna"),
    ("refresh_tokens", "token", "/auth/refresh", "refresh"),
    ("refresh_tokens", "family", "/auth/login", "login"),
)
"""Columns that are gone, and a request that then fails with 500 because of it."""


def around(text, value):
    at = text.find(value)
    return "…" + text[max(0, at - 60) : at + len(value) + 10] + "…" if at >= 0 else value


@pytest.mark.needs("test_ids_do_not_mix")
async def test_slow_statements_are_named(launch, wire, furnished):
    """A statement that takes longer than SLOW_STATEMENT_MS has a line with its text, without what was bound to it."""
    app = await launch(env={"SLOW_STATEMENT_MS": str(LIMIT), "DATABASE_CONNECTIONS": "1"})
    log = Log(app)
    await app.get("/search/titles?title=warm")
    change = {"json": {"title": CANARY}, "headers": {"If-Match": "*"}}
    await expect_named(app, log, wire, furnished, "SELECT", ("GET", SEARCH, {}))
    await expect_named(app, log, wire, furnished, "UPDATE", ("PATCH", furnished.book, change))
    await expect_named(app, log, wire, furnished, "SELECT", ("GET", SEARCH, {}), fails=True)
    await expect_none_below(await launch(env={"SLOW_STATEMENT_MS": "60000"}), wire, SEARCH)


async def expect_named(app, log, wire, furnished, verb, request, fails=False):
    """A statement about books is held, while another request waits for the only connection."""
    method, path, options = request
    name, behind = new_id(), new_id()
    options = options | {"headers": options.get("headers", {}) | name}
    async with wire.hold(lambda one: one.verb == verb and "books" in one.text, limit=1) as held:
        slow = app.start_request(method, path, **options)
        await held.wait_for()
        statement = held.waiting[0]
        waiting = app.start_request("GET", furnished.book, headers=behind)
        for _ in range(2):
            await app.flush()
        since = time.perf_counter()
        waited = await held_until(since + WHILE, slow) - since
        if fails:
            await wire.cut()
        held.release()
        await asyncio.wait({slow.task, waiting.task})
    await log.request(name["X-Request-ID"], f"{method} {path}")
    whole = await log.request(behind["X-Request-ID"], f"GET {furnished.book}")
    lines = slow_lines(log, name)
    right = [
        line
        for line in lines
        if squeezed(line.get("statement")) == squeezed(statement.text) and line.get("duration_ms", 0) >= LIMIT
    ]
    how = "was held for 400 ms" + (", and then its connection broke" if fails else "")
    expect(
        len(right) == 1 and CANARY not in str(lines) and all(line.get("duration_ms", 0) >= LIMIT for line in lines),
        f"With SLOW_STATEMENT_MS={LIMIT}, a statement {how}: {statement.text[:150]} The lines of its request with "
        f"event=slow_statement: {shown(lines)}. Expected: one with this whole text in `statement`, its time in "
        f"`duration_ms`, and no bound value; and none of less than {LIMIT} ms.",
        because=SLOW,
        section="Slow statements",
    )
    rest = whole["duration_ms"] - 900 * waited
    long = [line for line in slow_lines(log, behind) if line.get("duration_ms", 0) > rest]
    expect(
        not long,
        f"A request waited {1000 * waited:.0f} ms of its {whole['duration_ms']} ms for the only connection. "
        f"Its statements have had only the rest, and their lines say more: {shown(long)}",
        because="A developer spends days on a statement that was never slow.",
        section="Slow statements",
    )


def slow_lines(log, name):
    return [line for line in log.of(name["X-Request-ID"]) if line.get("event") == "slow_statement"]


async def expect_none_below(app, wire, path):
    """With a limit of a minute, a statement of less than a second has no line."""
    log = Log(app)
    async with wire.hold(lambda one: one.data and "books" in one.text, limit=1) as held:
        name = new_id()
        request = app.start_request("GET", path, headers=name)
        await held.wait_for()
        await held_until(time.perf_counter() + 0.7, request)
        held.release()
        await request
    await log.request(name["X-Request-ID"], f"GET {path}")
    lines = [line for line in log.lines if line.get("event") == "slow_statement"]
    expect(
        not lines,
        f"With SLOW_STATEMENT_MS=60000 a statement was held for 700 ms. Expected: no line about it. {shown(lines)}",
        because="So many statements count as slow that nobody reads about them.",
        section="Slow statements",
    )


def squeezed(text):
    return " ".join(str(text).split()).rstrip(";")
