"""What the notebook of lesson 10 needs besides its subject: one basket in all places, imports, and pictures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.variants import variant_path
from checks.kit.notebook import run_app
from checks.kit.wire import OUTAGES
from checks.lesson_10.baskets import SEED, USUAL, Basket, shelve
from checks.lesson_10.imports import Imports
from checks.lesson_10.shopping import Customer, table_of
from checks.lesson_10.workers import Workers

if TYPE_CHECKING:
    from checks.kit.notebook import RunningApp
    from checks.kit.testbed.testbed import Testbed

PLACES = ("quote", "invoice", "report")
COLORS = {"quote": "#2c5fa8", "invoice": "#c9a227", "report": "#c0352c"}


@dataclass(frozen=True, slots=True)
class Said:
    """What the places say about one basket, in cents; None where one says nothing."""

    basket: Basket
    order: int
    elsewhere: Mapping[str, int | None]

    @property
    def copies(self) -> int:
        return sum(quantity for _, quantity in self.basket.lines)

    @property
    def differences(self) -> dict[str, int]:
        """By how many cents the places differ from the order, where they say something."""
        return {place: cents - self.order for place, cents in self.elsewhere.items() if cents is not None}


@dataclass(frozen=True, slots=True)
class Scene:
    """A running shop with a customer, books at unfriendly prices, and workers."""

    running: RunningApp
    customer: Customer
    workers: Workers


@asynccontextmanager
async def open_shop(target: str = "lessons") -> AsyncIterator[Scene]:
    """A shop of yours (`lessons`), of the solution (`solutions`), or of a variant; no worker runs yet."""
    async with run_app(10, target) as running:
        ids = await running.shop.seed(books=8, customers=1, stock=5000, others=False)
        await running.shop.execute("UPDATE customers SET credit_cents = 2147483647")
        books = await shelve(running.shop, ids.books)
        customer = Customer(ids.customers[0], books, running.testbed.lesson.env["JWT_SECRET"])
        yield Scene(running, customer, Workers(running.testbed, running.services["MAIL_URL"]))


def random_baskets(scene: Scene, count: int) -> list[Basket]:
    """The same at each call."""
    random = Random(SEED)
    books = scene.customer.books
    return [
        Basket(tuple((book, random.randint(1, 8)) for book in random.choices(books, k=random.randint(1, 4))))
        for _ in range(count)
    ]


async def ask_everywhere(scene: Scene, baskets: Sequence[Basket], change: int = 0) -> list[Said]:
    """Orders the baskets and asks all places about them. With `change` prices move between order and invoice."""
    app, customer, testbed = scene.running.app, scene.customer, scene.running.testbed
    quotes = [(await app.post("/quotes", json=basket.body))["total_cents"] for basket in baskets]
    orders = [await customer.buy(app, basket) for basket in baskets]
    if change:
        await shelve(scene.running.shop, [book.id for book in customer.books], change=change)
    worker = await scene.workers.start()
    await scene.workers.sent(worker, *(order.id for order in orders))
    report = await testbed.command("app.report", apart=True)
    reported = {row["order_id"]: row["total_cents"] for row in table_of(report.stdout)}
    said = []
    for basket, quote, order in zip(baskets, quotes, orders, strict=True):
        invoice = await customer.invoice(app, order.id)
        line = reported.get(str(order.id), "")
        places = {
            "quote": quote,
            "invoice": invoice["total_cents"] if invoice.ok else None,
            "report": int(line) if line.isdigit() else None,
        }
        said.append(Said(basket, order.total, places))
    await worker.terminate()
    return said


def differences_picture(found: Mapping[str, Sequence[Said]]) -> Any:
    """For each version and place: by how many cents it differs from the order, against the copies in the basket."""
    import matplotlib.pyplot as plt

    figure, panes = plt.subplots(len(found), len(PLACES), figsize=(10, 2.6 * len(found)), squeeze=False, sharey=True)
    for row, (whose, said) in zip(panes, found.items(), strict=True):
        for pane, place in zip(row, PLACES, strict=True):
            points = [(one.copies, one.differences[place]) for one in said if place in one.differences]
            wrong = sum(difference != 0 for _, difference in points)
            pane.axhline(0, color="#b8bec8", lw=1)
            pane.scatter(*zip(*points, strict=True), s=14, color=COLORS[place]) if points else None
            pane.axvline(USUAL.bulk_from - 0.5, color="#b8bec8", lw=1, ls=":")
            pane.set_yscale("symlog", linthresh=2)
            pane.set_title(f"{whose}: {place}, {wrong} of {len(points)} wrong", fontsize=9)
            pane.tick_params(labelsize=8)
        row[0].set_ylabel("cents more than\nthe order", fontsize=9)
    for pane in panes[-1]:
        pane.set_xlabel("copies in the basket", fontsize=9)
    figure.tight_layout()
    plt.close(figure)
    return figure


def rounding_picture(ways: Mapping[str, Any], percent: int, prices: Sequence[int]) -> Any:
    """What each way to write the rule says about a price, in cents more than the first way."""
    import matplotlib.pyplot as plt

    names = list(ways)
    figure, pane = plt.subplots(figsize=(8, 0.6 + 0.45 * len(names)))
    for y, name in enumerate(names):
        for price in prices:
            difference = ways[name](price, percent) - ways[names[0]](price, percent)
            color = {0: "#e3e6ea", 1: "#c0352c", -1: "#2c5fa8"}[max(-1, min(1, difference))]
            pane.add_patch(plt.Rectangle((price - 0.5, y + 0.1), 1, 0.8, color=color))
    pane.set(xlim=(prices[0] - 0.5, prices[-1] + 0.5), ylim=(len(names), 0), xlabel="price in cents")
    pane.set_yticks([y + 0.5 for y in range(len(names))], names, fontsize=9)
    pane.set_title(f"{percent} % off: a cent less than the first line says (blue), the same (grey)", fontsize=10)
    for side in pane.spines.values():
        side.set_visible(False)
    pane.tick_params(length=0)
    figure.tight_layout()
    plt.close(figure)
    return figure


async def failed_imports(scene: Scene) -> tuple[dict[str, str], dict[str, str]]:
    """What cannot be imported first, with settings, and what cannot be imported without any."""
    from checks.lesson_10.imports import NO_SETTINGS

    imports = Imports(scene.running.testbed)
    return await imports.first(), await imports.together(NO_SETTINGS)


async def report_in_outages(testbed: Testbed, *hows: str) -> dict[str, tuple[int | None, int, int]]:
    """Exit code, and lines on standard output and standard error, of a report in each kind of outage."""
    found = {}
    for how in hows or [one for one in OUTAGES if one != "silent"]:
        async with testbed.wire.outage(how):
            done = await testbed.command("app.report", apart=True)
        found[how] = (done.code, len(done.stdout.splitlines()), len(done.output.splitlines()))
    return found


async def worker_meets_an_empty_order(scene: Scene) -> dict[str, object]:
    """A worker gets three orders. The lines of the first one are gone."""
    app, customer = scene.running.app, scene.customer
    orders = [await customer.buy(app, basket) for basket in random_baskets(scene, 3)]
    await scene.running.shop.execute("DELETE FROM order_lines WHERE order_id = $1", orders[0].id)
    worker = await scene.workers.start()
    sent = await scene.workers.sent(worker, *(order.id for order in orders[1:]))
    ended = f"has ended with exit code {worker.exit.result()}" if worker.exit.done() else "runs"
    last = [line for line in worker.log.splitlines() if line.strip() and not line.startswith("INFO")][-1:]
    await worker.kill()
    return {"the worker": ended, "the other two have mail": sent, "what it logged last": last[0] if last else ""}


def shared_function() -> dict[str, str]:
    """A target of `open_shop`, by what to call it: one function for all computes prices, also those of invoices."""
    name = "wrong_invoice_of_todays_prices"
    there = find_lesson(10).solution.is_dir() and variant_path(find_lesson(10), name).is_file()
    return {"one shared function": name} if there else {}
