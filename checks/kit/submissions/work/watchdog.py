"""Watches what no limit of a single process can: the memory of a whole grading, and the size of its databases."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from checks.kit.lessons.paths import ROOT
from checks.kit.postgres import Server, find
from checks.kit.postgres.embedded import destroy
from checks.kit.postgres.roles import UNTRUSTED_ROLE_PREFIX

if TYPE_CHECKING:
    import asyncpg

POLL_INTERVAL = 0.5
"""Seconds between two measurements."""

MAX_MEMORY_BYTES = 3 << 30
"""Memory that a grader, all processes below it and its server may use together."""

MAX_DATABASE_BYTES = 1 << 30
"""Size of all databases of one worker, temporary files included."""

DISCONNECT_TIMEOUT = 2.0
"""Seconds in which the backends of clients that are gone have to end."""

GONE_TIMEOUT = 30.0
"""Seconds after which a server that does not respond is gone; on a busy machine it may take some to respond."""

DATABASE_BYTES_SQL = """
    SELECT coalesce(sum(pg_database_size(oid)), 0) + (SELECT coalesce(sum(size), 0) FROM pg_ls_tmpdir())
      FROM pg_database WHERE starts_with(datname, 'workbook_')
"""

LEFTOVERS_SQL = f"""
    SELECT (SELECT count(*) FROM pg_database WHERE starts_with(datname, 'workbook_'))
         + (SELECT count(*) FROM pg_roles WHERE starts_with(rolname, '{UNTRUSTED_ROLE_PREFIX}'))
         + (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())
"""
"""How many databases, roles and connections of gradings there are on a worker's own server."""

START_SQL = "SELECT backend_start::text FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
"""When the server started: after a crash of any of its processes it starts its checkpointer anew, too."""


class Watchdog:
    """Stops a grading that exceeds its quota of memory or database size. Use `open_watchdog`.

    The size of the databases is watched only on an embedded server that belongs to the worker alone; on a server
    that others use, too, their data would be counted.
    """

    def __init__(self, server: Server, data: Path, environ: Mapping[str, str]) -> None:
        self._server = server if server.is_ours else None
        self._first = server
        self._data = data
        self._environ = environ
        self._connection: asyncpg.Connection[Any] | None = None

    async def watch(self, pid: int) -> str:
        """Returns when the grader of this process id exceeds a quota, with the reason; else never. To be canceled."""
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            if _memory(pid, *self._postmaster()) > MAX_MEMORY_BYTES:
                return f"it used more than {MAX_MEMORY_BYTES >> 30} GB of memory"
            if (await self._query(DATABASE_BYTES_SQL) or 0) > MAX_DATABASE_BYTES:
                return f"it filled more than {MAX_DATABASE_BYTES >> 30} GB of the database"

    async def server_start(self) -> str:
        """When the worker's own server started, or recovered from a crash; "" if it is gone, or has another owner."""
        if self._server is None:
            return ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GONE_TIMEOUT):
                while not (start := await self._query(START_SQL)):  # noqa: ASYNC110  it may be recovering just now
                    await asyncio.sleep(0.02)
                return str(start)
        return ""

    async def clear(self, *, stopped: bool) -> None:
        """Makes sure that a job leaves nothing on the worker's own server that would affect the next one.

        A grader removes what it made. If it was `stopped`, or a submission found a way to hold on to a database,
        a role or a connection, the server is destroyed and another one started.
        """
        if self._server is None:
            return
        if stopped or not await self._is_clean():
            await self._replace_server()

    def close(self) -> None:
        """Ends the connection, and the server if it is not the first one, which the caller closes."""
        self._disconnect()
        if self._server is not None and self._server is not self._first:
            self._server.close()

    async def _is_clean(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCONNECT_TIMEOUT):
                while await self._query(LEFTOVERS_SQL) != 0:  # noqa: ASYNC110  PostgreSQL has no event for the end of a backend
                    await asyncio.sleep(0.02)
                return True
        return False

    async def _replace_server(self) -> None:
        self._disconnect()
        await asyncio.to_thread(destroy, self._data)
        new = await asyncio.to_thread(find, ROOT, self._environ)
        if self._server is not None and self._server is not self._first:
            self._server.close()
        self._server = new

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _query(self, sql: str) -> Any:
        """One value from the worker's own server; None if it has none, or the server does not respond just now."""
        import asyncpg

        if self._server is None:
            return None
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._server.connect()
            return await self._connection.fetchval(sql)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None  # a database was dropped during the query, or the server restarts after a crash

    def _postmaster(self) -> list[int]:
        """The process id of the server: the parent of the backend that serves our connection."""
        if self._connection is None or self._connection.is_closed():
            return []
        with contextlib.suppress(psutil.Error):
            return [psutil.Process(self._connection.get_server_pid()).ppid()]
        return []


@asynccontextmanager
async def open_watchdog(server: Server, data: Path, environ: Mapping[str, str]) -> AsyncIterator[Watchdog]:
    """A watchdog for gradings on `server`; `data` is its folder, and `find` starts another one with `environ`."""
    watchdog = Watchdog(server, data, environ)
    try:
        yield watchdog
    finally:
        watchdog.close()


def _memory(*roots: int) -> int:
    """Bytes of memory that these processes and all below them use."""
    family: list[psutil.Process] = []
    for pid in roots:
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(pid)
            family += [root, *root.children(recursive=True)]
    # the resident set counts shared memory once for each process: too much, but far cheaper to read than the exact sum
    at_most = _sum(family, lambda process: process.memory_info().rss)
    if at_most <= MAX_MEMORY_BYTES or not psutil.LINUX:
        return at_most
    return _sum(family, lambda process: process.memory_full_info().pss)


def _sum(family: list[psutil.Process], size: Callable[[psutil.Process], int]) -> int:
    total = 0
    for process in family:
        with contextlib.suppress(psutil.Error):  # it has ended
            total += size(process)
    return total
