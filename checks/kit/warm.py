"""Graders that start at once: pytest, its plugins and the kit are imported once, then forked for each run."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from checks.kit import head_start
from checks.kit.catalogue import ROOT, STATE
from checks.kit.postgres import Server, find
from checks.kit.service.journal import Journal, sweep
from checks.kit.service.launcher import SHARED, Launcher, Process, SpawnLauncher, WarmLauncher
from checks.kit.service.order import Order

PATIENCE = 15.0
"""Seconds for a process that was killed to be gone; a bound for failures."""

PRELOAD = (
    "pytest",
    "pytest_asyncio.plugin",
    "httpx",
    "asyncpg",
    "rich.console",
    "checks.kit.plugin",
    "checks.kit.live",
    "checks.kit.service.confined",
    "checks.kit.shop",
    "checks.kit.verdicts",
    "checks.kit.wire",
    # what these import late: pytest when it starts, the kit for the server, httpx at the first request
    "_pytest.faulthandler",
    "_pytest.helpconfig",
    "_pytest.junitxml",
    "_pytest.pastebin",
    "_pytest.setuponly",
    "_pytest.setupplan",
    "_pytest.skipping",
    "_pytest.stepwise",
    "_pytest.threadexception",
    "_pytest.tracemalloc",
    "_pytest.unittest",
    "_pytest.unraisableexception",
    "_pytest.warnings",
    "pdb",
    "psutil",
    "checks.kit.postgres.embedded",
    "anyio._backends._asyncio",
    "h11",
    "httpcore",
)


class Graders:
    """Starts graders; each is a process in a group of its own. `environ` leads a Run to the warm parent of apps."""

    def __init__(self, launcher: Launcher, scratch: Path, environ: Mapping[str, str], server: Server) -> None:
        self.scratch = scratch
        self.server = server
        self._launcher = launcher
        self._running: set[Process] = set()
        self.environ = dict(environ)

    async def start(self, *arguments: str, log: Path, environ: Mapping[str, str] | None = None) -> Process:
        """`pytest arguments...`, with `environ` added to its environment; what it prints goes to `log`."""
        order = Order(
            app="",
            folder=str(ROOT),
            log=str(log),
            listen="",
            ready="",
            env={**self.environ, **(environ or {})},
            command=("checks.kit.grader", *arguments),
            pycache=str(STATE / "pycache"),
            memory=0,
            file_size=0,
            cpu=0,
        )
        process = await self._launcher.launch(order)
        self._running.add(process)
        process.exit.add_done_callback(lambda _: self._running.discard(process))
        return process

    async def end(self) -> None:
        """Kills whoever still grades, and waits: a server is only asked to stop by the last one that uses it."""
        for process in self._running:
            process.kill()
        if self._running:
            await asyncio.wait({process.exit for process in self._running}, timeout=PATIENCE)


@asynccontextmanager
async def graders(environ: Mapping[str, str] = os.environ, *, apps: bool = True) -> AsyncIterator[Graders]:
    """While the block lasts, the server stays up, and two warm parents wait: one for graders, one for their apps.

    Without `apps` each grader has a warm parent of its own for them. Raises PostgresUnavailable. What the graders
    started ends with them, and they with the block.
    """
    sweep(STATE / "run")
    async with AsyncExitStack() as stack:
        journal = Journal(STATE / "run")
        stack.callback(journal.close)
        launcher: Launcher = SpawnLauncher(journal)
        if _forks(environ):
            if apps:
                environ = _share_nursery(journal, stack, environ)
            launcher = WarmLauncher(journal, *head_start.start(*PRELOAD))
        stack.callback(launcher.close)
        server = await asyncio.to_thread(find, ROOT, environ)
        stack.callback(server.close)
        warm = Graders(launcher, journal.scratch, environ, server)
        stack.push_async_callback(warm.end)
        yield warm


def _forks(environ: Mapping[str, str]) -> bool:
    return hasattr(os, "fork") and not environ.get("WORKBOOK_SPAWN")


def _share_nursery(journal: Journal, stack: AsyncExitStack, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Starts a warm parent for the apps of all graders; the environment that leads them to it."""
    path = str(journal.scratch / "nursery.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        control, nursery = head_start.start(listener=listener)
    journal.add(nursery.pid)
    stack.callback(nursery.wait)
    stack.callback(control.close)
    return {**environ, SHARED: path}
