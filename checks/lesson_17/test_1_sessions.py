"""Lesson 17: PgBouncer gives each transaction another connection to PostgreSQL. Here: what must work on any."""

import asyncio
from collections import Counter

import pytest

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.kit.wire import committing
from checks.lesson_17.fixtures import PASSWORD, furnish
from checks.lesson_17.others import EACH, EACH_SECOND, OWN_SETTING
from checks.lesson_17.waiting import until

FAILS = "A few requests in a hundred fail, whenever another client's transaction comes between two of the app's."
AGAIN = "more than once"
NO_ERROR = "test_no_transaction_depends_on_its_connection"

ZONES = {
    "Pacific/Kiritimati": {"2026-03-08": 7, "2026-03-09": 100},  # 14 hours before UTC
    "Pacific/Niue": {"2026-03-07": 7, "2026-03-08": 100},  # 11 hours after it
    "UTC": {"2026-03-08": 107},
}
"""What two receipts of 2026-03-08, at 05:00 and 12:00 UTC, are on days of these zones, in cents."""

ASKS_AGAIN = 6
"""So often an import that stores nothing yet has sent the same statement: it asks for its turn again and again."""

DAILY = "/reports/daily?first=2026-03-06&last=2026-03-10&zone="


async def test_no_transaction_depends_on_its_connection(app, furnished, endpoints, others, shop):
    """No request fails because its transaction gets another connection to PostgreSQL than the one before."""
    async with others.taking_turns():
        for turn in ("for the first time", "for the second time"):
            account = {"email": furnished.email, "password": PASSWORD}
            tokens = await asked(app, "POST", "/auth/login", json=account)
            expect_served(tokens, turn)
            requests = endpoints(
                furnished.ids, headers=furnished.logins[0], refresh_token=tokens["refresh_token"], **account
            )
            for one in requests:
                response = await asked(app, one.method, one.path, **one.options)
                expect_served(response, turn, refusable=one.path.endswith("/reviews") or one.method == "DELETE")
    async with others.none():
        crowd = [app.start_request("GET", path) for path in ("/dashboard", furnished.book, "/authors", "/books") * 4]
        responses = await asyncio.gather(*crowd)
    failed = [one for one in responses if not one.ok and one.status != 503]
    expect(
        not failed and any(one.ok for one in responses),
        f"{len(responses)} requests came at once. {sum(one.ok for one in responses)} succeeded, and {len(failed)} had "
        f"another status than 2xx and 503: {failed[0] if failed else responses[0]}",
        because=FAILS,
        section="Each transaction may get another connection",
    )


async def test_prepared_statements_do_not_multiply(launch, furnished, others):
    """However many transactions there are, and however often the app starts, no more prepared statements are kept."""
    counts = []
    for rounds in (3, 9):
        app = await launch()
        async with others.taking_turns():
            for _ in range(rounds):
                for path in (furnished.book, "/dashboard"):
                    response = await asked(app, "GET", path)
                    expect_served(response, AGAIN)
        counts.append(await others.prepared())
        await app.process.terminate()
    expect(
        counts[1] <= counts[0] + 2,
        f"The two sessions of PostgreSQL had {plural(counts[0], 'prepared statement')} after 6 requests. The app was "
        f"started again, and they had {counts[1]} after 18 more requests, which were the same ones. Expected: at most "
        f"{counts[0] + 2}.",
        because="They stay until PgBouncer replaces the connection, an hour later, and take memory of the server.",
        section="Where prepared statements stay",
    )


async def test_a_report_has_its_own_zone(app, furnished, others, shop):
    """`GET /reports/daily` counts the days of its own zone, also while reports of other zones are made."""
    for at, cents in (("05:00", 7), ("12:00", 100)):
        await shop.execute(
            "INSERT INTO receipts (id, till, sold_at, cents, shop_id) "
            f"VALUES (gen_random_uuid(), 'T', '2026-03-08 {at}+00', {cents}, {furnished.shop_id})"
        )
    async with others.taking_turns(EACH):
        responses = await asyncio.gather(*(asked(app, "GET", f"{DAILY}{zone}") for zone in ZONES))
    for expected, response in zip(ZONES.values(), responses, strict=True):
        found = {day["day"]: day["cents"] for day in response.json if day["cents"]} if response.ok else {}
        expect(
            found == expected,
            f"{response.request} → {response.status}. Three reports, each of another zone, were made at the same time, "
            "and each transaction got another connection than the one before. Cents by day, expected: "
            f"{expected}. Found: {found}",
            because="The report shows sales on the wrong days: on those of a zone that another customer has asked for.",
            section="A setting stays with the connection",
        )
    nowhere = await app.get("/reports/daily?first=2001-03-06&last=2001-03-10&zone=Mars/Base")
    expect(
        nowhere.status == 422,
        f"{nowhere} There is no such zone, and no receipt of these days. Expected: status 422, as before.",
        because="The API stays as it is. A client that misspells its zone would read that nothing was sold.",
        section="A setting stays with the connection",
    )


async def test_nothing_of_a_session_is_left(app, furnished, endpoints, others, wire):
    """After any request a session of PostgreSQL is as it was: no setting and no advisory lock is left."""
    account = {"email": furnished.email, "password": PASSWORD}
    requests = endpoints(furnished.ids, headers=furnished.logins[0], refresh_token="none", **account)
    with wire.watching() as seen:
        async with others.taking_turns(EACH_SECOND):
            for one in requests:
                await app.request(one.method, one.path, **one.options)
    left = await others.left(own_settings(seen))
    expect(
        not left,
        f"{plural(len(requests), 'request')} were sent, one of each kind, and every second transaction got another "
        f"connection. Sessions of PostgreSQL have kept: {', '.join(left)}.",
        because="The next client of PgBouncer gets this session, with all that is left in it.",
        section="A setting stays with the connection",
    )


async def test_imports_take_turns(apps, furnished, others, shop, wire):
    """Of two imports at once, in two processes, the second one stores nothing before the first one has ended."""
    before = await shop.count("books")
    async with wire.hold(EndOfImport(), limit=1) as commit:
        async with others.taking_turns(EACH):
            first = apps[0].start_request("POST", "/books/import", json=books(furnished, 1))
            held = await commit.wait_for_or(first.task)
        async with others.none(), wire.hold(storing_books) as stores:
            with wire.watching() as seen:
                second = apps[1].start_request("POST", "/books/import", json=books(furnished, 2))

                def stores_or_asks():
                    asked = Counter(one.text for one in seen.data_statements if one.process == apps[1].process.name)
                    again = max(asked.values(), default=0) >= ASKS_AGAIN
                    return bool(stores.waiting) or second.task.done() or again

                await until(stores_or_asks, or_waits_in=shop)
            early = bool(stores.waiting) or (second.responded and second.status < 300)
            commit.release()
            responses = [await first]
            stores.release()
            responses.append(await second)
    if responses[1].status == 503:  # it has waited long enough
        responses[1] = await apps[1].post("/books/import", json=books(furnished, 2))
    expect(
        held,
        f"An import ended, and no COMMIT came after its books: {responses[0]}",
        because="No publisher can import a list.",
        section="A lock that belongs to a session",
    )
    expect(
        not early,
        f"The COMMIT of the first import was held. Meanwhile the second one stored its first book. Expected: it waits. "
        f"{responses[0]}",
        because="Two lists with the same books in different orders wait for each other, and one of them fails.",
        section="A lock that belongs to a session",
    )
    for n in (3, 4):  # one in each session, for one of them may have kept the lock
        responses.append(await asked(apps[n - 3], "POST", "/books/import", json=books(furnished, n)))
        await others.swap()
    stored = await shop.count("books") - before
    refused = [one for one in responses if not one.ok]
    expect(
        not refused and stored == 12,
        f"There were 4 imports of 3 books, two of them at once. Expected: all succeed, and 12 books are stored. "
        f"Stored: {stored}. {refused[0] if refused else ''}",
        because="A publisher has sent a list, and its books are not in the shop.",
        section="A lock that belongs to a session",
    )


@pytest.mark.needs(NO_ERROR)
async def test_shops_do_not_mix(testbed, app, furnished, others, shop):
    """Each shop reads its own rows, also where the transactions of two shops take turns on the connections."""
    await shop.execute("INSERT INTO shops (id, name, host) OVERRIDING SYSTEM VALUE VALUES (23, 'B', 'b.example')")
    another = await furnish(testbed, shop, 23)
    async with others.taking_turns():
        for path in ("/books?limit=100", "/authors", "/wishlist", "/export/books.csv", "/dashboard"):
            pairs = ((furnished, another), (another, furnished))
            both = [asked(app, "GET", path, headers=owner.logins[0]) for owner, _ in pairs]
            for (owner, other), response in zip(pairs, await asyncio.gather(*both), strict=True):
                strange = [book for book in other.ids.books if str(book) in response.text]
                own = str(owner.ids.books[0]) in response.text or "books" not in path
                expect(
                    response.ok and own and not strange,
                    f"{response.request} → {response.status}, sent by a customer of shop {owner.shop_id}. It "
                    f"{'has' if own else 'lacks'} books of this shop, and has {len(strange)} of shop {other.shop_id}. "
                    "Expected: status 200, with books of this shop only.",
                    because="A customer reads what another shop sells.",
                    section="What ends with the transaction is safe",
                )


async def asked(app, method, path, **options):
    """The response; that of a second try where a slow machine has met the time limits."""
    response = await app.request(method, path, **options)
    return await app.request(method, path, **options) if response.status == 503 else response


def expect_served(response, turn, *, refusable=False):
    expect(
        response.ok or (refusable and response.status == 409),
        f"{response} It was sent {turn}. Two of three transactions got another connection to PostgreSQL than the one "
        "before.",
        because=FAILS,
        section="Each transaction may get another connection",
    )


def own_settings(seen):
    """The names of the app's own settings, such as app.zone: PostgreSQL lists only those that it knows."""
    setting = [one for one in seen.statements if one.verb == "SET" or "set_config" in one.text.lower()]
    bound = [one.bound.bind.decode("latin-1") for one in setting if one.bound]
    return {name for text in [*(one.text for one in setting), *bound] for name in OWN_SETTING.findall(text)}


def books(furnished, number):
    """A publisher's list of three books, all of one author. The next list is of another one."""
    author = furnished.ids.authors[number % 2]
    return [
        {"isbn": f"979000000{number}{line}", "title": "New", "author_id": author, "price_cents": 900}
        for line in range(3)
    ]


class EndOfImport:
    """For `wire.hold`: the COMMIT of a transaction that has stored books. That of a lock alone ends no import."""

    __name__ = "the COMMIT of an import"

    def __init__(self):
        self._storing = set()

    def __call__(self, one):
        if storing_books(one):
            self._storing.add(one.connection)
        return committing(one) and one.connection in self._storing


def storing_books(statement):
    return statement.changes and "books" in statement.text.lower()
