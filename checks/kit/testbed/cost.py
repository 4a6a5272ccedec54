"""What requests cost on the wire, for comparing the app that was handed out with yours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from checks.kit.lessons.lesson import Lesson
from checks.kit.testbed.runtime import Runtime
from checks.kit.testbed.testbed import open_testbed
from checks.kit.testbed.waiting import wait_quiescent


@dataclass(frozen=True, slots=True)
class Cost:
    """One request. `rows` and `size` (bytes of these rows) are what PostgreSQL sent for it."""

    request: str
    status: int
    statements: int
    round_trips: int
    rows: int
    size: int


async def cost_requests(runtime: Runtime, lesson: Lesson, folder: Path) -> list[Cost]:
    """What each of the lesson's `cost_requests` costs with the app of `folder`. Raises AppDidNotStart.

    Each request is sent twice and the second one is counted: what only a first connection does is left out.
    """
    async with open_testbed(runtime, lesson, folder, filled=True) as testbed:
        app = await testbed.launch()
        costs = []
        for line in lesson.cost_requests:
            method, path, body = (*line.split(" ", 2), "null")[:3]
            first, second = (json.loads(body.replace("{n}", str(number))) for number in (100001, 100002))
            await app.request(method, path, json=first)
            await wait_quiescent(app, testbed.wire)  # its connection is back in the pool
            with testbed.wire.watching() as seen:
                response = await app.request(method, path, json=second)
                await wait_quiescent(app, testbed.wire)
            costs.append(
                Cost(
                    f"{method} {path}",
                    response.status,
                    len(seen.data_statements),
                    seen.round_trips,
                    seen.rows,
                    sum(statement.size for statement in seen.data_statements),
                )
            )
        return costs
