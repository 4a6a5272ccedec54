"""`workbook psql`: a prompt on a lesson's database."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from contextlib import aclosing
from pathlib import Path

from checks.kit.cli import served_database
from checks.kit.cli.foreground import run_in_foreground
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson
from checks.kit.report import terminal
from checks.kit.testbed.runtime import Runtime
from checks.kit.testbed.testbed import open_testbed


def psql(lesson: Lesson) -> int:
    """Runs psql until it ends and returns its exit code.

    It opens the database of `workbook serve`, if that runs, else one of its own, which goes with it.
    """
    if served := served_database.find(lesson):
        where = f"the database of `workbook serve {lesson.number}`, which runs, on {served.server}"
        return asyncio.run(_run(_program(served.binaries), served.url, f"{lesson.name}: {where}."))
    runtime = Runtime()
    try:
        return asyncio.run(_psql(runtime, lesson))
    finally:
        runtime.close()


async def _psql(runtime: Runtime, lesson: Lesson) -> int:
    server = await asyncio.to_thread(runtime.server)
    program = _program(server.binaries or "")
    async with aclosing(runtime), open_testbed(runtime, lesson, lesson.folder, filled=True) as testbed:
        # through the proxy, so that psql needs neither TLS settings nor a socket path
        url = testbed.database.url(testbed.wire.host, testbed.wire.port, scheme="postgresql")
        note = f"To look into the tables of the app, start `workbook serve {lesson.number}` first."
        _say(f"{lesson.name} on {server.summary}. {note}")
        return await run_in_foreground(runtime, [program, url])


def _program(binaries: Path | str) -> str:
    program = shutil.which("psql", path=str(binaries) or None) or shutil.which("psql")
    if program is None:
        raise WorkbookError("psql is not installed. On Debian: apt-get install postgresql-client")
    return program


def _say(where: str) -> None:
    terminal.console().print(f"{where} \\d lists the tables, \\q leaves.", style="dim")


async def _run(program: str, url: str, where: str) -> int:
    _say(where)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for psql
    try:
        return (await asyncio.to_thread(subprocess.run, [program, url])).returncode
    finally:
        signal.signal(signal.SIGINT, before)
