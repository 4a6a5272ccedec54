"""Lesson 17: what needs a session of its own goes past PgBouncer."""

import asyncio

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.kit.testbed.outside_service import NeverCalled
from checks.lesson_17.hanging import stopped
from checks.lesson_17.waiting import WAITING, until_true

ORDERS = 3
PGBOUNCER = "PgBouncer"
SECTION = "What needs a session of its own"


async def test_the_worker_hears_of_mail(testbed, app, furnished, gateway, others, server_side, wire):
    """A worker with nothing to do sends the mail of an order within 10 s; no session of PgBouncer is left listening."""
    before = len(server_side.closed)
    with wire.watching() as seen, server_side.watching() as behind:
        worker = await testbed.start("app.worker", name="worker", connected=True)
        sent = 0
        for number in range(ORDERS):
            await looked(app, wire, seen, behind, more_than=sent)
            await app.post("/orders", json=furnished.basket(number), headers=furnished.logins[number])
            try:
                await gateway.received(number + 1)
            except NeverCalled:
                break
            sent += 1
        listening = [one for one in await others.left() if one.startswith("LISTEN")]
        opened = [*server_side.connections, *server_side.closed[before:]]
        roles = {one.parameters.get("user") for one in opened if one.process != PGBOUNCER}
        code = await worker.terminate()
    expect(
        sent == ORDERS,
        f"The worker had nothing to do. Then {plural(min(sent + 1, ORDERS), 'order')} came, each one after the mail of "
        f"the one before. Mails that were sent within 10 s: {sent}.",
        because="The customer hears nothing for half a minute, and orders again.",
        section=SECTION,
    )
    expect(
        not listening and roles <= {testbed.database.app.role} and code == 0,
        f"Sessions behind PgBouncer that listen: {', '.join(listening) or 'none'}. Past it the worker logged in as "
        f"{', '.join(map(str, roles)) or 'nobody'}; its role is {testbed.database.app.role}. It ended with exit code "
        f"{code}. Expected: none listens, no other role, and exit code 0.",
        because="Notifications to a shared session reach another client, or nobody. No policy applies to the owner of "
        "the tables. And a worker with another exit code counts as crashed.",
        section=SECTION,
    )


async def looked(app, wire, seen, behind, more_than):
    """Returns when the worker has looked for mail, found none, and waits. It may do so past PgBouncer."""

    async def has_looked():
        through = sum(one.process == "worker" and one.data for one in seen.statements)
        past = sum(one.process != PGBOUNCER and one.data for one in behind.statements)
        return through + past > more_than

    await until_true(has_looked)
    for _ in range(3):
        await app.flush()
        await wire.wait_idle(10)


async def test_migrations_go_past_pgbouncer(testbed, alembic, owners, server_side):
    """Alembic works while PgBouncer has no connection to give, and sends nothing through it."""
    with server_side.watching() as seen:
        async with owners.both():
            done = [await alembic(*command) for command in (("downgrade", "-1"), ("upgrade", "head"), ("current",))]
    through = [one for one in seen.data_statements if one.process == PGBOUNCER]
    failed = [one for one in done if not one.ok]
    expect(
        not failed and not through,
        f"Both connections of PgBouncer were taken. Statements of Alembic that came through it: {len(through)}. "
        f"Expected: none, and Alembic works. {failed[0] if failed else ''}",
        because="A release has to wait until traffic ends, or it fails half way.",
        section="Migrations",
    )


async def test_a_migration_gives_up_its_lock(testbed, alembic, shop):
    """A migration that waits for a lock gives up after half a second; it works later, and may take longer."""
    await shop.execute(WITHOUT_THE_LAST_ONE)
    async with shop.lock("shops"):
        running = asyncio.ensure_future(alembic("upgrade", "head"))

        async def waits():
            return running.done() or await shop.value(WAITING) > 0

        await until_true(waits, within=40)  # a busy machine takes long to start Alembic
        async with stopped(testbed, "lock_timeout", LATER, "TABLE shops") as mine:
            ended = asyncio.ensure_future(mine.wait())
            await asyncio.wait([running, ended], return_when=asyncio.FIRST_COMPLETED)
            gave_up = running.done() or not await shop.value(WAITING)
            ended.cancel()
        if gave_up:  # the table stays locked until it has ended
            await asyncio.wait([running], timeout=20)
    done = await running
    expect(
        gave_up and not done.ok,
        f"The table shops was locked. The migration {'gave up' if gave_up else HELD_OUT}: {done}. Expected: it gives "
        "up, with an exit code other than 0.",
        because="All requests that need the table wait behind a migration that waits.",
        section="Migrations",
    )
    again = await alembic("upgrade", "head")
    expect(
        again.ok,
        f"No table was locked any more. A statement of the migration took 0.8 s: {again}",
        because="To build an index takes minutes. A limit for statements ends that, and one for locks does not.",
        section="Migrations",
    )


HELD_OUT = "waited longer than a statement of the check, which began later and has a limit of 3 s"
LATER = 3_000
"""Milliseconds for which a statement of the check's waits for a lock."""

WITHOUT_THE_LAST_ONE = """
    DROP TABLE login_tries;
    UPDATE alembic_version SET version_num = '0018';
    CREATE FUNCTION take_longer() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.8); RETURN NEW; END $$;
    CREATE TRIGGER take_longer BEFORE UPDATE ON alembic_version FOR EACH ROW EXECUTE FUNCTION take_longer();
"""
"""The database before the last revision, which Alembic is to take as done by a statement that needs 0.8 s."""
