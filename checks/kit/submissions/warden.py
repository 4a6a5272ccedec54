"""Watches what no limit of a single process can: all memory of a grading, and the size of its databases."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psutil

from checks.kit.postgres import Server
from checks.kit.postgres.server import sweep

if TYPE_CHECKING:
    import asyncpg

EVERY = 0.5
"""Seconds between two looks."""

MEMORY = 3 << 30
"""Bytes that a grader, all processes below it and its server may have in memory together."""

DATABASES = 1 << 30
"""Bytes that the databases of one desk may take, temporary files included."""

SIZES = """
    SELECT coalesce(sum(pg_database_size(oid)), 0) + (SELECT coalesce(sum(size), 0) FROM pg_ls_tmpdir())
      FROM pg_database WHERE starts_with(datname, 'workbook_')
"""

LEAVE = """
    SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class Warden:
    """Watches the server, too, where it is the desk's own and everything on it belongs to one grading."""

    def __init__(self, server: Server | None) -> None:
        self._server = server
        self._admin: asyncpg.Connection[Any] | None = None

    @classmethod
    @asynccontextmanager
    async def watching(cls, server: Server) -> AsyncIterator[Warden]:
        warden = cls(server if server.own else None)
        try:
            yield warden
        finally:
            if warden._admin is not None:
                await warden._admin.close()

    async def guard(self, pid: int) -> str:
        """Comes back when the grader, or what runs for it, takes more than it may; says what."""
        while True:
            await asyncio.sleep(EVERY)
            if _memory(pid, *self._postmaster()) > MEMORY:
                return f"it used more than {MEMORY >> 30} GB of memory"
            if (await self._ask(SIZES) or 0) > DATABASES:
                return f"it filled more than {DATABASES >> 30} GB of the database"

    async def clear(self) -> None:
        """Ends what a grader that was stopped left on the server, before anybody else pays for it."""
        await self._ask(LEAVE)
        if self._admin is not None:
            await sweep(self._admin, "postgres")

    async def _ask(self, sql: str) -> Any:
        """The answer of the desk's own server; None if there is none, or nobody answers just now."""
        import asyncpg

        if self._server is None:
            return None
        try:
            if self._admin is None or self._admin.is_closed():
                self._admin = await self._server.connect()
            return await self._admin.fetchval(sql)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None  # a database was dropped while we looked, or the server starts again after a crash

    def _postmaster(self) -> list[int]:
        if self._admin is None or self._admin.is_closed():
            return []
        with contextlib.suppress(psutil.Error):
            return [psutil.Process(self._admin.get_server_pid()).ppid()]
        return []


def _memory(*roots: int) -> int:
    """Bytes that processes and all below them have in memory, those that several share counted once."""
    family: list[psutil.Process] = []
    for pid in roots:
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(pid)
            family += [root, *root.children(recursive=True)]
    quick = _sum(family, lambda process: process.memory_info().rss)
    if quick <= MEMORY or not psutil.LINUX:
        return quick
    return _sum(family, lambda process: process.memory_full_info().pss)


def _sum(family: list[psutil.Process], size: Callable[[psutil.Process], int]) -> int:
    total = 0
    for process in family:
        with contextlib.suppress(psutil.Error):
            total += size(process)
    return total
