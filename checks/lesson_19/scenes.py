"""What the notebook of lesson 19 needs: acts of the rehearsal with their timelines, a map of outages, and costs."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from checks.kit.notebook import command_line
from checks.kit.report.model import CheckFailed
from checks.kit.testbed.fixtures import FixtureStack, of_lesson
from checks.kit.wire.faults import OUTAGES
from checks.lesson_19 import test_2_orders, test_3_payments, test_4_mail, test_6_operations
from checks.lesson_19.pairs import paired
from checks.lesson_19.reference import launch_reference
from checks.lesson_19.rehearsal import SETTINGS
from checks.lesson_19.test_1_catalogue import more_books
from checks.lesson_19.timeline import FAILED, REFUSED, SERVED
from checks.lesson_19.traffic import Traffic, sent
from checks.lesson_19.world import World, open_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator  # noqa: F401

    from checks.kit.service.app import App

COLORS = {SERVED: "#2f8f5b", REFUSED: "#e0a81e", FAILED: "#c03a3a"}
NAMES = {SERVED: "served", REFUSED: "refused: 503, come again", FAILED: "failed"}

ACTS: Mapping[str, Callable[..., Awaitable[None]]] = {
    "the sale": test_2_orders.test_the_sale_adds_up,
    "a cancellation": test_2_orders.test_an_order_is_cancelled_once,
    "a slow provider": test_3_payments.test_a_slow_provider_stops_nobody,
    "refunds": test_3_payments.test_a_customer_gets_back_what_was_paid,
    "mail": test_4_mail.test_each_mail_is_sent,
    "outages": test_6_operations.test_the_shop_is_back_after_an_outage,
    "a deploy": test_6_operations.test_a_deploy_stops_nobody,
}
"""The acts of the rehearsal that have a timeline, by what a notebook calls them."""


async def act(name: str, target: str = "lessons") -> str:
    """The timeline of an act, and how it ended."""
    async with command_line(19, target) as s:
        stack = FixtureStack(s.testbed, of_lesson("lesson_19"))
        arguments = await stack.set_up(ACTS[name])
        ended = "It went well."
        try:
            await ACTS[name](**arguments)
        except CheckFailed as error:
            ended = f"It stopped here: {error.finding.happened}"
        found = [section for section in s.testbed.evidence() if section.title.startswith("The timeline")]
        lines = [line.text for section in found for line in section.lines]
        await stack.tear_down()
    return "\n".join([*lines, "", ended])


@dataclass(frozen=True)
class Row:
    """A moment of an outage, and a mark for each request."""

    what: str
    marks: str


async def outages(target: str, count: int = 14) -> list[Row]:
    """The traffic before, during and after an outage of each kind, as marks."""
    rows = []
    async with command_line(19, target) as s:
        world = await open_world(s.testbed, s.shop)
        app = await s.testbed.launch(SETTINGS)
        traffic = Traffic(world.buyers, seed=2)
        for how in OUTAGES:
            rows.append(await _row(f"{how.replace('_', ' ')}: before", traffic, app, count))
            async with s.wire.outage(how):
                rows.append(await _row("meanwhile", traffic, app, count))
            rows.append(await _row("afterwards", traffic, app, count))
    return rows


async def _row(what: str, traffic: Traffic, app: App, count: int) -> Row:
    return Row(what, "".join(one.mark for one in await traffic.send([app], count)))


def outage_picture(maps: Mapping[str, list[Row]]) -> Any:
    """A square for each request, colored by what became of it."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    figure, axes = plt.subplots(1, len(maps), figsize=(12, 4.6), squeeze=False, sharey=True)
    for axis, (title, rows) in zip(axes[0], maps.items(), strict=True):
        for y, row in enumerate(rows):
            top = -y - 0.5 * (y // 3)
            for x, mark in enumerate(row.marks):
                axis.add_patch(plt.Rectangle((x, top), 0.85, 0.8, color=COLORS[mark]))
        axis.set_xlim(0, max(len(row.marks) for row in rows))
        axis.set_ylim(-len(rows) - 0.5 * (len(rows) // 3), 1)
        axis.set_yticks([-y - 0.5 * (y // 3) + 0.4 for y in range(len(rows))], [row.what for row in rows], fontsize=8)
        axis.set_xticks([])
        axis.set_title(title, loc="left", fontsize=10)
        for side in axis.spines.values():
            side.set_visible(False)
    keys = [Patch(color=color, label=NAMES[mark]) for mark, color in COLORS.items()]
    figure.legend(handles=keys, loc="lower center", ncols=3, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    plt.close(figure)
    return figure


async def costs(target: str) -> list[tuple[str, float, float, float]]:
    """For each kind of request: times the time and times the processor time of the reference, and requests per core."""
    async with command_line(19, target) as s:
        world = await open_world(s.testbed, s.shop)
        await more_books(s.shop, world.a)
        app, reference = await s.testbed.launch(SETTINGS), await launch_reference(s.testbed)
        found = []
        for name, request in _kinds(world).items():
            before = _processor_time(app), _processor_time(reference)
            ours, its = await paired(app, reference, request, pairs=12)
            work, its_work = _processor_time(app) - before[0], _processor_time(reference) - before[1]
            found.append((name, ours / its, work / its_work if its_work else 0.0, its_work / work if work else 0.0))
        return found


def _kinds(world: World) -> dict[str, Any]:
    shop, buyer = world.a, world.buyers[0]
    return {
        "GET /books/{id}": ("GET", f"/books/{shop.book}", {"headers": shop.visit}),
        "GET /catalogue": ("GET", "/catalogue?size=20", {"headers": shop.visit}),
        "POST /orders": ("POST", "/orders", {"headers": buyer.headers, "json": buyer.basket(0)}),
    }


def _processor_time(app: App) -> float:
    """Seconds of the processor that the process has used; 0 where the system does not tell."""
    if sys.platform == "linux":
        with suppress(OSError):
            return time.clock_gettime(~app.process.pid << 3 | 2)
    return 0.0


async def series(target: str, hosts: int) -> int:
    """How many series the metrics have after requests with so many invented hosts."""
    async with command_line(19, target) as s:
        await open_world(s.testbed, s.shop)
        app = await s.testbed.launch(SETTINGS)
        for number in range(hosts):
            await sent(app, "GET", "/books", headers={"Host": f"h{number}.example"})
        text = (await app.get("/metrics")).text
    return sum(line.startswith("http_requests_total") for line in text.splitlines())
