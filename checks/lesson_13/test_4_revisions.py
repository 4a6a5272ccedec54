"""Lesson 13: a deploy while the shop is open. Here: interrupted migrations, and what there is in the end."""

import asyncio

from checks.kit.report import expect
from checks.kit.service.command import CompletedCommand

STUCK = "The deploy can go neither on nor back. Somebody has to change production's database by hand, at night."
UNUSABLE = "Two orders may get one link, and each search by link reads the whole table. Nobody is told."
INVALID = "SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT indisvalid"
NOT_VALIDATED = """
    SELECT conname AS name FROM pg_constraint WHERE NOT convalidated AND connamespace = 'public'::regnamespace
"""
RULES = {
    "an order without a public id": "UPDATE orders SET public_id = NULL WHERE id = (SELECT min(id) FROM orders)",
    "a public id that another order has": "UPDATE orders SET public_id = (SELECT public_id FROM orders WHERE id = 12) "
    "WHERE id = 13",
    "mail about an order that does not exist": "INSERT INTO outbox (order_id, recipient, total_cents) "
    "VALUES (-1, 'a', 1)",
    "a receipt whose currency is eur": "UPDATE receipts SET currency = 'eur'",
    "a receipt without a currency": "UPDATE receipts SET currency = NULL",
    "a receipt without the time at which it was stored": "UPDATE receipts SET stored_at = NULL",
}
NOT_NULL = """
    SELECT format('%s.%s', attrelid::regclass, attname) AS name FROM pg_attribute WHERE attnotnull AND NOT attisdropped
"""
FILLED = ("coupons.discount_percent", "receipts.currency", "receipts.stored_at", "orders.public_id")


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
        f"{done}.",
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
    not_null = {row["name"] for row in await deploy.shop.rows(NOT_NULL)}
    nullable = [name for name in FILLED if name not in not_null]
    expect(
        not nullable,
        f"These columns may be NULL, or are missing: {', '.join(nullable)}.",
        because="A program that relies on the value meets a row without one, and fails on that day.",
        section="Validate without a lock that stops the shop",
    )
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
    """Each attempt is killed before its second COMMIT; the first one lets the next attempt begin further on."""
    wire = deploy.testbed.wire
    for attempt in range(1, 30):
        async with wire.hold(lambda statement: statement.commits and "alembic" in statement.process) as commits:
            process = await deploy.start("alembic", "upgrade", target)
            if await commits.wait_for_or(process.exit):
                commits.release_one()
                if await commits.wait_for_or(process.exit):
                    await deploy.kill(process)
        await asyncio.wait({process.exit}, timeout=20)
        if process.exit.done() and process.exit.result() == 0:
            break
        expect(
            process.exit.done() and process.exit.result() < 0,
            f"`alembic upgrade {target}` was killed before a COMMIT, {attempt - 1} times. The next one ended with an "
            f"error: {CompletedCommand('', 1, process.log).last_line}",
            because=STUCK,
            section="Interrupted and resumed",
        )


async def interrupt_an_index(deploy, wire, target):
    """Kills Alembic while CREATE INDEX waits for somebody who is changing an order. Then the next one must succeed."""
    async with wire.hold(r"CREATE\s+(UNIQUE\s+)?INDEX", limit=1) as creating:
        process = await deploy.start("alembic", "upgrade", target)
        if await creating.wait_for_or(process.exit):
            with deploy.transaction("UPDATE orders SET status = status WHERE id = (SELECT max(id) FROM orders)"):
                creating.release()
                await deploy.waits_or_ends(process)
                await deploy.kill(process)
    await asyncio.wait({process.exit}, timeout=20)
    await deploy.upgrade(target)
