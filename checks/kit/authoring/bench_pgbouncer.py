"""PgBouncer in session mode, for `workbook dev bench`: the yardstick of a proxy for PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from checks.kit.lessons.errors import WorkbookError
from checks.kit.service.inside.spec import bind_port

if TYPE_CHECKING:
    from checks.kit.postgres import Database
    from checks.kit.postgres.address import Address

CONFIGURATION = """
[databases]
{name} = host={host} port={server_port} dbname={name} user={role} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = session
logfile = {folder}/log
ignore_startup_parameters = extra_float_digits
"""
"""`any`: a client needs no password, as PgBouncer has that of the database."""


def find_pgbouncer() -> str | None:
    """The program, also where a package puts it and no shell looks; None if it is not installed."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")


@asynccontextmanager
async def pgbouncer(program: str, database: Database, address: Address) -> AsyncIterator[int]:
    """The port of a PgBouncer in front of one database."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, bind_port() as free:
        folder, port = Path(name), free.getsockname()[1]
        free.close()
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(
                name=database.name,
                host=address.host,
                server_port=address.port,
                role=database.role,
                password=database.password,
                port=port,
                folder=folder,
            )
        )
        command = [program, "-q", str(configuration)]
        if os.getuid() == 0:  # it refuses to run as root, and must reach the server's socket
            owner = _owner(address)
            command += ["-u", owner]
            for path in (folder, configuration):
                shutil.chown(path, owner)
        process = await asyncio.create_subprocess_exec(*command)
        try:
            await _listens(port, process, folder / "log")
            yield port
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def _owner(address: Address) -> str:
    return "nobody" if address.socket_path is None else Path(address.socket_path).owner()


async def _listens(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    while process.returncode is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        await asyncio.sleep(0.01)
    raise WorkbookError(
        f"PgBouncer ended at once, with code {process.returncode}. It said: {_last_words(log)}\n"
        "See whether it starts by itself: pgbouncer --version"
    )


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace")[-500:] if log.exists() else "nothing"
