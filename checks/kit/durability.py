"""Whether somebody was told of work before it was durable."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checks.kit.service import App
    from checks.kit.service.app import Pending
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
