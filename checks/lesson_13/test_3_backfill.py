"""Lesson 13: a deploy while the shop is open. Here: the rows that were there before."""

import asyncio
import contextlib

import pytest

from checks.kit.report import expect
from checks.lesson_13.fixtures import CUSTOMER, responded_or_waiting
from checks.lesson_13.replay import MANY

EMPTY = """
    SELECT (SELECT count(*) FROM orders WHERE public_id IS NULL) AS orders,
           (SELECT count(*) FROM coupons c WHERE to_jsonb(c) ->> 'discount_percent' IS NULL) AS coupons
"""
WRITTEN = """
    SELECT '{table}' AS table, count(*) AS rows FROM {table} WHERE xmin <> ALL ($1::text[]::xid[])
     GROUP BY xmin ORDER BY 2 DESC LIMIT 1
"""
"""How many rows of a table the transaction has written that wrote most of them; without those that were there."""

TABLES = ("orders", "coupons", "receipts", "outbox")
MIDDLE = "SELECT id FROM orders ORDER BY id OFFSET 6250 LIMIT 1"
CHANGED = """
    UPDATE orders SET status = status WHERE id IN (
        SELECT id FROM orders WHERE id % 3 = 0 FOR NO KEY UPDATE SKIP LOCKED
    )
"""
"""Others change orders, whose rows move to another place of the table. It waits for no row that is locked."""

NEW_LINK = "A customer has sent a link to a friend, and it does not work any more."
SECTION = "The backfill"


async def test_a_link_stays(deploy, wire):
    """Each order has a public id from the backfill on, and one that a customer was given stays."""
    await deploy.upgrade("0014")
    old, new = await deploy.old(), await deploy.new()
    customer = {"headers": deploy.login()}
    orders = await deploy.shop.rows("SELECT id FROM orders WHERE customer_id = $1 ORDER BY id", CUSTOMER)
    mine = [row["id"] for row in (*orders[:4], *orders[-4:])]
    links = {mine[0]: await asked_twice(deploy, wire, new, mine[0], customer)}
    asked = {}

    def ask(order):
        asked[order] = new.start_request("GET", f"/orders/{order}/tracking", **customer)
        return asked[order]

    async def pay_and_ask():
        with deploy.transaction(CHANGED) as customers:
            customers.commit()
        return [] if asked else [ask(order) for order in mine[4:]]

    @contextlib.asynccontextmanager
    async def ask_for_one():
        async with wire.hold(lambda one: one.commits and one.process == new.process.name, limit=1) as commit:
            another = next(order for order in mine[1:] if order not in asked)  # at each attempt of the backfill
            await commit.wait_for_or(ask(another).task)
            yield

    await deploy.backfill_while("orders", pay_and_ask, ask_for_one)
    for order, request in asked.items():
        response = await request.task
        links[order] = response["public_id"] if response.ok else await link_of(new, order, customer)
    await expect_filled(deploy, "after the backfill")
    book = await deploy.shop.value("SELECT min(id) FROM books")
    for process in (old, new):
        order = await process.post("/orders", json={"lines": [{"book_id": book, "quantity": 1}]}, **customer)
        expect(
            order.ok,
            f"An order, after the backfill, to {process.process.name}: {order}",
            because="The shop sells nothing.",
            section=SECTION,
        )
        await expect_filled(deploy, f"when {process.process.name} had taken an order after the backfill")
        links[order["id"]] = await link_of(new, order["id"], customer)
    await deploy.upgrade("head")
    for order, link in links.items():
        now, tracked = await link_of(new, order, customer), await new.get(f"/track/{link}")
        status = await deploy.shop.value("SELECT status::text FROM orders WHERE id = $1", order)
        expect(
            now == link and tracked.ok and tracked["status"] == status,
            f"Order {order} had the link /track/{link} before the end of the deploy, and has /track/{now} now. Its "
            f"status is {status}. {tracked}",
            because=NEW_LINK,
            section=SECTION,
        )


async def test_no_transaction_writes_many_rows(large_deploy):
    """No transaction of a migration or of the backfill writes more than 5,000 rows of a table."""
    shop, written = large_deploy.shop, []
    there = [[row["xmin"] for row in await shop.rows(f"SELECT DISTINCT xmin::text FROM {table}")] for table in TABLES]
    for step, run in (("alembic upgrade 0014", large_deploy.upgrade), ("the backfill", large_deploy.backfill),
                      ("alembic upgrade head", large_deploy.upgrade)):  # fmt: skip
        await (run(step.split()[-1]) if step.startswith("alembic") else run())
        for table, before in zip(TABLES, there, strict=True):
            written += [row | {"step": step} for row in await shop.rows(WRITTEN.format(table=table), before)]
        most = max(written, key=lambda row: row["rows"], default={"rows": 0, "table": "", "step": step})
        expect(
            most["rows"] <= MANY,
            f"After {most['step']}: one transaction has written {most['rows']:,} rows of {most['table']}.",
            because="Until it ends it keeps these rows locked. Whoever pays for an order or uses a coupon waits and "
            "gets an error.",
            section=SECTION,
        )


@pytest.mark.start_early
async def test_a_killed_backfill_goes_on(large_deploy, wire):
    """If the backfill is killed, what it has done stays done. The next one does the rest and ends with exit code 0."""
    deploy = large_deploy
    await deploy.upgrade("0014")
    all_empty = await empty(deploy)
    middle = await deploy.shop.value(MIDDLE)
    with deploy.transaction(f"SELECT id FROM orders WHERE id = {middle} FOR UPDATE"):
        backfill = await deploy.start("app.backfill")
        waits = await deploy.waits_or_ends(backfill)
        ended = backfill.exit.result() if backfill.exit.done() else None
        await deploy.kill(backfill)
        left = at_the_end = await empty(deploy)
        if ended != 0:  # and now one that has the time to give up
            another = await deploy.start("app.backfill")
            await deploy.waits_or_ends(another)
            await asyncio.wait({another.exit}, timeout=20)
            ended = another.exit.result() if another.exit.done() else None
            at_the_end = await empty(deploy)
    how = "waited for an order that a customer was paying, and was killed" if waits else "had ended"
    expect(
        ended != 0 or not any(at_the_end.values()),
        f"The backfill ended with exit code 0 while somebody had locked order {middle}. Rows without a value: "
        f"{at_the_end}.",
        because="The deploy goes on, and the next step fails because of the rows that were left out.",
        section=SECTION,
    )
    expect(
        left["orders"] < all_empty["orders"] or not all_empty["orders"],
        f"The backfill {how}. Before it {all_empty['orders']:,} orders had no public id, after it {left['orders']:,}.",
        because="With as many rows as production has, a backfill takes hours. After each interruption it begins anew.",
        section="Interrupted and resumed",
    )
    async with wire.hold(lambda statement: statement.commits and "backfill" in statement.process, limit=1) as commit:
        another = await deploy.start("app.backfill")
        if await commit.wait_for_or(another.exit):
            await kill(another, wire)
    await deploy.backfill()
    await expect_filled(deploy, "after a backfill that was killed twice, once before a COMMIT, and begun anew")


async def test_two_backfills_do_no_harm(deploy, wire):
    """Two backfills at once end, also if one is killed. One that ends with exit code 0 has left no row empty."""
    await deploy.upgrade("0014")
    for _ in range(3):
        two, met = await one_is_killed(deploy, wire)
        if met:
            break
        await deploy.shop.execute("UPDATE orders SET public_id = NULL")
    await asyncio.wait({two.exit}, timeout=30)
    left = await empty(deploy)
    expect(
        two.exit.done(),
        f"Of two backfills one was killed. The other one was still running 30 s later, with {left} rows to fill.",
        because="Nobody knows whether the deploy will ever end.",
        section="Interrupted and resumed",
    )
    expect(
        two.exit.result() != 0 or not any(left.values()),
        f"Of two backfills one was killed. The other one ended with exit code 0, and these rows have no value: {left}.",
        because="The deploy goes on, and the next step fails because of the rows that were left out.",
        section="Interrupted and resumed",
    )
    if two.exit.result() != 0:
        await deploy.backfill()
    await expect_filled(deploy, "after both")


async def one_is_killed(deploy, wire):
    """Two backfills start, and one is killed when it has done a part. The other one, and whether they have met.

    They start together, for a held COMMIT soon meets the time limits of the service.
    """
    async with wire.hold(lambda statement: statement.commits and "backfill" in statement.process, limit=1) as first:
        both = [await deploy.start("app.backfill") for _ in range(2)]
        ended = asyncio.ensure_future(asyncio.wait({process.exit for process in both}))
        if not await first.wait_for_or(ended):
            return both[1], True
        one, two = both if first.waiting[0].process == both[0].name else reversed(both)
        waits = await deploy.waits_or_ends(two)  # else it has ended beside rows that the first one has not committed
        met = not one.exit.done()
        if waits and met:
            async with wire.hold(lambda one_of: one_of.commits and one_of.process == one.name, limit=1) as second:
                first.release()
                await second.wait_for_or(one.exit)
                await kill(one, wire)
        await kill(one, wire)
    await asyncio.wait({ended}, timeout=30)
    return two, met


async def kill(process, wire):
    """SIGKILL, and its connections are gone before a COMMIT that is held goes on."""
    await process.kill()
    await wire.cut(lambda connection: connection.process == process.name)


async def asked_twice(deploy, wire, new, order, customer):
    """The link, for which a customer has asked with two devices at the same time."""
    async with wire.hold(
        lambda statement: statement.changes and statement.process == new.process.name, limit=1
    ) as held:
        first = new.start_request("GET", f"/orders/{order}/tracking", **customer)
        asked = [first]
        if await held.wait_for_or(first.task):
            asked.append(new.start_request("GET", f"/orders/{order}/tracking", **customer))
            await responded_or_waiting(deploy, asked[1:])
    links = [given(await request.task) for request in asked]
    expect(
        len(set(links)) == 1,
        f"A customer asked for the link of order {order} with two devices at the same time. The links that they "
        f"were given differ: {' and '.join(links)}.",
        because=NEW_LINK,
        section=SECTION,
    )
    return links[0]


async def link_of(new, order, customer):
    return given(await new.get(f"/orders/{order}/tracking", **customer))


def given(response):
    expect(
        response.ok and response["public_id"],
        f"A customer asks for the link of an order: {response}",
        because="The page of the order shows an error.",
        section=SECTION,
    )
    return response["public_id"]


async def empty(deploy):
    [row] = await deploy.shop.rows(EMPTY)
    return row


async def expect_filled(deploy, when):
    left = await empty(deploy)
    expect(
        not any(left.values()),
        f"{when.capitalize()} these rows have no value in the new column: {left}.",
        because="The last revisions fail because of them, or the new release returns an error for each.",
        section=SECTION,
    )
