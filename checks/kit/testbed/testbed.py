"""What one check runs against: a database of its own, the proxy in front of it, and the learner's processes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from checks.kit.lessons.errors import WorkbookError
from checks.kit.service.app import START_TIMEOUT, App, AppDidNotStart, running
from checks.kit.service.command import CompletedCommand, run_command
from checks.kit.service.process import APP, RunningProcess, Sent
from checks.kit.testbed.evidence import Evidence, Source, collect
from checks.kit.testbed.runtime import Runtime, past_pgbouncer, settings
from checks.kit.testbed.schema import explaining_rows, read_schema
from checks.kit.testbed.shop import Shop, fill
from checks.kit.testbed.steps import Steps

if TYPE_CHECKING:
    from checks.kit.lessons.lesson import Lesson
    from checks.kit.postgres import Database
    from checks.kit.postgres.connect import Login as ServerLogin
    from checks.kit.postgres.databases import Databases
    from checks.kit.testbed.explain import Explain
    from checks.kit.testbed.explain import Login as DatabaseLogin
    from checks.kit.testbed.outside_service import Answering, OutsideService
    from checks.kit.testbed.pgbouncer import PgBouncer
    from checks.kit.wire import Recording, Wire
    from checks.kit.wire.proxy import Entrance

PGBOUNCER = "PgBouncer"
"""What a verdict calls it where it is a client of PostgreSQL."""


class Testbed:
    """To be used with `async with`: at the end all processes are killed, the proxy closes, the database is given back.

    `env` is added to the environment of every process that is started from then on; a None leaves that name out.
    `seen` is what crossed the wire, `steps` what the check did. Raises PostgresUnavailable when it is entered.
    """

    __test__ = False  # or pytest takes it for a class of tests, because of its name

    wire: Wire
    database: Database
    seen: Recording
    server_side: Wire
    """The proxy between PgBouncer and PostgreSQL, where the lesson has a PgBouncer; what goes past it is there, too."""
    pgbouncer: PgBouncer
    """The lesson's PgBouncer, if it has one."""

    def __init__(self, runtime: Runtime, lesson: Lesson, folder: Path) -> None:
        self.steps = Steps()
        self.note = self.steps.add
        self.env: dict[str, str | None] = {}
        self.background: list[RunningProcess] = []
        """The processes that `start` has started, oldest first."""
        self.services: dict[str, OutsideService] = {}
        """The outside services that run because lesson.toml lists them and no fixture does, by their variables."""
        self.provoked: set[str] = set()
        """Texts of errors that the check causes in the app. A verdict does not say to look where these were raised."""
        self.folder = folder
        self.lesson = lesson
        self.runtime = runtime
        self._workspace = runtime.workspace(folder, self.note)
        self._events: list[tuple[float, str]] = []
        self._evidence: list[tuple[str, Source]] = []
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()  # two processes may start at once
        self._replaced = False

    async def __aenter__(self) -> Self:
        async with self._stack:
            databases = await self.runtime.databases(self.lesson, self.folder)
            self.database = await databases.fresh()
            self._stack.callback(self._give_back, databases)
            self.wire = await self._stack.enter_async_context(self._open_wire())
            self.wire.subscribe(on_fault=self._disturbed)
            self.seen = self._stack.enter_context(self.wire.watching())
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _disturbed(self, sentence: str) -> None:
        self._events.append((time.perf_counter(), sentence))
        self.note(sentence)

    def _give_back(self, databases: Databases) -> None:
        if not self._replaced:
            databases.give_back(self.database)

    @asynccontextmanager
    async def _open_wire(self) -> AsyncIterator[Wire]:
        """The proxy that the app connects to: before PostgreSQL, or before PgBouncer, which has one more behind it."""
        if not self.lesson.pgbouncer:
            async with self.runtime.proxy() as wire:
                yield wire
            return
        from checks.kit.testbed.pgbouncer import pgbouncer
        from checks.kit.wire import open_proxy

        async with self.runtime.proxy() as self.server_side, self.server_side.entrance(PGBOUNCER) as entrance:
            where = {"*": f"host={self.server_side.host} port={entrance.port}"}  # another database after `fill`
            async with (
                pgbouncer(
                    self.runtime.scratch,
                    where,
                    self.database.logins,
                    self.lesson.pgbouncer,
                    self.runtime.note_process,
                ) as self.pgbouncer,
                open_proxy(self.pgbouncer.address, await self.runtime.port()) as wire,
            ):
                self.add_evidence("What PgBouncer wrote", lambda: self.pgbouncer.log_after_start.splitlines()[-10:])
                yield wire

    @property
    def processes(self) -> list[RunningProcess]:
        """All processes of the learner's that were started here, oldest first, ended ones too."""
        return self._workspace.started

    @property
    def events(self) -> list[tuple[float, str]]:
        """What was done to the traffic, with seconds of time.perf_counter."""
        return self._events

    @property
    def requests(self) -> list[Sent]:
        """The requests to the apps that were started here, in the order in which they were sent."""
        return self._workspace.requests

    @property
    def url(self) -> str:
        """The database's URL through the proxy, as the app gets it in DATABASE_URL."""
        return self.database.url(self.wire.host, self.wire.port)

    async def fill(self, *scripts: Path) -> None:
        """Replaces the database, which nobody may use yet, by one with the rows that SQL scripts insert.

        Raises RowsDoNotFit if the tables do not take them.
        """
        databases = await self.runtime.databases(self.lesson, self.folder)
        filled = await self.filled(*scripts)
        if not self._replaced:
            databases.give_back(self.database)  # at once: another check may have it, in place of a new one
        self.database, self._replaced = filled, True

    async def filled(self, *scripts: Path) -> Database:
        """One more database with the rows of SQL scripts, beside the one of the check; see `fill`."""
        databases = await self.runtime.databases(self.lesson, self.folder)
        with explaining_rows(scripts[-1]):
            database = await databases.filled("\n".join(map(read_schema, scripts)))
        self._stack.push_async_callback(databases.drop, database)
        return database

    async def maker(self) -> ServerLogin:
        """A role that may do what the app's may, and make databases, which go at the end with the role."""
        databases = await self.runtime.databases(self.lesson, self.folder)
        return (await self._stack.enter_async_context(databases.maker(self.database))).login

    def login(self, database: Database) -> DatabaseLogin:
        """How the kit reaches a database as the app's role, not through the proxy."""
        from checks.kit.testbed.explain import Login

        return Login(database, self.runtime.server().address)

    def explain(self) -> Explain:
        """What the fixture `explain` gives; see Explain."""
        from checks.kit.testbed.explain import Explain

        return Explain(self.login(self.database), self.wire)

    @asynccontextmanager
    async def running(
        self,
        env: Mapping[str, str | None] | None = None,
        workers: int | None = None,
        listen: str = "",
        events: str = "",
        terminal: str = "",
        debugger: str = "",
        folder: Path | None = None,
        called: str = APP,
    ) -> AsyncIterator[App]:
        """An app that is killed at the end of its own block; see `launch` and `service.app.running`."""
        name = self._workspace.name_for(called)
        async with self._entrance(name) as (urls, _):
            await self.open_services(env or {})
            starting = running(
                replace(self._workspace, folder=folder or self.folder),
                settings(self.lesson, urls, self.env, env or {}),
                module=self.lesson.app,
                workers=workers or self.lesson.workers,
                listen=listen,
                events=events,
                terminal=terminal,
                debugger=debugger,
                name=name,
            )
            async with starting as app:
                yield app

    async def launch(
        self,
        env: Mapping[str, str | None] | None = None,
        workers: int | None = None,
        *,
        folder: Path | None = None,
        called: str = APP,
    ) -> App:
        """Starts an app and returns when it accepts requests. Raises AppDidNotStart.

        `env` is added to its environment, a None leaves that name out; `workers` is the number of its processes.
        `folder` is where another release of the app is, beside the learner's, and `called` is its name in a verdict.
        """
        return await self._stack.enter_async_context(self.running(env, workers, folder=folder, called=called))

    async def start(
        self,
        *command: str,
        env: Mapping[str, str | None] | None = None,
        name: str = "",
        connected: bool = False,
    ) -> RunningProcess:
        """Starts `python -m command[0] …` in the lesson's folder and returns at once: `await start("app.worker")`.

        It has the limits and the sandbox of an app. A verdict calls it `name`, or else by its command, and so does
        `process` of its statements on the wire. With `connected` it returns when the process has opened a connection to
        the database, and raises AppDidNotStart if it ends before.
        """
        return await self._stack.enter_async_context(self.started(*command, env=env, name=name, connected=connected))

    @asynccontextmanager
    async def started(
        self,
        *command: str,
        env: Mapping[str, str | None] | None = None,
        name: str = "",
        connected: bool = False,
    ) -> AsyncIterator[RunningProcess]:
        """What `start` starts, as a block at whose end the process is killed."""
        called = self._workspace.name_for(name or " ".join(command))
        async with self._entrance(called) as (urls, used):
            await self.open_services(env or {})
            spec = self._workspace.spec(settings(self.lesson, urls, self.env, env or {}), *command)
            async with self._workspace.process(called, spec) as process:
                self.note(f"{process.name} started")
                self.background.append(process)
                if connected:
                    await _connected(process, used)
                yield process

    async def command(
        self,
        *arguments: str,
        password: str | None = None,
        env: Mapping[str, str | None] | None = None,
        apart: bool = False,
    ) -> CompletedCommand:
        """Runs `python -m arguments[0] …` in the lesson's folder to its end, with the database in DATABASE_URL.

        With `password` it logs in as a role of its own that has this password and the rights of the usual one. With
        `apart` its standard output is in `done.stdout`, and `done.output` is what it wrote to standard error.
        """
        login = None
        if password is not None:
            login = await self._stack.enter_async_context(self.database.another_role(password))
        name = self._workspace.name_for(" ".join(arguments))
        async with self._entrance(name, login) as (urls, _):
            variables = settings(self.lesson, urls, self.env, env or {})
            return await run_command(self._workspace, variables, *arguments, name=name, apart=apart)

    def outside(self, env: str) -> tuple[str, Answering | None]:
        """What lesson.toml says of the outside service at the variable `env`: its name and its usual response."""
        from checks.kit.testbed.outside_service import counted

        for entry in self.lesson.outside:
            if entry.env == env:
                return entry.name, counted(entry.status, entry.body)
        return "outside service", None

    async def open_services(self, env: Mapping[str, str | None]) -> None:
        """Starts those outside services of lesson.toml that neither `self.env` nor `env` names; see `services`."""
        if not self.lesson.outside:
            return
        from checks.kit.testbed.outside_service import outside_service

        async with self._opening:
            for entry in self.lesson.outside:
                if entry.env not in self.env and entry.env not in env:
                    opening = outside_service(self, env=entry.env)
                    self.services[entry.env] = await self._stack.enter_async_context(opening)

    @asynccontextmanager
    async def _entrance(
        self, process: str, login: ServerLogin | None = None
    ) -> AsyncIterator[tuple[dict[str, str], list[asyncio.Event]]]:
        """The database's URLs for a process, by which its statements are told from those of others.

        One of the events is set when the process has opened a connection, through PgBouncer or past it.
        """
        async with AsyncExitStack() as stack:
            entrance: Entrance = self.wire.main
            if process != APP:
                port = await self.runtime.port()
                entrance = await stack.enter_async_context(self.wire.entrance(process, port))
            urls = self.database.environment(self.wire.host, entrance.port, login=login)
            if self.lesson.pgbouncer:
                urls |= past_pgbouncer(self.database, self.server_side)
                self.server_side.main.used.clear()
            yield urls, [entrance.used, *([self.server_side.main.used] if self.lesson.pgbouncer else [])]

    async def listen(self) -> socket.socket:
        """A listening socket for a service that the learner's processes call, on 127.0.0.1, in a sandbox too.

        `asyncio.start_server(…, sock=listener)` serves on it; `host, port = listener.getsockname()` is where.
        """
        listener = await self.runtime.listen()
        self._stack.callback(listener.close)
        return listener

    def add_evidence(self, title: str, lines: Source) -> None:
        """Adds a section to the verdict, should the check fail: its lines, or a function that is called then."""
        self._evidence.append((title, lines))

    def evidence(self) -> list[Evidence]:
        """The sections of `add_evidence`, as they are now."""
        return [collect(title, source) for title, source in self._evidence]


async def _connected(process: RunningProcess, used: Sequence[asyncio.Event]) -> None:
    """Returns when the process has opened a connection to the database. Raises AppDidNotStart."""
    waiting = [asyncio.ensure_future(way.wait()) for way in used]
    either: set[asyncio.Future[Any]] = {*waiting, process.exit}
    try:
        await asyncio.wait(either, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
    if not any(way.is_set() for way in used):
        code = process.exit.result() if process.exit.done() else None
        raise AppDidNotStart(code, process.log, process.name, is_app=False)


@asynccontextmanager
async def open_testbed(
    runtime: Runtime, lesson: Lesson, folder: Path, *, filled: bool = False
) -> AsyncIterator[Testbed]:
    """A testbed for a person rather than a check. With `filled` its database has tables and a few rows.

    Raises PostgresUnavailable, and WorkbookError if the lesson's migrations fail.
    """
    await asyncio.to_thread(runtime.server)  # so that the event loop goes on while the server starts
    async with Testbed(runtime, lesson, folder) as testbed:
        if filled:
            await _migrate(testbed, lesson, folder)
            await fill(Shop(testbed.database))
        yield testbed


async def _migrate(testbed: Testbed, lesson: Lesson, folder: Path) -> None:
    """Brings the database to head where the lesson has migrations that its checks run themselves."""
    if lesson.migrations or not (folder / "alembic.ini").is_file():
        return
    done = await testbed.command("alembic", "upgrade", "head")
    if not done.ok:
        raise WorkbookError(
            f"The database has no tables: {done}\nSee all of it: workbook run {lesson.number} {done.command}"
        )
