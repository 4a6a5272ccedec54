"""`workbook psql`: a prompt on a lesson's database."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess

from checks.kit.catalogue import CatalogueError, Lesson
from checks.kit.cost import fill
from checks.kit.report import terminal
from checks.kit.run import Run
from checks.kit.shop import Shop


def psql(lesson: Lesson) -> None:
    """Runs psql until it ends; the database goes with it."""
    run = Run()
    try:
        asyncio.run(_psql(run, lesson))
    finally:
        run.close()


async def _psql(run: Run, lesson: Lesson) -> None:
    from checks.kit.wire import open_tap

    server = await asyncio.to_thread(run.server)
    binaries = server.binaries
    program = shutil.which("psql", path=str(binaries) if binaries else None) or shutil.which("psql")
    if program is None:
        raise CatalogueError("psql is not installed. On Debian: apt-get install postgresql-client")
    database = await (await run.databases(lesson, lesson.folder)).fresh()
    async with open_tap(server.address) as wire:  # so that psql needs neither TLS settings nor a socket path
        await run.migrate(lesson, lesson.folder, database, wire)
        await fill(Shop(database))
        terminal.console().print(f"{lesson.name} on {server.summary}. \\d lists the tables, \\q leaves.", style="dim")
        url = database.url(wire.host, wire.port, scheme="postgresql")
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is psql's
        try:
            await asyncio.to_thread(subprocess.run, [program, url])
        finally:
            signal.signal(signal.SIGINT, before)
    await run.aclose()
