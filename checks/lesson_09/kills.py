"""Kills a worker with SIGKILL at a chosen point of its work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from checks.kit.service.process import RunningProcess
    from checks.kit.testbed.outside_service import OutsideService
    from checks.kit.wire import Statement, Wire

POINTS = ("before COMMIT 1", "after COMMIT 1", "during the call", "before COMMIT 2", "after COMMIT 2")
"""Of a worker that stores what it begins, calls the gateway, and stores that it is done."""


@asynccontextmanager
async def killed(point: str, worker: RunningProcess, wire: Wire, gateway: OutsideService) -> AsyncIterator[None]:
    """The worker that sends the mail of an order which is placed in the block is killed at this point of POINTS."""
    when, _, number = point.split()
    if when == "during":
        async with gateway.hold() as held:
            yield
            await held.arrived()
            await worker.kill()
    elif when == "before":
        async with wire.hold(nth_commit(worker.name, int(number))) as commits:
            yield
            await commits.count_within(1)
            await worker.kill()
    else:
        async with wire.lost_response(nth_commit(worker.name, int(number))) as lost:
            yield
            for _ in range(300):  # a worker may do with one COMMIT, so the second one may never come
                if lost.count or worker.exit.done():
                    break
                await asyncio.wait({worker.exit}, timeout=0.01)
            await worker.kill()


def nth_commit(process: str, number: int) -> Callable[[Statement], bool]:
    """For `wire.hold` and `wire.lost_response`: the COMMIT of this process's n-th transaction that changes rows."""
    seen: list[Statement] = []

    def matches(statement: Statement) -> bool:
        if statement.process != process or not statement.commits:
            return False
        seen.append(statement)
        return len(seen) == number

    return matches
