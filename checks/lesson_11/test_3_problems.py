"""Lesson 11: what the API promises. Here: errors."""

import json
import re

from checks.kit.report import expect
from checks.kit.service.app import NoResponse
from checks.kit.wire import committing
from checks.kit.wire.faults import REFUSALS
from checks.lesson_11.members import UNKNOWN, stocked
from checks.lesson_11.refused import NUMBER, refused_everywhere, refused_here, with_wrong_leaves
from checks.lesson_11.shape import SHAPE, expect_problem, expect_status

LEAK = "What an error message gives away"
SPIED = (
    "Anybody can send a bad request and learn how the shop's database is built, or read values of others. Attackers "
    "begin with that."
)
SECRET = "7f3a-canary-7f3a"

ELSEWHERE = """
    SELECT string_agg(format('ALTER TABLE %I RENAME TO %I', tablename, tablename || '_elsewhere'), '; ')
      FROM pg_tables WHERE schemaname = 'public'
"""

BROKEN_REVIEWS = """
    ALTER TABLE reviews DISABLE TRIGGER count_rating;
    DELETE FROM reviews;
    UPDATE books SET rating_count = 0, rating_sum = 0;
    CREATE FUNCTION fill_disk() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'could not extend file'; END $$;
    CREATE TRIGGER fill_disk BEFORE INSERT ON reviews FOR EACH ROW WHEN (NEW.body = 'disk full')
        EXECUTE FUNCTION fill_disk()
"""
"""Without its trigger `rating_count` stays 0, and the average of a book's ratings is a division by zero."""

DISK_FULL = ("53100", "DiskFull", "could not extend file")
"""The SQLSTATE, what drivers call it, and what the trigger above says: one of these is in a log that says why."""

BLAMED = "The client shows its user a form to correct, and nothing in it is wrong."

MISTAKEN = (
    "A client decides by the status what to do next: correct a value, log in, or try again later. With this status it "
    "does the wrong thing."
)

BACK = """
    SELECT string_agg(format('ALTER TABLE %I RENAME TO %I', tablename, replace(tablename, '_elsewhere', '')), '; ')
      FROM pg_tables WHERE schemaname = 'public'
"""


async def test_each_error_of_a_request_is_a_problem(app, endpoints, login, shop):
    """Each response with a status from 400 to 499 is a problem as in RFC 9457, from any endpoint and for any reason."""
    ids = await stocked(shop)
    header = login(ids.customers[0])
    asked = [*refused_everywhere(endpoints(ids, headers=header)), *refused_here(ids, header)]
    for what, method, path, options, statuses in asked:
        response = await app.request(method, path, **options)
        expect_status(response, statuses, what, MISTAKEN, SHAPE)
        if not response.ok:
            expect_problem(response, what)


async def test_an_error_of_the_service_is_a_problem(app, endpoints, login, shop, wire):
    """Each response with status 500 or 503 is a problem, too, and the service goes on afterwards."""
    ids = await stocked(shop)
    header = login(ids.customers[0])
    everywhere = endpoints(ids, headers=header)
    async with wire.outage("nothing_listens"):
        for one in everywhere:
            response = await app.request(one.method, one.path, **one.options)
            expect_status(response, (503,), f"{one.name} without a database", MISTAKEN, SHAPE)
            expect_problem(response, f"{one.name} without a database")
    await expect_to_go_on(app, ids, "the database was away")
    await shop.execute("UPDATE invoices SET lines = '7'", step="the lines of an invoice are spoiled")
    spoiled = await app.get(f"/orders/{ids.orders[0]}/invoice", headers=header)
    expect(
        spoiled.status >= 400,
        f"The stored lines of an invoice are the number 7, and not a list. Expected: an error. {spoiled}",
        because="A customer is asked to pay for nothing.",
        section=SHAPE,
    )
    expect_problem(spoiled, "An invoice whose lines are the number 7")
    await expect_to_go_on(app, ids, "an invoice could not be read")
    await shop.execute(BROKEN_REVIEWS, step="reviews are not counted, and the disk is full for one of them")
    review = {"customer_id": ids.customers[1], "rating": 3}
    full = await app.post(f"/books/{ids.books[2]}/reviews", json=review | {"body": "disk full"})
    expect_status(full, (500, 503), "A review, while the disk of the database is full", BLAMED, SHAPE)
    expect_problem(full, "A review, while the disk of the database is full")
    divided = await app.post(f"/books/{ids.books[2]}/reviews", json=review)
    if not divided.ok:
        what = "A bug of the service: the average of no ratings, which is a division by zero"
        expect_status(divided, (500, 503), what, BLAMED, SHAPE)
        expect_problem(divided, what)
        expect_no_invitation(divided, what)
        await expect_log(app, divided, what, ("division by zero", "ZeroDivisionError"))
    await expect_log(app, full, "A review, while the disk of the database is full", DISK_FULL)
    await expect_to_go_on(app, ids, "a review could not be stored")
    await expect_broken_export(app, ids, shop, wire)
    await shop.execute(await shop.value(ELSEWHERE), step="all tables are renamed")
    for one in (*everywhere, *everywhere[:5]):  # some of them for the second time
        if one.name == "GET /health":
            continue
        response = await app.request(one.method, one.path, **one.options)
        expect_status(response, (500, 503), f"{one.name} without its tables", MISTAKEN, SHAPE)
        expect_problem(response, f"{one.name} without its tables")
        expect_no_invitation(response, f"{one.name} without its tables")
    await shop.execute(await shop.value(BACK), step="all tables have their names again")
    await expect_to_go_on(app, ids, "its tables were away")


async def test_an_error_keeps_its_headers(app, endpoints, login, shop, wire):
    """401 comes with `WWW-Authenticate`, 405 with `Allow`, and a 503 that invites to try again with `Retry-After`."""
    ids = await stocked(shop)
    header = login(ids.customers[0])
    everywhere = endpoints(ids, headers=header)
    for one in everywhere:
        if one.login or one.path in ("/auth/login", "/auth/refresh"):
            for options in ({}, {"headers": {"Authorization": "Bearer forged"}}):
                refused = await app.request(one.method, one.path, **(one.options | {"headers": {}} | options))
                found = expect_header(refused, 401, "www-authenticate", f"{one.name} without a login")
                expect(
                    found.lower().startswith("bearer"),
                    f"{refused.request} → 401, with WWW-Authenticate: {found}. Expected: Bearer, as before.",
                    because="A client learns the wrong way to log in. For Basic a browser opens a dialog of its own.",
                    section=SHAPE,
                )
    for path in {one.path.partition("?")[0] for one in everywhere}:
        refused = await app.request("PROPFIND", path)
        found = expect_header(refused, 405, "allow", f"A method that {path} does not have")
        there = {one.method for one in everywhere if same_path(one.path, path)} | {"HEAD", "OPTIONS"}
        expect(
            {one.strip().upper() for one in found.split(",")} <= there,
            f"{refused.request} → 405, with Allow: {found}. Expected: none but {', '.join(sorted(there))}.",
            because="A client chooses a method from this list, and gets 405 again.",
            section=SHAPE,
        )
    async with wire.outage("starting_up"):
        for one in endpoints(ids, headers=header, writes=False):
            refused = await app.request(one.method, one.path, **one.options)
            expect_header(refused, 503, "retry-after", f"{one.name} without a database")
    order = {"lines": [{"book_id": ids.books[0], "quantity": 1}]}
    async with wire.lost_response(committing, limit=1):
        unknown = await app.post("/orders", json=order, headers=header)
    expect(
        "retry-after" not in unknown.headers,
        f"PostgreSQL has committed an order, and its response was lost. {unknown.request} → {unknown.status}, with "
        f"Retry-After: {unknown.headers.get('retry-after')}.",
        because="The client tries again by itself, as it was told to, and its user has ordered twice.",
        section=SHAPE,
    )


async def test_an_error_does_not_show_the_database(app, endpoints, login, shop, testbed, wire):
    """No error shows SQL, its parameters, what PostgreSQL says, where the database is, or a traceback."""
    ids = await stocked(shop)
    header = login(ids.customers[0]) | {"If-Match": "*"}
    names = [row["conname"] for row in await shop.rows("SELECT conname FROM pg_constraint WHERE conname LIKE '%\\_%'")]
    own = str(await shop.value(FUNCTIONS)).replace("''", "'")
    await shop.execute("ALTER TABLE books ADD CONSTRAINT ck_tomorrow CHECK (title NOT LIKE 'Untitled%') NOT VALID")
    await shop.execute("UPDATE books SET sort_title = 'of-the-row-7f3a'")
    taken = await shop.value("SELECT isbn FROM books WHERE id = $1", ids.books[1])
    email = await shop.value("SELECT email FROM customers WHERE id = $1", ids.customers[0])
    new = {"isbn": "978-7-00-000", "title": f"New {SECRET}", "author_id": ids.authors[0], "price_cents": 900}
    last = ids.books[-1]
    account = {"email": email, "name": SECRET, "password": f"{SECRET} {SECRET}"}
    review = {"customer_id": ids.customers[2], "rating": 3, "body": SECRET}
    bad = {"title": f"Untitled {SECRET}"}
    asked = [
        ("POST", "/books", new | {"isbn": taken}),
        ("POST", "/books", new | {"author_id": UNKNOWN}),
        ("POST", "/books", new | bad),
        ("POST", "/books/bulk", [new, new]),
        ("POST", "/books/bulk", [new | bad]),
        ("POST", "/books/import", [new, new, new | {"isbn": "978-6-00-000", **bad}]),
        ("PATCH", f"/books/{last}", {"isbn": taken, "subtitle": SECRET}),
        ("PATCH", f"/books/{last}", bad),
        ("PATCH", f"/books/{last}", {"author_id": UNKNOWN, "subtitle": SECRET}),
        ("DELETE", f"/books/{ids.books[0]}", None),
        ("POST", f"/books/{last}/reviews", review),
        ("POST", f"/books/{last}/reviews", review | {"customer_id": UNKNOWN}),
        ("POST", "/auth/register", account),
        ("POST", "/orders", {"lines": [{"book_id": last, "quantity": 100}]}),
    ]
    await shop.execute("UPDATE books SET price_cents = 2000000000 WHERE id = $1", last)
    with wire.watching() as seen:
        for method, path, body in asked:
            options = {} if body is None else {"json": body}
            response = await app.request(method, path, headers=header, **options)
            expect_discreet(response, seen, testbed, names, own)
        for how in ("nothing_listens", "starting_up", "too_many_connections"):
            async with wire.outage(how):
                for one in endpoints(ids, headers=header, writes=how == "starting_up"):
                    expect_discreet(await app.request(one.method, one.path, **one.options), seen, testbed, names, own)
        await shop.execute(
            "UPDATE invoices SET lines = '\"of-the-row-7f3a\"'", step="the lines of an invoice are spoiled"
        )
        expect_discreet(await app.get(f"/orders/{ids.orders[0]}/invoice", headers=header), seen, testbed, names, own)
        await shop.execute(BROKEN_REVIEWS, step="reviews are not counted, and the disk is full for one of them")
        for body in ("disk full", "fine"):
            broken = review | {"customer_id": ids.customers[1], "body": body}
            expect_discreet(await app.post(f"/books/{ids.books[2]}/reviews", json=broken), seen, testbed, names, own)
        await shop.execute(await shop.value(ELSEWHERE), step="all tables are renamed")
        for one in endpoints(ids, headers=header):
            expect_discreet(await app.request(one.method, one.path, **one.options), seen, testbed, names, own)
    expect(
        any(statement.error for statement in seen.statements),
        "No statement failed, so this check has seen nothing.",
        because="Constraints that are never tried do not protect anybody.",
        section=LEAK,
    )


async def test_a_422_does_not_repeat_what_was_sent(app, endpoints, login, shop):
    """A 422 names the fields of the body that are wrong, and repeats nothing of what was sent."""
    ids = await stocked(shop)
    everywhere = endpoints(ids, headers=login(ids.customers[0]))
    short = {"email": SECRET, "name": "", "password": SECRET[:11]}
    for turn, one in enumerate(everywhere):
        body = one.options.get("json")
        if body is None or one.path == "/books/import":
            continue
        wrong = list(with_wrong_leaves(body, SECRET))
        if one.path == "/auth/register":
            wrong.append(([("password",)], short))
        texts = {}
        for places, changed in wrong:
            names = [next(step for step in reversed(place) if isinstance(step, str)) for place in places]
            name = " and ".join(names)
            response = await app.request(one.method, one.path, **(one.options | {"json": changed}))
            expect_status(response, (422,), f"{one.name} with a wrong {name}", NO_HELP, LEAK)
            for field in names:
                expect(
                    field in text_of(response),
                    f"{one.name} with a wrong `{name}`: {response}. The name of the field `{field}` is missing.",
                    because=NO_HELP,
                    section=LEAK,
                )
            expect_silent(response, f"{one.name} with a wrong `{name}`")
            expect(
                texts.setdefault(response.text, places) == places,
                f"{one.name} with a wrong {named(places)}: {response}. It is the same response as with a wrong "
                f"{named(texts[response.text])}.",
                because="The user of the client does not learn which of these to correct.",
                section=LEAK,
            )
        if isinstance(body, dict):
            unknown = await app.request(one.method, one.path, **(one.options | {"json": body | {SECRET: SECRET}}))
            expect_silent(unknown, f"{one.name} with a field `{SECRET}` that it does not know")
        raw = {"headers": one.options.get("headers", {}) | {"Content-Type": "application/json"}}
        for content in (f'{{"password": "{SECRET}', (f'["{SECRET}"]', f'"{SECRET}"', "NaN", "-Infinity")[turn % 4]):
            response = await app.request(one.method, one.path, content=content, **raw)
            expect_status(response, (400, 422), f"{one.name} with the body {content[:14]}…", NO_HELP, LEAK)
            expect_silent(response, f"{one.name} with a body that is no object, or not JSON")
    for path in (f"/books/{SECRET}", f"/books?limit={SECRET}", f"/catalogue?page={SECRET}"):
        response = await app.get(path)
        expect_status(response, (400, 404, 422), f"GET {path}", NO_HELP, LEAK)  # a route may take numbers only
        expect_silent(response, f"GET {path}")


async def expect_broken_export(app, ids, shop, wire):
    """An export of more books than are read at once, whose connection is cut after the first part, breaks off."""
    await shop.execute(MANY_BOOKS, ids.authors[0], step="there are 2,500 more books")
    async with wire.hold(lambda statement: statement.data and "books" in statement.text.lower()) as held:
        export = app.start_request("GET", "/export/books.csv")
        if await held.wait_for_or(export.task):
            held.release_one()
        second = await held.wait_for_or(export.task)
        if second:
            await wire.cut()
    if not second:  # all was read at once
        await export
        return
    try:
        response = await export
    except NoResponse:
        return
    expect(
        response.status in (500, 503),
        f"The connection to the database was cut after the first part of {response.request}. Its response has status "
        f"{response.status} and ends as if it were whole, with {response.text.count(chr(10))} lines.",
        because="A partner stores half of the catalogue and takes it for the whole one.",
        section=SHAPE,
    )


MANY_BOOKS = """
    INSERT INTO books (isbn, title, author_id, price_cents)
    SELECT lpad(n::text, 13, '0'), 'Book ' || n, $1, 900 FROM generate_series(1, 2500) AS n
"""


def expect_no_invitation(response, what):
    expect(
        "retry-after" not in response.headers,
        f"{what}: {response.request} → {response.status}, with Retry-After: {response.headers.get('retry-after')}.",
        because="The client tries again and again. A bug does not go away by that, and the service has more to do.",
        section=SHAPE,
    )


async def expect_log(app, response, what, reasons):
    """The log of the app holds one of the reasons."""
    await app.flush()
    expect(
        any(reason in app.log for reason in reasons),
        f"{what}: {response.request} → {response.status}. The log of the app does not say why.",
        because="The response must not say what went wrong. Without a log the team cannot find it out either.",
        section=SHAPE,
    )


async def expect_to_go_on(app, ids, why):
    read = await app.get(f"/books/{ids.books[0]}")
    expect_status(read, (200,), f"A book, after {why}", "One failure ends the service for everybody.", SHAPE)


def same_path(one, other):
    """Whether two paths may be of one endpoint: they differ in nothing but ids, or in a word in the place of an id."""
    pairs = [path.partition("?")[0].split("/") for path in (one, other)]
    same = all(a == b or a.isdigit() or b.isdigit() for a, b in zip(*pairs, strict=False))
    return len(pairs[0]) == len(pairs[1]) and same


def expect_header(response, status, name, what):
    """The value of the header."""
    expect(
        response.status == status and bool(response.headers.get(name)),
        f"{what}: {response.request} → {response.status}, with {name}: {response.headers.get(name)}. "
        f"Expected: {status} with this header.",
        because="HTTP clients act on this header by themselves: they log in again, wait, or choose another method.",
        section=SHAPE,
    )
    return str(response.headers[name])


def expect_discreet(response, seen, testbed, names, own):
    """Nothing in the response that came from the wire, from the database's address, or out of rows and parameters.

    A message that stands word for word in `own`, the functions of the shop, is the shop's, and not PostgreSQL's.
    """
    said = response.text.replace("\\n", "\n").replace('\\"', '"')  # as it was before it became JSON
    failed = [statement for statement in seen.statements if statement.error]
    theirs = [one for one in failed if one.error.message not in own]
    leaks = [f"the SQL {one.text[:30]!r}…" for one in failed if one.text[:30] in said]
    lower = said.lower()
    leaks += [f"PostgreSQL's message {one.error.message!r}" for one in theirs if one.error.message.lower() in lower]
    leaks += [f"PostgreSQL's message {message!r}" for _, message in REFUSALS.values() if message.lower() in lower]
    leaks += [f"the name of the constraint {name!r}" for name in names if name.lower() in lower]
    leaks += [f"PostgreSQL's DETAIL {found[0]!r}" for found in [re.search(DETAIL, said)] if found]
    leaks += [f"a traceback with {found[0]!r}" for found in [re.search(TRACEBACK, said)] if found]
    secrets = {SECRET: f"{SECRET!r}, which was sent", "of-the-row-7f3a": "'of-the-row-7f3a', a value of the row"}
    secrets |= {testbed.database.name: "the name of the database", str(testbed.wire.port): "the port of the database"}
    if not response.ok:
        said = re.sub(UUID, "", said)  # the number of an error may hold the digits of the port
        leaks += [what for secret, what in secrets.items() if re.search(rf"(?<!\d){re.escape(secret)}(?!\d)", said)]
    expect(
        not leaks,
        f"{response}. It shows {', '.join(dict.fromkeys(leaks))}.",
        because=SPIED,
        section=LEAK,
    )


def expect_silent(response, what):
    place = -1 if response.ok else max(response.text.find(part) for part in (SECRET[:6], str(NUMBER)))
    expect(
        place < 0,
        f"{what}: {response.request} → {response.status}. The response holds what was sent: "
        f"…{response.text[max(place - 20, 0) : place + 20]}…",
        because="Responses are kept in logs and error reports, and what was sent may be a password.",
        section=LEAK,
    )


def text_of(response):
    """What a problem says, without the members that each problem has: `title` is the name of a field, too."""
    try:
        body = json.loads(response.text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return response.text
    return json.dumps({name: value for name, value in body.items() if name not in ("type", "title", "status")})


def named(places):
    return " and ".join(f"`{'.'.join(map(str, place))}`" for place in places)


FUNCTIONS = "SELECT string_agg(prosrc, ' ') FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
UUID = r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b"
DETAIL = r"Key \([^)]*\)=\(|Failing row contains"
TRACEBACK = r"Traceback \(most|\bFile \"|ZeroDivisionError|division by zero"
NO_HELP = "The user of the client does not learn which field to correct."
