"""Graders that start at once: processes that run pytest, forked from one that has imported it and the kit."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from checks.kit.lessons.paths import ROOT, STATE
from checks.kit.postgres import Server, find
from checks.kit.service import prestart
from checks.kit.service.choose import FORK_SERVER_SOCKET
from checks.kit.service.inside.spec import ProcessSpec
from checks.kit.service.launcher import ForkServerEnded, Launcher, Process, SpawnLauncher, WarmLauncher
from checks.kit.service.run_record import RunRecord, clean_up_dead_runs

KILL_TIMEOUT = 15.0
"""Seconds for a process that was killed to be gone; a bound for failures."""

PRELOAD = "checks.kit.grading.preload"
"""What the fork server of the graders imports."""


class GraderPool:
    """Starts graders, each a process in a group of its own. Use `graders`.

    `server` is the PostgreSQL server on which they grade. Fork servers that were killed are started again.
    """

    def __init__(
        self,
        launcher: Launcher,
        run_record: RunRecord,
        environ: Mapping[str, str],
        server: Server,
        app_fork_server: AppForkServer | None = None,
    ) -> None:
        self.server = server
        self._launcher = launcher
        self._run_record = run_record
        self._environ = dict(environ)
        self._app_fork_server = app_fork_server
        self._running: set[Process] = set()

    @property
    def scratch(self) -> Path:
        """A folder for sockets and logs, which is removed with the pool."""
        return self._run_record.scratch

    @property
    def environ(self) -> dict[str, str]:
        """The graders' environment, unless `start` adds to it."""
        shared = {FORK_SERVER_SOCKET: self._app_fork_server.address()} if self._app_fork_server else {}
        return self._environ | shared

    async def start(self, *arguments: str, log: Path, environ: Mapping[str, str] | None = None) -> Process:
        """Runs `pytest arguments...` in the checkout, without limits; what it prints is appended to the file `log`."""
        spec = ProcessSpec(
            folder=str(ROOT),
            log=str(log),
            env={**self.environ, **(environ or {})},
            command=("checks.kit.grading", *arguments),
            pycache=str(STATE / "pycache"),
            memory=0,
            file_size=0,
            cpu=0,
        )
        try:
            process = await self._launcher.launch(spec)
        except ForkServerEnded:  # between two graders, when nobody looked; the second time it is started anew
            process = await self._launcher.launch(spec)
        self._running.add(process)
        process.exit.add_done_callback(lambda _: self._running.discard(process))
        return process

    async def end(self) -> None:
        """Kills the graders that still run, and waits until they are gone.

        A server is asked to stop by the last process that uses it, which a grader must not become.
        """
        for process in self._running:
            process.kill()
        if self._running:
            await asyncio.wait({process.exit for process in self._running}, timeout=KILL_TIMEOUT)


class AppForkServer:
    """The fork server for the apps of all graders."""

    def __init__(self, run_record: RunRecord) -> None:
        self._run_record = run_record
        self._start()

    def address(self) -> str:
        """The path of the socket that leads to it; it is started again if it or its socket has gone."""
        path = self._path()
        if self._process.poll() is not None or not path.exists():
            self.close()
            self._start()
        return str(path)

    def _path(self) -> Path:
        return self._run_record.scratch / "fork-server.sock"

    def _start(self) -> None:
        path = self._path()
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(64)
            self._control, self._process = prestart.start_fork_server(listener=listener)
        self._run_record.add(self._process.pid)

    def close(self) -> None:
        """Ends it; a grader that uses it keeps its own fork of it."""
        self._control.close()
        self._process.wait()


@asynccontextmanager
async def graders(environ: Mapping[str, str] = os.environ, *, apps: bool = True) -> AsyncIterator[GraderPool]:
    """A pool of graders. While the block lasts, the server stays up, and two fork servers wait.

    One is for the graders, the other for the apps of all of them; without `apps` each grader has one of its own for its
    apps. Where there is no fork, each process is started anew. The apps end with their grader, the graders with the
    block. Raises PostgresUnavailable.
    """
    clean_up_dead_runs(STATE / "run")
    async with AsyncExitStack() as stack:
        run_record = RunRecord(STATE / "run")
        stack.callback(run_record.close)
        launcher: Launcher = SpawnLauncher(run_record)
        app_fork_server = None
        if _forks(environ):
            if apps:
                app_fork_server = AppForkServer(run_record)
                stack.callback(app_fork_server.close)
            launcher = WarmLauncher(run_record, partial(prestart.start_fork_server, PRELOAD))
        stack.callback(launcher.close)
        server = await asyncio.to_thread(find, ROOT, environ)
        stack.callback(server.close)
        pool = GraderPool(launcher, run_record, environ, server, app_fork_server)
        stack.push_async_callback(pool.end)
        yield pool


def _forks(environ: Mapping[str, str]) -> bool:
    return hasattr(os, "fork") and not environ.get("WORKBOOK_SPAWN")
