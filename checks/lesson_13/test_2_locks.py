"""Lesson 13: a deploy while the shop is open. Here: which requests wait for a migration, and why."""

import asyncio
import contextlib

import pytest

from checks.kit.report import expect
from checks.lesson_13.fixtures import WAITING
from checks.lesson_13.replay import short

TABLES = ("orders", "coupons", "receipts", "outbox")
QUEUE = "Every request that needs the table waits for the migration. The shop is down until that transaction has ended."
WRONG_EXIT_CODE = "Nobody starts the step again. The next one begins on a database that is not ready for it."


@pytest.mark.start_early
async def test_0014_gives_up(deploy):
    """While others use a table, requests succeed: `alembic upgrade 0014` waits for its lock for a moment only."""
    await expect_served(deploy, "0014")


@pytest.mark.start_early
async def test_head_gives_up(deploy):
    """While others use a table, requests succeed: `alembic upgrade head` waits for its lock for a moment only."""
    await deploy.upgrade("0014")
    await deploy.backfill()
    await expect_served(deploy, "head")


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


async def expect_served(deploy, target):
    """Tries the step until it succeeds. Each statement meets an open transaction when it comes for the first time."""
    old, tried, progress, process = await deploy.old(), set(), True, None
    requests = await about_all_tables(deploy)

    def send():
        return [old.start_request(method, path, **options) for method, path, options in requests]

    while progress:
        before = len(tried)
        async with deploy.testbed.wire.hold(of_alembic) as held:
            process = await deploy.start("alembic", "upgrade", target)
            await beside_a_transaction(deploy, held, process, tried, send)
        await expect_end(process, target)
        progress = process.exit.result() != 0 and len(tried) > before
    reached = await deploy.revision() if process.exit.result() == 0 else None
    await deploy.upgrade(target)
    if reached is not None:
        await expect_at(deploy, target, reached)


async def beside_a_transaction(deploy, held, process, tried, send):
    """Lets one statement after the other go on. Before one that is not in `tried`, others use the tables."""
    text, use_more = "", None
    with contextlib.ExitStack() as transaction:
        while await comes(held, process):
            text = held.waiting[0].text
            if text in tried or "CONCURRENTLY" in text.upper():  # nobody waits behind the latter
                transaction.close()
                use_more = None
            elif use_more is None:
                use_more = transaction.enter_context(deploy.in_use(TABLES))
            in_use = use_more() if use_more else []
            held.release_one()
            if not await waits(deploy, held, process):
                continue
            failed = await failures(send())
            expect(
                not failed,
                f"Somebody's transaction was open, and used {', '.join(in_use)}. `{short(text)}` waited for it, and "
                f"these requests waited for Alembic until they failed ({len(failed)} in all): {' '.join(failed[:3])}",
                because=QUEUE,
                section="The lock queue",
            )
            tried.add(text)
            transaction.close()
            use_more = None
    if process.exit.done() and process.exit.result() != 0:
        tried.add(text)


async def failures(requests):
    """The responses that are errors, as text."""
    responses = await asyncio.gather(*(request.task for request in requests))
    return [str(response) for response in responses if not response.ok]


async def comes(held, process, within=20):
    """True when a statement has come, False when Alembic has ended, or seems to do nothing any more."""
    until = asyncio.get_running_loop().time() + within
    while not held.waiting and not process.exit.done() and asyncio.get_running_loop().time() < until:
        await held.count_within(1, 0.05)
    return bool(held.waiting)


async def waits(deploy, held, process):
    """True if a session waits for a lock, False when the next statement has come or Alembic has ended."""
    while not held.waiting and not process.exit.done():
        if await deploy.shop.value(WAITING):
            return True
        await held.count_within(1, 0.01)
    return False


def of_alembic(statement):
    return statement.data and statement.process.startswith("alembic")


async def expect_end(process, target):
    await asyncio.wait({process.exit}, timeout=20)
    expect(
        process.exit.done(),
        f"`alembic upgrade {target}` had waited for somebody's transaction. It was still running 20 s after that had "
        "ended.",
        because="Nobody knows whether the deploy will ever end.",
        section="The lock queue",
    )


async def expect_at(deploy, target, reached):
    """Alembic has said that it is done: it was, and nothing was left to do when it was started again."""
    wanted = target if target != "head" else await deploy.revision()
    expect(
        reached == wanted,
        f"`alembic upgrade {target}` ended with exit code 0, and the database was at revision {reached}, not {wanted}.",
        because=WRONG_EXIT_CODE,
        section="The lock queue",
    )


async def about_all_tables(deploy):
    """Requests that read the tables and write them."""
    value, login = deploy.shop.value, {"headers": deploy.login()}
    book = await value("SELECT min(id) FROM books")
    receipt = {"till": "Q-1", "sold_at": "2026-03-08T12:00:00+01:00", "cents": 900}
    return [
        ("GET", "/customers/1/orders", {}),
        ("GET", f"/receipts/{await value('SELECT id FROM receipts LIMIT 1')}", {}),
        ("GET", f"/coupons/{await value('SELECT code FROM coupons WHERE active LIMIT 1')}", {}),
        ("GET", "/mails/failed", {}),
        ("POST", "/orders", {"json": {"lines": [{"book_id": book, "quantity": 1}]}} | login),
        ("PUT", "/coupons/QUEUE", {"json": {"percent": 10}}),
        ("POST", "/receipts", {"json": {"receipts": [receipt]}}),
    ]


def expect_harmless(steps, target):
    harm = [step.harm() for step in steps if step.harm()]
    expect(
        not harm,
        f"In `alembic upgrade {target}`: {' '.join(harm[:2])}",
        because="With as many rows as production has, that takes minutes. Requests wait for 2.5 s and fail.",
        section="Validate without a lock that stops the shop",
    )
