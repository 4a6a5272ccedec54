"""What the notebook of lesson 17 needs besides its subject: clients of PgBouncer, and a picture of both sides."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from checks.kit.notebook import RunningApp, run_app
from checks.lesson_17.fixtures import Furnished, furnish
from checks.lesson_17.others import FAILED, Others, beginning
from checks.lesson_17.waiting import until_true

if TYPE_CHECKING:
    from checks.kit.service.app import PendingRequest
    from checks.kit.testbed.testbed import Testbed
    from checks.kit.wire import Recording, Statement

COLORS = ("#2c5fa8", "#e08a1e", "#2f8f5b", "#8a4fa3")
DAILY = "/reports/daily?first=2026-03-08&last=2026-03-08&zone="


@asynccontextmanager
async def behind_pgbouncer(target: str = "solutions") -> AsyncIterator[tuple[RunningApp, Furnished, Others]]:
    """An app with rows, and other clients, who have one of the two connections to PostgreSQL."""
    async with run_app(17, target) as s:
        assert s.testbed.database.app is not None
        others = Others(s.testbed, s.testbed.database.app)
        await others.enter()
        try:
            yield s, await furnish(s.testbed, s.shop), others
        finally:
            await others.leave()


def url(testbed: Testbed, wire: Any = None) -> str:
    """The URL of the app's role through PgBouncer, or that of another proxy."""
    wire = wire or testbed.wire
    return testbed.database.environment(wire.host, wire.port)["APP_DATABASE_URL"]


async def connect(testbed: Testbed, wire: Any = None, **options: Any) -> asyncpg.Connection[Any]:
    """A connection of the driver's own, without SQLAlchemy."""
    return await asyncpg.connect(url(testbed, wire).replace("+asyncpg", ""), statement_cache_size=0, **options)


async def tried(testbed: Testbed, others: Others, driver: str, options: Mapping[str, Any], rounds: int = 20) -> str:
    """How many of so many transactions fail, each on another connection than the last, and what is left of them."""
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.ext.asyncio import create_async_engine

    await testbed.pgbouncer.command("RECONNECT")  # new sessions, without prepared statements of earlier cells
    engine = create_async_engine(
        url(testbed).replace("asyncpg", driver), connect_args=dict(options), pool_pre_ping=True, pool_size=1
    )
    failed = 0
    async with others.taking_turns():
        for _ in range(rounds):
            try:
                async with engine.begin() as connection:
                    await connection.execute(text("SELECT count(*) FROM shops"))
                    await connection.execute(text("SELECT 1"))
            except (SQLAlchemyError, *FAILED):
                failed += 1
    async with others.none():
        with testbed.wire.watching() as seen:
            try:
                async with engine.begin() as connection:
                    await connection.execute(text("SELECT 1"))
            except (SQLAlchemyError, *FAILED):
                pass
        trips = seen.round_trips if not any(one.error for one in seen.statements) else "-"
    await engine.dispose()
    return f"{failed:>3} of {rounds} failed {await others.prepared():>6} left {trips:>6} round trips"


async def kept(testbed: Testbed, act: str, look: str) -> tuple[str, str, str]:
    """A client runs `act`. What it finds then in the same session and in the other one, and what others find."""
    await testbed.pgbouncer.command("RECONNECT")  # new sessions, which have nothing left of earlier cells
    others = Others(testbed, testbed.database.app)  # type: ignore[arg-type]
    await others.enter()
    client, somebody = await connect(testbed), await connect(testbed)
    await client.execute(act)
    same = await answer(somebody, look)
    await others.swap()
    mine = await answer(client, look)
    await others.swap()
    back = await answer(client, look)
    for one in (client, somebody):
        one.terminate()
    await others.leave()
    return back, mine, same


async def answer(connection: asyncpg.Connection[Any], sql: str) -> str:
    try:
        async with connection.transaction():
            return str(await connection.fetchval(sql))
    except asyncpg.PostgresError as error:
        return f"error {error.sqlstate}"


@dataclass(frozen=True)
class Part:
    """A transaction, as one side of PgBouncer saw it."""

    connection: int
    began: float
    ended: float
    what: tuple[str, ...]


def parts(seen: Recording) -> list[Part]:
    """The transactions of a recording, the pings left out."""
    found: list[Part] = []
    begun: dict[int, list[Statement]] = {}
    for one in seen.statements:
        if one.verb == "BEGIN":
            begun[one.connection] = []
        mine = begun.setdefault(one.connection, [])
        mine.append(one)
        if one.verb in ("COMMIT", "ROLLBACK"):
            ends = ("BEGIN", "COMMIT", "ROLLBACK", "")
            what = tuple(each.text for each in mine if each.verb not in ends and not each.driver)
            if what:
                found.append(Part(one.connection, mine[0].started, one.finished or one.started, what))
            begun[one.connection] = []
    return found


def both_sides_picture(pictures: Mapping[str, tuple[Recording, Recording]]) -> Any:
    """Which client's transaction ran on which connection to PostgreSQL, by the order in which they ended."""
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(len(pictures), figsize=(11, 2.7 * len(pictures)), squeeze=False)
    for axes, (title, (front, behind)) in zip(rows[:, 0], pictures.items(), strict=True):
        clients = sorted(parts(front), key=lambda part: part.ended)
        servers = sorted(parts(behind), key=lambda part: part.ended)
        names = list(dict.fromkeys(part.connection for part in clients))
        sessions = sorted({part.connection for part in servers})
        left = list(servers)
        for column, part in enumerate(clients):
            match = next((one for one in left if one.what == part.what), None)
            color = COLORS[names.index(part.connection) % len(COLORS)]
            y = -names.index(part.connection)
            axes.add_patch(plt.Rectangle((column - 0.44, y - 0.3), 0.88, 0.6, color=color))
            label = short(part.what) if match else "fails"
            axes.text(column, y, label, ha="center", va="center", color="white", fontsize=7.5)
            if match is None:
                continue
            left.remove(match)
            below = -len(names) - 1 - sessions.index(match.connection)
            axes.add_patch(plt.Rectangle((column - 0.44, below - 0.3), 0.88, 0.6, color=color))
            axes.text(column, below, short(part.what), ha="center", va="center", color="white", fontsize=7.5)
            axes.plot([column, column], [y - 0.3, below + 0.3], color=color, lw=1, zorder=0)
        for n, _ in enumerate(names):
            axes.text(-0.6, -n, f"the app's connection {n + 1}", ha="right", va="center", fontsize=8)
        axes.axhspan(-len(names) - 0.35, -len(names) + 0.35, color="#e3e6ea", zorder=-1)
        axes.text(-0.6, -len(names), "PgBouncer", ha="right", va="center", fontsize=8, fontweight="bold")
        for n, _ in enumerate(sessions):
            y = -len(names) - 1 - n
            axes.text(-0.6, y, f"session {n + 1} of PostgreSQL", ha="right", va="center", fontsize=8)
        axes.set_xlim(-3.2, max(len(clients), 6) - 0.4)
        axes.set_ylim(-len(names) - len(sessions) - 0.6, 0.6)
        axes.set_title(title, loc="left", fontsize=10)
        axes.axis("off")
    figure.tight_layout()
    plt.close(figure)
    return figure


def short(what: tuple[str, ...]) -> str:
    """A word for a transaction of the report."""
    text = " ".join(what).lower()
    if "reset" in text:
        return "RESET"
    if "receipts" in text:
        return "query"
    return "set zone" if "app.zone" in text or "set_config($" in text else "other"


async def shared(s: RunningApp, clients: int, *, past: bool) -> tuple[int, int]:
    """So many clients run 5 transactions each, at once. How many connections they opened, and PostgreSQL had."""
    wire = s.testbed.server_side if past else s.testbed.wire
    with s.testbed.wire.watching() as front, s.testbed.server_side.watching() as behind:

        async def work() -> None:
            client = await connect(s.testbed, wire)
            for _ in range(5):
                async with client.transaction():
                    await client.execute("SELECT count(*) FROM books")
            client.terminate()

        await asyncio.gather(*(work() for _ in range(clients)))
    return front.connections_opened, len({one.connection for one in behind.statements})


async def two_reports(target: str) -> tuple[str, Recording, Recording]:
    """Two reports of different zones at the same time: their transactions take turns, in the same order each time.

    Before each transaction of the second report the sessions change, so each report meets the other's session.
    """
    async with behind_pgbouncer(target) as (s, shop, others):
        for at, cents in (("05:00", 700), ("12:00", 100)):
            await s.shop.execute(
                "INSERT INTO receipts (id, till, sold_at, cents, shop_id) "
                f"VALUES (gen_random_uuid(), 'T', '2026-03-08 {at}+00', {cents}, {shop.shop_id})"
            )
        async with others.none(), s.wire.hold(lambda one: one.text == "SELECT 1", limit=2) as pings:
            opening = [s.app.start_request("GET", "/health") for _ in range(2)]  # so that both have a connection
            await pings.wait_for(2)
            pings.release()
            for one in opening:
                await one
            await s.wire.wait_idle()
        with s.wire.watching() as front, s.testbed.server_side.watching() as behind:
            async with s.wire.hold(beginning) as held:
                reports: list[PendingRequest] = []
                for zone in ("Pacific/Kiritimati", "Pacific/Niue"):
                    reports.append(s.app.start_request("GET", f"{DAILY}{zone}"))
                    await held.wait_for(len(reports))
                for change in itertools.cycle((False, True)):

                    async def all_begin() -> bool:
                        return len(held.waiting) >= sum(not one.task.done() for one in reports)

                    await until_true(all_begin)
                    if not held.waiting:
                        break
                    if change:
                        await others.swap()
                    held.release_one()
            responses = [await one for one in reports]
            await s.wire.wait_idle()
        told = [str(one.json[0]["cents"]) if one.ok else str(one.status) for one in responses]
        return ", ".join(told), front, behind
