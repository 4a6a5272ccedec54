"""Lesson 05: the migrations make the database that the models describe, forwards, backwards, and with rows in it."""

import re

import pytest

from checks.kit.report import expect
from checks.lesson_05.catalog import catalog, differences
from checks.lesson_05.production import (
    DUMP,
    MANY,
    REVISION,
    TABLES,
    changes,
    contents,
    first,
    last_ids,
    load_production,
    load_rows,
)
from checks.lesson_05.statements import BAD_ROWS, BY_HAND, GOOD_ROWS, LIFE_AT_HEAD, LIFE_GOES_ON, MANY_REVIEWS

UPGRADE = "test_an_empty_database_reaches_head"
NEW, PRODUCTION = "a new database", "production"
"""Where an upgrade begins."""
IN_PRODUCTION = "in production"


async def test_there_is_one_head(alembic):
    """`alembic heads` names one revision."""
    done = await alembic("heads")
    heads = [line.strip() for line in done.output.splitlines() if line.rstrip().endswith("(head)")]
    expect(
        done.ok and len(heads) == 1,
        f"{done}, and named {len(heads)} heads: {', '.join(heads)}." if done.ok else f"{done}.",
        because="`alembic upgrade head` refuses to choose between two heads, so nobody can deploy: two people made a "
        "revision after the same one, and Git saw no conflict, because each is a file of its own."
        if done.ok
        else "`alembic upgrade head` reads the same files, so nobody can deploy.",
        section="Two heads, and where staging is",
    )


async def test_an_empty_database_reaches_head(alembic, shop):
    """`alembic upgrade head` makes the tables in an empty database, with the URL that is in DATABASE_URL."""
    done = await alembic("upgrade", "head")
    expect(done.ok, f"{done}", because=NOWHERE, section=section_of(done, "See it break"))
    await expect_tables(done, shop)


async def test_what_production_ran_is_unchanged(alembic, shop):
    """In an empty database, `alembic upgrade 0002` makes the tables, types and triggers that production has there."""
    await load_production(shop, rows=False)
    production = await catalog(shop)
    await empty(shop)
    done = await alembic("upgrade", REVISION)
    expect(done.ok, f"{done}", because=NOWHERE, section=section_of(done, "See it break"))
    await expect_tables(done, shop)
    different = differences(production, await catalog(shop), (IN_PRODUCTION, f"in a new database at {REVISION}"))
    expect(
        not different,
        f"A new database at {REVISION} differs from production's, which is at {REVISION}, too. {first(different)}.",
        because="Production has run 0001 and 0002 and will not run them again. What is changed there reaches new "
        "databases only, so tests pass on tables that production does not have.",
        section="What production has run stays as it is",
    )


@pytest.mark.needs(UPGRADE)
async def test_the_service_runs_on_it(alembic, shop, launch):
    """After the upgrade of an empty database the shop sells books, by the rules that it has had so far."""
    await alembic("upgrade", "head")
    app = await launch()
    ids = await shop.seed(authors=1, customers=2)
    anna, ben = ids.customers
    new = {"isbn": "978-0-306-40615-7", "title": "The New One", "author_id": ids.authors[0], "price_cents": 1000}
    book = await app.post("/books", json={**new, "stock": 5000})
    expect(book.ok, f"{book}", because=CLOSED, section="See it break")
    order = {"customer_id": anna, "lines": [{"book_id": book["id"], "quantity": 3}]}
    for method, path, body in (
        ("POST", "/orders", order),
        ("POST", f"/books/{book['id']}/reviews", {"customer_id": anna, "rating": 4, "body": ""}),
        ("PATCH", f"/books/{book['id']}", {"price_cents": 1100}),
        ("GET", f"/customers/{anna}/orders", None),
    ):
        response = await app.request(method, path, json=body)
        expect(response.ok, f"{response}", because=CLOSED, section="See it break")
    too_much = {"customer_id": ben, "lines": [{"book_id": book["id"], "quantity": 4000}]}
    refused = await app.post("/orders", json=too_much)
    row = (await shop.rows(f"SELECT {RULED} FROM books WHERE id = $1", book["id"]))[0]
    found = {
        "the ISBN without hyphens": row["isbn"] == "9780306406157",
        "a stock of 4997": row["stock"] == 4997,
        "a pending order": await shop.count("orders", "status = 'pending'") == 1,
        "one rating of 4": (row["rating_count"], row["rating_sum"]) == (1, 4),
        "a revision that grew": row["revision"] > 1,
        "no order beyond the credit": not refused.ok and not await shop.count("orders", "customer_id = $1", ben),
    }
    edited = await revisions(shop, book["id"])
    found |= {f"a revision that grew with {column}": grew for column, grew in edited.items()}
    beyond = await shop.refusal("UPDATE order_lines SET quantity = 4000")
    found["no order that is raised beyond the credit"] = beyond == "orders_within_credit"
    corrected = await shop.refusal("UPDATE order_lines SET quantity = 4000; UPDATE order_lines SET quantity = 2")
    found["an order whose lines were corrected twice in one transaction"] = corrected is None
    missing = [what for what, holds in found.items() if not holds]
    off = [name for (kind, name), words in (await catalog(shop)).items() if kind == "trigger" and SWITCHED_OFF in words]
    expect(
        not missing,
        "A book was added, sold, reviewed and changed. Then an order for 4000 copies was sent, which is beyond the "
        f"customer's credit and has to be refused; its response was {refused.status}. After that, SQL changed columns "
        "of the book, raised the first order to 4000 copies, and raised and lowered it in one transaction. "
        f"The database does not hold: {', '.join(missing)}. It holds: {row}."
        + (f" These triggers are switched off: {', '.join(off)}." if off else ""),
        because="PostgreSQL keeps these rules, with triggers and defaults that the service relies on. Where one is "
        "missing or switched off, nobody is told, and what is stored is wrong from then on.",
        section="Rows that are already there" if off else "What production has run stays as it is",
    )


@pytest.mark.needs(UPGRADE)
async def test_down_to_base_and_up_again(alembic, shop):
    """From head with rows, `alembic downgrade base` leaves nothing behind, and `upgrade head` works again after it."""
    nothing = await catalog(shop)
    await alembic("upgrade", "head")
    head = await catalog(shop)
    await load_rows(shop)
    await cancel_some_orders(shop)
    down = await alembic("downgrade", "base")
    expect(down.ok, f"{down}", because=NO_WAY_BACK, section=section_of(down, DOWNGRADE))
    left = differences(nothing, await catalog(shop))
    expect(
        not left,
        f"At base the database is not empty. {first(left)}.",
        because="The next upgrade wants to make what is there already, and PostgreSQL refuses. Somebody then has to "
        "clean up by hand, on a database whose state nobody knows.",
        section="A downgrade removes what the upgrade made",
    )
    again = await alembic("upgrade", "head")
    expect(
        again.ok, f"The second time: {again}", because=NO_WAY_BACK, section="A downgrade removes what the upgrade made"
    )
    different = differences(head, await catalog(shop))
    expect(
        not different,
        f"After the second upgrade the database is not as after the first. {first(different)}.",
        because="A database that went down and up again is used like any other one, and it is not the same.",
        section="A downgrade removes what the upgrade made",
    )


@pytest.mark.needs(UPGRADE)
async def test_the_password_may_hold_anything(alembic, use_password):
    """A DATABASE_URL whose password holds `%`, `@`, `:` and `/` works like any other."""
    sent = await use_password(PASSWORD)
    done = await alembic("upgrade", "head")
    wrong = [password for password in sent if password != PASSWORD]
    expect(
        done.ok,
        f"The password is {PASSWORD}, percent-encoded in DATABASE_URL. {done}"
        + (f". The server was sent the password {wrong[0]}" if wrong else ""),
        because="A password generator uses such characters. After the next change of the password nobody can migrate."
        if not wrong
        else "The server refuses a password that is not the right one, so nobody can migrate. Where every "
        "password is accepted, as on many laptops, nobody notices.",
        section="A password with a % in the URL",
    )


@pytest.mark.needs(UPGRADE)
async def test_production_keeps_its_rows(alembic, shop):
    """Production, at 0002 with rows, reaches head with all rows as they are; `sort_title` is filled in."""
    await load_production(shop, books=MANY)
    before, last = await contents(shop), await last_ids(shop)
    done = await alembic("upgrade", "head")
    expect(done.ok, f"With rows in the tables: {done}", because=PUBLISHED, section="Rows that are already there")
    after = await contents(shop)
    changed = changes(before, after)
    expect(
        not changed,
        f"Rows that production had before the upgrade have changed. {first(changed)}.",
        because="These rows are the shop's books, customers and orders. Nobody asked for other ones, and after a "
        "deploy nobody looks at them one by one.",
        section="Rows that are already there",
    )
    back = went_back(last, await last_ids(shop))
    expect(
        not back,
        f"The last id that PostgreSQL has given out went back: {first(back)}.",
        because="The next row gets a number that another one has, or once had. Invoices and links name these numbers.",
        section="Rows that are already there",
    )
    wrong = await wrongly_sorted(shop)
    expect(
        not wrong,
        f"{len(wrong)} of {len(after['books'])} titles are sorted wrongly. {first(wrong)}.",
        because="A list of books that is sorted by this column has them in a place where no customer looks for them.",
        section="Rows that are already there",
    )
    again = await alembic("upgrade", "head")
    changed = changes(after, await contents(shop))
    expect(
        again.ok and not changed,
        f"A second time, with nothing to do: {again}. {first(changed)}",
        because="Each deploy runs this command, also those without a new revision. It must leave the rows alone.",
        section="Rows that are already there",
    )


@pytest.mark.needs(UPGRADE)
async def test_several_reviews_become_the_last_one(alembic, shop):
    """Where a customer reviewed a book several times before 0003, the last review stays and no upgrade fails."""
    await load_production(shop, rows=False)
    await shop.execute(MANY_REVIEWS, step="2,200 reviews were added, many by a customer who had reviewed the book")
    before = await contents(shop)
    pairs = {}
    for key, row in sorted(before["reviews"].items()):
        pairs.setdefault((row["book_id"], row["customer_id"]), []).append(key)
    done = await alembic("upgrade", "head")
    expect(
        done.ok,
        f"A customer has reviewed a book more than once. {done}",
        because="An empty table accepts every new constraint, and production's reviews do not. As long as the "
        "upgrade fails there, no release gets out.",
        section="Rows that are already there",
    )
    after = await contents(shop)
    wrong = [
        f"Of book {book} customer {customer} had written {numbers(keys)}; left are {numbers(left) or 'none'}"
        for (book, customer), keys in pairs.items()
        if (left := [key for key in keys if key in after["reviews"]]) != keys[-1:]
    ]
    expect(
        not wrong,
        f"Of each customer and book, the last review has to stay, and no other one. This is wrong {len(wrong)} times. "
        f"{first(wrong)}.",
        because="Customers find that the shop has lost their opinion, or shows one that they have replaced.",
        section="Rows that are already there",
    )
    kept = {key: row for key, row in before["reviews"].items() if key in after["reviews"]}
    changed = changes({"reviews": kept}, {"reviews": after["reviews"]})
    expect(
        not changed,
        f"Reviews that stay have changed. {first(changed)}.",
        because="Customers find opinions under their names that they have not written.",
        section="Rows that are already there",
    )
    ratings = {}
    for row in kept.values():
        ratings.setdefault(row["book_id"], []).append(row["rating"])
    miscounted = [
        f"of book {key} {counted(book)}; before it was {counted(before['books'][key])}, and the reviews that are left "
        f"give {(len(ratings[key]), sum(ratings[key]))}"
        for key, book in after["books"].items()
        # the counts may stay as they were, or become those of the reviews that are left
        if counted(book) not in (counted(before["books"][key]), (len(ratings[key]), sum(ratings[key])))
    ]
    expect(
        not miscounted,
        f"The number of ratings and their sum are wrong: {first(miscounted)}.",
        because="The shop shows an average that no customers have given.",
        section="Rows that are already there",
    )


@pytest.mark.needs(UPGRADE)
async def test_production_can_go_back(alembic, shop):
    """From head with rows, `alembic downgrade 0002` gives production its tables back; an upgrade works again."""
    await load_production(shop)
    production, columns = await catalog(shop), columns_of(await contents(shop))
    done = await alembic("upgrade", "head")
    expect(done.ok, f"{done}", because=PUBLISHED, section="Rows that are already there")
    head, badly_sorted = await catalog(shop), await wrongly_sorted(shop)  # what is wrong already is for another check
    cancelled = await cancel_some_orders(shop)
    await shop.execute(LIFE_AT_HEAD, step="at head a customer, a book and an order of it were added")
    if ("column", "books.discount_percent") in head:
        await shop.execute("UPDATE books SET discount_percent = id % 90 WHERE id % 2 = 0", step="books got a discount")
    before, last = restricted(await contents(shop), columns), await last_ids(shop)
    down = await alembic("downgrade", REVISION)
    expect(
        down.ok,
        f"At head, with rows{f' and {cancelled} cancelled orders' if cancelled else ''}: {down}",
        because=NO_WAY_BACK,
        section=section_of(down, DOWNGRADE),
    )
    different = differences(production, without_cancelled(await catalog(shop)))
    expect(
        not different,
        f"After the downgrade the database is not what it was at {REVISION}. {first(different)}.",
        because="The release before this one now runs on tables that it was not written for.",
        section="A downgrade removes what the upgrade made",
    )
    after = await contents(shop)
    for key, order in before["orders"].items():  # 0002 has no word for these; any of its own will do
        if order["status"] == "cancelled" and key in after["orders"]:
            order["status"] = after["orders"][key]["status"]
    changed = changes(before, after)
    expect(
        not changed,
        f"The downgrade has changed rows. {first(changed)}.",
        because="A downgrade is typed in a hurry, when a release has gone wrong. It must not make it worse: the "
        "orders and books of years are what the shop lives on.",
        section="A downgrade removes what the upgrade made",
    )
    back = went_back(last, await last_ids(shop))
    expect(
        not back,
        f"After the downgrade, the last id that PostgreSQL has given out went back: {first(back)}.",
        because="The next row gets a number that another one has, or once had. Invoices and links name these numbers.",
        section="A downgrade removes what the upgrade made",
    )
    await shop.execute(LIFE_GOES_ON, step="at 0002 a book and an order were added")
    again = await alembic("upgrade", "head")
    expect(
        again.ok, f"The second time: {again}", because=NO_WAY_BACK, section="A downgrade removes what the upgrade made"
    )
    different = differences(head, await catalog(shop)) + ([] if badly_sorted else await wrongly_sorted(shop))
    expect(
        not different,
        f"After the second upgrade the database is not as after the first. {first(different)}.",
        because="The next try of the release starts from a database that nobody has tested.",
        section="A downgrade removes what the upgrade made",
    )


@pytest.mark.start_early
@pytest.mark.needs(UPGRADE)
async def test_models_and_database_agree(alembic, shop):
    """After the upgrade, of production as well, `alembic check` finds nothing to do, and prints a few lines only."""
    for start in (NEW, PRODUCTION):
        await upgraded(start, alembic, shop)
        done = await alembic("check")
        expect(
            done.ok,
            f"After the upgrade of {start}: {digest(done)}" + await unique_constraints(shop, done),
            because="`alembic check` tells in the pipeline that somebody changed a model and forgot the migration. "
            "Nobody reads a list of differences that is never empty.",
            section="What autogenerate sees",
        )
        expect(
            len(done.output) <= LONG,
            f"`alembic check` found nothing to do, and printed {len(done.output):,} characters. They begin: "
            f"{done.output[:200]!r}.",
            because="Nobody reads thousands of characters to find out that nothing is to be done, and so nobody reads "
            "them on the day on which something is.",
            section="What autogenerate sees",
        )


@pytest.mark.needs(UPGRADE)
async def test_production_becomes_what_a_new_database_is(alembic, shop):
    """After the upgrade production's database has the tables, types and rules that a new one has."""
    await upgraded(NEW, alembic, shop)
    new = await catalog(shop)
    missing = [
        f"books.{name} is {new.get(('column', f'books.{name}'), 'missing').partition(' ')[2] or 'missing'}, not {words}"
        for name, words in NEW_COLUMNS.items()
        if not new.get(("column", f"books.{name}"), "").startswith(f"books.{name} {words}")
    ]
    expect(
        not missing,
        f"After the upgrade of {NEW}, {first(missing)}, as app/models.py says.",
        because="The models in the ticket are right. Without the column the service that they were made for fails.",
        section="What production has run stays as it is",
    )
    await upgraded(PRODUCTION, alembic, shop)
    different = differences(new, await catalog(shop), ("in a new database", IN_PRODUCTION))
    expect(
        not different,
        f"Production's database differs from a new one. {first(different)}.",
        because="Tests and colleagues work on new databases. What they try out is not what customers get.",
        section="What production has run stays as it is",
    )


@pytest.mark.start_early
@pytest.mark.needs("test_models_and_database_agree")
async def test_a_difference_is_seen(alembic, shop):
    """`alembic check` notices when somebody changed a server default or a column by hand."""
    await alembic("upgrade", "head")
    for change, undo in BY_HAND.items():
        await shop.execute(change, step=change)
        done = await alembic("check")
        expect(
            not done.ok,
            f"After `{change}` {done}, as if nothing were different.",
            because="Somebody changed production by hand in an emergency. The models do not know of it, and neither "
            "does the next new database. This command is what would have told the team.",
            section="What autogenerate sees",
        )
        await shop.execute(undo)


@pytest.mark.needs(UPGRADE)
async def test_constraints_do_their_job_by_name(alembic, shop):
    """After the upgrade, in production too, the constraints of the models refuse bad rows, under their names."""
    for start in (NEW, PRODUCTION):
        await upgraded(start, alembic, shop)
        for statement in GOOD_ROWS:
            refused_by = await shop.refusal(statement)
            expect(
                refused_by is None,
                f"After the upgrade of {start}, `{statement}` was refused by {refused_by}. It is a good row.",
                because="Customers and the shop's staff get an error for what the models allow.",
                section="A constraint needs its name in the migration",
            )
        there = {
            row["conname"]: row["condeferrable"]
            for row in await shop.rows(
                "SELECT conname, condeferrable FROM pg_constraint WHERE contype IN ('c', 'f', 'p', 'u')"
            )
        }
        lost = sorted(PRODUCTIONS_CONSTRAINTS - there.keys())
        expect(
            not lost,
            f"After the upgrade of {start} the database has no constraint {first(lost)}. Production has had "
            "it all the time.",
            because="Code that turns a violation into an error message looks at the name, and the next migration "
            "drops the constraint by it.",
            section="A constraint needs its name in the migration",
        )
        late = [name for name, deferrable in there.items() if deferrable]
        expect(
            not late,
            f"After the upgrade of {start}, {first(late)} can be checked at the end of a transaction (DEFERRABLE). "
            "The models do not say so.",
            because="PostgreSQL refuses `INSERT … ON CONFLICT` with a unique constraint of this kind, and where it is "
            "INITIALLY DEFERRED a bad row is refused only by the COMMIT.",
            section="A constraint needs its name in the migration",
        )
        for wanted, statement in BAD_ROWS:
            refused_by = await shop.refusal(statement)
            expect(
                refused_by is not None,
                f"After the upgrade of {start}, PostgreSQL accepted `{statement}`. {wanted} should have refused it.",
                because="The models declare this rule, and only the database can keep it for everybody: a script, an "
                "import, another service. The shop now works with rows that make no sense.",
                section="A constraint needs its name in the migration",
            )
            expect(
                refused_by == wanted,
                f"After the upgrade of {start}, `{statement}` was refused by {refused_by}, not by {wanted}.",
                because="Code that turns a violation into an error message looks at the name, and the next migration "
                "drops the constraint by it.",
                section="A constraint needs its name in the migration",
            )


@pytest.mark.needs(UPGRADE)
async def test_orders_can_be_cancelled(alembic, shop):
    """After the upgrade, in production too, orders start as pending and can take the status `cancelled`."""
    for start in (NEW, PRODUCTION):
        await upgraded(start, alembic, shop)
        labels = await statuses(shop)
        expect(
            {"pending", "paid", "shipped", "cancelled"} <= set(labels),
            f"After the upgrade of {start} an order can be {', '.join(labels)}. It should be able to be pending, paid, "
            "shipped or cancelled.",
            because="The models have the status. When the service writes one that the database does not know, the "
            "customer gets an error, and the order is sent all the same.",
            section="What autogenerate sees",
        )
        order = "INSERT INTO orders (customer_id) SELECT min(id) FROM customers"
        refused_by = await shop.refusal(order)
        status = await shop.value("SELECT status::text FROM orders ORDER BY id DESC LIMIT 1")
        expect(
            refused_by is None and status == "pending",
            f"After the upgrade of {start}, `{order}` "
            + (f"stored an order that is {status}." if refused_by is None else "was refused: the status has no value."),
            because="The service leaves the status of a new order to the database.",
            section="What autogenerate sees",
        )
        await shop.execute("UPDATE orders SET status = 'cancelled'")
        await shop.execute("INSERT INTO orders (customer_id, status) SELECT min(id), 'cancelled' FROM customers")


@pytest.mark.needs(UPGRADE)
async def test_the_index_and_the_default_are_those_of_the_models(alembic, shop):
    """After the upgrade, in production too, `ix_books_for_sale` covers books in stock, and a new credit is 500 000."""
    for start in (NEW, PRODUCTION):
        await upgraded(start, alembic, shop)
        index = (await catalog(shop)).get(("index", "ix_books_for_sale"), "missing")
        expect(
            index == FOR_SALE,
            f"After the upgrade of {start} the index is: {index}. The models say: {FOR_SALE}.",
            because="The index is there for books that can be bought. With another condition it also holds books that "
            "nobody asks it for, or PostgreSQL cannot use it for those that can be bought.",
            section="What autogenerate sees",
        )
        await shop.execute("INSERT INTO customers (email, name) VALUES ('first@example.com', 'The first')")
        credit = await shop.value("SELECT credit_cents FROM customers WHERE email = 'first@example.com'")
        expect(
            credit == 500_000,
            f"After the upgrade of {start}, a customer was added, and the INSERT named no credit. PostgreSQL stored "
            f"{credit} cents, and the models say 500000.",
            because="New customers have another credit than the shop wants to give them. Nobody sees why, since the "
            "models say something else.",
            section="What autogenerate sees",
        )


SWITCHED_OFF = "SWITCHED OFF"
"""What the catalog says of a trigger that is disabled."""

RULED = "isbn, stock, rating_count, rating_sum, revision"
"""Columns of a book that PostgreSQL's own rules decide about."""

EDITS = {"isbn": "'1'", "title": "'Other'", "subtitle": "'Other'", "price_cents": "7", "discount_percent": "5"}
"""New values for columns of a book."""

PASSWORD = "100%40@home:a/b%"
"""It holds a %40 of its own: code that decodes the URL twice turns it into an @."""

CANCELLED = 6
"""Orders that are cancelled before a downgrade, of each status before."""

PRODUCTIONS_CONSTRAINTS = set(re.findall(r"\bCONSTRAINT (\w+) (?:CHECK|FOREIGN|PRIMARY|UNIQUE)", DUMP))
"""Names of constraints that production has at 0002."""

LONG = 1000
"""Characters that `alembic check` may print if there is nothing to do; Alembic's own lines have about 300."""

NEW_COLUMNS = {
    "subtitle": "text NOT NULL DEFAULT ''",
    "sort_title": "text NOT NULL",
    "discount_percent": "integer NOT NULL DEFAULT 0",
}
"""What the models have beyond production's columns, whatever somebody has made of the models."""

FOR_SALE = "CREATE INDEX ix_books_for_sale ON public.books USING btree (title) WHERE (stock > 0)"


def went_back(before, after):
    """A text for each table whose next id would be one that was given before."""
    return [f"{table} from {before[table]} to {id_}" for table, id_ in after.items() if id_ < before[table]]


async def empty(shop):
    """Takes everything out of the database, Alembic's table too."""
    await shop.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION pg_database_owner")


async def expect_tables(done, shop):
    """Fails if a command that succeeded has made none of production's tables, or not all of them."""
    there = {name for kind, name in await catalog(shop) if kind == "table"}
    missing = sorted(set(TABLES) - there)
    expect(
        not missing,
        f"{done}. In the database of DATABASE_URL these tables are missing: {', '.join(missing)}."
        + ("" if there & set(TABLES) else " Either the command used another database, or it committed nothing."),
        because="The command reports success, and a service that starts on this database responds to requests with "
        "errors: there is nothing to sell.",
        section="See it break",
    )


async def upgraded(start, alembic, shop):
    """A database at head with rows, that was new or production's; whatever was there before has gone."""
    await empty(shop)
    if start == PRODUCTION:
        await load_production(shop)
    done = await alembic("upgrade", "head")
    expect(done.ok, f"An upgrade of {start}: {done}", because=PUBLISHED, section="Rows that are already there")
    if start == NEW:
        await load_rows(shop)


async def revisions(shop, book):
    """{column: whether the book's revision grew when it was changed}, for columns that an editor changes."""
    grew = {}
    for column, value in EDITS.items():
        if ("column", f"books.{column}") in await catalog(shop):
            before, after = [
                await shop.value(statement, book)
                for statement in (
                    "SELECT revision FROM books WHERE id = $1",
                    f"UPDATE books SET {column} = {value} WHERE id = $1 RETURNING revision",
                )
            ]
            grew[column] = after > before
    return grew


async def statuses(shop):
    """What an order's status can be."""
    return [
        row["enumlabel"]
        for row in await shop.rows(
            "SELECT enumlabel FROM pg_enum JOIN pg_attribute ON atttypid = enumtypid "
            "WHERE attrelid = 'orders'::regclass AND attname = 'status' ORDER BY enumsortorder"
        )
    ]


async def cancel_some_orders(shop):
    """Where orders can be cancelled, some are; that they can be is for another check. Returns how many."""
    if "cancelled" not in await statuses(shop):
        return 0
    await shop.execute(
        "UPDATE orders SET status = 'cancelled' WHERE id IN (SELECT id FROM orders ORDER BY id LIMIT $1)",
        CANCELLED,
        step=f"{CANCELLED} orders were cancelled",
    )
    return await shop.count("orders", "status = 'cancelled'")


async def wrongly_sorted(shop):
    """A sentence for each book whose `sort_title` is wrong. What a small letter is, PostgreSQL and Python may say."""
    return [
        f"{row['title']!r} is sorted as {row['sort_title']!r}"
        for row in await shop.rows(
            "SELECT title, to_jsonb(books) ->> 'sort_title' AS sort_title, "
            "lower(CASE WHEN title LIKE 'The %' THEN substr(title, 5) ELSE title END) AS sql FROM books ORDER BY id"
        )
        if row["sort_title"] not in (row["sql"], row["title"].removeprefix("The ").lower())
    ]


def counted(book):
    """How many ratings the book has, and their sum."""
    return book["rating_count"], book["rating_sum"]


def columns_of(tables):
    """{table: names of its columns}"""
    return {name: set(next(iter(rows.values()))) for name, rows in tables.items()}


def restricted(tables, columns):
    """The same rows with these columns only."""
    return {
        name: {key: {column: row[column] for column in row.keys() & columns[name]} for key, row in rows.items()}
        for name, rows in tables.items()
    }


def without_cancelled(found):
    """The catalog without this value of the enum, which may stay: PostgreSQL cannot take one away."""
    return {key: words.replace(", cancelled", "") if key[0] == "type" else words for key, words in found.items()}


def numbers(keys):
    return ", ".join(map(str, keys))


def digest(done):
    """What `alembic check` would change, in words; where its output says something else, the line that says why."""
    found = {}
    for operation, what in DIFFERENCE.findall(done.output):
        named = constraint(what) if "Constraint" in what.partition("(")[0] else ".".join(re.findall(r"'(\w+)'", what))
        found.setdefault(operation.replace("_", " "), []).append(named)
    if not found:
        return str(done)
    words = "; ".join(f"{operation}: {', '.join(dict.fromkeys(names))}" for operation, names in sorted(found.items()))
    return f"`{done.command}` ended with exit code {done.code}. To make the database fit the models, it would {words}."


DIFFERENCE = re.compile(
    r"\('((?:add|remove|modify)_\w+)', (?:None, )?"
    r"('\w+', (?:Column\()?'\w+'|Table\('\w+'|Index\('\w+'|\w*Constraint\(.*?(?=\('(?:add|remove|modify)_|$))",
    re.MULTILINE,
)
"""An operation of Alembic's, and what it is about: a column, a table, an index, a constraint with all its columns."""

TABLE = r"table=<(\w+)>"
"""How Alembic prints the table of a constraint's column."""


def constraint(printed):
    """Kind, table and columns of a constraint that Alembic has printed; it prints no name."""
    kind, tables = printed.partition("(")[0], re.findall(TABLE, printed)
    columns = ", ".join(dict.fromkeys(re.findall(r"Column\('(\w+)'", printed)))
    return f"{kind} on {tables[0]} ({columns})" if tables and columns else kind


async def unique_constraints(shop, done):
    """If `alembic check` would replace a unique constraint: the names that the database has for those of its table."""
    tables = {
        table
        for operation, what in DIFFERENCE.findall(done.output)
        if operation == "remove_constraint"
        for table in re.findall(TABLE, what)
    }
    rows = await shop.rows(
        "SELECT conname FROM pg_constraint WHERE contype = 'u' AND conrelid = ANY($1::text[]::regclass[]) ORDER BY 1",
        sorted(tables),
    )
    if not rows:
        return ""
    return (
        f" In the database the unique constraints of {', '.join(sorted(tables))} are called "
        f"{', '.join(row['conname'] for row in rows)}. One that the models call otherwise counts as another one."
    )


def section_of(done, otherwise):
    """The section of the notebook that shows why a command failed. Only this pointer depends on an error's words."""
    for words, section in SECTIONS.items():
        if re.search(words, done.last_line):
            return section
    return otherwise


DOWNGRADE = "A downgrade removes what the upgrade made"
SECTIONS = {
    r"column \w+\.\w+ does not exist": "A migration must not use today's models",
    r"it has no name": "A constraint needs its name in the migration",
    r'constraint "\w+" of relation "\w+" does not exist': "A constraint needs its name in the migration",
}

NOWHERE = (
    "A new colleague, the pipeline and a disaster start from an empty database. For them there is no shop until this "
    "command works."
)
CLOSED = "The tables that the migrations made are not those that the service needs, so the shop is closed."
NO_WAY_BACK = (
    "A downgrade is typed at night, by somebody in a hurry, because a release has gone wrong. If it fails, the shop "
    "stays down until somebody has cleaned up by hand."
)
PUBLISHED = (
    "Production is at 0002 and has rows. As long as the upgrade fails there, no release gets out: what works on empty "
    "tables, and with the models of the day on which it was written, need not work here."
)
