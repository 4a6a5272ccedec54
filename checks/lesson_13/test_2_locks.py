"""Lesson 13: a deploy while the shop is open. Here: whom a migration keeps waiting, and for what."""

import asyncio

import pytest

from checks.kit.report import expect

TABLES = ("orders", "coupons", "receipts", "outbox")
QUEUE = "Every request that needs the table waits behind the migration. The shop is down until the report has ended."


@pytest.mark.start_early
async def test_0014_gives_up(deploy):
    """While a report reads a table, requests succeed: `alembic upgrade 0014` waits for its lock for a moment only."""
    old = await deploy.old()
    for table in TABLES:
        await expect_served(deploy, old, table, "0014")
    await deploy.upgrade("0014")


@pytest.mark.start_early
async def test_head_gives_up(deploy):
    """While a report reads a table, requests succeed: `alembic upgrade head` waits for its lock for a moment only."""
    old = await deploy.old()
    await deploy.upgrade("0014")
    await deploy.backfill()
    for table in TABLES:
        await expect_served(deploy, old, table, "head")
    await deploy.upgrade("head")


async def test_nobody_waits_while_rows_are_read(large_deploy, wire):
    """While a transaction of a migration holds a lock that stops requests, no statement reads more than 5,000 rows."""
    copy = await large_deploy.copy()
    with wire.watching() as seen:
        await large_deploy.upgrade("0014")
    expect_harmless(await copy.replay(seen.statements), "0014")
    await asyncio.gather(large_deploy.backfill(), copy.backfill())
    with wire.watching() as seen:
        await large_deploy.upgrade("head")
    expect_harmless(await copy.replay(seen.statements), "head")


async def expect_served(deploy, old, table, target):
    """A report has read the table and its transaction is open: Alembic tries, and gives up or waits without harm."""
    with deploy.transaction(f"SELECT count(*) FROM {table}"):
        process = await deploy.start("alembic", "upgrade", target)
        if await deploy.waits_or_ends(process):
            requests = [old.start_request(*request) for request in await about(deploy, table)]
            responses = await asyncio.gather(*(request.task for request in requests))
            failed = [str(response) for response in responses if not response.ok]
            expect(
                not failed,
                f"A report had read {table}, and its transaction was open. `alembic upgrade {target}` waited for it, "
                f"and these requests waited for Alembic until they failed: {' '.join(failed)}",
                because=QUEUE,
                section="The lock queue",
            )
    await asyncio.wait({process.exit}, timeout=20)
    expect(
        process.exit.done(),
        f"`alembic upgrade {target}` had waited for a report of {table}. It was still running 20 s after the report "
        "had ended.",
        because="Nobody knows whether the deploy will ever end.",
        section="The lock queue",
    )


async def about(deploy, table):
    """Requests that read the table."""
    shop = deploy.shop
    if table == "receipts":
        return [("GET", f"/receipts/{await shop.value('SELECT id FROM receipts LIMIT 1')}")]
    if table == "coupons":
        code = await shop.value("SELECT code FROM coupons WHERE active LIMIT 1")
        return [("GET", f"/coupons/{code}")]
    if table == "outbox":
        return [("GET", "/mails/failed")]
    return [("GET", "/customers/1/orders"), ("GET", "/customers/2/orders")]


def expect_harmless(steps, target):
    harm = [step.harm() for step in steps if step.harm()]
    expect(
        not harm,
        f"In `alembic upgrade {target}`: {' '.join(harm[:2])}",
        because="With the rows of production that takes minutes. Requests wait for 2.5 s and fail.",
        section="Validate without a lock that stops the shop",
    )
