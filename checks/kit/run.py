"""One run of the kit: a server, a way to start apps, and what both leave behind when a run is killed.

The pytest plugin, the notebooks and `workbook serve` all hold one of these.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from checks.kit.catalogue import ROOT, STATE, CatalogueError, Lesson
from checks.kit.service import App, AppDidNotStart, Done, Journal, open_launcher, run_command, running, sweep

if TYPE_CHECKING:
    from checks.kit.postgres import Database, Server
    from checks.kit.postgres.server import Databases
    from checks.kit.wire import Wire

MIGRATIONS = "migrations"
"""As `schema` in a lesson.toml: the tables are made by `alembic upgrade head` in the lesson's folder."""


class Run:
    """Starts both slow things at once, in the background, as soon as it is made. Call `close` at the end."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        records = STATE / "run"
        sweep(records)
        self._journal = Journal(records)
        self._launcher = open_launcher(self._journal, environ)
        self._threads = ThreadPoolExecutor(1, "postgres")
        self._finding: Future[Server] = self._threads.submit(_find, dict(environ))
        self._databases: dict[str, Databases] = {}
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()

    @property
    def scratch(self) -> Path:
        """A folder for sockets and logs that goes with the run."""
        return self._journal.scratch

    def server(self) -> Server:
        """The live server; waits for it to be there. Raises PostgresUnavailable with the next step."""
        return self._finding.result()

    async def databases(self, lesson: Lesson, folder: Path) -> Databases:
        """Where this run's databases with the tables of a lesson come from; opened at the first call."""
        if lesson.schema == MIGRATIONS:
            return await self._migrated(lesson, folder)
        schema = folder / lesson.schema
        if not schema.is_file():  # a submission without one gets the lesson's
            schema = lesson.folder / lesson.schema
        text = schema.read_text(encoding="utf-8") if schema.is_file() else ""
        return await self._open_databases(f"{lesson.name}:{text}", text, lesson)

    async def _migrated(self, lesson: Lesson, folder: Path) -> Databases:
        """Databases at head, as the migrations of `folder` make them."""
        text = _migrations(folder)

        async def load(database: Database) -> None:
            async with self.tap() as wire:  # whatever the server's address is, drivers understand a tap's
                url = database.url(wire.host, wire.port)
                done = await self.command(lesson, folder, url, "alembic", "upgrade", "head")
            if not done.ok:
                raise AppDidNotStart(done.code, done.output)

        return await self._open_databases(f"{lesson.name}:{text}", text, lesson, load)

    async def _open_databases(
        self, key: str, schema: str, lesson: Lesson, load: Callable[[Database], Awaitable[None]] | None = None
    ) -> Databases:
        async with self._opening:  # the stages of two checks may ask at once
            if key not in self._databases:
                server = await asyncio.to_thread(self.server)
                opening = server.databases(schema, lesson.name, load)
                self._databases[key] = await self._stack.enter_async_context(opening)
        return self._databases[key]

    @asynccontextmanager
    async def tap(self) -> AsyncIterator[Wire]:
        """A tap in front of the server, where this run's apps can reach it."""
        from checks.kit.wire import open_tap

        async with open_tap(self.server().address, await self._launcher.port()) as wire:
            yield wire

    @asynccontextmanager
    async def app(
        self,
        lesson: Lesson,
        folder: Path,
        database: Database,
        wire: Wire,
        *,
        env: Mapping[str, str | None] | None = None,
        workers: int | None = None,
        listen: str = "",
        events: str = "",
        note: Callable[[str], None] = lambda _: None,
    ) -> AsyncIterator[App]:
        """The app of `folder` against `database` through `wire`. A None in `env` leaves that variable out."""
        settings: dict[str, str | None] = {
            "DATABASE_URL": database.url(wire.host, wire.port),
            **lesson.env,
            **(env or {}),
        }
        async with running(
            self._launcher,
            folder,
            self.scratch,
            module=lesson.app,
            env={name: value for name, value in settings.items() if value is not None},
            workers=workers or lesson.workers,
            pycache=STATE / "pycache",
            listen=listen,
            events=events,
            note=note,
        ) as app:
            yield app

    async def command(
        self, lesson: Lesson, folder: Path, url: str, *arguments: str, note: Callable[[str], None] = lambda _: None
    ) -> Done:
        """Runs a command in `folder`, with DATABASE_URL set to `url`."""
        env = {"DATABASE_URL": url, **{name: value for name, value in lesson.env.items() if value is not None}}
        return await run_command(
            self._launcher, folder, self.scratch, *arguments, env=env, pycache=STATE / "pycache", note=note
        )

    async def migrate(self, lesson: Lesson, folder: Path, database: Database, wire: Wire) -> None:
        """Brings the database to head where a lesson has migrations. Raises CatalogueError with their last line."""
        if lesson.schema != MIGRATIONS and (folder / "alembic.ini").is_file():
            done = await self.command(lesson, folder, database.url(wire.host, wire.port), "alembic", "upgrade", "head")
            if not done.ok:
                raise CatalogueError(
                    f"The database has no tables: {done}\nSee all of it: workbook run {lesson.number} {done.command}"
                )

    async def aclose(self) -> None:
        """Drops the databases. The event loop that made them must still run."""
        await self._stack.aclose()

    def close(self) -> None:
        """Ends every app and lets the server go."""
        self._launcher.close()
        self._finding.add_done_callback(_let_go)
        self._threads.shutdown(wait=True)
        self._journal.close()


def _migrations(folder: Path) -> str:
    """All that a migration consists of or may import: another text wherever head may be another one."""
    files = sorted([folder / "alembic.ini", *folder.glob("migrations/**/*.py"), *folder.glob("app/**/*.py")])
    return "".join(
        f"{path.relative_to(folder)}\0{path.read_text(encoding='utf-8', errors='replace')}"
        for path in files
        if path.is_file()
    )


def _let_go(found: Future[Server]) -> None:
    if found.exception() is None:
        found.result().close()


def _find(environ: Mapping[str, str]) -> Server:
    from checks.kit.postgres import find

    return find(ROOT, environ)
