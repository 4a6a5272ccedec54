"""What requests cost on the wire: a lesson's tour, taken with one app after another."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from checks.kit.catalogue import Lesson
from checks.kit.holding import at_rest
from checks.kit.run import Run
from checks.kit.shop import Shop
from checks.kit.stage import Stage


@dataclass(frozen=True, slots=True)
class Cost:
    """One request. `rows` and `size` (bytes) are what PostgreSQL sent for it."""

    request: str
    status: int
    statements: int
    round_trips: int
    rows: int
    size: int


async def fill(shop: Shop) -> None:
    """A few rows to play with, in the tables that the lesson has."""
    there = {row["tablename"] for row in await shop.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    wanted = {"authors": 3, "books": 12, "customers": 3, "reviews": 12, "orders": 6}
    await shop.has(lines=3, **{table: count for table, count in wanted.items() if table in there})


async def tour(run: Run, lesson: Lesson, folder: Path) -> list[Cost]:
    """The costs of the lesson's tour with the app of `folder`. Raises AppDidNotStart.

    Each request is sent twice and the second one is counted: what only a first connection does is left out.
    """
    async with Stage(run, lesson, folder) as stage:
        app = await stage.launch()
        await fill(Shop(stage.database))
        costs = []
        for line in lesson.tour:
            method, path, body = (*line.split(" ", 2), "null")[:3]
            first, second = (json.loads(body.replace("{n}", str(number))) for number in (100001, 100002))
            await app.request(method, path, json=first)
            await at_rest(app, stage.wire)  # its connection is back in the pool
            with stage.wire.watching() as seen:
                answer = await app.request(method, path, json=second)
                await at_rest(app, stage.wire)
            costs.append(
                Cost(
                    f"{method} {path}",
                    answer.status,
                    len(seen.data_statements),
                    seen.round_trips,
                    seen.rows,
                    sum(statement.size for statement in seen.data_statements),
                )
            )
        return costs
