"""`workbook run`: a command in a lesson's folder, with a database of its own in DATABASE_URL."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from checks.kit.catalogue import CatalogueError, Lesson
from checks.kit.report import terminal
from checks.kit.run import Run


def run_in(lesson: Lesson, folder: Path, command: list[str]) -> int:
    """Runs the command until it ends and returns its exit code; the database goes with it."""
    program = shutil.which(command[0], path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        raise CatalogueError(f"There is no command {command[0]}. Try: workbook run {lesson.number} bash")
    run = Run()
    try:
        return asyncio.run(_run_in(run, lesson, folder, [program, *command[1:]]))
    finally:
        run.close()


async def _run_in(run: Run, lesson: Lesson, folder: Path, command: list[str]) -> int:
    from checks.kit.wire import open_tap

    server = await asyncio.to_thread(run.server)
    database = await (await run.databases(lesson, folder)).fresh()
    async with open_tap(server.address) as wire:  # so that nothing needs TLS settings or a socket path
        out = terminal.console()
        out.print(f"{lesson.name} on {server.summary}, a fresh database in DATABASE_URL", style="dim", highlight=False)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = os.environ | {"DATABASE_URL": database.url(wire.host, wire.port), "PATH": path}
        env |= {  # so that a bare `psql` finds it, which cannot read an SQLAlchemy URL
            "PGHOST": wire.host,
            "PGPORT": str(wire.port),
            "PGUSER": database.role,
            "PGPASSWORD": database.password,
            "PGDATABASE": database.name,
            "PGSSLMODE": "disable",
        }
        env |= {name: value for name, value in lesson.env.items() if value is not None}
        env["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing of ours under lessons/
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's
        try:
            done = await asyncio.to_thread(subprocess.run, command, cwd=folder, env=env)
        finally:
            signal.signal(signal.SIGINT, before)
    await run.aclose()
    return done.returncode
