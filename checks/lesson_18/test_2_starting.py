"""Lesson 18: what a deploy starts. Here: secrets, migrations, connections and the health check."""

import asyncio
import time
from collections import Counter

import pytest

from checks.kit.report import expect
from checks.kit.service.machine import busy
from checks.kit.testbed.shop import Shop
from checks.lesson_17.waiting import WAITING, until_true
from checks.lesson_18.running import last_line

DOWN = "The release does not start, or it starts and serves nobody."
BUDGET = 4
"""DATABASE_CONNECTIONS of the platform."""

WAIT = 120
"""Seconds that a check waits for an interpreter to do its work, on a busy machine; a bound for failures."""

CREATED = ("orders", "shops", "login_tries", "alembic_version")
"""Tables of the first migrations and of the last ones."""


@pytest.mark.patient
async def test_secrets_come_from_files(release, furnished):
    """`web`, `worker` and `migrate` start if their secrets are in files only, and `web` not without `jwt_secret`."""
    web, worker, migrate, keyless = await asyncio.gather(
        release.web(only_files=True),
        release.start("worker", only_files=True),
        release.start("migrate", only_files=True),
        release.serves_without("jwt_secret"),
    )
    code = await migrate.finished()
    expect(
        code == 0,
        f"`migrate` had its secrets in files only. It ended with exit code {code}. Expected: 0. "
        f"{last_line(migrate.process.log)}",
        because=DOWN,
        section="Where a secret ends up",
    )
    order = f"/orders/{furnished.ids.orders[0]}"
    for path, headers in ((furnished.book, {}), (order, furnished.logins[0])):
        response = await web.app.get(path, headers=headers)
        expect(
            response.status in (200, 404) if headers else response.ok,
            f"`web` had its secrets in files only. {response} Expected: status 200{' or 404' if headers else ''}.",
            because=DOWN,
            section="Where a secret ends up",
        )
    expect(
        not keyless,
        "The platform gave no `jwt_secret` to `web`, and it serves all the same: it has a key of its own.",
        because="Everybody who has the image can log in as any customer, and nobody notices that a secret is missing.",
        section="Where a secret ends up",
    )
    listens = await connected(release, worker)
    expect(
        listens,
        f"`worker` had its secrets in files only, and did not connect to the database. {last_line(worker.process.log)}",
        because=DOWN,
        section="Where a secret ends up",
    )


async def connected(release, started):
    """Whether a service has connected, through PgBouncer, before it ended."""
    wire = release.testbed.wire

    async def has():
        return started.process.exit.done() or any(one.process == started.process.name for one in wire.connections)

    await until_true(has, WAIT)
    return not started.process.exit.done()


@pytest.mark.patient
async def test_migrators_take_turns(empty_database, release, server_side, testbed):
    """Three migrators start at once and one is killed: the others end with exit code 0, without a database none."""
    shop = Shop(empty_database, testbed.note)
    with server_side.watching() as seen:
        async with server_side.hold(lambda one: one.verb == "CREATE") as held:
            first = await release.start("migrate")
            await held.wait_for(timeout=WAIT)
            others = [await release.start("migrate") for _ in range(2)]
            await all_at_work(others, held, seen, shop)
            await first.process.kill()
    codes = [await other.finished() for other in others]
    logs = [last_line(other.process.log) for other, code in zip(others, codes, strict=True) if code]
    made = [table for table in CREATED if await shop.value("SELECT to_regclass($1)::text", table)]
    expect(
        codes == [0, 0] and len(made) == len(CREATED),
        f"Of three containers of `migrate` one was killed, while the others waited or worked. These ended with exit "
        f"codes {codes[0]} and {codes[1]}. {' '.join(logs)} Tables that are there: {', '.join(made) or 'none'}. "
        f"Expected: 0 and 0, and the tables {', '.join(CREATED)}.",
        because="The deploy stops half way, and it depends on chance whether the next attempt gets further.",
        section="Two migrators at once",
    )
    async with server_side.refusing("nothing_listens"):
        alone = await release.start("migrate")
        await asyncio.wait({alone.process.exit}, timeout=WAIT if busy() else 20)
    expect(
        not alone.process.exit.done() or alone.process.exit.result() != 0,
        "No database was there, and `migrate` ended with exit code 0.",
        because="`web` and `worker` wait for exit code 0. They start with a database that was not migrated.",
        section="The order of the start",
    )


async def all_at_work(migrators, held, seen, shop):
    """Returns when each migrator has done what it can: it is held, waits for a lock, asks again and again, or ended."""

    async def are():
        asked = Counter(one.connection for one in seen.statements)
        ask = sum(count >= ASKED for connection, count in asked.items() if connection != held.waiting[0].connection)
        ends = sum(one.process.exit.done() for one in migrators)
        return ends + ask + len(held.waiting) - 1 + await shop.value(WAITING) >= len(migrators)

    await until_true(are, WAIT)


ASKED = 12
"""Statements of a migrator that asks again and again until it may begin."""


@pytest.mark.patient
async def test_a_replica_does_not_migrate(release, furnished, server_side, wire):
    """`web` and `worker` start without a look at the migrations, which are the work of `migrate`."""
    with wire.watching() as through, server_side.watching() as past:
        web, worker = await asyncio.gather(release.web(), release.start("worker"))
        await web.app.get(furnished.book)
        await connected(release, worker)
    seen = [*through.statements, *past.statements]
    migrating = [one for one in seen if "alembic_version" in one.text or one.verb in ("CREATE", "ALTER", "DROP")]
    expect(
        not migrating,
        f"While `web` and `worker` started, {len(migrating)} statements were about migrations, such as "
        f"`{' '.join(migrating[0].text.split())[:80] if migrating else ''}`.",
        because="Each replica that is added or restarted migrates, at any hour, with the owner's password.",
        section="Two migrators at once",
    )


async def crowd(web, path, wire, held, enough):
    """Sends requests that are held in the database: the most connections in use at a time, and the requests.

    It ends when there are more than `enough`. A statement that is held for long is given up by its driver and
    replaced, so an old one does not count. One request after the other, or a single worker takes them all.
    """
    most, requests = 0, []

    async def settled():
        nonlocal most
        young = {one.connection for one in held.waiting if time.perf_counter() - one.started < YOUNG}
        most = max(most, len(young))
        return most > enough or sum(one.task.done() for one in requests) + len(held.waiting) >= len(requests)

    while len(requests) < 40 and most <= enough:
        requests.append(web.app.start_request("GET", path, timeout=WAIT))
        await web.app.flush()
        await settled()
    await until_true(settled, WAIT)
    return most, requests


YOUNG = 2
"""Seconds after which a held statement may have been given up: the app's limits are 2.5 and 3."""


@pytest.mark.patient
async def test_the_health_check_asks_the_service(release, wire, furnished):
    """The health check of `web` succeeds while it serves, also without its database, and fails when it is gone."""
    web = await release.web()
    await web.app.get(furnished.book)
    expect(
        bool(web.service.health),
        "`web` has no health check, neither in the Dockerfile nor in compose.yaml.",
        because="A process that hangs stays in service until somebody looks.",
        section="What a health check asks",
    )
    healthy = await release.check_health(web)
    expect(
        healthy.ok,
        f"`web` serves, and its health check fails with the image's programs. {exit_of(healthy)}",
        because="The platform restarts a healthy service for ever.",
        section="What a health check asks",
    )
    for how in ("nothing_listens", "silent"):
        async with wire.outage(how):
            without = await release.check_health(web)
        expect(
            without.ok,
            f"The database was away ({how.replace('_', ' ')}). {exit_of(without)} Expected: exit code 0.",
            because="All replicas are restarted at once, and when the database is back nobody is there to use it.",
            section="What a health check asks",
        )
    await web.process.kill()
    gone = await release.check_health(web)
    expect(
        not gone.ok,
        f"`web` was killed. {exit_of(gone)} Expected: another exit code than 0.",
        because="A service that does not respond any more is never restarted.",
        section="What a health check asks",
    )


def exit_of(done):
    """How a health check ended, without the kit's own words."""
    how = "did not end" if done.code is None else f"ended with exit code {done.code}"
    return f"The health check {how}. {last_line(done.output)}"
