"""What the notebook of lesson 09 needs besides its subject: a shop with workers, kills at each point, and pictures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.variants import variant_path
from checks.kit.notebook import run_app, versions
from checks.kit.testbed.waiting import wait_quiescent
from checks.lesson_09.buyer import Buyer, key_of, order_of
from checks.lesson_09.kills import POINTS, killed, nth_commit
from checks.lesson_09.workers import Workers, accepted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from checks.kit.notebook import RunningApp
    from checks.kit.testbed.outside_service import OutsideService

COLORS = {"once": "#1f7a3d", "none, rightly": "#1f7a3d", "twice, one key": "#c9a227"}
BAD = "#c0352c"
"""What is not in COLORS."""


def available(target: str) -> bool:
    """Whether the target can run here: a course may leave out solutions/, and variants."""
    if target == "solutions":
        return "solution" in versions(9)
    return "solution" in versions(9) and variant_path(find_lesson(9), target).is_file()


@dataclass(frozen=True, slots=True)
class Scene:
    """A running shop with a customer who buys, a mail gateway, and workers."""

    running: RunningApp
    buyer: Buyer
    gateway: OutsideService
    workers: Workers

    async def order(self, way: str = "POST /orders") -> int:
        """The id of an order that the app has confirmed."""
        return (await self.buyer.buy(self.running.app, way)).order_id

    def mails(self, order: int) -> int:
        """How many mails about this order the gateway has got."""
        return sum(order_of(call) == order for call in self.gateway.calls)


@asynccontextmanager
async def shop_with_mail(target: str = "lessons") -> AsyncIterator[Scene]:
    """A shop of yours (`lessons`), of the solution (`solutions`), or of a variant; no worker runs yet."""
    async with run_app(9, target) as running:
        ids = await running.shop.seed(books=3, customers=1, stock=1000)
        email = await running.shop.value("SELECT email FROM customers WHERE id = $1", ids.customers[0])
        buyer = Buyer(ids.customers[0], email, ids.books, running.testbed.lesson.env["JWT_SECRET"])
        yield Scene(running, buyer, running.services["MAIL_URL"], Workers(running.testbed))


async def transactions_of_an_order(s: Scene) -> list[str]:
    """The transactions in which the app changes something for an order, in their order, with what they add."""
    with s.running.wire.watching() as seen:
        await s.order()
        await wait_quiescent(s.running.app, s.running.wire)
    lines = []
    for transaction in seen.transactions:
        within = [
            one
            for one in seen.data_statements
            if one.connection == transaction.connection and transaction.began <= one.started <= (transaction.ended or 0)
        ]
        tables = [one.text.split()[2] for one in within if one.verb == "INSERT"]
        if tables:
            lines.append(f"connection #{transaction.connection}: {transaction.outcome} of rows for {', '.join(tables)}")
    return lines


async def kill_the_app(target: str, way: str) -> dict[str, str]:
    """What becomes of an order and its mail if the COMMIT fails, and if the app is killed when it has taken effect."""
    async with shop_with_mail(target) as s:
        await s.workers.start()
        shop = s.running.shop
        await shop.load(COMMIT_FAILS, "the COMMIT of an order fails")
        before = await shop.count("orders")
        await s.buyer.ask(s.running.app, way)
        stored = await shop.count("orders") - before
        await s.workers.settled()
        refused = _outcome(len(s.gateway.calls), stored)
        await shop.load("DROP SCHEMA refusals CASCADE", "orders are stored again")
        calls, orders = len(s.gateway.calls), await shop.count("orders")
        async with s.running.wire.lost_response(nth_commit("app", 1)) as lost:
            request = s.buyer.start(s.running.app, way)
            while not lost.count and not request.task.done():
                await asyncio.wait({request.task}, timeout=0.01)
            await s.running.app.process.kill()
        await request.disconnect()
        await s.workers.until(lambda: len(s.gateway.calls) > calls, 1)
        await s.workers.settled()
        dead = _outcome(len(s.gateway.calls) - calls, await shop.count("orders") - orders)
        return {"the COMMIT fails": refused, "the app is killed\nafter the first COMMIT": dead}


def _outcome(mails: int, stored: int) -> str:
    if mails == stored:
        return "once" if mails else "none, rightly"
    return "order without mail" if stored else "mail without order"


async def kill_workers(target: str) -> dict[str, str]:
    """A worker is killed at each point of its work, then another one runs: what the gateway has got in the end."""
    async with shop_with_mail(target) as s:
        orders: list[int] = []
        for point in POINTS:
            worker = await s.workers.start()
            if len(orders) == 1:  # nothing of the first one was stored, so the second worker sends it at its start
                await s.workers.send(s.gateway, *orders)
            async with killed(point, worker, s.running.wire, s.gateway):
                orders.append(await s.order())
        await s.running.shop.execute(LEASES_END)
        await s.workers.start()
        await s.workers.call(s.gateway, lambda: set(orders) <= accepted(s.gateway), 4)
        await s.workers.settled()
        return {point: _received(s.gateway, order) for point, order in zip(POINTS, orders, strict=True)}


def _received(gateway: OutsideService, order: int) -> str:
    calls = [call for call in gateway.calls if order_of(call) == order]
    if order not in accepted(gateway):
        return "lost"
    keys = len({key_of(call) for call in calls})
    return "once" if len(calls) == 1 else "twice, one key" if keys == 1 else "twice, two keys"


def matrix(results: Mapping[str, Mapping[str, str]], title: str) -> Any:
    """A picture: a line for each design, a column for each point, and what came of it."""
    import matplotlib.pyplot as plt

    points = list(next(iter(results.values())))
    figure, pane = plt.subplots(figsize=(2.6 + 1.5 * len(points), 0.8 + 0.62 * len(results)))
    for y, found in enumerate(results.values()):
        for x, point in enumerate(points):
            outcome = found[point]
            pane.add_patch(plt.Rectangle((x + 0.03, y + 0.06), 0.94, 0.88, color=COLORS.get(outcome, BAD)))
            pane.text(
                x + 0.5, y + 0.5, outcome.replace(", ", ",\n"), ha="center", va="center", color="white", fontsize=9
            )
    pane.set(xlim=(0, len(points)), ylim=(len(results), 0), title=title)
    pane.set_xticks([x + 0.5 for x in range(len(points))], points, fontsize=9)
    pane.set_yticks([y + 0.5 for y in range(len(results))], list(results), fontsize=9)
    pane.xaxis.tick_top()
    pane.tick_params(length=0)
    for side in pane.spines.values():
        side.set_visible(False)
    figure.tight_layout()
    plt.close(figure)
    return figure


def throughput_picture(workers: Sequence[int], measured: Mapping[str, Sequence[float]]) -> Any:
    """Jobs per second against the number of workers, a line for each way to take a job."""
    import matplotlib.pyplot as plt

    figure, pane = plt.subplots(figsize=(6.5, 3.6))
    for (name, values), mark in zip(measured.items(), "os^D", strict=False):
        pane.plot(workers, values, f"{mark}-", label=name)
    pane.set(xlabel="workers", ylabel="jobs per second", ylim=(0, None), xticks=list(workers))
    pane.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    plt.close(figure)
    return figure


LEASES_END = "UPDATE outbox SET due_at = now() WHERE status = 'processing'"

COMMIT_FAILS = """
    CREATE SCHEMA refusals;
    CREATE FUNCTION refusals.refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'check_violation'; END $$;
    CREATE CONSTRAINT TRIGGER refused AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refusals.refuse()
"""
