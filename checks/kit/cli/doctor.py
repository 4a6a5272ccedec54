"""`workbook doctor`: what this machine has, what is missing, and the command that fixes it."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import all_lessons
from checks.kit.lessons.paths import ROOT, STATE
from checks.kit.report import terminal


@dataclass(frozen=True, slots=True)
class Finding:
    """`ok` None: not there, and not needed either; `fix` is the command to type."""

    ok: bool | None
    text: str
    fix: str = ""


def doctor() -> int:
    """Prints every finding; the exit code is 1 if something that every lesson needs is missing."""
    out = terminal.console()
    bad = False
    for look in (python, packages, lessons, postgres, disk, port, docker, pgbouncer, sandbox, notebooks):
        finding = look()
        symbol, style = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("–", "dim")}[finding.ok]
        out.print(f"{symbol} {finding.text}", style=style, soft_wrap=True)
        if finding.fix:
            out.print(f"    {finding.fix}", style="cyan", soft_wrap=True)
        bad = bad or finding.ok is False
    out.print("\nSomething is missing." if bad else "\nAll that the lessons need is here.", style="bold")
    return int(bad)


def python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(True, f"Python {version} on {sys.platform}")


def packages() -> Finding:
    """Compares what is installed with what pyproject.toml pins."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wrong = []
    for pin in map(Requirement, project["dependencies"]):
        if pin.marker and not pin.marker.evaluate():  # for other systems
            continue
        try:
            there = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            there = ""
        if not there or there not in pin.specifier:
            wrong.append(f"{pin.name} {there or 'missing'} (pinned: {pin.specifier})")
    if wrong:
        return Finding(False, "Packages differ from pyproject.toml: " + ", ".join(wrong), "uv sync")
    names = ("fastapi", "sqlalchemy", "asyncpg", "pytest")
    return Finding(
        True,
        "Packages as pinned: " + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names),
    )


def lessons() -> Finding:
    try:
        return Finding(True, f"{len(all_lessons())} lessons in {ROOT}")
    except WorkbookError as error:
        return Finding(False, str(error))


def postgres() -> Finding:
    """Really connects, through the proxy, as a check does."""
    from checks.kit.postgres import PostgresUnavailable, find
    from checks.kit.wire import open_proxy

    async def ask() -> str:
        import asyncpg

        async with (
            server.database("CREATE TABLE probe (id int)", "doctor") as database,
            open_proxy(server.address) as wire,
        ):
            connection = await asyncpg.connect(database.url(wire.host, wire.port, scheme="postgresql"))
            try:
                return str(await connection.fetchval("SHOW server_version"))
            finally:
                await connection.close()

    began = time.perf_counter()
    try:
        server = find(ROOT, os.environ)
    except PostgresUnavailable as error:
        return Finding(False, f"PostgreSQL: {error}")
    try:
        version = asyncio.run(ask())
    except PostgresUnavailable as error:
        return Finding(False, f"PostgreSQL: {error}")
    finally:
        server.close()
    seconds = time.perf_counter() - began
    return Finding(True, f"PostgreSQL {version} responds through the proxy after {seconds:.1f} s: {server.summary}")


def disk() -> Finding:
    place = STATE if STATE.exists() else ROOT
    free = shutil.disk_usage(place).free
    if free < 500 << 20:
        return Finding(False, f"Only {free >> 20} MB free below {place}; 500 MB are needed", "Free some space.")
    return Finding(True, f"{free >> 30} GB free for .workbook")


def port() -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8000))
        except OSError:
            return Finding(
                None, "Port 8000 is taken; `workbook serve` needs another one", "workbook serve 0 --port 8001"
            )
    return Finding(True, "Port 8000 is free for `workbook serve`")


def docker() -> Finding:
    if shutil.which("docker") is None:
        return Finding(None, "Docker is not installed; the embedded PostgreSQL needs none")
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=10)
    except subprocess.TimeoutExpired:
        return Finding(None, "Docker is installed, but its engine does not respond")
    if done.returncode:
        return Finding(None, "Docker is installed, but no engine runs; the embedded PostgreSQL needs none")
    return Finding(True, "Docker works: WORKBOOK_POSTGRES=docker and =compose can be used")


def pgbouncer() -> Finding:
    from checks.kit.testbed.pgbouncer import HOW_TO_INSTALL, find_pgbouncer

    if path := find_pgbouncer():
        return Finding(True, f"pgbouncer: {path}")
    needed = ", ".join(str(lesson.number) for lesson in all_lessons() if lesson.pgbouncer)
    return Finding(None, f"pgbouncer is not installed; needed by the lessons {needed}", HOW_TO_INSTALL)


def sandbox() -> Finding:
    if sys.platform != "linux":
        return Finding(None, "bubblewrap is for Linux; instructors who grade elsewhere have limits only")
    if shutil.which("bwrap") is None:
        return Finding(
            None, "bwrap is not installed; `workbook grade` runs submissions in it", "apt-get install bubblewrap"
        )
    from checks.kit.service import sandbox as made

    way, sentence = made.detect()
    return Finding(True if way else None, f"`workbook grade` runs submissions in {sentence}")


def notebooks() -> Finding:
    if importlib.util.find_spec("jupyterlab") is None:
        return Finding(False, "JupyterLab is missing", "uv sync")
    return Finding(True, "JupyterLab for the notebooks: jupyter lab notebooks")
