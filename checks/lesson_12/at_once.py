"""Requests that meet another writer at the same moment, and one whose COMMIT is held."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from checks.kit.report import expect
from checks.kit.testbed.waiting import refused_a_lock, responded_while_held
from checks.kit.wire import committing

if TYPE_CHECKING:
    from collections.abc import Callable

    from checks.kit.service.app import App, PendingRequest, Response
    from checks.kit.testbed.shop import Shop
    from checks.kit.wire import Wire

PATIENCE = 2
"""Seconds for the second request to come as far as it can: less than the limit of a statement, 2.5 s."""

LOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def both_before_either_writes(
    wire: Wire, shop: Shop, first: Callable[[], PendingRequest], second: Callable[[], PendingRequest]
) -> list[Response]:
    """The responses to both. What they write is held until both want to write, or one waits for a lock of the other."""
    loop = asyncio.get_running_loop()
    async with wire.hold(lambda statement: statement.changes) as writes:
        requests = [first(), second()]
        await writes.wait_for_or(requests[0].task)
        until = loop.time() + PATIENCE
        while open_ := [request.task for request in requests if not request.task.done()]:
            missing = len(open_) - len(writes.waiting)
            if missing <= 0 or (writes.waiting and await shop.value(LOCKED) >= missing) or loop.time() > until:
                break
            await asyncio.wait(open_, timeout=0.01, return_when=asyncio.FIRST_COMPLETED)
    return [await request for request in requests]


WAIT_FOR_US = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"


async def while_another_program_writes(
    wire: Wire, shop: Shop, send: Callable[[], PendingRequest], sql: str, *values: object
) -> Response:
    """The response to a request that is sent after another program has run `sql`, and before that program commits.

    It commits when the request waits for it, was refused its lock, or has its response already.
    """
    await shop.execute("BEGIN")
    try:
        await shop.execute(sql, *values, step="another program changes a row, and does not commit yet")
        with wire.watching() as seen:
            request = send()
            while not request.task.done() and not refused_a_lock(seen) and not await shop.value(WAIT_FOR_US):
                await asyncio.wait([request.task], timeout=0.01)
    finally:
        await shop.execute("COMMIT", step="the other program commits")
    return await request


async def stored_first(app: App, wire: Wire, method: str, path: str, body: dict[str, Any], section: str) -> Response:
    """The response to a request, which must not come before what it reports is committed."""
    async with wire.hold(committing) as commits:
        request = app.start_request(method, path, json=body)
        early = await responded_while_held(app, wire, request, commits)
    response = await request
    expect(
        not early,
        f"What {method} {path} has to store was not committed yet when this response came: {response}",
        because="If the process ends now, or the COMMIT fails, the client believes in something that is not stored.",
        section=section,
    )
    return response
