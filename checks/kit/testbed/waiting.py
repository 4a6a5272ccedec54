"""Waits for what an app does by itself, and for responses while a statement is held."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from checks.kit.wire.faults import WIRE_TIMEOUT

PATIENCE = 1.5
"""Seconds for which a COMMIT is held while the response may come; a bound for what must not come.

An app that waits for its COMMIT for a second and then responds in any case is found out by this. One that waits for
the COMMIT sends nothing, however long it is held.
"""

if TYPE_CHECKING:
    from checks.kit.service.app import App, PendingRequest, Response
    from checks.kit.wire import Hold, Recording, Wire


async def responded_while_held(app: App, wire: Wire, request: PendingRequest, commits: Hold) -> bool:
    """Releases the held COMMITs one by one. True if the response came while one was held, or before one was sent.

    `commits` is `wire.hold(committing)`, opened before the request was sent. Each COMMIT is held for `PATIENCE`
    seconds, so mark the check `start_early`. Raises TimeoutError if neither a COMMIT nor the response comes.
    """
    while await commits.wait_for_or(request.task):
        await asyncio.wait({request.task}, timeout=PATIENCE)
        await app.flush()
        if request.responded:
            return True
        commits.release_one()
    # A connection that a task opens after the response is idle for moments between the statements of its driver, so one
    # look at whether the wire is idle would miss the COMMIT that follows.
    quiescent = asyncio.create_task(wait_quiescent(app, wire))
    try:
        return await commits.wait_for_or(quiescent)
    finally:
        quiescent.cancel()


async def served_meanwhile(
    app: App, method: str, path: str, *, within: float = WIRE_TIMEOUT / 2, **options: Any
) -> Response | None:
    """Sends a request of somebody else while one of the check's is held; None if it gets no response meanwhile.

    Hold the first one with a limit, or this one is held as well: `wire.hold(committing, limit=1)`, then
    `await hold.wait_for()`. `within` seconds is a bound for failures, not a measurement.
    """
    from checks.kit.service.app import NoResponse

    try:
        async with asyncio.timeout(within):
            return await app.request(method, path, **options)
    except (NoResponse, TimeoutError):
        return None


def refused_a_lock(seen: Recording) -> bool:
    """True if a statement has ended because it would have had to wait for a lock, as with NOWAIT.

    An app may try such a request again, and then it waits for nothing that a check could look for in PostgreSQL.
    """
    return any(statement.error is not None and statement.error.sqlstate == "55P03" for statement in seen.statements)


async def wait_quiescent(app: App, wire: Wire) -> None:
    """Returns when the app sends no more statements by itself and its responses have been read.

    Never raises: a connection that stays inside a transaction for 2 seconds counts as one that stays as it is.
    `wire.wait_idle()` is the wait for a check that must not find such a connection.
    """
    with wire.watching() as seen:
        before = -1
        while before < len(seen.statements):
            before = len(seen.statements)
            await wire.wait_idle(2, strict=False)
            await app.flush()
