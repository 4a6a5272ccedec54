"""Watches what no limit of a single process can: all memory of a grading, and the size of its databases."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psutil

from checks.kit.postgres import Server

if TYPE_CHECKING:
    import asyncpg

EVERY = 0.5
"""Seconds between two looks."""

MEMORY = 3 << 30
"""Bytes that a grader and all processes below it may have in memory together."""

DATABASES = 1 << 30
"""Bytes that the databases of one desk may take."""


class Warden:
    def __init__(self, admin: asyncpg.Connection[Any] | None) -> None:
        self._admin = admin

    @classmethod
    @asynccontextmanager
    async def watching(cls, server: Server) -> AsyncIterator[Warden]:
        """Databases are watched on a server of the desk's own, where they can belong to nobody else."""
        if not server.own:
            yield cls(None)
            return
        admin = await server.connect()
        try:
            yield cls(admin)
        finally:
            await admin.close()

    async def guard(self, pid: int) -> str:
        """Comes back when the grader, or what runs below it, takes more than it may; says what."""
        while True:
            await asyncio.sleep(EVERY)
            if _memory(pid) > MEMORY:
                return f"it used more than {MEMORY >> 30} GB of memory"
            if self._admin is not None and await _databases(self._admin) > DATABASES:
                return f"it filled more than {DATABASES >> 30} GB of the database"


def _memory(pid: int) -> int:
    """Bytes in memory, those that several processes share counted once."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        grader = psutil.Process(pid)
        family = [grader, *grader.children(recursive=True)]
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


async def _databases(admin: asyncpg.Connection[Any]) -> int:
    import asyncpg

    try:
        sizes = await admin.fetchval(
            "SELECT sum(pg_database_size(oid)) FROM pg_database WHERE starts_with(datname, 'workbook_')"
        )
    except asyncpg.PostgresError:  # one was dropped meanwhile
        return 0
    return int(sizes or 0)
