"""Who is answered while something else waits: for a statement that is held, or for a client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from checks.kit.service import Answer, App, Pending
    from checks.kit.wire import Hold, Wire


async def answered_while_held(app: App, wire: Wire, request: Pending, commits: Hold) -> bool:
    """Lets the held COMMITs go one by one; True if the answer came while one was held, or before it was sent.

    `commits` is a hold of `committing` that was opened before the request was sent.
    """
    while await commits.arrived_or(request.task):
        await app.caught_up()
        if request.answered:
            return True
        commits.release_one()
    return await commits.arrived_or(asyncio.ensure_future(wire.calm()))


async def answered_meanwhile(requests: Sequence[Pending], hold: Hold, limit: float) -> list[Answer]:
    """The answers that came, once nobody waits but those whose statement is held, or after `limit` seconds."""
    try:
        async with asyncio.timeout(limit):
            while waiting := [request.task for request in requests if not request.task.done()]:
                if len(waiting) == len(hold.waiting):
                    break
                arrival = asyncio.create_task(hold.arrived(len(hold.waiting) + 1, limit))
                await asyncio.wait({*waiting, arrival}, return_when=asyncio.FIRST_COMPLETED)
                arrival.cancel()
    except TimeoutError:
        pass
    return [await request for request in requests if request.answered]


async def at_rest(app: App, wire: Wire) -> None:
    """Returns when the app sends nothing more by itself: its connections are idle, or stay as they are."""
    with wire.watching() as seen:
        before = -1
        while before < len(seen.statements):
            before = len(seen.statements)
            await wire.calm(2)
            await app.caught_up()
