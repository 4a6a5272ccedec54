"""`workbook run`: a command in a lesson's folder, with a database of its own in DATABASE_URL."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from contextlib import aclosing
from pathlib import Path

from checks.kit.cli.foreground import run_in_foreground
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson
from checks.kit.report import terminal
from checks.kit.testbed.runtime import Runtime
from checks.kit.testbed.testbed import open_testbed


def run_in(lesson: Lesson, folder: Path, command: list[str]) -> int:
    """Runs the command until it ends and returns its exit code; the database goes with it."""
    program = shutil.which(command[0], path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        raise WorkbookError(f"There is no command {command[0]}. Try: workbook run {lesson.number} bash")
    runtime = Runtime()
    try:
        return asyncio.run(_run_in(runtime, lesson, folder, [program, *command[1:]]))
    finally:
        runtime.close()


async def _run_in(runtime: Runtime, lesson: Lesson, folder: Path, command: list[str]) -> int:
    async with aclosing(runtime), open_testbed(runtime, lesson, folder) as testbed:
        out, server, database = terminal.console(), runtime.server(), testbed.database
        out.print(f"{lesson.name} on {server.summary}, a fresh database in DATABASE_URL", style="dim", highlight=False)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        login = await testbed.maker() if lesson.tests else database.login
        env = os.environ | database.environment(testbed.wire.host, testbed.wire.port, login=login) | {"PATH": path}
        env |= {  # so that a bare `psql` finds it, which cannot read an SQLAlchemy URL
            "PGHOST": testbed.wire.host,
            "PGPORT": str(testbed.wire.port),
            "PGUSER": login.role,
            "PGPASSWORD": login.password,
            "PGDATABASE": database.name,
            "PGSSLMODE": "disable",
        }
        await testbed.open_services({})
        env |= lesson.settings | {name: service.url for name, service in testbed.services.items()}
        env["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing of ours under lessons/
        return await run_in_foreground(runtime, command, folder=folder, env=env)
