"""Lesson 05: the migrations make the database that the models describe, forwards, backwards, and with rows in it."""

import json
from pathlib import Path

import pytest

from checks.kit.report import expect

UPGRADE = "test_an_empty_database_reaches_head"
PRODUCTION = "0002"
"""The revision at which production stands."""

DUMP = Path(__file__).with_name("production.sql").read_text(encoding="utf-8")
"""Its database."""


async def test_there_is_one_head(alembic):
    """`alembic heads` names one revision."""
    done = await alembic("heads")
    heads = [line for line in done.output.splitlines() if line.rstrip().endswith("(head)")]
    expect(
        done.ok and len(heads) == 1,
        f"{done}, and named {len(heads)} heads: {', '.join(heads)}.",
        because="Two people made a migration on the same day, and Git saw no conflict. `upgrade head` cannot know "
        "which of them is meant. Which of the two may come after the other, or what may come after both?",
        read="Two heads",
    )


async def test_an_empty_database_reaches_head(alembic, shop):
    """`alembic upgrade head` takes an empty database to the tables of the models, with the URL of the environment."""
    done = await alembic("upgrade", "head")
    expect(done.ok, f"{done}", because=ANYWHERE, read="See it break")
    there = await tables(shop)
    missing = {"authors", "books", "customers", "orders", "order_lines", "reviews"} - there
    expect(not missing, f"After the upgrade {sorted(missing)} are missing.", because=ANYWHERE, read="See it break")


@pytest.mark.needs(UPGRADE)
async def test_the_service_runs_on_it(alembic, shop, launch):
    """After the upgrade the shop sells books."""
    await alembic("upgrade", "head")
    app = await launch()
    there = await shop.has(books=1, customers=1)
    order = {"customer_id": there.customers[0], "lines": [{"book_id": there.books[0], "quantity": 1}]}
    for method, path, body in (
        ("POST", "/books", {"isbn": "9780000000999", "title": "New", "author_id": there.authors[0], "price_cents": 1}),
        ("POST", "/orders", order),
        ("GET", f"/customers/{there.customers[0]}/orders", None),
    ):
        answer = await app.request(method, path, json=body)
        expect(answer.ok, f"{answer}", because="The migrations must make what the models expect.", read="See it break")


@pytest.mark.needs(UPGRADE)
async def test_down_to_base_and_up_again(alembic, shop):
    """`alembic downgrade base` leaves nothing behind, and `upgrade head` works again after it."""
    await alembic("upgrade", "head")
    down = await alembic("downgrade", "base")
    expect(down.ok, f"{down}", because=BACK, read="The way back")
    left = await tables(shop) - {"alembic_version"}
    types = await shop.rows("SELECT typname FROM pg_type WHERE typtype = 'e'")
    expect(
        not left and not types,
        f"At base the database still has tables {sorted(left)} and enum types {[row['typname'] for row in types]}.",
        because=BACK,
        read="The way back",
    )
    again = await alembic("upgrade", "head")
    expect(again.ok, f"{again}", because=BACK, read="The way back")


@pytest.mark.needs(UPGRADE)
async def test_the_password_may_hold_anything(alembic):
    """A DATABASE_URL whose password holds `%`, `@`, `:` and `/` works like any other."""
    done = await alembic("upgrade", "head", password="100%@home:a/b")
    expect(
        done.ok,
        f"The password is 100%@home:a/b, percent-encoded in the URL as it must be. {done}",
        because="alembic.ini is read by configparser, for which a % begins an interpolation, and so is everything that "
        "set_main_option puts there. A password generator knows nothing of that. Does the URL have to go that way?",
        read="The URL",
    )


@pytest.mark.needs(UPGRADE)
async def test_production_keeps_its_rows(alembic, shop):
    """Production, which is at 0002 and has rows, reaches head with all of them as they are; `sort_title` is filled."""
    await production(shop)
    there = await shop.has(authors=2, books=len(TITLES), customers=3)
    for book, title in zip(there.books, TITLES, strict=True):
        await shop.execute("UPDATE books SET title = $2, stock = $1 WHERE id = $1", book, title)
    for status, customer in zip(("pending", "paid", "shipped"), there.customers, strict=True):
        order = await shop.add("orders", customer_id=customer, status=status)
        await shop.add("order_lines", order_id=order, book_id=there.books[0], quantity=1, price_cents=customer)
        await shop.execute("UPDATE customers SET credit_cents = 700000 + $1 WHERE id = $1", customer)
    for book, customer in ((0, 0), (0, 1), (1, 0)):  # two customers of one book, two books of one customer
        await shop.add("reviews", book_id=there.books[book], customer_id=there.customers[customer], rating=4)
    before = await contents(shop)
    done = await alembic("upgrade", "head")
    expect(done.ok, f"With rows in it: {done}", because=PUBLISHED, read="Migrations and models")
    after = await contents(shop)
    for table, rows in before.items():
        lost = sorted(rows.keys() - after[table].keys())
        expect(not lost, f"{table}: rows {lost} are gone.", because=PUBLISHED, read="Migrations and models")
        changed = [
            f"{table} {key}: {column} was {value!r}, is {after[table][key].get(column)!r}"
            for key, row in rows.items()
            for column, value in row.items()
            if column not in ("revision", "updated_at") and after[table][key].get(column) != value
        ]
        expect(not changed, f"{'; '.join(changed[:3])}.", because=PUBLISHED, read="Migrations and models")
    wrong = [
        f"{row['title']!r} is sorted as {row['sort_title']!r}"
        for row in after["books"].values()
        if row["sort_title"] != TITLES[row["title"]]
    ]
    expect(
        not wrong,
        f"{'; '.join(wrong)}.",
        because="A column that is added is empty for the rows that are there; the migration fills it, and finds titles "
        "there that its author did not think of.",
        read="Migrations and models",
    )


@pytest.mark.needs(UPGRADE)
async def test_several_reviews_become_the_last_one(alembic, shop):
    """Where a customer reviewed a book several times before 0003, the last review stands and no upgrade fails."""
    await production(shop)
    there = await shop.has(books=2, customers=2)
    pairs = ((0, 0), (0, 1), (0, 0), (1, 0), (0, 0))  # book and customer; the first one three times
    ids = [
        await shop.add("reviews", book_id=there.books[book], customer_id=there.customers[customer], rating=3)
        for book, customer in pairs
    ]
    done = await alembic("upgrade", "head")
    left = [row["id"] for row in await shop.rows("SELECT id FROM reviews ORDER BY id")]
    expect(
        done.ok and left == [ids[1], ids[3], ids[4]],
        f"{done}. Reviews {ids[0]}, {ids[2]} and {ids[4]} were one customer's of one book, {ids[1]} was another "
        f"customer's and {ids[3]} of another book. Left are {left}.",
        because="A constraint is checked against the rows that are there, which on the author's machine were none.",
        read="Migrations and models",
    )


@pytest.mark.needs(UPGRADE)
async def test_production_can_go_back(alembic, shop):
    """From head, `alembic downgrade 0002` gives production its tables back, and it can be upgraded again."""
    await production(shop)
    before = await shape(shop)
    done = await alembic("upgrade", "head")
    expect(done.ok, f"{done}", because=PUBLISHED, read="Migrations and models")
    down = await alembic("downgrade", PRODUCTION)
    expect(down.ok, f"{down}", because=BACK, read="The way back")
    after = await shape(shop)
    expect(
        before == after,
        f"There and back again, too much: {sorted(after - before)[:3]}, too little: {sorted(before - after)[:3]}.",
        because=BACK,
        read="The way back",
    )
    again = await alembic("upgrade", "head")
    expect(again.ok, f"{again}", because=BACK, read="The way back")


@pytest.mark.needs(UPGRADE)
async def test_models_and_database_agree(alembic, shop):
    """After the upgrade, of production as well, `alembic check` finds nothing to do."""
    for start in ("from nothing", "from production"):
        if start == "from production":
            await shop.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION pg_database_owner")
            await production(shop)
        for command in (("upgrade", "head"), ("check",)):
            done = await alembic(*command)
            expect(done.ok, f"An upgrade {start}: {done}", because=DIFF, read="What a diff sees")


@pytest.mark.needs("test_models_and_database_agree")
async def test_a_difference_is_seen(alembic, shop):
    """`alembic check` notices when somebody changed the database by hand: a server default, or a column."""
    await alembic("upgrade", "head")
    for change in ("ALTER TABLE books ALTER stock SET DEFAULT 7", "ALTER TABLE books DROP COLUMN subtitle"):
        await shop.execute(change, did=change)
        done = await alembic("check")
        expect(
            not done.ok,
            f"{change}; and then {done}, as if nothing were different.",
            because="A check that cannot fail is no check. It compares with the metadata that env.py gives it: which "
            "tables are in there when it is asked, and does it look at defaults at all?",
            read="What a diff sees",
        )
        await shop.execute("ALTER TABLE books ALTER stock SET DEFAULT 0")


@pytest.mark.needs(UPGRADE)
async def test_constraints_do_their_job_by_name(alembic, shop):
    """After production's upgrade, bad rows are refused by the constraints that the ticket names."""
    await upgraded_production(alembic, shop)
    await shop.has(books=1, customers=1, reviews=1)
    for name, statement in BAD_ROWS.items():
        refused_by = await shop.refusal(statement)
        expect(
            refused_by == name,
            f"{statement}: refused by {refused_by or 'nobody'}, wanted {name}.",
            because="Code that answers 409 looks at the name, and so does the next migration. A constraint that stands "
            "in the models only refuses nothing; and a name may have been put together twice.",
            read="Names",
        )


@pytest.mark.needs(UPGRADE)
async def test_orders_can_be_cancelled(alembic, shop):
    """After production's upgrade orders start as pending, and `cancelled` is a status that they can take."""
    await upgraded_production(alembic, shop)
    there = await shop.has(customers=1)
    order = f"INSERT INTO orders (customer_id) VALUES ({there.customers[0]})"
    refused_by = await shop.refusal(order)
    expect(
        refused_by is None,
        f"{order}: refused, the status has no value.",
        because="Orders start as pending; who says so, when the shop does not?",
        read="What a diff sees",
    )
    first = await shop.value("SELECT status::text FROM orders")
    labels = [row["enumlabel"] for row in await shop.rows("SELECT enumlabel FROM pg_enum ORDER BY enumsortorder")]
    if "cancelled" in labels:
        await shop.execute("UPDATE orders SET status = 'cancelled'")
    expect(
        first == "pending" and "cancelled" in labels,
        f"A new order is {first}; the values are {labels}.",
        because="The models have had the new value for weeks, and no diff ever showed that the database has not.",
        read="What a diff sees",
    )


@pytest.mark.needs(UPGRADE)
async def test_the_index_and_the_default_are_those_of_the_models(alembic, shop):
    """After production's upgrade `ix_books_for_sale` covers books in stock, and a new credit is 500 000 cents."""
    await upgraded_production(alembic, shop)
    where = await shop.value(
        "SELECT pg_get_expr(indpred, indrelid) FROM pg_index WHERE indexrelid = to_regclass('ix_books_for_sale')"
    )
    there = await shop.has(customers=1)
    credit = await shop.value("SELECT credit_cents FROM customers WHERE id = $1", there.customers[0])
    expect(
        where == "(stock > 0)" and credit == 500_000,
        f"The index covers books WHERE {where}, a new customer's credit is {credit}.",
        because="Some changes of a model show in no diff, or only when it is asked to look.",
        read="What a diff sees",
    )


TITLES = {
    "The Art of SQL": "art of sql",
    "Bathe the Dog": "bathe the dog",
    "Theory": "theory",
    "Ethics": "ethics",
}
"""Titles, and how they are sorted."""

BAD_ROWS = {
    "uq_reviews_book_id_customer_id": "INSERT INTO reviews (book_id, customer_id, rating) VALUES (1, 1, 3)",
    "ck_books_discount_in_range": "UPDATE books SET discount_percent = 91",
    "ck_books_price_positive": "UPDATE books SET price_cents = 0",
    "fk_books_author_id_authors": "UPDATE books SET author_id = 99",
}


async def production(shop):
    """Production's database, whatever has become of the migrations that once made it."""
    await shop.load(DUMP, f"the database is production's, at {PRODUCTION}")


async def upgraded_production(alembic, shop):
    await production(shop)
    done = await alembic("upgrade", "head")
    expect(done.ok, f"{done}", because=PUBLISHED, read="Migrations and models")


async def contents(shop):
    """{table: {id: row}}"""
    names = await tables(shop) - {"alembic_version"}
    return {
        name: {
            row["id"]: json.loads(row["row"]) for row in await shop.rows(f"SELECT id, to_jsonb(t) AS row FROM {name} t")
        }
        for name in sorted(names)
    }


async def shape(shop):
    """Columns, constraints and indexes, in words."""
    rows = await shop.rows(
        "SELECT concat_ws(' ', table_name, column_name, udt_name, is_nullable, column_default) AS words "
        "FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version' UNION ALL "
        "SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace UNION ALL "
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
    )
    return {row["words"] for row in rows}


async def tables(shop):
    return {row["tablename"] for row in await shop.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


ANYWHERE = (
    "It worked on its author's machine, where the database was already there, the URL stood in a file, and the models "
    "were those of that day. A new colleague, a test and a disaster start from nothing."
)
BACK = (
    "A downgrade is needed at night, by somebody in a hurry. Whatever upgrade made it has to take away, types "
    "included, and what has no name in the migration cannot be named there."
)
PUBLISHED = (
    "Production stands at 0002, with rows. What the migrations after it do, they do to these rows; and they run with "
    "the models of the day on which they are run, not of the day on which they were written."
)
DIFF = (
    "`alembic check` is what tells in the pipeline that somebody changed a model and forgot the migration. A diff that "
    "is never empty is one that nobody reads."
)
