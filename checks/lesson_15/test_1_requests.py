"""Requests of two shops that take turns on one connection to the database."""

import asyncio
import base64
import json
from itertools import product

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.kit.service.app import NoResponse
from checks.kit.wire.faults import WIRE_TIMEOUT
from checks.lesson_15.hosted import NOBODYS, PASSWORD, changed, open_shop, owned_tables, reads, rows_of

LEAK = "Somebody reads which customers another shop has, what it sells, and for how much."
FAILED = "Customers of a shop read that the service has failed, or do not get the pages of their shop."
STRANGE = {"Host": NOBODYS}
ALMOST = ("%", "_.example", "www.a.example", "a.example.evil.example", "evil-a.example", "' OR ''='", "x' OR host > '")
"""Hosts that no shop has, and that a comparison may take for A's."""


async def test_each_shop_reads_its_own(narrow, shop, hosted):
    """Each request that reads shows rows of its own shop, and no row of another one."""
    for who, (reader, other) in product(("customer", "visitor"), (hosted, hosted[::-1])):
        known = who == "customer"
        headers = await reader.log_in(narrow) if known else reader.visit
        for path, expected in reads(reader, login=known).items():
            response = await narrow.get(path, headers=headers)
            told = other.seen_in(response.text)
            expect(
                not told and response.status == 200 and expected in response.text,
                f"A {who} of {reader} sent {response.request} → {response.status}. "
                + (
                    f"It tells of {other}: {listed(told)}."
                    if told
                    else f"Expected status 200 and {expected!r}. {response}"
                ),
                because=LEAK if told else FAILED,
                section="What goes past a policy" if told else "See it break",
            )
    await narrow.get("/books", headers={"Host": "c.example"})  # which no shop has yet
    late = await open_shop(shop, "C", 11, books=2, customers=2)
    listing = await narrow.get("/books", headers=late.visit)
    expect(
        listing.status == 200 and str(late.book) in listing.text and not shown(listing, hosted),
        f"Shop C was added while the app ran. A visitor of it sent {listing}. Expected: status 200, and its books.",
        because="A new shop has no pages until somebody starts the app again.",
        section="See it break",
    )


async def test_each_shop_writes_its_own(narrow, shop, hosted, endpoints):
    """Each request that writes is served, and what it stores belongs to its own shop."""
    known = {owner.id for owner in hosted}
    read_only = {owner.name: await reviewed_book(shop, owner) for owner in hosted}
    for writer, other in (hosted, hosted[::-1]):
        headers = await writer.log_in(narrow)
        account = {"email": writer.email, "password": PASSWORD}
        given = await narrow.post("/auth/login", json=account, headers=writer.visit)
        before = await rows_of(shop, other)
        for endpoint in endpoints(writer.ids, writes=True, **account, refresh_token=given["refresh_token"]):
            who = headers if endpoint.login or writer.name == "A" else writer.visit  # B's visitors write, as before
            options = endpoint.options | {"headers": endpoint.options.get("headers", {}) | who}
            response = await narrow.request(endpoint.method, endpoint.path, **options)
            served = response.ok or (endpoint.method == "DELETE" and response.status == 409)  # it is in an order
            expect_served(served, response, writer, other, changed(before, await rows_of(shop, other)))
        deleted = await narrow.delete(f"/books/{read_only[writer.name]}", headers=headers)
        expect_served(deleted.ok, deleted, writer, other, changed(before, await rows_of(shop, other)))
        good = {"isbn": f"97922{writer.id:05}", "title": "T", "author_id": writer.ids.authors[0], "price_cents": 900}
        report = await narrow.post(
            "/books/import", json=[good | {"isbn": f"97911{writer.id:05}", "author_id": 1}, good], headers=headers
        )
        expect(
            report.ok and report["stored"] == 1,
            f"The first line of a list names an author that nobody has. The second line is good. "
            f"It came from {writer}. {report} Expected: status 200, and one book is stored.",
            because="One bad line, and the good lines of a publisher's list are not stored.",
            section="A COMMIT ends a local setting",
        )
        stranger = {"email": other.email_of(2), "password": PASSWORD}
        given = await narrow.post("/auth/login", json=stranger, headers=other.visit)
        before = await rows_of(shop, other)
        for path, body in (("login", stranger), ("refresh", {"refresh_token": given["refresh_token"]})):
            response = await narrow.post(f"/auth/{path}", json=body, headers=writer.visit)
            found = changed(before, await rows_of(shop, other))
            expect(
                400 <= response.status < 500 and not found,
                f"At the host of {writer}, somebody sent to /auth/{path} what is right for a customer of {other}. "
                f"{response} Expected: 4xx. {'. '.join(found)}",
                because="A customer of one shop is logged in at another one, which does not know them.",
                section="Who says which shop it is",
            )
    lost = [table for table in await owned_tables(shop) if await shop.count(table, "shop_id <> ALL($1)", list(known))]
    expect(
        not lost,
        f"Rows of {', '.join(lost)} belong to neither shop.",
        because="What a customer has bought is gone.",
        section="See it break",
    )


async def test_a_visitor_of_no_shop_sees_nothing(narrow, shop, hosted, endpoints):
    """A request at a host that no shop has shows and stores no row, whichever shop had the connection before."""
    all_shops = (*hosted, await open_shop(shop, "First", 1, books=2, customers=2))  # all rows were in shop 1 once
    before = {one.name: await rows_of(shop, one) for one in all_shops}
    everything = await count_all(shop)
    for owner, endpoint in alternating(hosted, lambda one: endpoints(one.ids)):
        await narrow.get(f"/books/{owner.book}", headers=owner.visit)
        options = endpoint.options | {"headers": endpoint.options.get("headers", {}) | STRANGE}
        response = await narrow.request(endpoint.method, endpoint.path, **options)
        told = [] if endpoint.writes else shown(response, all_shops)
        expect_nothing(response, told, f"after a request of {owner}")
    for owner, path in alternating(hosted, reads):
        await narrow.get(f"/books/{owner.book}", headers=owner.visit)
        response = await narrow.get(path, headers=STRANGE)
        expect_nothing(response, shown(response, all_shops), f"after a request of {owner}")
    for host in ALMOST:
        response = await narrow.get("/books?limit=100", headers={"Host": host})
        expect_nothing(response, shown(response, all_shops), f"with the Host header {host!r}")
    dashboard = await narrow.get("/dashboard", headers=STRANGE)
    figures = dashboard.json if dashboard.status == 200 else {}
    expect_nothing(dashboard, [f"{name} {number}" for name, number in figures.items() if number], "in the end")
    stored = [line for one in all_shops for line in changed(before[one.name], await rows_of(shop, one))]
    if await count_all(shop) != everything:
        stored.append("there are rows that belong to neither shop, or fewer rows than before")
    expect(
        not stored,
        f"Requests at {NOBODYS}, a host that no shop has, changed what is stored. {'. '.join(stored)}.",
        because="Anybody who sends a wrong Host header can write into a shop.",
        section="A setting stays on the pooled connection",
    )


async def test_nothing_is_left_after_errors(narrow, shop, wire, hosted, as_app):
    """After a request that fails, or whose client hangs up, the connection is in no shop."""
    a, b = hosted
    headers = await a.log_in(narrow)
    too_many = {"lines": [{"book_id": a.book, "quantity": 10_000}]}
    twice = {"isbn": a.isbn, "title": "Again", "author_id": a.ids.authors[0], "price_cents": 900}
    failures = {
        "an order of too many copies": lambda: narrow.post("/orders", json=too_many, headers=headers),
        "an ISBN that is taken": lambda: narrow.post("/books", json=twice, headers=headers),
        "a book that is not there": lambda: narrow.get("/books/1", headers=headers),
        "a body that is not valid": lambda: narrow.post("/orders", json={"lines": 1}, headers=headers),
        "a statement that PostgreSQL cancels": lambda: canceled(narrow, shop, as_app, a, headers),
        "a client that hangs up": lambda: hung_up(narrow, wire, a, headers),
        "an export whose client hangs up": lambda: half_an_export(narrow, a, headers),
    }
    for what, fail in failures.items():
        await fail()
        await wire.wait_idle()
        response = await narrow.get(f"/books/{a.book}", headers=STRANGE)
        listing = await narrow.get("/books?limit=100", headers=STRANGE)
        expect_nothing(response, shown(response, hosted), f"after {what}")
        expect_nothing(listing, shown(listing, hosted), f"after {what}")
        theirs = await narrow.get("/books?limit=100", headers=b.visit)
        expect(
            theirs.status == 200 and not a.seen_in(theirs.text) and str(b.book) in theirs.text,
            f"After {what} of shop A, a visitor of B sent {theirs}. It tells of A: {listed(a.seen_in(theirs.text))}.",
            because=LEAK if a.seen_in(theirs.text) else FAILED,
            section="A setting stays on the pooled connection",
        )


async def test_a_payment_stays_in_its_shop(narrow, shop, provider, hosted):
    """A checkout ends in its shop, whatever the provider says, also if another shop had the connection meanwhile."""
    for (payer, other), (said, (status, order, mails)) in product((hosted, hosted[::-1]), PAYMENTS.items()):
        token, response = await paid(narrow, provider, payer, other, said)
        stored = await shop.rows(PAID, payer.customer, token)
        here = payer.id
        good = [{"status": order, "o": here, "p": here, "mails": mails, "m": here if mails else None}]
        expect(
            response.status == status and stored == good,
            f"A customer of {payer} paid by card, and the provider returned status {said}. While it was asked, {other} "
            f"used the connection. {response} Expected: {status}, and an order that is {order}, with its payment and "
            f"{plural(mails, 'mail')}, in shop {here}. Stored: {stored}",
            because="The provider has taken the money or refused it, and the shop does not know of it.",
            section="A COMMIT ends a local setting",
        )


async def test_an_export_stays_in_its_shop(narrow, shop, wire, hosted):
    """`GET /export/books.csv` has all books of its shop and no others, also if other shops read meanwhile."""
    a, b = hosted
    await more_books(shop, a)
    expected = {row["id"] for row in await shop.rows("SELECT id FROM books WHERE shop_id = $1", a.id)}
    for headers in (a.visit, await a.log_in(narrow)):
        status, text, later, between = await export_with_a_pause(narrow, wire, b, headers)
        expect(
            status == 200,
            f"A client of shop A, which has {plural(len(expected), 'book')}, sent GET /export/books.csv → {status} "
            f"{text[:200]} Expected: 200.",
            because="A partner gets no catalogue.",
            section="A COMMIT ends a local setting",
        )
        ids = [int(line.split(",", 1)[0]) for line in text.splitlines()[1:] if line.split(",", 1)[0].isdecimal()]
        strange = sorted(set(ids) - expected)
        expect(
            not strange and set(ids) == expected and len(ids) == len(expected),
            f"Shop A has {plural(len(expected), 'book')}. The first bytes of its export were read, then a book of B, "
            f"then the rest of the export, for which the app sent {plural(later, 'statement')}. The export has "
            f"{plural(len(ids), 'book')}, {len(strange)} of them not A's.",
            because=LEAK if strange else "A partner takes a part of the catalogue for all of it.",
            section="A COMMIT ends a local setting",
        )
        expect(
            between.ok,
            f"The first bytes of an export of shop A were read, and then its client paused. Meanwhile, in B: {between} "
            "Expected: status 200.",
            because="While one shop's client reads slowly, the other shops have no pages.",
            section="A COMMIT ends a local setting",
        )


async def test_a_token_names_its_shop(testbed, narrow, shop, hosted, endpoints):
    """With an access token a request is in the token's shop or fails, whatever its headers and its query say."""
    a, b = hosted
    own = await a.log_in(narrow)
    token = own["Authorization"]
    reports = {path: await narrow.get(path, headers=own) for path in reads(a) if path.startswith("/reports/")}
    for name, headers in disguises(a, b, token).items():
        for path in (path for path in reads(b) if not path.startswith(OF_OTHER_CHECKS)):
            response = await narrow.get(path, headers=headers)
            expect_no_other(response, b, f"A customer of shop A sent it {name}")
        for path, report in reports.items():
            response = await narrow.get(path, headers=headers)
            expect(
                response.text == report.text or 400 <= response.status < 500,
                f"A customer of shop A sent it {name}: {response} Expected: 4xx, or what A's own host returns: "
                f"{report.text[:200]}",
                because=LEAK,
                section="Who says which shop it is",
            )
        for path in (f"/books?limit=100&shop_id={b.id}", f"/catalogue?size=100&shop={b.id}&tenant={b.id}"):
            expect_no_other(await narrow.get(path, headers=headers), b, f"A customer of shop A sent it {name}")
        before = await rows_of(shop, b)
        order = {"lines": [{"book_id": b.book, "quantity": 1}], "shop_id": b.id}
        response = await narrow.post("/orders", json=order, headers=headers)
        found = changed(before, await rows_of(shop, b))
        expect(
            400 <= response.status < 500 and not found,
            f"A customer of shop A ordered a book of shop B, {name}. {response} Expected: 4xx. {'. '.join(found)}",
            because="A customer of one shop buys in another one that does not know them.",
            section="Who says which shop it is",
        )
    await expect_no_shared_pages(narrow, a, b, b.visit | {"Authorization": token})
    mine = await narrow.get("/me", headers=own)
    expect(
        mine.status == 200 and mine.json.get("id") == a.customer,
        f"A customer of shop A sent {mine}. Expected: status 200 and id {a.customer}.",
        because="Customers are not recognized, although they have logged in.",
        section="Who says which shop it is",
    )
    old = await narrow.get("/books?limit=100", headers=b.visit | {"Authorization": expired(token, testbed)})
    expect(
        not shown(old, [a]) and old.status < 500,
        f"A token of shop A has expired, and came to the host of B. {old.request} → {old.status}. Expected: 4xx, or "
        f"what visitors of B see. It tells of A: {listed(a.seen_in(old.text))}.",
        because="Visitors who were logged in once see the books of one shop on the pages of another one.",
        section="Who says which shop it is",
    )
    forged = await narrow.get("/me", headers=a.visit | {"Authorization": forge(token, a.id, b.id)})
    public = await narrow.get("/books?limit=100", headers=a.visit | {"Authorization": forge(token, a.id, b.id)})
    expect_no_other(public, b, "It came with a token of shop A in which the shop was changed to B")
    expect(
        forged.status == 401,
        f"In a token of shop A each {a.id} was changed to {b.id}, with the old signature. {forged} Expected: 401.",
        because="Anybody who has a token of one shop can make one of another shop.",
        section="Who says which shop it is",
    )
    before = await rows_of(shop, b)
    account = {"email": b.email, "password": PASSWORD, "refresh_token": "0"}
    for endpoint in endpoints(b.ids, writes=True, **account):
        options = endpoint.options | {
            "headers": endpoint.options.get("headers", {}) | b.visit | {"Authorization": token}
        }
        response = await narrow.request(endpoint.method, endpoint.path, **options)
        found = changed(before, await rows_of(shop, b))
        expect(
            response.status < 500 and not found,
            f"A customer of shop A sent {response.request} with B's Host header → {response.status}. Expected: it is "
            f"about shop A, or 4xx. Rows of B changed: {'. '.join(found) or 'none'}.",
            because="A customer of one shop changes what another one sells.",
            section="Who says which shop it is",
        )


async def test_no_request_changes_another_shop(narrow, shop, hosted, endpoints):
    """A request of one shop whose path names a row of another one gets status 4xx and changes no row of the other."""
    a, b = hosted
    for owner, other in ((a, b), (b, a)):
        headers = await other.log_in(narrow)
        before = await rows_of(shop, owner)
        for endpoint in endpoints(owner.ids, writes=True):
            if not any(str(number) in endpoint.path for number in all_ids(owner)):
                continue
            for visitor in (headers, other.visit):
                await narrow.get(f"/books/{owner.book}", headers=owner.visit)
                options = endpoint.options | {"headers": endpoint.options.get("headers", {}) | visitor}
                response = await narrow.request(endpoint.method, endpoint.path, **options)
                found = changed(before, await rows_of(shop, owner))
                refused = 400 <= response.status < 500
                expect(
                    refused and not found,
                    f"In {other}, {response.request} named rows of {owner} → {response.status}. Expected: 4xx. "
                    + (". ".join(found) or f"{response}"),
                    because="One shop changes what another one sells, or stores rows that refer to it.",
                    section="A setting stays on the pooled connection",
                )
        mine = set(reads(other))
        for path in (path for path in reads(owner) if path not in mine and "/search/" not in path):
            response = await narrow.get(path, headers=headers)
            expect(
                400 <= response.status < 500,
                f"In {other}, {response.request} named rows of {owner} → {response.status}. Expected: 4xx. {response}",
                because=LEAK,
                section="What goes past a policy",
            )


# -- what the checks use


PAYMENTS = {201: (201, "paid", 1), 402: (402, "cancelled", 0), 500: (200, "paid", 1)}
"""What the provider returns at first. In the end: the status of the response and of the order, and how many mails."""

PAID = """
    SELECT o.status::text, o.shop_id AS o, p.shop_id AS p, count(m.id) AS mails, max(m.shop_id) AS m
      FROM payments p JOIN orders o ON o.id = p.order_id LEFT JOIN outbox m ON m.order_id = o.id
     WHERE o.customer_id = $1 AND p.card_token = $2 AND p.status <> 'pending' GROUP BY p.id, o.id
"""


async def reviewed_book(shop, owner):
    """A book that is in no order, and that has a review and is on a wish list."""
    author = owner.ids.authors[0]
    book = await shop.add(
        "books", isbn=f"97900{owner.id:05}", title="T", author_id=author, price_cents=900, shop_id=owner.id
    )
    of_book = {"book_id": book, "customer_id": owner.customer, "shop_id": owner.id}
    await shop.add("reviews", rating=5, **of_book)
    await shop.add("wishes", **of_book)
    return book


def alternating(shops, requests):
    """Each request once: the first one of A, the second one of B, and so on."""
    return [(shops[n % 2], each[n % 2]) for n, each in enumerate(zip(*map(requests, shops), strict=True))]


def all_ids(owner):
    return [number for kind in ("books", "customers", "orders", "authors") for number in owner.ids.of(kind)]


def shown(response, shops):
    """What a response tells of these shops; a refusal may repeat what the request itself has said."""
    return [told for one in shops for told in one.seen_in(response.text)] if response.status < 400 else []


def expect_served(served, response, writer, other, found):
    expect(
        served and not found,
        f"In {writer}, somebody sent {response.request} → {response.status}. "
        + (f"Rows of {other} changed: {'. '.join(found)}" if found else f"Expected: 2xx. {response}"),
        because="A shop cannot work, or works in the rows of another one.",
        section="See it break",
    )


def expect_nothing(response, told, when):
    expect(
        not told and response.status < 500,
        f"{response.request} at a host that no shop has → {response.status}, {when}. Expected: nothing, or status 4xx."
        + (f" It tells of {listed(told)}." if told else f" {response}"),
        because=LEAK if told else "A visitor who mistypes a host reads that the service has failed.",
        section="A setting stays on the pooled connection",
    )


def expect_no_other(response, other, how):
    told = shown(response, [other])
    expect(
        not told and response.status < 500,
        f"{response.request} → {response.status}. {how}. "
        + (f"It tells of {other}: {listed(told)}." if told else f"Expected: nothing of {other}. {response}"),
        because=LEAK if told else FAILED,
        section="Who says which shop it is",
    )


def listed(told, most=3):
    return ", ".join(told[:most]) + (", …" if len(told) > most else "") or "nothing"


def disguises(a, b, token):
    """Headers with which a customer of A may try to be in B, with the token of A."""
    names = ("X-Shop", "X-Shop-Id", "X-Shop-ID", "X-Tenant", "X-Tenant-Id", "Shop", "Tenant")
    mine = {"Authorization": token}
    return {
        "with B's Host header": mine | b.visit,
        "with headers that name B by its id": mine
        | {"Host": a.host, "Cookie": cookies(b.id)}
        | dict.fromkeys(names, str(b.id)),
        "with headers that name B by its host": mine
        | {"Host": a.host, "X-Forwarded-Host": b.host, "Forwarded": f"host={b.host}", "Cookie": cookies(b.host)}
        | {"Origin": f"https://{b.host}", "Referer": f"https://{b.host}/books"}
        | dict.fromkeys(names, b.host),
        "with B's Host header, and with its scheme in small letters": b.visit
        | {"Authorization": token.replace("Bearer", "bearer")},
    }


OF_OTHER_CHECKS = ("/reports/", "/receipts/")
"""As handed out, the responses of these do not depend on the token."""


def cookies(value):
    return "; ".join(f"{name}={value}" for name in ("shop", "shop_id", "tenant", "tenant_id"))


async def expect_no_shared_pages(app, a, b, token_at_b):
    """Visitors of B and a customer of A at B's host ask for the same pages in turn."""
    for path in (path for path in reads(b, login=False) if not path.startswith((*OF_OTHER_CHECKS, "/export/"))):
        for who, headers, other in (
            ("A customer of A", token_at_b, b),
            ("Then a visitor of B", b.visit, a),
            ("After that visitor, a customer of A", token_at_b, b),
        ):
            expect_no_other(await app.get(path, headers=headers), other, f"{who} sent it with B's Host header")


def forge(bearer, old, new):
    """The token with another number in its claims, and with the signature that it had."""
    head, claims, signature = bearer.removeprefix("Bearer ").split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    said = {name: type(value)(new) if str(value) == str(old) else value for name, value in said.items()}
    changed = base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()
    return f"Bearer {head}.{changed}.{signature}"


def expired(bearer, testbed):
    """The token as it would be if it had expired long ago: with another `exp`, and signed again."""
    import jwt

    secret = testbed.lesson.env["JWT_SECRET"]
    token = bearer.removeprefix("Bearer ")
    algorithm = jwt.get_unverified_header(token)["alg"]
    claims = jwt.decode(token, options={"verify_signature": False})
    return f"Bearer {jwt.encode(claims | {'iat': 1_000_000, 'exp': 1_000_900}, secret, algorithm)}"


async def count_all(shop):
    return {table: await shop.count(table) for table in await owned_tables(shop)}


async def paid(app, provider, payer, other, said):
    """A card that the customer has paid with, and the last response. Another shop uses the connection meanwhile.

    On a busy machine a statement may be too late for the limits of the app, which then says that it does not know
    what has become of the order (503) or of the payment (202). Then the customer orders again, with another card.
    """
    headers = await payer.log_in(app)
    for attempt in range(3):
        token = f"tok {said} {attempt}"
        path, body = "/checkout", {"lines": [{"book_id": payer.book, "quantity": 1}], "card_token": token}
        provider.respond(status=said, json={"id": "ch_1"})
        if said == 500:  # it decides when it is asked again
            undecided = await app.post(path, json=body, headers=headers)
            if undecided.status == 503 and attempt < 2:
                continue
            expect(
                undecided.status == 202,
                f"A customer of {payer} paid by card, and the provider returned status 500. {undecided} Expected: 202.",
                because="A customer cannot ask again whether a book is paid.",
                section="A COMMIT ends a local setting",
            )
            provider.respond(status=201, json={"id": "ch_1"})
            path, body = f"/checkout/{undecided['id']}", None
        async with provider.hold() as held:
            request = app.start_request("POST", path, json=body, headers=headers)
            await held.arrived()
            await app.get(f"/books/{other.book}", headers=other.visit)
            await app.get(f"/books/{other.book}", headers=STRANGE)
            held.release()
        response = await request
        if response.status not in (202, 503):
            break
    return token, response


async def export_with_a_pause(app, wire, other, headers):
    """An export that is read in two parts; how many statements came after the pause; and a response from the pause.

    On a busy machine a statement may be too late for the limits of the app. Then the export is refused with status 503
    or breaks off, and the client tries again.
    """
    for last in (False, False, True):
        try:
            with wire.watching() as seen:
                async with app.stream("/export/books.csv", headers=headers) as stream:
                    between = await app.get(f"/books/{other.book}", headers=other.visit)
                    await app.get(f"/books/{other.book}", headers=STRANGE)
                    sent = len(seen.statements)
                    text = await stream.rest()
        except NoResponse:
            if last:
                raise
            continue
        if last or stream.status != 503:
            return stream.status, text, len(seen.statements) - sent, between
    raise AssertionError


async def more_books(shop, owner):
    """So many that the app waits for the client before it has read all of them."""
    await shop.execute(
        "INSERT INTO books (isbn, title, author_id, price_cents, shop_id) "
        "SELECT 'x' || n, repeat('long title ', 300), $1::bigint, 900, $2::bigint FROM generate_series(1, 3500) AS n",
        *(owner.ids.authors[0], owner.id),
        step=f"{owner} gets 3,500 more books",
    )


async def canceled(app, shop, as_app, owner, headers):
    """A request whose statement waits for a lock until somebody cancels it: who logs in as the app may do so."""
    here = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    blocked = f"FROM pg_locks WHERE NOT granted AND relation = 'books'::regclass AND database = {here}"
    async with shop.lock("books"):
        request = app.start_request("PUT", f"/books/{owner.book}/stock", json={"stock": 101}, headers=headers)
        async with asyncio.timeout(WIRE_TIMEOUT):
            while not await shop.value(f"SELECT count(*) {blocked}") and not request.responded:
                await asyncio.wait({request.task}, timeout=0.01)
        with as_app.connected() as probe:
            probe.run(f"SELECT pg_cancel_backend(pid) {blocked}")
        await request


async def hung_up(app, wire, owner, headers):
    """A client that leaves while its statement is under way."""
    async with wire.hold(lambda statement: statement.data and "books" in statement.text, limit=1) as held:
        request = app.start_request("GET", f"/books/{owner.book}", headers=headers)
        await held.wait_for()
        await request.disconnect()
        held.release()


async def half_an_export(app, owner, headers):
    """A client that leaves after the first bytes."""
    async with app.stream("/export/books.csv", headers=headers):
        pass
