"""Which rows PostgreSQL itself hides from other shops, and what its constraints tell about them."""

import re
from uuid import uuid4

import pytest

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.lesson_15.hosted import PASSWORD, changed, open_shop, other_relations, owned_tables, reads, rows_of
from checks.lesson_15.mailing import sent

ONE_BUG_AWAY = "As soon as one query of the app forgets the shop, it reads the rows of all shops."

CHANGES_OF_SHOPS = (
    "UPDATE shops SET host = host",
    "DELETE FROM shops",
    "INSERT INTO shops (name, host) VALUES ('X', 'x.example')",
    "TRUNCATE shops CASCADE",
)

NOT_GRANTED = "42501"
CHECK_OPTION = "44000"
"""SQLSTATEs: the role has no such right; a view does not show the row that would be stored."""

PAIRS = (
    *(("books", "author_id", "authors"), ("reviews", "book_id", "books"), ("reviews", "customer_id", "customers")),
    *(("orders", "customer_id", "customers"), ("order_lines", "book_id", "books"), ("wishes", "book_id", "books")),
    *(("transfers", "recipient_id", "customers"), ("gifts", "recipient_id", "customers")),
)
"""References that a request can make: table, column, and the table of the row that it names."""

TWICE = {
    "books": "isbn, title, author_id, price_cents, shop_id",
    "customers": "email, name, shop_id",
    "coupons": "code, percent, shop_id",
}
"""Tables with what must be unique in a shop, and the columns that make a row."""


async def test_the_role_owns_nothing(testbed, narrow, wire, gateway, hosted, endpoints):
    """The app and the worker log in as the role of APP_DATABASE_URL only."""
    a, _ = hosted
    headers = await a.log_in(narrow)
    for path in reads(a):
        await narrow.get(path, headers=headers)
    for endpoint in endpoints(a.ids, writes=True):
        options = endpoint.options | {"headers": endpoint.options.get("headers", {}) | headers}
        await narrow.request(endpoint.method, endpoint.path, **options)
    worker = await testbed.start("app.worker", name="worker", connected=True)
    worked = await sent(gateway, worker, 1)
    roles = {"app": set(), "worker": set()}
    for connection in [*wire.closed, *wire.connections]:
        if connection.parameters:
            roles.setdefault(connection.process, set()).add(connection.parameters.get("user"))
    await worker.terminate()
    expect(
        worked or bool(roles["worker"]),
        "There was mail to send, and the worker has not logged in to the database.",
        because="Customers get no mail.",
        section="Work for all shops",
    )
    wrong = [name for name, users in roles.items() if users != {testbed.database.app.role}]
    expect(
        not wrong,
        f"The app got {plural(len(reads(a)), 'request')} that read, and one to each endpoint that writes. The worker "
        f"has sent {'a' if worked else 'no'} mail. A process has logged in as another role than that of "
        f"APP_DATABASE_URL: {', '.join(wrong)}.",
        because="Policies do not hold for the owner of a table. After one mistake a shop sees all the others.",
        section="For whom a policy does not hold",
    )


async def test_the_role_sees_nothing_without_a_shop(shop, hosted, as_app):
    """Without a shop, the app's role reads no row of a shop, and stores, changes and deletes none."""
    a, b = hosted
    await open_shop(shop, "First", 1, books=2, customers=2)  # all rows were in shop 1 once
    tables = await owned_tables(shop)
    others = await other_relations(shop)
    with as_app.connected() as probe:
        for setting in ("", "SET app.shop_id = '7'; RESET app.shop_id; "):
            read = {}
            for relation in tables + others:
                error, _, rows = probe.run(f"{setting}SELECT count(*) FROM {relation}")
                if not error and rows and rows[0] not in ("", "0"):
                    read[relation] = rows[0]
            expect(
                not read,
                f"As the app's role, and in no shop, SELECT count(*) gave {counted(read)}. Expected: 0, or an error.",
                because=ONE_BUG_AWAY,
                section="A setting stays on the pooled connection",
            )
        written = []
        changes = [
            (
                f"DELETE FROM {table}",
                f"UPDATE {table} SET shop_id = {a.id}",
                await copy_into(shop, table, b.id),
                f"TRUNCATE {table} CASCADE",
            )
            for table in tables
        ]
        changes += [CHANGES_OF_SHOPS, [f"DELETE FROM {relation}" for relation in others]]
        for sql in (sql for each in changes for sql in each):
            error, rows, _ = probe.run(sql)
            # rows that others refer to cannot be deleted, but this DELETE has found them
            if (not error and (rows or sql.startswith("TRUNCATE"))) or error in ("23503", "23505"):
                written.append(
                    f"{sql.split(' SELECT ')[0].split(' (')[0]}: {rows} rows{f' ({error})' if error else ''}"
                )
    expect(
        not written,
        f"As the app's role, and in no shop: {'; '.join(written[:4])}. Expected: no rows, or a refusal.",
        because="A request that is in no shop changes rows of all shops.",
        section="A setting stays on the pooled connection",
    )


@pytest.mark.needs("test_the_role_sees_nothing_without_a_shop")
async def test_a_shop_reaches_its_own_rows_only(narrow, shop, wire, hosted, as_app):
    """In a shop, the app's role reaches this shop's rows, stores none for another shop, and moves none there."""
    for owner, other in (hosted, hosted[::-1]):
        headers = await owner.log_in(narrow)
        with wire.watching() as seen:
            await narrow.get(f"/books/{owner.book}", headers=headers)
            await wire.wait_idle()
        statements = until_the_book(seen)
        with as_app.connected(statements, settings_of(wire, statements)) as probe:
            for table, relation in named(probe, await owned_tables(shop)):
                mine = await shop.count(table, "shop_id = $1", owner.id)
                error, _, rows = probe.run(f"SELECT count(*) FROM {relation}")
                expect(
                    rows == [str(mine)] or error == NOT_GRANTED,
                    f"The statements with which the app enters {owner} were sent again. Then SELECT count(*) FROM "
                    f"{relation} gave {', '.join(rows) or f'the error {error}'}. Shop {owner.name} has {mine} rows "
                    "there. Expected: as many, or that the role has no right to read them.",
                    because=ONE_BUG_AWAY,
                    section="For whom a policy does not hold",
                )
                for what, sql in {
                    "change rows of": f"UPDATE {relation} SET shop_id = shop_id WHERE shop_id = {other.id}",
                    "delete rows of": f"DELETE FROM {relation} WHERE shop_id = {other.id}",
                    "move its own rows to": f"UPDATE {relation} SET shop_id = {other.id}",
                    "store a row in": await copy_into(shop, table, other.id, owner.id, relation),
                }.items():
                    error, count, _ = probe.run(sql)
                    if error == "23505" and sql.startswith("INSERT"):  # which a view says before its CHECK OPTION
                        moved, _, _ = probe.run(moving(sql, relation, owner))
                        error = moved if moved == CHECK_OPTION else error
                    reached = (not error and count) or error == "23505"
                    expect_out_of_reach(not reached, f"In {owner}, {what} {relation} of {other}", sql, error, count)
                for what, sql in {
                    "delete": f"{emptied(table, owner)}DELETE FROM {relation}",
                    "take": f"UPDATE {relation} SET shop_id = {owner.id}",
                }.items():  # without WHERE, PostgreSQL looks only at the policy of this command
                    error, count, _ = probe.run(sql)
                    reached = count > mine or error in ("23503", "23505")
                    expect_out_of_reach(not reached, f"In {owner}, {what} its {mine} {relation}", sql, error, count)
            for relation in await other_relations(shop):
                _, _, rows = probe.run(f"SELECT r::text FROM {relation} AS r")
                told = other.seen_in(" ".join(rows))
                expect(
                    not told,
                    f"In {owner}, the app's role read {relation}. It tells of {other}: {', '.join(told[:3])}.",
                    because=ONE_BUG_AWAY,
                    section="What goes past a policy",
                )


async def test_shops_may_have_the_same(narrow, shop, hosted):
    """Two shops may have the same ISBN, e-mail address and coupon code; within a shop each is unique."""
    a, b = hosted
    mine, theirs = await a.log_in(narrow), await b.log_in(narrow)
    before = await rows_of(shop, b)
    book = {"title": "The same", "author_id": a.ids.authors[0], "price_cents": 900}
    isbns = [f"978{b.id:05}{n:05}" for n in range(4)]
    person = {"email": b.email, "name": "The same", "password": "another password"}
    gift = {
        "recipient": {"email": b.email_of(1), "name": "F"},
        "lines": [{"book_id": a.book, "quantity": 1}],
        "message": "",
    }
    wanted = {
        "a book": (201, await narrow.post("/books", json=book | {"isbn": isbns[0]}, headers=mine)),
        "books": (201, await narrow.post("/books/bulk", json=[book | {"isbn": isbns[1]}], headers=mine)),
        "a list": (200, await narrow.post("/books/import", json=[book | {"isbn": isbns[2]}], headers=mine)),
        "a change": (
            200,
            await narrow.patch(f"/books/{a.book}", json={"isbn": isbns[3]}, headers=mine | {"If-Match": "*"}),
        ),
        "an account": (201, await narrow.post("/auth/register", json=person, headers=a.visit)),
        "a gift": (201, await narrow.post("/gifts", json=gift, headers=mine)),
        "a coupon": (200, await narrow.put(f"/coupons/{b.coupon}", json={"percent": 33}, headers=mine)),
    }
    percent = {
        owner.name: (await narrow.get(f"/coupons/{b.coupon}", headers=owner.visit)).json.get("percent")
        for owner in (a, b, a)
    }
    for what, (status, response) in wanted.items():
        stored = response.status == status and (what != "a list" or response["stored"] == 1)
        expect(
            stored,
            f"Shop A stored {what} with an ISBN, an address or a code of shop B. {response} Expected: {status}.",
            because="A shop learns what others have, and cannot sell the same book.",
            section="Constraints tell what other shops have",
        )
    found = changed(before, await rows_of(shop, b))
    expect(
        not found,
        f"Shop A stored an ISBN, an address and a code that B has, too. Rows of B changed: {'. '.join(found)}.",
        because="One shop changes what another one sells.",
        section="Constraints tell what other shops have",
    )
    expect(
        percent == {"A": 33, "B": 10},
        f"Shops A and B have a coupon {b.coupon}: A's is worth 33 %, B's 10 %. GET /coupons/{b.coupon} gave {percent}.",
        because="Customers get the discount of another shop.",
        section="Constraints tell what other shops have",
    )
    ids = {}
    for owner, password in ((a, "another password"), (b, PASSWORD)):
        given = await narrow.post("/auth/login", json={"email": b.email, "password": password}, headers=owner.visit)
        me = await narrow.get("/me", headers=owner.visit | {"Authorization": f"Bearer {given['access_token']}"})
        ids[owner.name] = me["id"]
        wrong = {"A": PASSWORD, "B": "another password"}[owner.name]
        refused = await narrow.post("/auth/login", json={"email": b.email, "password": wrong}, headers=owner.visit)
        expect(
            refused.status == 401,
            f"One address has an account in A and one in B. At {owner}, with the other one's password: {refused}",
            because="The password of one shop opens an account in another one.",
            section="Constraints tell what other shops have",
        )
    expect(
        ids["B"] == b.customer and ids["A"] != b.customer,
        f"One address has an account in A and another one in B. GET /me gave the ids {ids}. B's is {b.customer}.",
        because="A customer logs in and is somebody else.",
        section="Constraints tell what other shops have",
    )
    again = {
        "a book": await narrow.post("/books", json=book | {"isbn": isbns[0]}, headers=mine),
        "an account": await narrow.post("/auth/register", json=person, headers=a.visit),
        "B's book": await narrow.post(
            "/books", json=book | {"isbn": b.isbn, "author_id": b.ids.authors[0]}, headers=theirs
        ),
    }
    coupons = await shop.count("coupons", "code = $1 AND active", b.coupon)
    await narrow.put(f"/coupons/{b.coupon}", json={"percent": 44}, headers=mine)
    expect(
        all(response.status == 409 for response in again.values())
        and coupons == await shop.count("coupons", "code = $1 AND active", b.coupon) == 2,
        "The same ISBN and the same address once more in one shop: "
        f"{', '.join(str(response.status) for response in again.values())}. Expected: 409. There are {coupons} active "
        "coupons with one code in two shops. Expected: 2, and no more after the second PUT.",
        because="A shop has one book twice, and its stock is wrong in both places.",
        section="Constraints tell what other shops have",
    )
    path = f"/coupons/{b.coupon}"
    steps = [
        await narrow.delete(path, headers=mine),
        await narrow.get(path, headers=mine),
        await narrow.put(path, json={"percent": 55}, headers=mine),
        await narrow.get(path, headers=mine),
        await narrow.get(path, headers=theirs),
    ]
    said = [(step.status, step.json.get("percent") if step.status == 200 else None) for step in steps]
    wanted = [(204, None), (404, None), (200, 55), (200, 55), (200, 10)]
    expect(
        said == wanted,
        f"Shop A withdrew its coupon {b.coupon}, read it, set it again to 55 % and read it; then B read its own one. "
        f"Status and percent: {said}. Expected: {wanted}.",
        because="A coupon that the shop has just announced is not valid, or one that it has withdrawn still is.",
        section="Constraints tell what other shops have",
    )
    for table, columns in TWICE.items():
        refused = await shop.refusal(
            f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table} WHERE shop_id = {a.id} LIMIT 1"
        )
        expect(
            refused is not None,
            f"PostgreSQL accepted a row of {table} of shop A a second time: INSERT INTO {table} ({columns}) SELECT … "
            "Expected: a constraint refuses it.",
            because="Two requests at the same time both find no such row, and the shop then has it twice.",
            section="Constraints tell what other shops have",
        )


async def test_rows_refer_to_their_own_shop(narrow, shop, hosted):
    """A row of one shop never refers to a row of another. A response does not tell whether such a row exists."""
    a, b = hosted
    headers = await a.log_in(narrow)
    numbers = {"author": b.ids.authors[0], "book": b.book, "customer": b.customer, "order": b.order}
    theirs = numbers | {"receipt": b.receipt, "link": b.public_id}
    missing = {name: number + 500 for name, number in numbers.items()} | {"receipt": uuid4(), "link": uuid4()}
    for what, request in naming(a).items():
        said = []
        for ids in (theirs, missing):
            method, path, body = request(ids)
            response = await narrow.request(method, path, json=body, headers=headers | {"If-Match": "*"})
            said.append((response.status, masked(response.text, ids)))
        accepted = (said[0][0] < 400 and what != "a line of a list") or said[0][0] >= 500
        expect(
            not accepted and said[0] == said[1],
            f"In shop A, {what} named a row of shop B: status {said[0][0]}, {said[0][1][:90]}. With an id that no shop "
            f"has: status {said[1][0]}, {said[1][1][:90]}. Expected: a refusal, the same for both.",
            because="A shop can find out what others have, or sell what is not its own.",
            section="Constraints tell what other shops have",
        )
    crossing = [
        f"{table}.{column}"
        for table, column, parent in PAIRS
        if await shop.value(
            f"SELECT count(*) FROM {table} t JOIN {parent} p ON p.id = t.{column} AND p.shop_id <> t.shop_id"
        )
    ]
    expect(
        not crossing,
        f"Rows of one shop refer to rows of another in {', '.join(crossing)}.",
        because="A shop cannot see what its own row refers to, such as the author of a book.",
        section="Constraints tell what other shops have",
    )


# -- what the checks use


LEAVES_FIRST = (
    *("wishes", "reviews", "gifts", "invoices", "payments", "outbox", "idempotency_keys", "refresh_tokens"),
    *("transfers", "order_lines", "orders", "customers", "books"),
)
"""So that no row refers to one that is deleted."""


def emptied(table, owner):
    """Deletes the shop's own rows that may refer to those of the table."""
    before = LEAVES_FIRST[: LEAVES_FIRST.index(table)] if table in LEAVES_FIRST else LEAVES_FIRST
    return "".join(f"DELETE FROM {leaf} WHERE shop_id = {owner.id}; " for leaf in before)


def expect_out_of_reach(holds, tried, sql, error, count):
    expect(
        holds,
        f"{tried}: `{sql.rpartition('; ')[2][:60]}` → {plural(count, 'row')}"
        f"{f', SQLSTATE {error}' if error else ''}. Expected: no row of another shop, or a refusal.",
        because="One shop deletes what another one has, or stores something there.",
        section="For whom a policy does not hold",
    )


def counted(read):
    return ", ".join(f"{count} of {relation}" for relation, count in list(read.items())[:4]) or "no rows"


COLUMNS = """
    SELECT column_name FROM information_schema.columns
     WHERE table_schema = 'public' AND table_name = $1 AND is_generated = 'NEVER' AND identity_generation IS NULL
       AND column_name NOT IN ('shop_id', 'public_id') AND column_name NOT LIKE '%\\_key'
"""

FRESH = {
    "isbn": "gen_random_uuid()::text",
    "email": "gen_random_uuid()::text",
    "token": "gen_random_uuid()::text",
    "code": "gen_random_uuid()::text",
    "key": "gen_random_uuid()",
    "id": "gen_random_uuid()",
    "rating": "1",
}
"""Values that no row has, so that no unique constraint is in the way."""


async def copy_into(shop, table, target, source=None, relation=None):
    """An INSERT of a row as one that is there, for the shop `target`. In no shop, its values are those of B's row."""
    columns = [row["column_name"] for row in await shop.rows(COLUMNS, table)]
    names = ", ".join([*columns, "shop_id"])
    if source is not None:
        values = ", ".join(
            FRESH.get(column, column) + ("::text" * (table == "idempotency_keys" and column == "key"))
            for column in columns
        )
        into = relation or table
        return f"INSERT INTO {into} ({names}) SELECT {values}, {target} FROM {into} LIMIT 1"
    quoted = ", ".join(
        FRESH[column] + "::text" * (table == "idempotency_keys")
        if column in FRESH
        else f"quote_nullable({column}::text)"
        for column in columns
    )
    values = await shop.value(f"SELECT concat_ws(', ', {quoted}) FROM {table} WHERE shop_id = $1 LIMIT 1", target)
    return f"INSERT INTO {table} ({names}) VALUES ({quote_fresh(values)}, {target})"


def moving(insert, relation, owner):
    """The INSERT of copy_into, which takes the shop's own row away first: some values must be unique."""
    into, _, source = insert.rpartition(f" FROM {relation} ")
    gone = f"WITH gone AS (DELETE FROM {relation} WHERE shop_id = {owner.id} RETURNING *)"
    return f"{gone} {into} FROM gone {source}"


def quote_fresh(values):
    """Bare UUIDs, which are values of FRESH, in quotes."""
    return re.sub(r"(?<!['\w-])([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?!['\w-])", r"'\1'", values)


def until_the_book(seen):
    """The statements of the connection that has read the book, up to this one."""
    mine = [one for one in seen.statements if not one.driver and not one.skipped]
    last = max((n for n, one in enumerate(mine) if one.data and one.rows and "books" in one.text), default=-1)
    return [one for one in mine[: last + 1] if one.connection == mine[last].connection]


def settings_of(wire, statements):
    """With which the connection of these statements began."""
    started = {one.id: one.parameters for one in [*wire.closed, *wire.connections]}
    return started.get(statements[-1].connection, {}) if statements else {}


def named(probe, tables):
    """Each table with the name by which the app finds it, and with its own name if the app's leads to something else.

    The app may read views that have the names of the tables, in a schema that its connections look into first.
    """
    for table in tables:
        yield table, table
        _, _, same = probe.run(f"SELECT '{table}'::regclass = 'public.{table}'::regclass")
        if same != ["t"]:
            yield table, f"public.{table}"


def masked(text, ids):
    for number in ids.values():
        text = text.replace(str(number), "N")
    return text


def naming(a):
    """Requests of shop A that name rows by their ids: method, path and body, for ids of somebody else."""
    numbers = iter(range(100_000, 100_999))
    line = lambda ids: [{"book_id": ids["book"], "quantity": 1}]  # noqa: E731
    book = lambda ids: {"isbn": f"979-{next(numbers)}", "title": "T", "author_id": ids["author"], "price_cents": 900}  # noqa: E731
    friend = {"email": "friend@example.com", "name": "F"}
    return {
        "a new book": lambda ids: ("POST", "/books", book(ids)),
        "a batch of books": lambda ids: ("POST", "/books/bulk", [book(ids)]),
        "a line of a list": lambda ids: ("POST", "/books/import", [book(ids)]),
        "a change of a book": lambda ids: ("PATCH", f"/books/{a.ids.books[1]}", {"author_id": ids["author"]}),
        "a review of its own book": lambda ids: (
            "POST",
            f"/books/{a.ids.books[3]}/reviews",
            {"customer_id": ids["customer"], "rating": 1, "body": ""},
        ),
        "a review": lambda ids: (
            "POST",
            f"/books/{ids['book']}/reviews",
            {"customer_id": a.customer, "rating": 1, "body": ""},
        ),
        "a transfer": lambda ids: ("POST", "/transfers", {"recipient_id": ids["customer"], "cents": 1}),
        "a wish": lambda ids: ("PUT", f"/wishlist/{ids['book']}", None),
        "an order": lambda ids: ("POST", "/orders", {"lines": line(ids)}),
        "a gift": lambda ids: ("POST", "/gifts", {"recipient": friend, "lines": line(ids), "message": ""}),
        "a checkout": lambda ids: ("POST", "/checkout", {"lines": line(ids), "card_token": "tok"}),
        "a quote": lambda ids: ("POST", "/quotes", {"lines": line(ids)}),
        "a count of the stock": lambda ids: ("PUT", f"/books/{ids['book']}/stock", {"stock": 90}),
        "an attribute": lambda ids: ("PATCH", f"/books/{ids['book']}/attributes", {"language": "fr"}),
        "a customer": lambda ids: ("GET", f"/customers/{ids['customer']}/orders", None),
        "a look at a book": lambda ids: ("GET", f"/books/{ids['book']}", None),
        "a look at its attributes": lambda ids: ("GET", f"/books/{ids['book']}/attributes", None),
        "a look at a customer": lambda ids: ("GET", f"/customers/{ids['customer']}", None),
        "an invoice": lambda ids: ("GET", f"/orders/{ids['order']}/invoice", None),
        "a change of a title": lambda ids: ("PATCH", f"/books/{ids['book']}", {"title": "T"}),
        "an order that is there": lambda ids: ("GET", f"/orders/{ids['order']}", None),
        "a book that goes": lambda ids: ("DELETE", f"/books/{ids['book']}", None),
        "a payment once more": lambda ids: ("POST", f"/checkout/{ids['order']}", None),
        "a link to an order": lambda ids: ("GET", f"/orders/{ids['order']}/tracking", None),
        "a look through a link": lambda ids: ("GET", f"/track/{ids['link']}", None),
        "a receipt": lambda ids: ("GET", f"/receipts/{ids['receipt']}", None),
    }
