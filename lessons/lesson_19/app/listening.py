from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine


@asynccontextmanager
async def listening(
    engine: AsyncEngine, channel: str, heard: Callable[[str], None]
) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """A connection that calls `heard` with the payload of each notification that is sent from now on.

    The engine must not go through PgBouncer, which would give the listening connection to other clients.
    """
    async with engine.connect() as connection:
        line = (await connection.get_raw_connection()).driver_connection
        assert isinstance(line, asyncpg.Connection)
        try:
            await line.add_listener(channel, lambda *notification: heard(str(notification[-1])))
            yield line
        finally:
            await connection.invalidate()  # it still listens, so nobody else may get it
