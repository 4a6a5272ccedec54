"""One run of the kit: a server, a way to start processes, and a record of both for the case that the run is killed.

The pytest plugin, the notebooks and `workbook serve` all hold one of these.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import ROOT, STATE
from checks.kit.service.app import AppDidNotStart
from checks.kit.service.choose import open_launcher
from checks.kit.service.command import run_command
from checks.kit.service.machine import check_machine
from checks.kit.service.process import Note, Workspace, ignore
from checks.kit.service.run_record import RunRecord, clean_up_dead_runs
from checks.kit.testbed.migration_key import migration_key
from checks.kit.testbed.schema import explaining, read_schema

if TYPE_CHECKING:
    from checks.kit.postgres import Database, Server
    from checks.kit.postgres.databases import Databases
    from checks.kit.wire import Wire


Made = TypeVar("Made")


class Runtime:
    """A server and a launcher of processes, shared by all checks of a run. Raises PostgresUnavailable where it is used.

    Raises WorkbookError at once where the machine cannot carry a run.

    Both start in the background as soon as it is made. At the end call `aclose` in the event loop that used it, then
    `close`.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        check_machine()
        records = STATE / "run"
        clean_up_dead_runs(records)
        self._run_record = RunRecord(records)
        try:
            self._launcher = open_launcher(self._run_record, environ)
        except BaseException:
            self._run_record.close()
            raise
        self._threads = ThreadPoolExecutor(1, "postgres")
        self._finding: Future[Server] = self._threads.submit(_find, dict(environ))
        self._databases: dict[str, Databases] = {}
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._shared: dict[str, Any] = {}

    @property
    def scratch(self) -> Path:
        """A folder for sockets and logs that is deleted at the end of the run."""
        return self._run_record.scratch

    @property
    def lost_apps(self) -> bool:
        """Whether apps have ended that did nothing wrong; see Launcher."""
        return self._launcher.lost

    def server(self) -> Server:
        """The live server; blocks until it has started. Raises PostgresUnavailable with what to do next."""
        return self._finding.result()

    def note_process(self, pid: int) -> None:
        """Notes a process that has just started for us: the next run ends it, should this one be killed."""
        self._run_record.add(pid)

    async def databases(self, lesson: Lesson, folder: Path) -> Databases:
        """The databases of this run that have the lesson's tables; made ready at the first call.

        Raises SchemaError where a script makes the tables and fails, AppDidNotStart where migrations do.
        """
        if lesson.migrations:
            return await self._migrated(lesson, folder)
        schema = folder / lesson.schema
        if not schema.is_file():  # a submission without one gets the lesson's
            schema = lesson.folder / lesson.schema
        text = read_schema(schema) if schema.is_file() else ""
        with explaining(schema, text):
            return await self._open_databases(f"{lesson.name}:{text}", text, lesson)

    async def _migrated(self, lesson: Lesson, folder: Path) -> Databases:
        """Databases whose tables the migrations of `folder` have made."""
        text = migration_key(folder)

        async def load(database: Database) -> None:
            async with self.proxy() as wire:  # whatever the server's address is, drivers understand the proxy's
                urls = database.environment(wire.host, wire.port)
                if lesson.pgbouncer:
                    urls |= past_pgbouncer(database, wire)
                env = settings(lesson, urls)
                done = await run_command(self.workspace(folder), env, "alembic", "upgrade", "head")
            if not done.ok:
                raise AppDidNotStart(done.code, done.output, done.command)

        return await self._open_databases(f"{lesson.name}:{text}", text, lesson, load)

    async def _open_databases(
        self, key: str, schema: str, lesson: Lesson, load: Callable[[Database], Awaitable[None]] | None = None
    ) -> Databases:
        async with self._opening:  # two checks may ask at the same time
            if key not in self._databases:
                server = await asyncio.to_thread(self.server)
                opening = server.databases(schema, lesson.name, load, app_role=lesson.app_role)
                self._databases[key] = await self._stack.enter_async_context(opening)
        return self._databases[key]

    @asynccontextmanager
    async def proxy(self) -> AsyncIterator[Wire]:
        """A proxy in front of the server, where this run's apps can reach it."""
        from checks.kit.wire import open_proxy

        async with open_proxy(self.server().address, await self.port()) as wire:
            yield wire

    async def port(self) -> socket.socket | None:
        """A listening socket of the sandbox's loopback; None where apps see the same loopback as everybody."""
        return await self._launcher.port()

    async def listen(self) -> socket.socket:
        """A socket that listens on 127.0.0.1 where this run's apps can connect to it, in a sandbox too."""
        listener = await self.port()
        return listener or socket.create_server(("127.0.0.1", 0), backlog=512)

    async def dial(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects to an address on which a process of this run listens, in a sandbox too. Raises OSError."""
        client = await self._launcher.client() or socket.socket()
        client.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(client, (host, port))
        except BaseException:
            client.close()
            raise
        return await asyncio.open_connection(sock=client)

    def workspace(self, folder: Path, note: Note = ignore) -> Workspace:
        """What starts processes in `folder`, a lesson's."""
        return Workspace(self._launcher, folder, self.scratch, STATE / "pycache", note)

    def shared(self, key: str, make: Callable[[], Made]) -> Made:
        """What `make` makes at the first call with this key; the checks of a run share it."""
        if key not in self._shared:
            self._shared[key] = make()
        made: Made = self._shared[key]
        return made

    def at_end(self, closing: Callable[[], Awaitable[None]]) -> None:
        """Has `closing` called by `aclose`, before the databases are dropped."""
        self._stack.push_async_callback(closing)

    async def aclose(self) -> None:
        """Drops the databases. The event loop that made them must still run."""
        await self._stack.aclose()

    def close(self) -> None:
        """Ends every app and lets the server go."""
        self._launcher.close()
        self._finding.add_done_callback(_let_go)
        self._threads.shutdown(wait=True)
        self._run_record.close()


def past_pgbouncer(database: Database, wire: Wire) -> dict[str, str]:
    """The URLs for what must not go through PgBouncer, by the names of their variables; see Database.environment."""
    return {f"DIRECT_{name}": url for name, url in database.environment(wire.host, wire.port).items()}


def settings(lesson: Lesson, urls: Mapping[str, str], *more: Mapping[str, str | None]) -> dict[str, str]:
    """The environment of a lesson's process: the database's URLs, the lesson's own, `more`. None leaves a name out."""
    merged: dict[str, str | None] = {**urls, **lesson.settings}
    for env in more:
        merged |= env
    return {name: value for name, value in merged.items() if value is not None}


def _let_go(found: Future[Server]) -> None:
    if found.exception() is None:
        found.result().close()


def _find(environ: Mapping[str, str]) -> Server:
    from checks.kit.postgres import find

    return find(ROOT, environ)
