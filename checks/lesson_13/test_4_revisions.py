"""Lesson 13: a deploy while the shop is open. Here: interrupted migrations, and the database after the deploy."""

import asyncio
import re

from checks.kit.report import expect
from checks.kit.service.command import CompletedCommand

STUCK = "The deploy can neither go on nor be undone. Somebody has to change production's database by hand, at night."
BUILDING = re.compile(r"\bCREATE\s+(UNIQUE\s+)?INDEX\b|\bREINDEX\b", re.IGNORECASE)
UNUSABLE = "Two orders may get one link, and each search by link reads the whole table. Nobody is told."
INVALID = "SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT indisvalid"
HALF_BUILT = "SELECT count(*) > 0 FROM pg_index WHERE indisready AND NOT indisvalid"
CHANGE = "UPDATE orders SET status = status WHERE id = (SELECT max(id) FROM orders)"
NOT_VALIDATED = """
    SELECT conname AS name FROM pg_constraint WHERE NOT convalidated AND connamespace = 'public'::regnamespace
"""
RULES = {
    "an order without a public id": "UPDATE orders SET public_id = NULL WHERE id = (SELECT min(id) FROM orders)",
    "a public id that another order has": "UPDATE orders SET public_id = (SELECT public_id FROM orders WHERE id = 12) "
    "WHERE id = 13",
    "mail about an order that does not exist": "INSERT INTO outbox (order_id, recipient, total_cents) "
    "VALUES (-1, 'a', 1)",
} | {
    f"a receipt whose currency is '{currency}'": f"UPDATE receipts SET currency = '{currency}'"
    for currency in ("eur", "EU", "EURO", "in EUR", "E-R", "")
}
FILLED = ["orders.public_id", "coupons.discount_percent", "receipts.currency", "receipts.stored_at"]
MAY_BE_NULL = """
    SELECT name FROM unnest($1::text[]) AS name WHERE NOT EXISTS (
        SELECT FROM pg_attribute WHERE format('%s.%s', attrelid::regclass, attname) = name
           AND (attnotnull OR attgenerated <> '')
    )
"""
WITHOUT_TRIGGERS = "SET LOCAL session_replication_role = replica"
"""A trigger may put a value where there was none, and hide that the column has no rule of its own."""


async def test_a_killed_migration_is_resumed(deploy):
    """If Alembic is killed before any of its COMMITs, the next `alembic upgrade` goes on from there."""
    await expect_resumed(deploy, "0014")
    await deploy.backfill()
    await expect_resumed(deploy, "head")


async def test_an_interrupted_index_is_built_again(deploy, wire):
    """If Alembic is killed while it builds an index, the next `alembic upgrade` builds it: all indexes are valid."""
    await interrupt_an_index(deploy, wire, "0014")
    await deploy.backfill()
    await interrupt_an_index(deploy, wire, "head")
    invalid = [row["name"] for row in await deploy.shop.rows(INVALID)]
    expect(
        not invalid,
        f"Alembic was killed while it built an index. The next `alembic upgrade` ended with exit code 0, and these "
        f"indexes are INVALID: {', '.join(invalid)}.",
        because=UNUSABLE,
        section="An index that was interrupted",
    )


async def test_the_models_describe_the_end(deploy):
    """After the deploy, the revisions have one head, and `alembic check` finds no difference to the models."""
    await to_the_end(deploy)
    heads = await deploy.testbed.command("alembic", "heads")
    named = [line for line in heads.output.splitlines() if line.rstrip().endswith("(head)")]
    expect(
        heads.ok and len(named) == 1,
        f"`alembic heads` names {len(named)} heads: {', '.join(named)}.",
        because="`alembic upgrade head` refuses to choose, so nobody can deploy.",
        section="See it break",
    )
    done = await deploy.testbed.command("alembic", "check")
    expect(
        done.ok,
        f"After the deploy `alembic check` must find no difference. {done}.",
        because="The next `alembic revision --autogenerate` removes what the models do not know.",
        section="See it break",
    )


async def test_the_rules_hold_at_the_end(deploy):
    """After the deploy, the database refuses rows that break its rules, and every constraint is validated."""
    await to_the_end(deploy)
    loose = [row["name"] for row in await deploy.shop.rows(NOT_VALIDATED)]
    expect(
        not loose,
        f"These constraints are NOT VALID, so nobody knows whether old rows break them: {', '.join(loose)}.",
        because="A program that relies on the rule meets a row that breaks it, and fails on that day.",
        section="Validate without a lock that stops the shop",
    )
    for table, name in (column["name"].split(".") for column in await deploy.shop.rows(MAY_BE_NULL, FILLED)):
        statement = f"{WITHOUT_TRIGGERS}; UPDATE {table} SET {name} = NULL"
        expect(
            await deploy.shop.refusal(f"BEGIN; {statement}; ROLLBACK") is not None,
            f"{table}.{name} may be NULL: neither NOT NULL nor a CHECK says that each row has a value.",
            because="A program that relies on the value meets a row without one, and fails on that day.",
            section="Validate without a lock that stops the shop",
        )
        await deploy.shop.execute("ROLLBACK")
    for what, statement in RULES.items():
        expect(
            await deploy.shop.refusal(f"BEGIN; {statement}; ROLLBACK") is not None,
            f"The database accepts {what}.",
            because="A program with a bug stores such a row, and others fail because of it.",
            section="Validate without a lock that stops the shop",
        )
        await deploy.shop.execute("ROLLBACK")


async def to_the_end(deploy):
    await deploy.upgrade("0014")
    await deploy.backfill()
    await deploy.upgrade("head")


async def expect_resumed(deploy, target):
    """Kills Alembic before each of its COMMITs, until it ends.

    An attempt that is killed before its first COMMIT leaves all as it was. So the next one is killed a COMMIT later,
    unless the database has reached another revision: from there the next attempt begins.
    """
    revision, number = await deploy.revision(), 1
    for attempt in range(1, 30):
        process = await killed_before_commit(deploy, target, number)
        if process.exit.done() and process.exit.result() == 0:
            return
        expect(
            process.exit.done() and process.exit.result() < 0,
            f"`alembic upgrade {target}` was killed before a COMMIT, {attempt - 1} times. The next one ended with an "
            f"error: {CompletedCommand('', 1, process.log).last_line}",
            because=STUCK,
            section="Interrupted and resumed",
        )
        before, revision = revision, await deploy.revision()
        number = number + 1 if revision == before else 2
    await deploy.upgrade(target)


async def killed_before_commit(deploy, target, number):
    """Alembic, killed before its COMMIT of this number; or ended, if it has fewer."""
    async with deploy.testbed.wire.hold(lambda one: one.commits and "alembic" in one.process) as commits:
        process = await deploy.start("alembic", "upgrade", target)
        while number and await commits.wait_for_or(process.exit):
            number -= 1
            if number:
                commits.release_one()
            else:
                await deploy.kill(process)
    await asyncio.wait({process.exit}, timeout=20)
    return process


async def interrupt_an_index(deploy, wire, target):
    """Kills Alembic while a statement builds an index: each one once."""
    killed = set()
    for _ in range(6):
        async with wire.hold(lambda statement: building(statement) and statement.text not in killed, limit=1) as held:
            process = await deploy.start("alembic", "upgrade", target)
            if not await held.wait_for_or(process.exit):
                break
            text = held.waiting[0].text
            if await killed_half_way(deploy, held, process):
                killed.add(text)
    await asyncio.wait({process.exit}, timeout=20)
    if not process.exit.done() or process.exit.result() != 0:
        await deploy.upgrade(target)


async def killed_half_way(deploy, held, process):
    """Kills Alembic when its index is built and not validated. False if it gave up before.

    CREATE INDEX CONCURRENTLY waits for the writers of the table twice: before it builds the index, and before it looks
    for rows that the index lacks. In between the index is not valid, and it is ready: it is kept up to date.
    """
    with deploy.transaction(CHANGE) as first, deploy.in_use(["orders"]) as use_orders:
        held.release()
        await deploy.waits_or_ends(process)
        concurrently = use_orders()  # else the statement stops writers, and it waits for its lock only
        if concurrently:
            first.commit()
            while not await deploy.shop.value(HALF_BUILT) and not process.exit.done():
                await asyncio.wait({process.exit}, timeout=0.01)
        half_way = not concurrently or await deploy.shop.value(HALF_BUILT)
        await deploy.kill(process)
    return half_way


def building(statement):
    return bool(BUILDING.search(statement.text)) and "alembic" in statement.process
