"""Other clients of PgBouncer, by which a check decides which connection to PostgreSQL a transaction of the app gets.

There are two of them for a role. As long as another client is in a transaction, it has one, and the app gets the other.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from checks.kit.postgres.connect import Login
    from checks.kit.testbed.testbed import Testbed
    from checks.kit.wire import Statement

EACH, EACH_SECOND = (True,), (False, True)
"""For `taking_turns`: each transaction gets another connection than the one before, or each second one does so."""

TRACKED = ("client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings", "application_name")
"""Settings that PgBouncer sets for each client anew."""

LEFT = """
    SELECT 'the setting ' || name || ' = ' || setting FROM pg_settings
     WHERE source = 'session' AND setting IS DISTINCT FROM reset_val AND name <> ALL($1)
    UNION ALL SELECT 'the setting ' || name || ' = ' || current_setting(name, true) FROM unnest($2::text[]) AS name
     WHERE current_setting(name, true) <> ''
    UNION ALL SELECT 'an advisory lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
    UNION ALL SELECT 'LISTEN ' || channel FROM pg_listening_channels() AS channel
    UNION ALL SELECT 'the temporary table ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
    UNION ALL SELECT 'the cursor ' || name FROM pg_cursors WHERE is_holdable
    UNION ALL SELECT 'for all later sessions of the role, ' || config FROM pg_roles, unnest(rolconfig) AS config
     WHERE rolname = current_user AND config NOT LIKE 'temp_file_limit=%'
"""
"""What a session has that a new one does not have; prepared statements aside.

The role of a submission has a limit for temporary files, which the kit has set.
"""

OWN_SETTING = re.compile(r"\b[a-z_]+\.[a-z_]+\b", re.IGNORECASE)
"""A name of an app's own setting, such as app.zone. PostgreSQL lists only those that it knows."""

TRIES = 5

FAILED = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


def beginning(statement: Statement) -> bool:
    """For `wire.hold`: the statement with which a transaction begins."""
    return not statement.in_transaction


class Others:
    """Two other clients, who log in as the app does. `one` has a connection to PostgreSQL, the `other` has none."""

    def __init__(self, testbed: Testbed, login: Login) -> None:
        self._testbed, self._login = testbed, login
        self._stack = AsyncExitStack()
        self.one: asyncpg.Connection[Any]
        self.other: asyncpg.Connection[Any]

    async def connect(self) -> asyncpg.Connection[Any]:
        where = self._testbed.pgbouncer.address
        return await asyncpg.connect(
            host=where.host, port=where.port, user=self._login.role, password=self._login.password,
            database=self._testbed.database.name, statement_cache_size=0,
        )  # fmt: skip

    async def enter(self) -> None:
        """Takes one of the two connections to PostgreSQL. Both are open afterwards, so nobody waits for a login."""
        self.one = await self._begun(None)
        self.other = await self._begun(None)
        await self.other.execute("COMMIT")

    async def _begun(self, client: asyncpg.Connection[Any] | None) -> asyncpg.Connection[Any]:
        """The client, or another one where PgBouncer has ended it, in a transaction: on a slow machine it may wait."""
        for attempt in range(TRIES):
            try:
                client = client or await self.connect()
                await client.execute("BEGIN")
                return client
            except FAILED:
                client = None
                if attempt == TRIES - 1:
                    raise
        raise AssertionError

    async def leave(self) -> None:
        for client in (self.one, self.other):
            client.terminate()

    async def swap(self) -> None:
        """From now on the app gets the connection that one of us had."""
        self.other = await self._begun(self.other)  # waits until the app's transaction has ended
        await self.one.execute("COMMIT")
        self.one, self.other = self.other, self.one

    @asynccontextmanager
    async def both(self) -> AsyncIterator[list[asyncpg.Connection[Any]]]:
        """No connection is left for the app."""
        self.other = await self._begun(self.other)
        try:
            yield [self.one, self.other]
        finally:
            await self.other.execute("COMMIT")

    @asynccontextmanager
    async def none(self) -> AsyncIterator[None]:
        """The app has both connections."""
        await self.one.execute("COMMIT")
        try:
            yield
        finally:
            self.one = await self._begun(self.one)

    @asynccontextmanager
    async def taking_turns(self, turns: Sequence[bool] = (True, True, False)) -> AsyncIterator[None]:
        """The app's transactions get now this connection, now that one: another than the last one where it says True.

        By default two of three do so. A ping at each checkout is a transaction, too: if each one changed, requests
        would always have the same connection.
        """
        async with self._testbed.wire.hold(beginning) as held:
            turning = asyncio.ensure_future(self._turn(held, turns))
            try:
                yield
            finally:
                turning.cancel()
                with suppress(asyncio.CancelledError, *FAILED):
                    await turning

    async def _turn(self, held: Any, turns: Sequence[bool]) -> None:
        for change in itertools.cycle(turns):
            while not await held.count_within(1, timeout=60):
                pass
            if change:
                await self.swap()
            held.release_one()

    async def left(self, settings: Iterable[str] = ("app.shop_id", "app.zone")) -> list[str]:
        """What sessions of PostgreSQL have kept from the app's transactions. `settings` are its own, by their names."""
        async with self.both() as clients:
            rows = [await client.fetch(LEFT, TRACKED, list(settings)) for client in clients]
        return [str(row[0]) for some in rows for row in some]

    async def prepared(self) -> int:
        """How many prepared statements there are, in both sessions."""
        async with self.both() as clients:
            counts = [await client.fetchval("SELECT count(*) FROM pg_prepared_statements") for client in clients]
        return sum(counts)
