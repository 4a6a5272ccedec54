"""Watches what no limit of a single process can: all memory of a grading, and the size of its databases."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from checks.kit.catalogue import ROOT
from checks.kit.postgres import Server, find
from checks.kit.postgres.embedded import raze
from checks.kit.postgres.server import STRANGER

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

LEFT = f"""
    SELECT (SELECT count(*) FROM pg_database WHERE starts_with(datname, 'workbook_'))
         + (SELECT count(*) FROM pg_roles WHERE starts_with(rolname, '{STRANGER}'))
         + (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())
"""
"""What there is on a desk's own server besides the warden."""

LEAVING = 2.0
"""Seconds in which backends whose client has gone may leave."""


class Warden:
    """Watches the server, too, where it is the desk's own and everything on it belongs to one grading."""

    def __init__(self, server: Server, data: Path, environ: Mapping[str, str]) -> None:
        self._server = server if server.own else None
        self._first = server
        self._data = data
        self._environ = environ
        self._admin: asyncpg.Connection[Any] | None = None

    @classmethod
    @asynccontextmanager
    async def watching(cls, server: Server, data: Path, environ: Mapping[str, str]) -> AsyncIterator[Warden]:
        """`data` and `environ` are those by which the desk's own server is found."""
        warden = cls(server, data, environ)
        try:
            yield warden
        finally:
            warden._hang_up()
            if warden._server is not None and warden._server is not server:
                warden._server.close()

    async def guard(self, pid: int) -> str:
        """Comes back when the grader, or what runs for it, takes more than it may; says what."""
        while True:
            await asyncio.sleep(EVERY)
            if _memory(pid, *self._postmaster()) > MEMORY:
                return f"it used more than {MEMORY >> 30} GB of memory"
            if (await self._ask(SIZES) or 0) > DATABASES:
                return f"it filled more than {DATABASES >> 30} GB of the database"

    async def clear(self, *, stopped: bool) -> None:
        """Sees to it that a unit has left nothing on the server for which another one would pay.

        A grader clears up behind itself. Where it was stopped, or somebody found a way to hold on to a database,
        a role or a backend, the server is killed and made anew.
        """
        if self._server is None:
            return
        if stopped or not await self._left_alone():
            await self._renew()

    async def _left_alone(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVING):
                while await self._ask(LEFT) != 0:  # noqa: ASYNC110  nobody tells when a backend has gone
                    await asyncio.sleep(0.02)
                return True
        return False

    async def _renew(self) -> None:
        self._hang_up()
        await asyncio.to_thread(raze, self._data)
        fresh = await asyncio.to_thread(find, ROOT, self._environ)
        if self._server is not None and self._server is not self._first:
            self._server.close()
        self._server = fresh

    def _hang_up(self) -> None:
        if self._admin is not None:
            self._admin.terminate()
            self._admin = None

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
